"""Committed tables are what the code of today makes of the committed data."""

import json
from pathlib import Path

import pytest

import experiments
from experiments import frame, summary
from experiments.ablations import run as ablations
from experiments.adaptive import table as adaptive
from experiments.best_of import run as best_of
from experiments.changes import report as changes
from experiments.densities import table as densities
from experiments.examples import run as examples
from experiments.frozen import run as frozen
from experiments.lqr.table import table as table_of_lqr
from experiments.mjx import run as mjx
from experiments.mujoco import average, long, wide
from experiments.mujoco import table as mujoco
from experiments.multigoal import table as multigoal
from experiments.pendulum import table as pendulum
from experiments.proposals import table as proposals
from experiments.resume import table as resume
from experiments.robustness import run as robustness
from experiments.solvers import run as solvers
from experiments.spi import table as spi
from experiments.sweep import expect as sweep
from experiments.sweep import table as sweep_table
from experiments.theorem2 import table as theorem2
from experiments.variance import run as variance

ROOT = Path(experiments.__file__).parent


def rows(path):
    return frame.read_rows(ROOT / path)


def document(path):
    return json.loads((ROOT / path).read_text())


def variance_table():
    """Both tables of the levers."""
    found = document("variance/results.json")
    return variance.table(variance.compare(found["gradients"]), found["fits"], found["milliseconds"])


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("ablations/table.md", lambda: ablations.table(rows("ablations/results.csv"))),
        ("adaptive/table.md", lambda: adaptive.tables()["table.md"]),
        ("adaptive/fresh.md", lambda: adaptive.tables()["fresh.md"]),
        ("adaptive/lqr.md", lambda: adaptive.tables()["lqr.md"]),
        ("best_of/table.md", lambda: best_of.table(rows("best_of/results.csv"))),
        ("robustness/table.md", lambda: robustness.table(rows("robustness/results.csv"))),
        ("robustness/preset/table.md", lambda: robustness.table(rows("robustness/preset/results.csv"))),
        ("changes/screen.md", lambda: changes.screened(rows("changes/screen.csv"))),
        ("changes/table.md", lambda: changes.table(rows("changes/results.csv"))),
        ("examples/table.md", lambda: examples.table(document("examples/results.json")["examples"])),
        ("frozen/table.md", lambda: frozen.tables(document("frozen/results.json"))),
        ("mjx/table.md", lambda: mjx.table(rows("mjx/results.csv"))),
        ("variance/table.md", variance_table),
        ("sweep/expect.md", sweep.table),
        ("solvers/table.md", lambda: solvers.table(document("solvers/results.json")["solvers"])),
        ("solvers/preset/table.md", lambda: solvers.table(document("solvers/preset/results.json")["solvers"])),
        ("solvers/trained/table.md", lambda: solvers.table(document("solvers/trained/results.json")["solvers"])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables(path, make):
    """To the letter."""
    assert make() == (ROOT / path).read_text()


def test_the_readme_has_the_summary():
    """Both tables of the README."""
    read = (ROOT.parent / "README.md").read_text()
    assert summary.table() in read and summary.of_crossq() in read


def test_the_results_have_the_table_of_lqr():
    """Both tables, of the defaults and of the paper's preset."""
    assert table_of_lqr() in (ROOT.parent / "docs/results.md").read_text()
    assert table_of_lqr(ROOT / "lqr/paper") in (ROOT / "lqr/README.md").read_text()


@pytest.mark.parametrize("system", ["coupled", "double_integrator"])
def test_lqr_reaches_its_goals(system):
    """Every run of the committed study is within 2 % of the mean, 1.5 % of the covariance and 1 % of the return."""
    runs = document(f"lqr/{system}/results.json")["runs"]
    assert len(runs) == 12
    for run in runs:
        assert run["mean_error_relative"] <= 0.02 and run["covariance_error_relative"] <= 0.015
        assert abs(run["standard_return"] / run["optimal_standard_return"] - 1) <= 0.01


def test_the_pages_of_mujoco_have_the_long_runs():
    """As they are committed."""
    assert long.preset() in (ROOT / "mujoco/README.md").read_text()
    assert long.table() in (ROOT / "mujoco/history.md").read_text()
    assert long.table(ROOT / "mujoco/1M", long.MILLION) in (ROOT / "mujoco/README.md").read_text()
    for name in ("average", "longer_average"):
        assert average.table(rows(f"mujoco/{name}.csv")) in (ROOT / "mujoco/history.md").read_text()


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("mujoco/README.md", mujoco.table),
        ("../docs/results.md", summary.of_defaults),
        ("../docs/results.md", summary.of_crossq),
        ("../docs/results.md", lambda: summary.of_crossq(late=True)),
        ("mujoco/history.md", mujoco.learned),
        ("mujoco/history.md", wide.table),
        ("pendulum/README.md", pendulum.table),
        ("multigoal/README.md", multigoal.table),
        ("../docs/results.md", multigoal.table),
        ("densities/README.md", densities.table),
        ("proposals/README.md", proposals.missed),
        ("proposals/README.md", proposals.recovered),
        ("proposals/README.md", proposals.costs),
        ("theorem2/README.md", theorem2.table),
        ("spi/README.md", spi.table),
        ("resume/README.md", resume.table),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_pages_have_the_tables_of_the_data(path, make):
    """To the letter, between other text."""
    assert f"\n\n{make()}\n" in (ROOT / path).read_text()


@pytest.mark.parametrize("name", ["mjx", "frozen"])
def test_the_readme_has_its_table(name):
    """As it is committed."""
    assert (ROOT / name / "table.md").read_text() in (ROOT / name / "README.md").read_text()


def test_the_examples_readme_has_what_they_print():
    """No number there is typed."""
    assert (ROOT / "examples/table.md").read_text() in (ROOT.parent / "examples/README.md").read_text()


def test_the_readme_of_sweep_has_its_tables():
    """And no trial was lost, and none was different."""
    killed, text = rows("sweep/kills.csv"), (ROOT / "sweep/README.md").read_text()
    assert sweep_table.kills(killed) in text and sweep_table.times(rows("sweep/times.csv")) in text
    assert {(row["exit_code"], row["lost"], row["mismatches"]) for row in killed} == {("0", "0", "0")}


def test_the_page_of_studies_has_the_table_of_what_to_expect():
    """It is written once, and read where it is needed."""
    assert sweep.table() in (ROOT.parent / "docs/sweep.md").read_text()
