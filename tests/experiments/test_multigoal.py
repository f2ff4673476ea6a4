"""The multi-goal comparison, a tiny size of it: what it writes, what it refuses, how it stops and goes on."""

import contextlib
import dataclasses
import io
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from entroflow.rl import MLPCritic
from entroflow.storage import keeping
from experiments import frame
from experiments.multigoal import measure, report, run

NAMES = ["sac_isfm", "gaussian_sac", "denoising"]
RUN = NAMES[1:]
SMALL_CRITIC = MLPCritic(width=8, depth=1, layer_norm=False, members=1, ensemble="mean", improve_on="target")


@contextlib.contextmanager
def small():
    """Everything about the study is small."""
    settings = run.settings
    with pytest.MonkeyPatch.context() as patch:
        tiny = {"width": 8, "depth": 1, "states": 8}
        for name, more in zip(NAMES, ({"candidates": 4}, {}, {"candidates": 4, "steps": 3}), strict=True):
            actor = dataclasses.replace(run.ALGORITHMS[name], **tiny, **more)
            patch.setitem(run.ALGORITHMS, name, actor)
        patch.setattr(
            run,
            "settings",
            lambda *made_of: dataclasses.replace(settings(*made_of), critic=SMALL_CRITIC, batch_size=16),
        )
        patch.setattr(run, "ENVIRONMENTS", 4)
        patch.setattr(run, "RESOLUTION", 5)
        for name, value in {"STATES": 3, "POINTS": 32, "SAMPLES": 64, "EPISODES": 8, "HORIZON": 35}.items():
            patch.setattr(measure, name, value)
        patch.setattr(measure, "ENTROPY_STATES", 4)
        yield patch


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One tiny study of an algorithm with a density and one without; the flow's program would take long to trace."""
    out = tmp_path_factory.mktemp("study") / "out"
    with small():
        options = ["--algorithm", *RUN, "--steps", "3", "--seeds", "2", "--seed", "5", "--out", str(out)]
        assert run.main(options) == 0
    return out


def strict(out):
    """What results.json says; it has no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((out / "results.json").read_text(), parse_constant=refuse)


def test_files(study):
    """Figures that are not blank, a line of metrics for every run and evaluation, and a record for every run."""
    figures = {f"{name}.{kind}" for name in ("trajectories", "density") for kind in ("png", "pdf")}
    assert set(os.listdir(study)) == figures | {"results.json", "metrics.csv", "config.json", ".lock"}
    for name in ("trajectories", "density"):
        assert imread(study / f"{name}.png").std() > 0.01
    rows = frame.read_rows(study / "metrics.csv")
    expected = [(name, seed, step) for name in RUN for step in "123" for seed in "56"]
    assert [(row["algorithm"], row["seed"], row["step"]) for row in rows] == expected
    assert all(np.isfinite(float(row["critic_error"])) for row in rows)
    results = strict(study)
    assert [(row["algorithm"], row["seed"]) for row in results["runs"]] == [(n, s) for n in RUN for s in (5, 6)]


def test_numbers(study):
    """Distances lie where they can, the exact policy scores best, and only the density's columns need a density."""
    results = strict(study)
    for row in [*results["runs"], results["exact"]]:
        assert sum(row["mode_weights"]) == pytest.approx(1)
        assert 0 <= row["total_variation"] <= row["total_variation_worst"] <= 1 + 1e-9
        assert row["entropy_origin"] <= np.log(4) + 1e-6
        assert 0 <= row["within_time_limit"] <= 1 and 0 <= row["unfinished"] <= 1
    assert results["exact"]["total_variation"] == 0
    for row in results["runs"]:
        assert row["soft_return_gap_relative"] > results["exact"]["soft_return_gap_relative"]
        if row["algorithm"] == "denoising":
            assert row["mass"] is None and row["total_variation"] == row["total_variation_histogram"]
        else:
            assert 0 < row["mass"] < 1.15  # untrained policies may have peaks between the points of this grid


def test_the_table_is_at_most_80_columns_wide(study):
    """The closing table fits a terminal of 80 columns, with a row for every algorithm and one for the exact policy."""
    results = strict(study)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table(results["runs"], results["exact"]))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert all(name in text for name in [*RUN, "exact"])


def results_of(out):
    """What results.json says, but for the time it took."""
    found = strict(out)
    del found["seconds"]
    return found


def test_a_stopped_study_goes_on_as_if_it_had_not(study, tmp_path, monkeypatch):
    """SIGTERM at the end of the first training, then within the second; the folder moves in between: the same files."""
    programs, calls = {}, []
    program = run.Study.program

    def remember(self, config):
        if config not in programs:
            programs[config] = program(self, config)
        loop, advance = programs[config]

        def counted(loop, steps):
            calls.append(steps)
            if len(calls) in (3, 5):
                signal.raise_signal(signal.SIGTERM)
            return advance(loop, steps)

        return jax.tree.map(jnp.copy, loop), counted

    monkeypatch.setattr(run.Study, "program", remember)
    monkeypatch.setattr(keeping, "SHARE", np.inf)
    monkeypatch.setattr(report, "draw", lambda *_: None)
    out, moved = tmp_path / "out", tmp_path / "moved"
    with small():
        options = ["--algorithm", *RUN, "--steps", "3", "--seeds", "2", "--seed", "5"]
        assert run.main([*options, "--out", str(out)]) == 128 + signal.SIGTERM
        out.rename(moved)
        assert run.main([*options, "--out", str(moved), "--resume"]) == 128 + signal.SIGTERM
        assert run.main([*options, "--out", str(moved), "--resume"]) == 0
    assert len(calls) == 6, "no step is made twice"
    assert (moved / "metrics.csv").read_bytes() == (study / "metrics.csv").read_bytes()
    assert results_of(moved) == results_of(study) and not (moved / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--algorithm", "gausian_sac"], "did you mean 'gaussian_sac'"),
        (["--algorithm", "gaussian_sac", "gaussian_sac"], "name each once"),
        (["--algorithm"], "--algorithm: got []"),
        (["--alpha", "0"], "--alpha: got 0.0"),
        (["--alpha", "0.01"], "at least about"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--steps", "0"], "--steps: got 0"),
        (["--steps", "999999999"], "--steps: got 999999999"),
        (["--seed", "-1"], "--seed: got -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(capsys, tmp_path, arguments, words):
    """An option that cannot be: exit code 2, its name in the message, nothing written."""
    with small():
        try:
            code = run.main([*arguments, "--out", str(tmp_path / "out")])
        except SystemExit as stop:
            code = stop.code
    captured = capsys.readouterr()
    assert code == 2 and "Traceback" not in captured.err + captured.out
    assert words in " ".join((captured.err + captured.out).split())
    assert not (tmp_path / "out").exists()
