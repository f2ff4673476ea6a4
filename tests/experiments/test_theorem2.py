"""`entroflow theorem2`: what it writes, what it refuses, and how it stops."""

import copy
import csv
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from entroflow.studies.theorem2 import fits as theorem2_fits
from entroflow.studies.theorem2 import report as theorem2_report
from entroflow.studies.theorem2 import study as theorem2_study
from entroflow.studies.theorem2 import weights as theorem2_weights
from entroflow.studies.theorem2.figure import draw, theorem2_figure
from matplotlib.image import imread
from rich.console import Console

import entroflow
from entroflow import cli

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
COMMAND = ["theorem2", "--seeds", "2", "--seed", "3", "--steps", "4"]
CELLS = 2 * 3 + 4 + 6  # two sweeps of N with their floors, four divergences, six proposals


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One tiny study made by the command."""
    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(theorem2_study, name, value)
        for name, value in {"WIDTH": 4, "STATES": 2, "BATCH": 8}.items():
            patch.setattr(theorem2_fits, name, value)
        patch.setattr(theorem2_weights, "PAIRS", 4)
        assert cli.main([*COMMAND, "--out", str(out)]) == 0
    return SimpleNamespace(out=out, results=json.loads((out / "results.json").read_text()))


def test_the_figure_is_there(study):
    """Six panels as PNG and PDF, not blank."""
    assert imread(study.out / "theorem2.png")[..., :3].std() > 0.01
    assert (study.out / "theorem2.pdf").read_bytes().startswith(b"%PDF-")


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
    rows = {row["proposal"]: row for row in theorem2_report.proposal_rows(study.results)}
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
    given = {"seeds": 2, "seed": 3, "steps": 4, "out": str(study.out), "width": 4, "candidates": 16}
    assert given.items() <= study.results["settings"].items()
    assert study.results["versions"]["entroflow"] == entroflow.__version__
    assert 0 < study.results["seconds"]["fits"] <= study.results["seconds"]["total"]


def test_cells_are_on_disk_as_rows(study):
    """cells.csv has one row per cell and seed, with the values of results.json."""
    with (study.out / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
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
    for table in theorem2_report.tables(document):
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
    theorem2_figure(document)
    assert (
        theorem2_report.summarise(
            [cell | {"renyi_4": math.inf} if cell["renyi_4"] is None else cell for cell in document["cells"]],
            document["weights"],
            document["fitted"],
        )["slopes"][0]["verdict"]
        == "too few points"
    )
    assert not recwarn.list


def test_ctrl_c_leaves_the_finished_cells(tmp_path, monkeypatch, capsys):
    """After Ctrl-C the exit code is 130 and the output says where the finished cells are; no traceback."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(theorem2_study._Study, "_cell", interrupt)
    out = tmp_path / "[/]out"  # a name that a terminal's markup would stumble over
    assert cli.main([*COMMAND, "--out", str(out)]) == 130
    said = capsys.readouterr()
    assert str(out) in said.out and "Traceback" not in said.out + said.err


def test_a_fault_of_the_program_is_not_bad_input(tmp_path, monkeypatch):
    """A ValueError from inside of the study is no exit code 2 with a sentence: it shows where it came from."""

    def fail(*_):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(theorem2_study._Study, "_cell", fail)
    with pytest.raises(RuntimeError):
        cli.main([*COMMAND, "--out", str(tmp_path / "out")])


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
    monkeypatch.setattr(theorem2_study, "_Study", None)  # the study must not begin
    try:
        code = cli.main(["theorem2", *arguments, "--out", str(tmp_path / "out")])
    except SystemExit as stop:  # tyro's own messages
        code = stop.code
    captured = capsys.readouterr()
    said = " ".join((captured.err + captured.out).split())
    assert code == 2 and words in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_an_output_folder_in_use_is_refused(capsys, tmp_path, monkeypatch):
    """Nothing is ever overwritten."""
    monkeypatch.setattr(theorem2_study, "_Study", None)
    (tmp_path / "mine").write_text("precious")
    assert cli.main(["theorem2", "--out", str(tmp_path)]) == 2
    assert "already holds another run" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"
