"""The command line before any work: what is said of options, how fast, in which encoding; and what memory allows."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import entroflow
from entroflow import cli, memory, options
from entroflow.agents import Settings
from entroflow.agents.tasks import task
from entroflow.agents.training import Training

TINY = {"width": 4, "depth": 1, "critic_width": 4, "critic_depth": 1}

QUICK = """
import sys
from entroflow.cli import main
codes = []
for argv in (["--help"], ["train", "--help"], ["train", "Pendulm-v1"], ["train", "Pendulum-v9"], ["version"],
             ["train", "Pendulum-v1", "--stps", "3"], ["train", "Pendulum-v1", "--steps", "0"], ["eval", "--episodes"],
             ["train", "entroflow/Multi-v0"], ["train", "Pendulum-v1", "--algorithm", "sac"],
             ["train", "Pendulum-v1", "--set", "candidate=3"], ["train", "Pendulum-v1", "--set", "candidates=-3"],
             ["eval", "none"], ["watch", "none"], ["export", "none"], ["resume", "none"], ["compare", "none"],
             ["lqr", "--system", "none"], ["lqr", "--alpha", "-1"], ["lqr", "--candidates", "1"],
             ["lqr", "--out", "/"]):
    try:
        codes.append(main(argv))
    except SystemExit as stop:
        codes.append(stop.code)
