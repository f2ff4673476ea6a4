"""The deviations from Algorithm 2: what is changed, and what was found."""

import csv
import dataclasses

import pytest

from entroflow.commands.lqr import plan
from experiments.deviations import changed, run

with (run.HERE / "results.csv").open(newline="") as file:
    ROWS = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]


def test_no_change_is_the_default_and_all_are_the_paper_s():
    """Of the settings, and of the noise with which the boldest environment acts."""
    default, paper = plan.settings(100), plan.settings(100, preset="paper")
    for name, settings, preset in (("default", default, "default"), ("paper", paper, "paper")):
        change = changed.CHANGES[name]
        assert changed.changed(change, default) == settings
        assert change.exploration == plan.EXPLORATION[preset]


@pytest.mark.parametrize("start", ["default", "paper"])
def test_the_others_differ_from_either_in_one_thing(start):
    """Three leave one deviation out, three leave one in."""
    parts = dataclasses.asdict(changed.CHANGES[start])
    different = [
        sum(parts[key] != value for key, value in dataclasses.asdict(change).items())
        for change in changed.CHANGES.values()
    ]
    assert sorted(different) == [0, 1, 1, 1, 2, 2, 2, 3]


def test_the_committed_table_is_that_of_the_committed_rows():
    """To the letter."""
    assert run.table(ROWS) == (run.HERE / "table.md").read_text()
