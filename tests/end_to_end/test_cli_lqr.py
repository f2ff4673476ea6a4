"""`entroflow lqr`: what it writes, what it refuses, and how it stops."""

import contextlib
import csv
import dataclasses
import errno
import inspect
import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

import entroflow
from entroflow import cli
from entroflow.commands.lqr import job as lqr_job
from entroflow.commands.lqr import plan as lqr_plan
from entroflow.commands.lqr import report as lqr_report
from entroflow.commands.lqr.figures import Picture
from entroflow.commands.lqr.initial import Controller
from entroflow.commands.lqr.plan import settings
from entroflow.lqr import LQR, systems
from entroflow.options import LQROptions
from entroflow.storage.folder import write_results

COMMAND = ["lqr", "--alpha", "0.5", "1", "--seeds", "2", "--seed", "3", "--steps", "6"]
RUNS = [(0.5, 3), (0.5, 4), (1.0, 3), (1.0, 4)]
SMALL = {
    "ENVIRONMENTS": 8,
    "HORIZON": 10,
    "TRAJECTORIES": 8,
    "EVALUATIONS": 3,
    "PROGRESS_STATES": 4,
    "PROGRESS_SAMPLES": 64,
    "FINAL_STATES": 6,
    "FINAL_SAMPLES": 1024,
}
FIGURES = [f"{name}.{kind}" for name in ("figure1", "figure2", "figure3", "policies") for kind in ("png", "pdf")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One tiny study made by the command, and a way to run the same programs again without compiling them.

    `again(argv, at_call, action)` runs the command with the programs of the first run, in the order in which they were
    compiled there (start, training, evaluation, last evaluation), and passes the result of the training program's
    use number `at_call` through `action`. The programs fit any command with four runs, six steps and the seeds 3 and 4.
    """
    out = tmp_path_factory.mktemp("study") / "out"
    programs, compile = [], lqr_job._Job._compile

    def remember(self, function, *arguments):
        programs.append(compile(self, function, *arguments))
        return programs[-1]

    def again(argv, at_call=0, action=lambda result: result):
        remaining, calls = iter(programs), []

        def train(loop, scales, steps):
            calls.append(steps)
            result = programs[1](loop, scales, steps)
            return action(result) if len(calls) == at_call else result

        def recall(self, function, *arguments):
            program = next(remaining)
            return train if program is programs[1] else program

        with small(_compile=recall) as patch:
            patch.setattr(lqr_report, "draw", lambda *_: None)
            return cli.main(argv)

    with small(_compile=remember):
        assert cli.main([*COMMAND, "--out", str(out)]) == 0
    return SimpleNamespace(out=out, again=again, results=json.loads((out / "results.json").read_text()))


@contextlib.contextmanager
def small(_compile):
    """Everything about the study is small, and programs are compiled by a given function."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            for module in (lqr_job, lqr_plan):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        patch.setattr(lqr_report, "PICTURE_SAMPLES", 64)
        patch.setattr(lqr_job, "settings", small_settings)
        patch.setattr(lqr_job._Job, "_compile", _compile)
        yield patch


def small_settings(*given):
    """The settings of the study, but for narrow networks and small batches."""
    config = settings(*given)
    actor = dataclasses.replace(config.actor, width=8, states=16)
    critic = dataclasses.replace(config.critic, width=8)
    return dataclasses.replace(config, actor=actor, critic=critic, batch_size=64)


def metrics(out):
    """The rows of metrics.csv, all of them complete."""
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    return [{name: float(value) for name, value in row.items()} for row in rows]


def test_the_figures_are_there(study):
    """Two figures of the paper, the learning curves and the policies, as PNG and PDF, none of them blank."""
    for name in FIGURES:
        if name.endswith(".png"):
            assert imread(study.out / name)[..., :3].std() > 0.01
        else:
            assert (study.out / name).read_bytes().startswith(b"%PDF-")


def test_results_name_every_run_and_quantity(study):
    """results.json holds what the figures show, each error with its spread and the floor of its estimate."""
    runs = study.results["runs"]
    assert [(run["alpha"], run["seed"]) for run in runs] == RUNS
    quantities = {"standard_return", "optimal_standard_return", "entropy", "optimal_entropy", "ess"}
    for error in ("mean_error", "mean_error_relative", "covariance_error", "covariance_error_relative"):
        quantities |= {error, f"{error}_std", f"{error}_floor"}
    for run in runs:
        assert all(math.isfinite(run[name]) for name in quantities)
        assert run["transitions"] == 6 * SMALL["ENVIRONMENTS"]
        for kind in ("mean_error", "covariance_error"):
            scale = run[kind] / run[f"{kind}_relative"]
            assert run[f"{kind}_relative_std"] * scale == pytest.approx(run[f"{kind}_std"])
            assert run[f"{kind}_relative_floor"] * scale == pytest.approx(run[f"{kind}_floor"])
            assert run[f"{kind}_floor"] < 0.1 * run[kind], "an untrained policy is far from the optimum"


def test_results_say_how_they_came_about(study):
    """results.json tells the system, so that it reads back, all settings, the versions and where the time went."""
    assert LQR.from_dict(study.results["system"]).to_dict() == systems.coupled().to_dict()
    settings = study.results["settings"]
    given = {"system": "coupled", "temperature": [0.5, 1.0], "seeds": 2, "seed": 3, "steps": 6, "out": str(study.out)}
    assert given.items() <= settings.items()
    assert settings["environments"] == SMALL["ENVIRONMENTS"] and settings["samples_per_state"] == SMALL["FINAL_SAMPLES"]
    assert settings["sac"]["batch_size"] == 64 and settings["sac"]["updates"] == 6
    assert study.results["versions"]["entroflow"] == entroflow.__version__ and "jax" in study.results["versions"]
    seconds = study.results["seconds"]
    assert 0 < seconds["compile"] + seconds["train"] <= seconds["total"]


def test_the_boldest_environment_knows_what_counts_as_one_reward(study):
    """Each run's is told, and found from α in units of the reward: where that is 8, 0.1 is a little."""
    assert study.results["settings"]["exploration"] == {"0.5": 3, "1": 3}
    runs = [SimpleNamespace(temperature=alpha) for alpha in (0.1, 1.0)]
    job = SimpleNamespace(options=LQROptions(), runs=runs, units=SimpleNamespace(reward=8.0))
    assert lqr_job._Job._boldest(job) == [pytest.approx(40**0.5), 3]


def test_optimal_values_are_the_exact_ones(study):
    """Entropy of the optimum by Theorem 3, and its return on the noise: higher than an untrained policy's."""
    for run in study.results["runs"]:
        optimum = systems.coupled().optimal(run["alpha"])
        assert run["optimal_entropy"] == pytest.approx(optimum.entropy)
        assert run["standard_return"] < run["optimal_standard_return"] < 0


def test_learning_curves_are_complete(study):
    """metrics.csv has one row per run and evaluation, in numbers, and the last ones reach the end of training."""
    rows = metrics(study.out)
    assert [(row["alpha"], row["seed"]) for row in rows] == RUNS * 3
    assert [row["step"] for row in rows[::4]] == [2, 4, 6]
    assert [row["transitions"] for row in rows[::4]] == [16, 32, 48]
    assert len({row["mean_error"] for row in rows}) == len(rows), "something is learned, and seeds differ"


def test_values_are_told_in_the_units_of_the_plant(study, tmp_path):
    """With inputs in units a quarter and a half as large log π is less by log 8, which V counts at every step."""
    other = systems.coupled().in_units([1.0, 1.0], [0.25, 0.5], 1.0)
    (tmp_path / "other.json").write_text(json.dumps(other.to_dict()))
    assert study.again([*COMMAND, "--system", str(tmp_path / "other.json"), "--out", str(tmp_path / "out")]) == 0
    for row, same in zip(metrics(tmp_path / "out"), metrics(study.out), strict=True):
        worth = row["alpha"] * np.log(8) / (1 - other.discount)
        assert row["v"] - same["v"] == pytest.approx(worth, rel=1e-4)
        assert row["q"] - same["q"] == pytest.approx(other.discount * worth, rel=1e-4)
        assert row["critic_error"] == same["critic_error"]


def test_what_counts_as_one_action_about_a_controller_has_the_root_s_volume():
    """u = L⁻¹ (a + K x) in units of its own: a unit of u has |det L| times their volume in inputs."""
    about = Controller(np.zeros((2, 3)), np.array([[4.0, 1.0], [1.0, 9.0]]))
    job = SimpleNamespace(units=SimpleNamespace(action=np.array([0.5, 2.0])), controller=about)
    assert inspect.unwrap(lqr_job._Job._volume)(job) == pytest.approx(0.5 * np.log(35))


def test_the_papers_preset(tmp_path):
    """V(s') comes from actions, all are draws of the policy, and the entropy told is that in the system's units."""
    out = tmp_path / "out"
    with small(lqr_job._Job._compile) as patch:
        patch.setattr(lqr_report, "draw", lambda *_: None)
        options = "--preset paper --system double_integrator --alpha 0.5 --seeds 1 --steps 3".split()
        assert cli.main(["lqr", *options, "--out", str(out)]) == 0
    told = json.loads((out / "results.json").read_text())["settings"]
    assert told["preset"] == "paper" and told["exploration"] == {"0.5": 1}
    assert told["sac"]["critic"]["soft_value"] == "action" and told["sac"]["actor"]["ess_floor"] == 0
    rows = metrics(out)
    assert "v" not in rows[0] and rows[-1]["step"] == 3
    _, log_probs = entroflow.load(out).sample_and_log_prob(np.zeros(2, np.float32), n=4096)
    assert abs(-log_probs.mean() - rows[-1]["entropy"]) < 0.5


@pytest.mark.parametrize(("alpha", "seed"), RUNS)
def test_policies_on_disk_are_those_of_the_results(study, alpha, seed):
    """A policy read back has the entropy of its run in results.json."""
    agent = entroflow.load(study.out, temperature=alpha, seed=seed)
    run = study.results["runs"][RUNS.index((alpha, seed))]
    assert (agent.settings.temperature, agent.seed) == (alpha, seed)
    assert agent.task.spec and agent.task.spec["kwargs"]["system"] == study.results["system"]
    assert agent.policy.solver == settings(1).actor.acting_solver
    assert bool(eqx.tree_equal(entroflow.load(study.out / run["policy"]).state, agent.state))
    with pytest.raises(ValueError, match="after 6 updates, expected a training of 6 updates, as planned"):
        agent.learn(1)
    states = np.random.default_rng(0).standard_normal((4, 2))
    _, log_probs = agent.sample_and_log_prob(states, n=256)
    # Untrained policies have nearly one width everywhere: 1024 draws of a 2-D Gaussian tell it to 1/sqrt(1024).
    assert -log_probs.mean() == pytest.approx(run["entropy"], abs=5 / 32 + 0.2)


def test_a_run_depends_on_nothing_but_itself(study, tmp_path):
    """The same runs beside others, in another order: the same numbers. Nothing hangs on the place in the batch."""
    argv = ["lqr", "--alpha", "1", "2", "--seeds", "2", "--seed", "3", "--steps", "6", "--out", str(tmp_path / "out")]
    assert study.again(argv) == 0
    first = [row for row in metrics(study.out) if row["alpha"] == 1]
    second = [row for row in metrics(tmp_path / "out") if row["alpha"] == 1]
    assert first == second


def test_a_fixed_number_of_candidates_is_drawn(study):
    """The default is 8 candidates at each of 16 states in each of 6 steps."""
    assert study.results["settings"]["sac"]["actor"]["candidates"] == 8
    assert {row["candidates"] for row in metrics(study.out)} == {8}
    assert [row["candidates_drawn"] for row in metrics(study.out)][::4] == [8 * 16 * step for step in (2, 4, 6)]
    assert {run["candidates_drawn"] for run in study.results["runs"]} == {8 * 16 * 6}


def test_the_same_command_gives_the_same_files(study, tmp_path):
    """Everything random comes from the seeds."""
    assert study.again([*COMMAND, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == (study.out / "metrics.csv").read_bytes()
    for alpha, seed in RUNS:
        path = f"policies/alpha={alpha:g}_seed={seed}/agent.json"
        assert (tmp_path / "out" / path).read_bytes() == (study.out / path).read_bytes(), "the header tells the arrays"


AS_USERS = """
import sys
import numpy as np
import entroflow
from entroflow import cli
given = ["--alpha", "0.5", "--seed", "3", "--out", sys.argv[2]]
assert cli.main(["export", sys.argv[1], *given]) == cli.main(["eval", sys.argv[3], "--episodes", "1"]) == 0
np.save(sys.argv[4], entroflow.load(sys.argv[1], temperature=0.5, seed=3).log_prob(np.eye(2), np.ones(2)))
"""


def test_a_study_is_used_with_the_compiler_as_users_have_it(study, tmp_path):
    """The tests set XLA's options for all; without, what exports, evaluates and loads has options of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    agent, found = study.out / "policies" / "alpha=0.5_seed=3", tmp_path / "found.npy"
    command = [sys.executable, "-c", AS_USERS, *map(str, (study.out, tmp_path / "policy.stablehlo", agent, found))]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "policy.stablehlo").stat().st_size > 0
    assert "–" in done.stdout and "nan" not in done.stdout  # one episode has no standard error
    expected = entroflow.load(study.out, temperature=0.5, seed=3).log_prob(np.eye(2), np.ones(2))
    np.testing.assert_allclose(np.load(found), expected, rtol=1e-4)


def test_ctrl_c_leaves_the_finished_evaluations(study, tmp_path, capsys):
    """After Ctrl-C in the second stretch of training the first one's rows are on disk, and the exit code is 130."""

    def interrupt(_):
        raise KeyboardInterrupt

    out = tmp_path / "[/]out"  # a name that a terminal's markup would stumble over
    assert study.again([*COMMAND, "--out", str(out)], 2, interrupt) == 130
    assert metrics(out) == metrics(study.out)[:4]
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize("at_call", [1, 3])
def test_a_stopped_study_goes_on_as_if_it_had_not(study, tmp_path, at_call, capsys):
    """SIGTERM in training: exit code 143; resumed in another folder, the files are those of the uninterrupted study."""

    def terminate(result):
        signal.raise_signal(signal.SIGTERM)
        return result

    out, moved = tmp_path / "out", tmp_path / "moved"
    assert study.again([*COMMAND, "--out", str(out)], at_call, terminate) == 128 + signal.SIGTERM
    assert "entroflow resume" in capsys.readouterr().out
    out.rename(moved)
    assert study.again(["resume", str(moved)]) == 0
    said = capsys.readouterr().out  # no terminal: a line for every tenth, and no bar
    assert ("100%  return" in said) == (at_call == 1) and "━" not in said
    assert (moved / "metrics.csv").read_bytes() == (study.out / "metrics.csv").read_bytes()
    results = json.loads((moved / "results.json").read_text())
    assert results["seconds"]["compile"] < results["seconds"]["total"], "both of all sittings together"
    assert results["runs"] == study.results["runs"] and not (moved / "checkpoints").exists()
    assert cli.main(["resume", str(moved)]) == 2
    assert "a finished study" in capsys.readouterr().err


def test_a_full_disk_stops_a_study(study, tmp_path, capsys, monkeypatch):
    """One sentence, exit code 1, no leftovers."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert study.again([*COMMAND, "--out", str(tmp_path / "out")]) == 1
    assert "No space left on device" in " ".join(capsys.readouterr().out.split())
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_ctrl_c_before_training_is_quiet(monkeypatch, tmp_path, capsys):
    """Ctrl-C while the system is read: exit code 130, no traceback, nothing written."""

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("entroflow.lqr.systems.load", interrupt)
    assert cli.main(["lqr", "--out", str(tmp_path / "out")]) == 130
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_that_breaks_down_is_named(study, tmp_path, capsys):
    """Numbers that are no longer finite end the study with exit code 1 and the name of the run."""

    def spoil(result):
        loop, values = result
        spoiled = values["critic_error"].at[2].set(math.nan), values["broke"].at[2].set(0)
        return loop, values | dict(zip(("critic_error", "broke"), spoiled, strict=True))

    assert study.again([*COMMAND, "--out", str(tmp_path / "out")], 2, spoil) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "critic_error of the run alpha=1 seed=3 is nan at step 3" in said
    assert len(metrics(tmp_path / "out")) == 8


def test_a_fault_of_the_program_is_not_bad_input(study, tmp_path):
    """A ValueError from inside of training is no exit code 2 with a sentence: it shows where it came from."""

    def fail(_):
        raise ValueError("shapes do not match")

    with pytest.raises(RuntimeError):
        study.again([*COMMAND, "--out", str(tmp_path / "out")], 1, fail)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_finished_study_shows_its_table_in_every_encoding(study, tmp_path, encoding):
    """Redirected into a file that has no α: the table is there, a question mark for each letter that is not."""
    out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    with contextlib.redirect_stdout(out):
        assert study.again([*COMMAND, "--out", str(tmp_path / "out")]) == 0
    said = out.buffer.getvalue().decode(encoding)
    assert "covariance" in said and str(tmp_path / "out") in said.replace("\n", "") and "?" in said


def test_the_table_fits_80_columns(study):
    """The closing table and the live line show every number in full in a narrow terminal."""
    rows = [run | {"alpha": alpha} for alpha in (0.1, 0.5, 1.0, 2.0) for run in study.results["runs"][:2]]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(lqr_report.table(rows))
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    worst = max(run["mean_error_relative"] for run in rows[:2])
    assert f"({100 * worst:.1f})" in text and f"{rows[0]['optimal_entropy']:.3f}" in text
    assert f"{np.mean([run['standard_return'] for run in rows[:2]]):.4g}" in text
    numbers = {"return": -12.345, "mean_error_relative": 0.9876, "covariance_error_relative": 1.234, "ess": 0.9}
    line = lqr_job._status([numbers | {"standard_return": -123.45, "optimal_standard_return": -121.0}])
    assert len(line) <= 80 and all(part in line for part in ("-123.5", "-121", "98.8%", "123.4%", "0.90"))


def test_plants_that_are_not_stabilised_are_told_in_words():
    """They are left out of the averages and named in the end, with what to do."""
    fine = {"alpha": 0.5, "seed": 0, "standard_return": -2.0, "optimal_standard_return": -1.0, "ess": 0.5}
    fine |= {"mean_error_relative": 0.1, "covariance_error_relative": 0.2}
    broken = fine | {"seed": 7, "standard_return": math.nan, "mean_error_relative": math.nan}
    assert "1 of 2 runs do not stabilise" in (line := lqr_job._status([fine, broken]))
    assert "nan" not in line and line.startswith(lqr_job._status([fine])) and "stabilise" not in lqr_job._status([fine])
    assert lqr_job._status([broken]) == "1 of 1 runs do not stabilise the plant yet"
    told = lqr_report.diverging([fine, broken])
    assert told is not None and "α=0.5 seed=7;" in told and "seed=0" not in told and "--initial-gain" in told
    assert lqr_report.diverging([fine]) is None


def untrained_picture(run):
    """Standard normal actions at the state zero."""
    d, n = run.K.shape
    actions = np.random.default_rng(0).standard_normal((64, d))
    return Picture(run.temperature, np.zeros(n), actions, np.zeros(d), run.covariance)


def test_errors_relative_to_nothing_are_null(tmp_path, recwarn):
    """Where the optimal action is zero everywhere there is no relative error: no division by zero, valid JSON."""
    lqr = LQR([[0.5]], [[1.0]], [[1.0]], [[1.0]], [[0.1]], [[1.0]], 0.0, "myopic")
    (run,) = lqr_plan.plan(LQROptions(temperature=(1.0,), seeds=1), lqr)
    states, one = np.ones((3, 1), np.float32), np.float32(1)
    evaluation = lqr_report.LQREvaluation(one, states, 0.1 * states, np.ones((3, 1, 1), np.float32), one)
    measured = lqr_report.errors(run, evaluation)
    row = {"alpha": 1.0, "seed": 0, "step": 1, "transitions": 1, "ess": 1.0, **measured}
    assert "nan" in lqr_job._status([row])
    results = [row | lqr_report.floors(run, 64, measured["mean_scale"])]
    lqr_report.draw(tmp_path, lqr.name, [run], [row], results, [untrained_picture(run)])
    write_results(tmp_path, {"runs": results}, {})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)["runs"][0]
    assert written["mean_error_relative"] is None and written["mean_error_relative_floor"] is None
    assert written["mean_error"] == pytest.approx(0.1) and written["covariance_error_relative"] is not None
    assert not recwarn.list


def test_a_policy_that_lets_the_system_overflow_is_reported(tmp_path, recwarn):
    """Returns and states that are not finite leave gaps in the figures and in results.json, and stop nothing."""
    lqr = systems.unstable()
    (run,) = lqr_plan.plan(LQROptions(temperature=(1.0,), seeds=1), lqr)
    one, picture = np.float32(1), untrained_picture(run)
    for bad in (np.inf, np.nan):
        states = np.full((3, 3), bad, np.float32)
        evaluation = lqr_report.LQREvaluation(
            -np.float32(bad), states, states, np.full((3, 3, 3), bad, np.float32), one
        )
        measured = lqr_report.errors(run, evaluation)
        row = {"alpha": 1.0, "seed": 0, "step": 1, "transitions": 1, "ess": 1.0, **measured}
        results = [row | lqr_report.floors(run, 64, measured["mean_scale"])]
        write_results(tmp_path, {"runs": results}, {})
        lqr_report.table(results)
        (written,) = json.loads((tmp_path / "results.json").read_text())["runs"]
        assert written["standard_return"] is None and written["covariance_error"] is None
        assert written["optimal_standard_return"] == run.best_return
    lqr_report.draw(tmp_path, lqr.name, [run], [row], results, [picture])
    assert not recwarn.list


# What is refused

GOOD = {
    "A": [[0.9, 0.2], [0.0, 0.8]],
    "B": [[0.0], [1.0]],
    "Q": [[1, 0], [0, 1]],
    "R": [[1]],
    "noise_cov": [[0.1, 0], [0, 0.1]],
    "initial_cov": [[1, 0], [0, 1]],
    "discount": 0.9,
}


def refused(capsys, argv, out):
    """Run a command that must fail on its input; return what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lqr_job, "_Job", None)  # training must not begin
        try:
            code = cli.main([*argv, "--out", str(out)])
        except SystemExit as stop:  # tyro's own messages
            code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    said = " ".join((captured.err + captured.out).split())
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"A": [[0.9, 0.2]]}, ["A", "shape (1, 2)"]),
        ({"A": [[0.9, 0.2], [0.1]]}, ["A", "rows of unequal length"]),
        ({"B": [[1.0]]}, ["B", "shape (1, 1)", "one row per state"]),
        ({"R": [[1, 0], [0, 1]]}, ["R", "shape (2, 2)"]),
        ({"Q": [1, 2]}, ["Q", "shape (2,)"]),
        ({"Q": [[1, 0.5], [0, 1]]}, ["Q", "symmetric"]),
        ({"Q": [[1, 0], [0, -1]]}, ["Q", "positive semidefinite"]),
        ({"R": [[0]]}, ["R", "positive definite"]),
        ({"noise_cov": [[-0.1, 0], [0, 0.1]]}, ["noise_cov", "positive semidefinite"]),
        ({"initial_cov": [[1, 2], [2, 1]]}, ["initial_cov", "positive semidefinite"]),
        ({"noise_cov": [[0.1, 0.05], [0, 0.1]]}, ["noise_cov", "symmetric"]),
        ({"A": [[1.2, 0.0], [0.0, 0.8]]}, ["A, B", "not stabilisable"]),
        ({"A": [["0.9", 0.2], [0.0, 0.8]]}, ["A", "'0.9'"]),
        ({"A": [[True, 0.2], [0.0, 0.8]]}, ["A", "True"]),
        ({"A": [[1e999, 0.2], [0.0, 0.8]]}, ["Infinity"]),
        ({"B": [[0.0], [math.nan]]}, ["NaN"]),
        ({"discount": 1.0}, ["discount", "[0, 1)"]),
        ({"discount": -0.1}, ["discount", "[0, 1)"]),
        ({"discount": None}, ["discount"]),
        ({"gamma": 0.9}, ["'gamma'", "unknown key"]),
        ({"name": 3}, ["name", "text"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_systems_are_refused(capsys, tmp_path, change, words):
    """A system that is not one: exit code 2, a sentence with the file and the matrix, nothing written."""
    path = tmp_path / "system.json"
    path.write_text(json.dumps(GOOD | change))
    said = refused(capsys, ["lqr", "--system", str(path)], tmp_path / "out")
    assert said.startswith(f"entroflow: {path}: ") and said.count(str(path)) == 1
    assert all(word in said for word in words)
    assert os.listdir(tmp_path) == ["system.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "malformed JSON"),
        (b'{"A": [[1, 2],', "malformed JSON"),
        (b"[1, 2]", "JSON list"),
        (b'"coupled"', "JSON str"),
        (b'{"A": [[1]], "A": [[2]]}', "'A' twice"),
        (b'{"A": [[1e400]]}', "1e400, expected finite numbers"),
        (json.dumps(GOOD).replace("0.8", "1e400").encode(), "finite"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (None, "No such file"),
    ],
    ids=range(10),
)
def test_unreadable_systems_are_refused(capsys, tmp_path, content, words):
    """A file that is no JSON object: exit code 2, a sentence with its name, nothing written."""
    path = tmp_path / "system.json"
    if content is not None:
        path.write_bytes(content)
    said = refused(capsys, ["lqr", "--system", str(path)], tmp_path / "out")
    assert str(path) in said and words in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "couplde"], "did you mean 'coupled'"),
        (["--system", ""], "one of double_integrator"),
        (["--alpha", "0"], "--alpha: got 0.0"),
        (["--alpha", "0.5", "-1"], "--alpha: got -1.0"),
        (["--alpha", "nan"], "--alpha: got nan"),
        (["--alpha", "inf"], "--alpha: got inf"),
        (["--alpha", "1e-40"], "--alpha: got 1e-40"),
        (["--alpha", "abc"], "--alpha"),
        (["--alpha"], "--alpha: got []"),
        (["--alpha", "0.5", "0.5"], "name each once"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--seeds", "-1"], "--seeds: got -1"),
        (["--seeds", "1.5"], "--seeds"),
        (["--steps", "0"], "--steps: got 0"),
        (["--steps", "-5"], "--steps: got -5"),
        (["--steps", "many"], "--steps"),
        (["--steps", "3000000000"], "--steps: got 3000000000, expected at most"),
        (["--seed", "-1"], "--seed: got -1"),
        (["--seed", "x"], "--seed"),
        (["--seed", "4294967295", "--seeds", "2"], "--seed: got 4294967295"),
        (["--candidates", "0"], "--candidates: got '0', expected a whole number from 2 to 1024; "),
        (["--candidates", "adaptive"], "--candidates: got 'adaptive'"),
        (["--candidates", "1"], "--candidates: got '1'"),
        (["--candidates", "-8"], "--candidates"),
        (["--candidates", "foo"], "--candidates: got 'foo'"),
        (["--candidates", "8.5"], "--candidates: got '8.5'"),
        (["--candidates", "1025"], "--candidates: got '1025'"),
        (["--candidates", "99999999999"], "--candidates: got '99999999999'"),
        (["--candidates", ""], "--candidates: got ''"),
        (["--candidates", "00512345"], "--candidates: got '00512345'"),
        (["--algorithm", "gaussian_sac", "--candidates", "16"], "--candidates: got 16 with gaussian_sac, expected 8;"),
        (["--stepss", "3"], "--steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(capsys, tmp_path, arguments, words):
    """An option that cannot be: exit code 2, its name in the message, nothing written."""
    assert words in refused(capsys, ["lqr", *arguments], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_in_use_is_refused(capsys, tmp_path):
    """Another run, a file or a place that cannot be written to: exit code 2, and what is there stays as it is."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text("{}")
    assert "already holds another run" in refused(capsys, ["lqr"], run)
    assert "is a file" in refused(capsys, ["lqr"], run / "results.json")
    assert "expected a folder to write to" in refused(capsys, ["lqr"], run / "results.json" / "below")
    assert os.listdir(run) == ["results.json"] and (run / "results.json").read_text() == "{}"


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--alpha", "abc"]])
def test_the_shell_sees_the_exit_code(tmp_path, arguments):
    """`python -m entroflow` ends with 2 and one message on the error stream."""
    command = [sys.executable, "-m", "entroflow", "lqr", *arguments, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert arguments[0] in done.stderr and "Traceback" not in done.stderr
    assert not Path(tmp_path / "out").exists()


def test_help_needs_no_jax():
    """`entroflow lqr --help` answers at once, with every option."""
    code = (
        "import sys; from entroflow.cli import main\n"
        "try: main(['lqr', '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--system", "--alpha", "--seeds", "--steps", "--seed", "--out"):
        assert option in done.stdout
    for name in systems.CATALOGUE:
        assert name in done.stdout, "the help lists the named systems"
