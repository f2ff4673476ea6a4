"""Theorem 2, a tiny size of it: what it writes, what it refuses, how it stops and goes on."""

import contextlib
import copy
import io
import json
import math
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

import entroflow
from entroflow.storage import keeping
from experiments import frame
from experiments.theorem2 import fits, report, run, weights
from experiments.theorem2.figure import bound_figure, draw, weights_figure

SMALL = {
    "SIZES": (16, 64),
    "CANDIDATES": 16,
    "DIVERGENCES": (1.0,),
    "NARROWED": (0.5,),
    "CAPACITY": 64,
    "SET_SIZES": (8, 16),
    "REPEATS": 200,
    "POINTS": {1: 64, 2: 32},
}
COMMAND = ["--seeds", "2", "--seed", "3", "--steps", "4"]
CELLS = 2 * 3 + 4 + 6  # two sweeps of N with their floors, four divergences, six proposals


@contextlib.contextmanager
def small():
    """Everything about the study is small."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(run, name, value)
        for name, value in {"WIDTH": 4, "STATES": 2, "BATCH": 8}.items():
            patch.setattr(fits, name, value)
        patch.setattr(weights, "PAIRS", 4)
        yield patch


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One tiny study, made by a process that was stopped among the proposals and by another one that went on."""
    out = tmp_path_factory.mktemp("study") / "out"
    with small() as patch:
        patch.setattr(keeping, "SHARE", math.inf)
        studies, made = [], run.Study.__init__

        def init(self, *arguments):
            made(self, *arguments)
            studies.append(self)
            if len(studies) == 2:  # without compiling again
                for name in ("learn", "learn_afresh", "push", "draw"):
                    setattr(self, name, getattr(studies[0], name))

        def stop(self, *arguments):
            if len(studies) == 1:
                signal.raise_signal(signal.SIGTERM)
            return exact_samples(self, *arguments)

        exact_samples = run.Study._exact_samples
        patch.setattr(run.Study, "__init__", init)
        patch.setattr(run.Study, "_exact_samples", stop)
        assert run.main([*COMMAND, "--out", str(out)]) == 128 + signal.SIGTERM
        assert len(rows_of(out)) == 2 * (CELLS - 5)
        assert run.main([*COMMAND, "--out", str(out), "--resume"]) == 0
    return SimpleNamespace(out=out, results=json.loads((out / "results.json").read_text()), studies=studies)


def rows_of(out):
    return frame.read_rows(out / "cells.csv")


def test_going_on_changes_no_number(study):
    """The process that went on fitted policies anew: their cells are those that the first process would have made."""
    first, second = study.studies
    with small():
        drawn, log_weights, _ = first._draw_policies(first.floor(2), 1.5)
        expected = first._w2_squared(first._learn(drawn, log_weights), run.TARGETS[2])
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first.floor(2), second.floor(2)))
    (cell,) = (cell for cell in study.results["cells"] if cell["proposal"] == "policy, noise × 1.5")
    assert cell["w2_squared"] == expected


