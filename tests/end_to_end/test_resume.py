"""Trainings that are stopped, killed or damaged, then resumed: the numbers of those that were not, or a clear error."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import entroflow
from entroflow.agents import learning
from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import Training
from entroflow.cli import main
from entroflow.rl import loop_gym
from entroflow.storage import checkpoint
from entroflow.storage.folder import lock
from entroflow.storage.records import EVALUATIONS, METRICS
from entroflow.storage.tables import read_table

from . import reach  # noqa: F401  registers Reach-v0

SMALL = {"learning_starts": 20, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}
ALGORITHMS = ["sac_isfm", "gaussian_sac", "denoising"]
TASK = "entroflow/MultiGoal-v0"
ROOT = Path(__file__).parents[2]


def numbers_of(training):
    """All that a training is, as numbers and arrays."""
    numbers, arrays = training.state()
    return json.dumps(numbers), {name: array.copy() for name, array in arrays.items()}


def same(first, second):
    """Whether two states are the same, bit for bit."""
    return first[0] == second[0] and {name: array.tobytes() for name, array in first[1].items()} == {
        name: array.tobytes() for name, array in second[1].items()
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_training_is_the_uninterrupted_one(algorithm, tmp_path):
    """Parameters, optimisers, replay, keys, environments, averages and rows, stopped in the midst of an interval."""
    begin = lambda: Training(task(TASK), change(of_algorithm(algorithm), SMALL), [3])  # noqa: E731
    whole, first, second = begin(), begin(), begin()
    rows = whole.advance(30) + whole.advance(30)
    assert first.advance(30) == rows[:1]
    assert first.advance(30, stop=lambda: first.step == 43) == []
    checkpoint.save(tmp_path, first.step, {}, *first.state())
    header, arrays, problems = checkpoint.latest(tmp_path, {})
    assert header is not None
    second.restore(header["numbers"], arrays)
    assert second.obstacle is None and not problems
    assert second.advance(60 - 43) == rows[1:]
    assert same(numbers_of(second), numbers_of(whole))
    assert not same(numbers_of(second), numbers_of(first))


SETTINGS = [f"{name}={value}" for name, value in SMALL.items()]
OPTIONS = ["--algorithm", "gaussian_sac", "--evaluate-every", "20", "--evaluation-episodes", "1", "--set", *SETTINGS]


def run(out, *options, steps=60):
    """Train as a user does."""
    return main(["train", TASK, "--steps", str(steps), "--out", str(out), *options, *OPTIONS])


def rows(path):
    """The lines of a table, without the seconds."""
    return [line.split(",")[:2] + line.split(",")[3:] for line in path.read_text().splitlines()]


def assert_same(out, whole):
    """The last checkpoint's header tells the arrays by their SHA-256, and says all numbers."""
    for name in ("metrics.csv", "evaluations.csv"):
        assert rows(out / name) == rows(whole / name)
    last = lambda folder: list(checkpoint.folders(folder / "checkpoints").values())[-1] / checkpoint.HEADER  # noqa: E731
    assert json.loads(last(out).read_text()) == json.loads(last(whole).read_text())
    agents = [json.loads((folder / "checkpoints/best/seed=0/agent.json").read_text()) for folder in (out, whole)]
    assert agents[0] == agents[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "LOG_INTERVAL", 7)
        assert run(out) == 0
    return out


@pytest.fixture
def short(monkeypatch):
    """Rows every seven steps."""
    monkeypatch.setattr(learning, "LOG_INTERVAL", 7)


KILLED_WHILE_SAVING = """
import os, signal, sys
from entroflow import cli
from entroflow.agents import learning
from entroflow.storage import checkpoint

def replace(path, text, real=checkpoint.replace):
    if path.parent.name == "step=40":
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, text)

checkpoint.replace, learning.LOG_INTERVAL = replace, 7
cli.main(sys.argv[1:])
"""


