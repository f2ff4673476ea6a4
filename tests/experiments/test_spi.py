"""Soft policy iteration, a tiny size of it: what it writes, what it refuses, how it stops and goes on."""

import contextlib
import io
import json
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from entroflow.isfm import FitConfig
from entroflow.lqr import LQR, systems
from entroflow.storage import keeping
from experiments import frame
from experiments.spi import figures, lqr_problem, rooms_problem, run

OPTIONS = ["--alpha", "0.2", "1", "--seeds", "2", "--seed", "3", "--iterations", "2"]
RUNS = [(0.2, 3), (0.2, 4), (1.0, 3), (1.0, 4)]
FIGURES = {"coupled": ("errors", "trajectories"), "rooms": ("errors", "policies_alpha0.2", "policies_alpha1")}


@contextlib.contextmanager
def small():
    """Everything about the study is small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lqr_problem.LQRProblem, "config", FitConfig(steps=4, candidates=4, pairs=1))
        patch.setattr(rooms_problem.RoomsProblem, "config", FitConfig(steps=4, candidates=8, pairs=1, ess_floor=0.0))
        patch.setattr(lqr_problem, "BATCH", 4)
        patch.setattr(lqr_problem, "STATES", 8)
        patch.setattr(lqr_problem, "SAMPLES", 16)
        patch.setattr(rooms_problem, "POINTS", 64)
        yield patch


@pytest.fixture(scope="module", params=list(FIGURES))
def study(request, tmp_path_factory):
    """One tiny study, and a way to run the same compiled programs again, with some of the study's parts replaced."""
    out, kept = tmp_path_factory.mktemp("study") / "out", []
    compile = run.Study.compile
    argv = ["--system", request.param, *OPTIONS, "--out"]

    def remember(self):
        policies = compile(self)
        kept.append((policies, self._keys, self._improve, self._measure))
        return policies

    def recall(self):
        policies, self._keys, self._improve, self._measure = kept[0]
        return policies

    def again(out, *options, **parts):
        with small() as patch:
            patch.setattr(run.Study, "compile", recall)
            for name, part in parts.items():
                patch.setattr(run.Study, name, part)
            return run.main([*argv, str(out), *options])

    with small() as patch:
        patch.setattr(run.Study, "compile", remember)
        assert run.main([*argv, str(out)]) == 0
    return SimpleNamespace(name=request.param, out=out, again=again)