def test_the_figure_is_there(study):
    """Two of three panels each, as PNG and PDF, not blank."""
    for name in ("theorem2", "weights"):
        assert imread(study.out / f"{name}.png")[..., :3].std() > 0.01
        assert (study.out / f"{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_results_name_every_cell(study):
    """results.json has every cell with a value per seed, its divergences and, on the line, the sets' own distance."""
    cells = study.results["cells"]
    assert len(cells) == CELLS
    for cell in cells:
        assert len(cell["w2_squared"]) == 2 and all(value > 0 for value in cell["w2_squared"])
        assert 1 / cell["candidates"] <= cell["ess"] <= 1
        assert (cell["set_w2_squared"] is not None) == (cell["dimension"] == 1)
    divergences = [cell["renyi_4"] for cell in cells if cell["study"] == "divergence"]
    assert divergences == [pytest.approx(0, abs=1e-9), pytest.approx(1), pytest.approx(1), None]
    floors = [cell for cell in cells if cell["study"] == "floor"]
    assert [(cell["dimension"], cell["ess"]) for cell in floors] == [(1, 1.0), (2, 1.0)]
    assert floors[0]["set_w2_squared"][0] < 0.1 * cells[1]["set_w2_squared"][0]


def test_proposals_are_compared_at_equal_n(study):
    """Policies, the Gaussian and boxes: one N, and the wider box is further away and has fewer effective samples."""
    rows = {row["proposal"]: row for row in report.proposal_rows(study.results)}
    assert len(rows) == 7 and {row["candidates"] for row in rows.values()} == {16}
    assert rows["uniform, ±10"]["renyi_4"] > rows["uniform, ±4"]["renyi_4"] > rows["Gaussian"]["renyi_4"] > 0
    assert rows["exact samples"]["ess"] == pytest.approx(1)


def test_slopes_come_with_intervals_and_verdicts(study):
    """Every trend has a slope inside of its interval and what the bound says, or too few points."""
    slopes = {row["name"]: row for row in study.results["slopes"]}
    assert {"N, d = 1", "N, d = 2", "N, the sets alone", "D₄, shifted", "D₄, widened"} <= set(slopes)
    for row in slopes.values():
        if row["slope"] is None:
            assert row["verdict"] == "too few points"
        else:
            assert row["low"] <= row["slope"] <= row["high"]
            assert row["predicted"] == (-0.5 if row["axis"] == "candidates" else 0.75)


def test_normalisations_are_measured_and_fitted(study):
    """Three normalisations at every set size, and fitted with every seed."""
    assert [(row["normalisation"], row["candidates"]) for row in study.results["weights"]] == [
        (name, n) for name in ("self", "state", "raw") for n in SMALL["SET_SIZES"]
    ]
    assert all(len(fit[key]) == 2 for fit in study.results["fitted"].values() for key in ("mean", "variance"))


def test_results_say_how_they_came_about(study):
    """results.json tells all settings, the versions and where the time went."""
    given = {"seeds": 2, "seed": 3, "steps": 4, "width": 4, "candidates": 16}
    assert given.items() <= study.results["settings"].items()
    assert study.results["versions"]["entroflow"] == entroflow.__version__
    assert 0 < study.results["seconds"]["fits"] <= study.results["seconds"]["total"]


def test_cells_are_on_disk_as_rows(study):
    """cells.csv has one row per cell and seed, with the values of results.json."""
    rows = rows_of(study.out)
    assert [row["seed"] for row in rows] == ["3", "4"] * CELLS
    values = [value for cell in study.results["cells"] for value in cell["w2_squared"]]
    assert [float(row["w2_squared"]) for row in rows] == values


def test_the_tables_fit_80_columns(study):
    """The closing tables show every number in full in a narrow terminal, even where a normalisation is far off."""
    document = copy.deepcopy(study.results)
    for row in document["slopes"]:
        row |= {"slope": -12.34, "low": -12.45, "high": -10.0}
    for row in document["weights"]:
        row |= {"gradient_bias": 1e5, "gradient_sd": 1e6}
    for fit in document["fitted"].values():
        fit["mean"], fit["variance"] = [0.012, 2.3], [3.0, 0.01]
    console = Console(width=80, record=True, file=io.StringIO())
    for table in report.tables(document):
        console.print(table)
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert "-12.45 to -10.00" in text and "1e+07" in text and "policy, noise × 1.5" in text


def test_the_figure_can_be_drawn_again_from_results(study, tmp_path, recwarn):
    """results.json is enough for the figure, with null for infinity, and so is a seed that broke down."""
    draw(tmp_path, study.results)
    assert np.array_equal(imread(tmp_path / "theorem2.png"), imread(study.out / "theorem2.png"))
    document = copy.deepcopy(study.results)
    broken = next(cell for cell in document["cells"] if cell["study"] == "samples")
    broken["w2_squared"][0] = None
    bound_figure(document)
    weights_figure(document)
    assert (
        report.summarise(
            [cell | {"renyi_4": math.inf} if cell["renyi_4"] is None else cell for cell in document["cells"]],
            document["weights"],
            document["fitted"],
        )["slopes"][0]["verdict"]
        == "too few points"
    )
    assert not recwarn.list


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], "--seeds: got 0"),
        (["--seeds", "1"], "--seeds: got 1, expected at least 2"),
        (["--seeds", "1.5"], "--seeds"),
        (["--steps", "0"], "--steps: got 0"),
        (["--steps", "many"], "--steps"),
        (["--steps", "3000000000"], "--steps: got 3000000000, expected at most"),
        (["--seed", "-1"], "--seed: got -1"),
        (["--seed", "4294967295", "--seeds", "2"], "--seed: got 4294967295"),
        (["--stepss", "3"], "--steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(capsys, tmp_path, monkeypatch, arguments, words):
    """An option that cannot be: exit code 2, its name in the message, nothing written."""
    monkeypatch.setattr(run, "Study", None)  # the study must not begin
    try:
        code = run.main([*arguments, "--out", str(tmp_path / "out")])
    except SystemExit as stop:  # tyro's own messages
        code = stop.code
    captured = capsys.readouterr()
    said = " ".join((captured.err + captured.out).split())
    assert code == 2 and words in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
