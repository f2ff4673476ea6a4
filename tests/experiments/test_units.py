"""Learning in other units: what is drawn, and what was found."""

import csv

import numpy as np
import pytest

from entroflow.lqr import systems
from experiments.units import run

with (run.HERE / "results.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))


@pytest.mark.parametrize("name", run.SYSTEMS)
def test_a_draw_is_the_same_system(name):
    """Every state, action and the reward in a unit of its own, and the optimum that of the system."""
    lqr, units = run.drawn(name, 0)
    sizes = np.array([*units.state, *units.action, units.reward])
    assert len(set(sizes)) == len(sizes) and sizes.min() >= 1e-4 and sizes.max() <= 1e4
    own, there = systems.get(name).optimal(run.ALPHA), lqr.optimal(run.ALPHA / units.reward)
    np.testing.assert_allclose(there.K * units.action[:, None] / units.state, own.K, rtol=1e-9, atol=1e-12)
    assert there.standard_return * units.reward == pytest.approx(own.standard_return, rel=1e-9)


def test_the_committed_errors_are_as_small_as_they_are_to_be():
    """In the units of the draw, and in those of the system's author."""
    assert {row["system"] for row in ROWS} == set(run.SYSTEMS)
    for row in ROWS:
        for part, most in run.ERRORS.items():
            assert float(row[f"{part}_error"]) <= most and float(row[f"own_{part}_error"]) <= most


def test_the_committed_table_is_that_of_the_committed_rows():
    """To the letter."""
    assert run.table(ROWS) == (run.HERE / "table.md").read_text()