def test_a_training_killed_while_it_saves_is_resumed_exactly(whole, tmp_path, short, capsys):
    """After SIGKILL between the arrays and the header of the second checkpoint, in another folder: the same files."""
    out, moved = tmp_path / "run", tmp_path / "moved"
    command = ["train", TASK, "--steps", "60", "--out", str(out), *OPTIONS]
    process = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, *command], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (out / "checkpoints" / "step=40").exists() and list(checkpoint.folders(out / "checkpoints")) == [0, 20]
    out.rename(moved)
    assert main(["resume", str(moved)]) == 0
    assert_same(moved, whole)
    assert "from step 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "where", "call", "step"),
    [(signal.SIGTERM, "_learn", 33, 33), (signal.SIGINT, "evaluate", 3, 40), (signal.SIGTERM, "evaluate", 4, 60)],
)
def test_signals_save_and_end_a_training(whole, tmp_path, short, monkeypatch, capsys, number, where, call, step):
    """The exit code is the shell's, the checkpoint that of the moment, an evaluation that was cut off is made anew."""
    calls, method = [], getattr(Training, where)

    def signalled(self, *arguments, **options):
        calls.append(self.step)
        if len(calls) == call:
            signal.raise_signal(number)
        return method(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Training, where, signalled)
        assert run(tmp_path / "run") == 128 + number
    assert list(checkpoint.folders(tmp_path / "run" / "checkpoints"))[-1] == step
    assert f"stopped at step {step}; to go on: entroflow resume" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "run", whole)


AS_USERS = """
import signal, sys
from pathlib import Path
import numpy as np
import entroflow
from entroflow.agents.training import Training
from entroflow.cli import main
from entroflow.storage.records import EVALUATIONS
from entroflow.storage.tables import read_table
from tests.end_to_end import reach

learn = Training._learn

def stopped(training):
    if training.step == 8:
        Training._learn = learn
        signal.raise_signal(signal.SIGTERM)
    return learn(training)

sizes = ["depth=1", "learning_starts=4", "critic_width=8", "width=8", "batch_size=4", "buffer_size=20"]
sizes += ["state_width=8", "states=4"]
out, Training._learn = f"{sys.argv[1]}/run", stopped
command = ["train", "Reach-v0", "--steps", "12", "--evaluation-episodes", "2"]
assert main([*command, "--out", out, "--set", *sizes]) == 128 + signal.SIGTERM
assert main(["resume", out]) == main(["eval", out, "--episodes", "2"]) == 0
assert main(["export", out, "--out", f"{out}.stablehlo"]) == 0
agent, told = entroflow.load(out), read_table(Path(out, "evaluations.csv"), EVALUATIONS)
assert agent.num_timesteps == told["step"][-1] == 12
np.testing.assert_allclose(agent.evaluate(2).returns, told["return"][-2:], rtol=1e-5)
"""


def test_the_commands_with_the_compiler_as_users_have_it(tmp_path):
    """The tests set XLA's options for all; without, every program is compiled with options of its own.

    Trained, stopped, resumed, exported and loaded; what was loaded evaluates as the training did in the end.
    """
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", AS_USERS, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert process.returncode == 0, process.stdout[-1000:] + process.stderr[-2000:]


def test_a_longer_plan_is_as_good_as_one_from_the_start(whole, tmp_path, short):
    """40 steps, then resumed to 60, are 60 steps."""
    assert run(tmp_path / "run", steps=40) == 0
    assert main(["resume", str(tmp_path / "run"), "--steps", "60"]) == 0
    assert_same(tmp_path / "run", whole)


def test_a_shorter_plan_takes_nothing_away(whole, tmp_path, short):
    """Fewer steps than were made: nothing to do, and the run goes on afterwards."""
    shutil.copytree(whole, out := tmp_path / "run")
    assert main(["resume", str(out), "--steps", "20"]) == 0
    assert_same(out, whole)
    assert main(["resume", str(out)]) == main(["resume", str(out), "--steps", "80"]) == 0
    assert run(tmp_path / "longer", steps=80) == 0
    assert_same(out, tmp_path / "longer")


def test_a_run_without_a_checkpoint_begins_anew(whole, tmp_path, short, capsys):
    """A kill before the first checkpoint leaves a configuration and perhaps rows, which are written again."""
    assert run(tmp_path / "run", steps=60) == 0
    for path in checkpoint.folders(tmp_path / "run" / "checkpoints").values():
        (path / checkpoint.HEADER).unlink()
    assert run(tmp_path / "run", "--resume", "auto") == 0
    assert "no checkpoint yet" in capsys.readouterr().out
    assert_same(tmp_path / "run", whole)