assert [code or 0 for code in codes] == [0, 0, 2, 2, 0, *[2] * 16], codes
assert not {"jax", "matplotlib", "scipy.stats"} & sys.modules.keys()
"""


def test_what_is_wrong_at_a_glance_is_answered_without_jax():
    """Help, versions, wrong options, tasks, settings, systems and folders: JAX takes seconds to import."""
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def printed(argv, encoding):
    """The exit code of a command line and what it writes into a file of an encoding, which refuses other letters."""
    out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = cli.main(argv)
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_is_shown_in_every_encoding(command, encoding):
    """Letters that there are not are replaced; the options are there, each with an explanation."""
    code, said = printed([command, "--help"], encoding)
    assert code == 0 and "usage: entroflow" in said
    kind = cli.COMMANDS[command][0]
    for option in vars(kind).get("__dataclass_fields__", {}):
        label = {"temperature": "alpha"}.get(option, option.replace("_", "-"))
        known = f"--{label}" in said or option in ("algorithm", "env", "folder", "folders", "study")
        assert known, option
    explained = said.count("(default:") + said.count("(required)")
    assert explained == len(kind.__dataclass_fields__)


def test_a_refusal_is_shown_in_every_encoding():
    """What was given comes back with question marks."""
    code, said = printed(["train", "Schlitten-🛷-v1"], "ascii")
    assert code == 2 and "Schlitten-?-v1" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "number"), [("1e4", 10_000), ("10_000", 10_000), ("3.0", 3), ("-2", -2), ("2E+3", 2000)]
)
def test_whole_numbers_are_read_as_people_write_them(text, number):
    """With an exponent, with underscores, with a point and nothing behind it."""
    assert options._whole([text]) == number


@pytest.mark.parametrize(
    "text", ["1.5", "1e-3", "nan", "inf", "1e400", "1e999999999", "9" * 10_000, "", "three", "0x10"]
)
def test_what_is_no_whole_number_is_refused(text):
    """At once, however many digits it would have, and in few words."""
    with pytest.raises(ValueError, match=r"got '.*', expected a whole number") as problem:
        options._whole([text])
    assert len(str(problem.value)) < 120


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "x" * 5000], "xx … xx"),
        (["eval", "x" * 5000], "got 'File name too long' from the system"),
        (["resume", "x" * 5000], "File name too long"),
        (["compare", "x" * 5000], "File name too long"),
        (["compare", "\n\x1b[31m"], r"entroflow: \n\x1b[31m: got no such folder"),
        (["train", "x" * 5000], "env: got 'xxx"),
        (["train", "--env", "Pendulum-v1"], "--env: got an option, expected what it names by itself"),
        (["eval", "--folder", "run"], "--folder: got an option"),
        (["train", "Pendulum-v1", "--gamma", "0.9"], "an option of entroflow train; here it is --set discount=…"),
        (["train", "Pendulum-v1", "--batch-size=64"], "here it is --set batch_size=…"),
        (["train", "Pendulum-v1", "--total-timesteps", "9"], "here it is --steps"),
        (["lqr", "--temperature", "0.5"], "--temperature: got what others call it, expected an option of"),
        (["train", "Pendulum-v1", "--seeds", "2147483648"], "--seeds: got 2147483648, expected at most 1048576"),
        (["lqr", "--seeds", "10000000"], "--seeds: got 10000000, expected at most 1048576"),
        (
            ["lqr", "--seeds", "50000", "--alpha", "1"],
            "memory: got a plan of at least 5,149.8 GiB, most of it through seeds",
        ),
        (["train", "Pendulum-v1", "--evaluation-episodes", "1e10"], "most of it through evaluation episodes"),
        (["train", "Pendulum-v1", "--set", "num_envs=100000000"], "GiB, most of it through num_envs, expected"),
        (["train", "Pendulum-v1", "--set", "learning_rate=1"], "here it is 'rate'."),
        (["train", "Pendulum-v1", "--set", f"width={'9' * 10_000}"], "width: got '999"),
        (["train", "Pendulum-v1", "--set", f"rate={'[' * 5000}"], "rate: got '[[["),
        (["train", "Pendulum-v1", "--set", "depth=10000000"], "depth: got 10000000, expected at most 100"),
    ],
)
def test_hostile_words_get_one_sentence(argv, message, capsys, tmp_path, monkeypatch):
    """Exit code 2, a short line, nothing written."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("entroflow: ") and said.count("\n") == 1 and len(said) < 2500
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_no_room_for_the_output_is_told():
    """No file's name is known then."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "entroflow", "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and "output: got 'No space left on device' from the system" in done.stderr


def test_nobody_reading_is_no_fault():
    """`entroflow --help | true`: no traceback."""
    command = f"{sys.executable} -m entroflow train --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("0", "141") and done.stderr == ""


PLANS = {
    "every-0": {"every": 0, "episodes": 1},
    "every-x": {"every": "x", "episodes": 1},
    "nothing": None,
    "half": {"every": 5},
    "list": [5, 1],
    "many": {"every": 5, "episodes": 10**10},
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_is_resumed_by_a_plan_alone(plan, capsys, tmp_path):
    """When to evaluate has to be numbers above zero, and the place where they are not is named."""
    config = {"format": 1, "algorithm": "gaussian_sac", "env": "Pendulum-v1", "seeds": [0], "steps": 10}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | {"settings": {}, "evaluation": PLANS[plan]}))
    again = ["train", "Pendulum-v1", "--algorithm", "gaussian_sac", "--resume", "auto", "--evaluate-every", "7"]
    for command in (["resume", str(tmp_path)], [*again, "--steps", "20", "--out", str(tmp_path)]):
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert "evaluat" in said and said.count("\n") == 1
    assert [part.name for part in tmp_path.iterdir()] == ["config.json"]


def test_long_numbers_in_a_file_are_refused(capsys, tmp_path):
    """Python reads no more than 4,300 digits."""
    (tmp_path / "config.json").write_text('{"format": 1, "steps": ' + "9" * 10_000 + "}")
    assert cli.main(["resume", str(tmp_path)]) == 2
    assert "digits" in capsys.readouterr().err


@pytest.fixture(scope="module")
def agent():
    """A tiny agent."""
    return entroflow.GaussianSAC("entroflow/MultiGoal-v0", **TINY, buffer_size=300, batch_size=8)


def test_memory_counts_what_is_made(agent):
    """The estimate of agents and replay is what their arrays take, to the byte."""
    training = agent._training
    parts = memory.of_training(training, training.agents, training._capacity)
    assert parts["width, networks or seeds"] == sum(leaf.nbytes for leaf in jax.tree.leaves(training.agents))
    replay = sum(leaf.nbytes for leaf in jax.tree.leaves(training.loop.replay))
    assert parts["buffer_size"] == replay


def test_what_does_not_fit_is_refused_with_its_number(agent, monkeypatch):
    """The sum counts, and the largest part is named; an agent that only acts needs no memory of its task."""
    monkeypatch.setattr(memory, "available", lambda: 3 * 2**30)
    memory.check({"a": 2.0**30, "b": 2.0**31})
    with pytest.raises(
        ValueError, match=r"^memory: got a plan of at least 3.5 GiB, most of it through b, expected at "
    ):
        memory.check({"a": 1.5 * 2**30, "b": 2.0**31})
    large = Settings(buffer_size=10**9)
    Training(task("entroflow/MultiGoal-v0"), Settings(agent.settings.config, buffer_size=10**9), [0])
    with pytest.raises(ValueError, match="most of it through buffer_size"):
        Training(task("entroflow/MultiGoal-v0"), large, [0], steps=10**9)
    with pytest.raises(ValueError, match="most of it through episodes"):
        agent.evaluate(10**6)


def test_a_containers_memory_is_what_counts(monkeypatch, tmp_path):
    """A limit below the machine's memory is the limit; "max" and no file are none."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "memory.max")
    there = memory.available()
    assert there > 2**28
    for text, expected in (("max\n", there), ("1048576\n", 2**20), (str(10 * there), there)):
        memory.CGROUP.write_text(text)
        assert memory.available() == expected


def test_where_the_system_tells_no_memory_every_plan_is_tried(monkeypatch):
    """As on Windows."""
    monkeypatch.delattr("os.sysconf")
    memory.check({"buffer_size": 2.0**50})


def test_a_device_of_its_own_has_its_own_memory(monkeypatch):
    """What a GPU reports counts, that of all of them together."""

    class Device:
        def memory_stats(self):
            return {"bytes_limit": 5}

    monkeypatch.setattr(jax, "devices", lambda: [Device(), Device()])
    assert memory.available() == 10