def metrics(out):
    return frame.read_rows(out / "metrics.csv")


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_files(study):
    """Figures that are not blank, a row per iteration and run, and results that repeat them with what was kept."""
    drawn = {f"{name}.{kind}" for name in FIGURES[study.name] for kind in ("png", "pdf")}
    assert set(os.listdir(study.out)) == drawn | {"results.json", "metrics.csv", "config.json", ".lock"}
    for name in FIGURES[study.name]:
        assert imread(study.out / f"{name}.png").std() > 0.01
    rows, results = metrics(study.out), strict((study.out / "results.json").read_text())
    assert [(float(row["alpha"]), int(row["seed"])) for row in rows] == RUNS * 3
    assert [int(row["iteration"]) for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    for row, iterate in zip(rows, results["iterations"], strict=True):
        assert all(float(value) == pytest.approx(iterate[name]) for name, value in row.items())
        assert all(np.isfinite(float(value)) for value in row.values())
    assert results["settings"]["iterations"] == 2 and results["settings"]["fit"]["steps"] == 4
    assert "jax" in results["versions"] and results["system"]["name"] == study.name


def test_exact_columns_are_the_exact_trajectory(study):
    """What flows are compared with is exact soft policy iteration, whose distance from the optimum falls."""
    name = {"coupled": "exact_covariance_to_optimum", "rooms": "exact_value_to_optimum"}[study.name]
    values = np.array([float(row[name]) for row in metrics(study.out)]).reshape(3, 4)
    assert (values[1:] < 0.5 * values[:-1]).all()
    iterates = strict((study.out / "results.json").read_text())["iterations"]
    if study.name == "coupled":
        lqr = systems.get("coupled")
        for row in iterates[8:]:
            first = lqr.policy_iteration_step(iterates[0]["exact_K"], row["alpha"])
            second = lqr.policy_iteration_step(first.K, row["alpha"])
            np.testing.assert_allclose(row["exact_K"], second.K)
            np.testing.assert_allclose(row["exact_covariance"], second.covariance)
            error = np.linalg.norm(np.subtract(row["K"], row["exact_K"])) / np.linalg.norm(row["exact_K"])
            assert row["gain_error"] == pytest.approx(error)


def test_a_stopped_study_goes_on_as_if_it_had_not(study, tmp_path, monkeypatch):
    """SIGTERM in an improvement: that iteration is finished; resumed, the results are those of a study in peace."""
    monkeypatch.setattr(keeping, "SHARE", np.inf)
    improve = run.Study.improve

    def signalled(self, policies, evaluated, k):
        if k == 0:
            signal.raise_signal(signal.SIGTERM)
        return improve(self, policies, evaluated, k)

    out = tmp_path / "out"
    monkeypatch.setattr(run, "draw", lambda *_: None)
    assert study.again(out, improve=signalled) == 128 + signal.SIGTERM
    assert metrics(out) == metrics(study.out)[:8] and not (out / "results.json").exists()
    assert study.again(out, "--resume") == 0
    assert metrics(out) == metrics(study.out)
    found, expected = (strict((folder / "results.json").read_text()) for folder in (out, study.out))
    assert found["iterations"] == expected["iterations"]


def test_a_policy_that_breaks_down_ends_the_run(study, tmp_path, capsys):
    """Actions that are not finite: exit code 1 and a sentence that names the run, not a traceback."""
    evaluate = run.Study.evaluate

    def broken(self, policies):
        measure = self._measure
        self._measure = lambda policies: jax.tree.map(lambda leaf: leaf * np.float32("nan"), measure(policies))
        return evaluate(self, policies)

    assert study.again(tmp_path / "out", evaluate=broken) == 1
    assert "alpha=0.2 seed=3 is no longer finite" in " ".join(capsys.readouterr().out.split())


def test_a_policy_that_does_not_stabilise_has_no_soft_q():
    """On LQR evaluation refuses a gain under which returns diverge, with a sentence about it."""
    problem = lqr_problem.LQRProblem(systems.get("unstable"))
    fit = lqr_problem.LinearFit(np.zeros((3, 3)), np.eye(3), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="closed loop"):
        problem.evaluate(fit, 0.5)


def test_optima_of_zero_have_no_relative_distance():
    """Without a future the optimal gain is zero: its relative distance is NaN, which results.json writes as null."""
    coupled = systems.get("coupled")
    lqr = LQR(**{**coupled.to_dict(), "discount": 0.0})
    problem = lqr_problem.LQRProblem(lqr)
    start = problem.start(0.5)
    fit = lqr_problem.LinearFit(start.K, start.covariance, np.zeros((2, 2)))
    numbers, _ = problem.compare(0.5, fit, start, None)
    assert np.isnan(numbers["gain_error"]) and numbers["covariance_error"] == 0
    assert all((unit > 0).all() for unit in problem.units(0.5).values())


def test_the_table_is_at_most_80_columns_wide(study):
    """The closing table fits a terminal of 80 columns without losing a digit."""
    rows = strict((study.out / "results.json").read_text())["iterations"]
    problem = rooms_problem.RoomsProblem if study.name == "rooms" else lqr_problem.LQRProblem
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(figures.table(problem, rows))
    assert max(len(line.rstrip()) for line in console.export_text().splitlines()) <= 80


def refused(capsys, argv, out):
    """Run a command that must end with 2; return its message."""
    try:
        code = run.main([*argv, "--out", str(out)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2 and "Traceback" not in captured.err + captured.out
    return " ".join((captured.err + captured.out).split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "couplde"], "did you mean 'coupled'"),
        (["--system", "room"], "did you mean 'rooms'"),
        (["--system", "nowhere.json"], "nowhere.json"),
        (["--system", ""], "one of double_integrator"),
        (["--alpha", "0"], "--alpha: got 0.0"),
        (["--alpha", "nan"], "--alpha: got nan"),
        (["--alpha"], "--alpha: got []"),
        (["--alpha", "0.5", "0.5"], "name each once"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--iterations", "0"], "--iterations: got 0"),
        (["--iterations", "1.5"], "--iterations"),
        (["--seed", "-1"], "--seed: got -1"),
        (["--seed", "4294967295", "--seeds", "2"], "--seed: got 4294967295"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(capsys, tmp_path, arguments, words):
    """An option that cannot be: exit code 2, its name in the message, nothing written."""
    assert words in refused(capsys, arguments, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_in_use_is_refused(capsys, tmp_path):
    """Another run: exit code 2, and what is there stays as it is."""
    (tmp_path / "results.json").write_text("{}")
    assert "already holds another run" in refused(capsys, [], tmp_path)
    assert os.listdir(tmp_path) == ["results.json"] and (tmp_path / "results.json").read_text() == "{}"