def copied(whole, tmp_path):
    """A copy of the finished run, which may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(whole, tmp_path, short, capsys):
    """One sentence says which file, and the run ends as it would have; with both damaged it is refused."""
    out = copied(whole, tmp_path)
    newest, older = (
        folder / checkpoint.HEADER for folder in reversed(checkpoint.folders(out / "checkpoints").values())
    )
    newest.write_text(newest.read_text().replace('"step": 60', '"step": 61', 1))
    assert main(["resume", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "checkpoint.json: got a header that was damaged or changed" in said and "from step 40" in said
    assert_same(out, whole)
    for path in (newest, older):
        path.write_text("{")
    assert main(["resume", str(out)]) == 2
    error = capsys.readouterr().err
    assert "malformed JSON" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", ('"width": 8', '"width": 9'), "the checkpoint of another run"),
        ("config.json", ('"evaluation": {', '"other": {'), "got no plan of evaluations"),
        ("config.json", ('"format": 1', '"format": 2'), "update entroflow"),
        ("config.json", ('"spec": "' + TASK, '"spec": "Foreign-v0'), "env: got the id 'Foreign-v0' in a file"),
        ("metrics.csv", ("seed,step", "step,seed"), "metrics.csv: got a header"),
        ("metrics.csv", ("\n0,28,", "\n"), "fields for"),
        ("config.json", ('"seeds": [\n    0\n  ]', '"seeds": [0, 0]'), "expected one or more different seeds"),
        ("config.json", ('"steps": 60', f'"steps": {"9" * 5000}'), "a whole number of 5000 digits"),
    ],
)
def test_folders_that_were_changed_are_refused(whole, tmp_path, capsys, file, change, message):
    """One sentence, exit code 2."""
    out = copied(whole, tmp_path)
    (out / file).write_text((out / file).read_text().replace(*change, 1))
    assert main(["resume", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["metrics.csv", "evaluations.csv"])
@pytest.mark.parametrize("keep", [slice(0, 3), slice(0, -1), slice(1, None)], ids=["three", "last", "first"])
def test_tables_that_were_cut_are_refused(whole, tmp_path, capsys, name, keep):
    """By `resume` and by `compare`: how many rows there are is part of the checkpoint."""
    out = copied(whole, tmp_path)
    head, *rows = (out / name).read_bytes().splitlines(keepends=True)
    (out / name).write_bytes(b"".join([head, *rows[keep]]))
    for command in (["resume"], ["compare", "--out", str(tmp_path / "compare")]):
        assert main([command[0], str(out), *command[1:]]) == 2
        error = capsys.readouterr().err
        assert f"{name}: got {len(rows[keep])} rows" in error and f"where {len(rows)} were written" in error


def test_agents_that_lie_elsewhere_are_refused(whole, tmp_path):
    """Of another seed or another algorithm, in a training's folder; alone, outside of one, they load."""
    out = copied(whole, tmp_path)
    last = out / "checkpoints" / "last"
    (last / "seed=0").rename(last / "seed=1")
    with pytest.raises(ValueError, match="seed=1: got the agent of seed 0"):
        entroflow.load(out)
    (last / "seed=1").rename(tmp_path / "seed=1")
    assert entroflow.load(tmp_path / "seed=1").num_timesteps == 60
    small = {name: value for name, value in SMALL.items() if name != "learning_starts"}
    entroflow.DenoisingSAC(TASK, **small).save(last / "seed=0")
    with pytest.raises(ValueError, match="denoising on .* in a training of gaussian_sac"):
        entroflow.load(out)
    entroflow.GaussianSAC("Pendulum-v1", **small).save(last / "seed=0")
    with pytest.raises(ValueError, match="on Pendulum-v1 in a training of"):
        entroflow.load(out)


def test_a_checkpoint_of_other_versions_is_named(whole, tmp_path, short, capsys):
    """The run goes on; that its numbers may differ is said."""
    out = copied(whole, tmp_path)
    path = list(checkpoint.folders(out / "checkpoints").values())[-1] / checkpoint.HEADER
    header = checkpoint.read_header(path)
    header["versions"]["jax"] = "0.0.1"
    path.write_text(json.dumps(header | {"sha256": checkpoint._digest(header)}))
    assert main(["resume", str(out)]) == 0
    assert "was made with jax 0.0.1; here is jax" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["numbers"], {}),
        (["numbers", "best"], {"0": []}),
        (["numbers", "evaluated"], "x"),
        (["numbers", "training", "step"], 10**30),
        (["numbers", "training", "envs"], [[{"step": 3}, {}]]),
        (["numbers", "training", "envs"], [[{"array": "nosuch"}]]),
    ],
    ids=str,
)
def test_checkpoints_that_say_something_else_are_refused(whole, tmp_path, short, capsys, path, value):
    """Their check sum made anew by hand; one sentence, or new episodes where only the environments do not fit."""
    out = copied(whole, tmp_path)
    file = list(checkpoint.folders(out / "checkpoints").values())[-1] / checkpoint.HEADER
    header = part = checkpoint.read_header(file)
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    file.write_text(json.dumps(header | {"sha256": checkpoint._digest(header)}))
    code = main(["resume", str(out)])
    said = capsys.readouterr()
    refused = code == 2 and said.err.count("\n") == 1
    assert refused or "a resumed run begins new episodes" in " ".join(said.out.split())


