"""Densities, a tiny size of it: what it learns and writes, what it refuses, how it stops and goes on."""

import functools
import json
import math
import signal

import numpy as np
import pytest
from matplotlib.image import imread

from entroflow.storage import keeping
from experiments import frame
from experiments.densities import fit, run
from experiments.densities.targets import get

SMALL = {"EVALUATIONS": 4, "ESTIMATE": 200, "REPETITIONS": 3, "W2_SAMPLES": 100, "FLOORS": 2, "GRID": 21, "PATHS": 8}
CONFIG = functools.partial(
    fit.Config, candidates=128, points=128, times=16, width=16, reuse=4, solver_steps=3, ess_floor=0.3
)


@pytest.fixture
def small(monkeypatch):
    """Everything about the study is small."""
    shrink(monkeypatch)
    return monkeypatch


def shrink(patch):
    for name, value in SMALL.items():
        patch.setattr(run, name, value)
    patch.setattr(fit, "Config", CONFIG)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What one small run of the command wrote."""
    folder = tmp_path_factory.mktemp("densities") / "out"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        command = ["--target", "ring4", "gaussian_3", "--seeds", "2", "--seed", "5", "--steps", "150"]
        assert run.main([*command, "--out", str(folder)]) == 0
    return folder


def test_results_hold_every_target_and_seed(out):
    """results.json names targets, seeds, settings and all the quantities, in finite numbers."""
    results = json.loads((out / "results.json").read_text())
    assert [target["target"] for target in results["targets"]] == ["ring4", "gaussian_3"]
    for target in results["targets"]:
        assert target["log_z"] == pytest.approx(get(target["target"]).log_z)
        assert target["w2_floor"] > 0
        assert [row["seed"] for row in target["seeds"]] == [5, 6]
        for row in target["seeds"]:
            assert all(math.isfinite(row[name]) for name in ("ess", "kl", "log_z_error", "w2", "mode_error"))
            assert 0 < row["ess"] <= 1 and len(row["log_z_errors"]) == 3
            assert sum(row["mode_weights"]) == pytest.approx(1)
        assert target["seeds"][0]["ess"] != target["seeds"][1]["ess"]
    assert results["settings"]["steps"] == 150 and results["settings"]["fit"]["candidates"] == 128


def test_it_learns(out):
    """After 150 small steps a third of the samples count on a Gaussian, and all four modes of the ring are visited."""
    ring, gaussian = json.loads((out / "results.json").read_text())["targets"]
    assert min(row["ess"] for row in gaussian["seeds"]) > 0.3
    assert max(row["log_z_error"] for row in gaussian["seeds"]) < 0.2
    assert min(min(row["mode_weights"]) for row in ring["seeds"]) > 0
    np.testing.assert_allclose(ring["exact_mode_weights"], [0.4, 0.3, 0.2, 0.1])


def test_learning_is_recorded(out):
    """metrics.csv has one row per target, mark and seed, and the last row is at the last step."""
    rows = frame.read_rows(out / "metrics.csv")
    assert len(rows) == 2 * 4 * 2
    assert [(row["target"], row["seed"]) for row in rows[:2]] == [("ring4", "5"), ("ring4", "6")]
    assert {row["step"] for row in rows[-2:]} == {"152"}  # whole rounds of four steps
    assert float(rows[-1]["ess"]) > float(rows[8]["ess"])


@pytest.mark.parametrize("name", ["ring4", "gaussian_3"])
def test_there_is_one_figure_per_target(out, name):
    """In the plane and beyond it, as PNG and PDF, none of them blank."""
    assert imread(out / f"{name}.png")[..., :3].std() > 0.02
    assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_the_table_fits_a_terminal(out):
    """The closing table stays within 80 columns for the longest name and the largest numbers."""
    from rich.console import Console

    results = json.loads((out / "results.json").read_text())["targets"]
    results[0] |= {"target": "many_well_128", "seconds": 12345.6, "w2_floor": 123.456}
    for row in results[0]["seeds"]:
        row.update(w2=123.456, log_z_error=12.3456, mode_error=None)
    console = Console(width=200, record=True)
    console.print(run.table(results))
    assert max(len(line.rstrip()) for line in console.export_text().splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "grid8"], "did you mean 'grid9'"),
        (["--target", "grid9", "grid9"], "expected one or more different targets"),
        (["--target", "all", "grid9"], "target: got 'all', expected one of"),
        (["--target", "gaussian_1"], "expected a target of at least two dimensions"),
        (["--target", "many_well_5"], "expected an even dimension"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--steps", "-1"], "--steps: got -1"),
        (["--seed", "-1"], "--seed: got -1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, capsys, arguments, message):
    """Exit code 2, one line that names the option or the target, and nothing written."""
    assert run.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def fake(small):
    """Nothing is trained, and policies are judged like this; what happens before a training is given by its number."""

    def install(**happens):
        trained = []

        def train(self, target):
            trained.append(target.name)
            happens.get(f"at_{len(trained)}", lambda: None)()
            return [], [{"target": target.name, "seed": 0}]

        row = {"seed": 0, "ess": 0.9, "log_z_error": 0.01, "w2": 0.2, "mode_error": 0.01}
        judge = lambda self, target, _: {"target": target.name, "size": 2, "w2_floor": 0.1, "seeds": [row]}  # noqa: E731
        small.setattr(keeping, "SHARE", math.inf)
        small.setattr(run.Study, "train", train)
        small.setattr(run.Study, "judge", judge)
        return trained

    return install


def diverge():
    raise frame.Broken("the loss on grid9 is not finite")


@pytest.mark.parametrize(
    ("happens", "code", "said", "made"),
    [
        (diverge, 1, "the loss on grid9 is not finite", ["grid9", "two_moons"]),
        (
            lambda: signal.raise_signal(signal.SIGINT),
            130,
            "to go on: python -m experiments.densities.run",
            ["two_moons"],
        ),
    ],
)
def test_finished_targets_survive(tmp_path, capsys, fake, happens, code, said, made):
    """After Ctrl-C, or where a loss is not finite, going on leaves out the targets that were finished."""
    command = ["--target", "ring4", "grid9", "two_moons", "--seeds", "1", "--out", str(tmp_path / "out")]
    fake(at_2=happens)
    assert run.main(command) == code
    assert said in " ".join(capsys.readouterr().out.split())
    assert (trained := fake()) == [] and run.main([*command, "--resume"]) == 0
    assert trained == made
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [target["target"] for target in results["targets"]] == ["ring4", "grid9", "two_moons"]