def test_what_is_no_run_is_refused(tmp_path, capsys):
    """A missing folder, an empty one."""
    for folder in (tmp_path / "missing", tmp_path):
        assert main(["resume", str(folder)]) == 2
        assert "expected the folder of a training run" in capsys.readouterr().err


def test_a_job_of_lqr_is_resumed_as_it_was_planned(tmp_path, capsys):
    """Options of a training are not ignored."""
    (tmp_path / "config.json").write_text('{"format": 1, "command": "lqr", "options": {}, "facts": {}}')
    for option, value in (("--steps", "5"), ("--task", "module:Name")):
        assert main(["resume", str(tmp_path), option, value]) == 2
        assert f"{option}: got {value}, expected none: a study has a plan" in capsys.readouterr().err


def test_a_second_process_is_refused(whole, tmp_path, capsys):
    """While one process works in a folder, no other does; nothing has to be cleaned up after a kill."""
    out = copied(whole, tmp_path)
    with lock(out):
        assert main(["resume", str(out)]) == 2
        assert "where another process is at work" in capsys.readouterr().err
    holder = f"from pathlib import Path\nfrom entroflow.storage.folder import lock\nwith lock(Path({str(out)!r})):\n"
    holder += "    print(1, flush=True)\n    input()"
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        assert main(["resume", str(out)]) == 2
        process.kill()
    with lock(out):
        pass


def test_a_full_disk_ends_a_training(tmp_path, monkeypatch, capsys):
    """Exit code 1, one sentence with the checkpoint that is left; with room again the run goes on from there."""
    real = checkpoint.replace

    def full(path, text):
        if path.parent.name == "step=40":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, text)

    monkeypatch.setattr(checkpoint, "replace", full)
    assert run(tmp_path / "run", steps=40) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "No space left on device" in said and "the last checkpoint is that of step 20" in said


def test_a_loss_that_is_not_finite_is_named_at_its_step(tmp_path, capsys, monkeypatch):
    """The update that breaks is the last; the message names quantity, run and step; the checkpoint before is kept."""
    method, calls = loop_gym.Rollout.step, []

    def poisoned(self, actions):
        calls.append(len(calls) + 1)
        made = method(self, actions)
        return made._replace(reward=made.reward + np.float32(1e30 if len(calls) >= 45 else 0))

    monkeypatch.setattr(loop_gym.Rollout, "step", poisoned)
    out = tmp_path / "run"
    assert run(out) == 1
    said = " ".join(capsys.readouterr().out.split())
    found = re.search(r"(\S.*) of the run with seed 0 is not finite at step (\d+): training cannot go on; (.*)", said)
    assert found and "critic_error" in found[1] and "step 40" in found[3]
    assert 45 < int(found[2]) < 60 and int(found[2]) == calls[-1]
    assert rows(out / "metrics.csv") and entroflow.load(out).num_timesteps == 40


def test_unknown_environments_begin_new_episodes(tmp_path, capsys):
    """Where the state of a task cannot be saved that is said, when it is saved and when the run goes on."""
    options = ["--out", str(tmp_path / "run"), *OPTIONS]
    assert main(["train", "Reach-v0", "--steps", "20", *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the state of Reach-v0 cannot be saved (Reach is not among the environments whose state is known)" in said
    assert main(["resume", str(tmp_path / "run"), "--steps", "40"]) == 0
    assert entroflow.load(tmp_path / "run").num_timesteps == 40


OLD = Path(__file__).parents[1] / "data" / "format-1"


def test_a_run_of_an_earlier_version_goes_on(tmp_path, capsys):
    """Forty steps of the version before, and twenty of this one, are the sixty that it would have made.

    The data were made on another machine, so that they are compared to rounding.
    """
    out = Path(shutil.copytree(OLD / "run", tmp_path / "run"))
    assert main(["resume", str(out), "--steps", "60"]) == 0
    assert "from step 40" in capsys.readouterr().out
    for name, columns in {"metrics": METRICS, "evaluations": EVALUATIONS}.items():
        found, then = (read_table(path, columns) for path in (out / f"{name}.csv", OLD / f"expected_{name}.csv"))
        assert list(found) == list(then)
        for column in set(found) - {"seconds"}:
            np.testing.assert_allclose(found[column], then[column], rtol=2e-3, atol=2e-3, err_msg=column)
