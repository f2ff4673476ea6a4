"""A small size of experiments/hostile/command_lines.py: some of the listed command lines, and some drawn ones."""

import contextlib
from pathlib import Path

import pytest

from experiments.hostile.command_lines import (
    BEFORE,
    Case,
    all_cases,
    attempt,
    drawn,
    ending_where_training_begins,
    furnish,
    judged,
    listed,
    read_rows,
    table,
)

COMMITTED = Path(__file__).parents[2] / "experiments/hostile/command_lines.csv"


@pytest.fixture(scope="module", autouse=True)
def furnished(tmp_path_factory):
    """A folder with runs and agents, in which the command lines run."""
    folder = tmp_path_factory.mktemp("hostile")
    with contextlib.chdir(folder):
        furnish(folder)
        with ending_where_training_begins():
            yield


def few():
    """About sixty cases of all kinds; those that draw figures or export are in the large size."""
    cases = [
        case for case in listed() if case.argv[:2] not in (["compare", "run"], ["export", "agent"], ["eval", "agent"])
    ]
    return [*cases[::8], *drawn(20, seed=1)]


@pytest.mark.parametrize("case", few(), ids=lambda case: f"{case.kind}-{' '.join(case.argv)[:40]!a}")
def test_a_command_line_is_answered(case):
    """With the exit code that is right, in a sentence, in time."""
    assert attempt(case).failure == ""


CASE = Case("files", ["eval"], (2,))


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ((2, "", "entroflow: x: got y.\n", "", 1.0), ""),
        ((2, "", "╭─ Value error\n│ For full helptext, see\n", "", 1.0), ""),
        ((0, "", "", "", 1.0), "exit code 0 for 2"),
        ((2, "", "", "", 1.0), "not one sentence"),
        ((2, "", "entroflow: x\nentroflow: y\n", "", 1.0), "not one sentence"),
        ((2, "", "warning\nentroflow: y\n", "", 1.0), "not one sentence"),
        ((2, "", "entroflow: see entroflow.settings\n", "", 1.0), "speaks of 'entroflow.settings'"),
        ((2, "", "entroflow: command.env\n", "", 1.0), "speaks of 'command.env'"),
        ((None, "", "", "Traceback (most", 1.0), "traceback"),
        ((2, "", "entroflow: x\n", "", 20.0), "20 seconds"),
    ],
)
def test_the_judge_sees_every_fault(answer, failure):
    """Each of the ways to fail has its name."""
    code, printed, said, raised, seconds = answer
    assert judged(CASE, code, printed, said, raised, seconds) == failure


def test_the_committed_table_is_of_these_cases():
    """Nine hundred cases, none of them failed, the listed ones as they are listed; the document shows them."""
    rows, cases = read_rows(COMMITTED), all_cases(900)
    assert len(rows) == 900 and not any(row["failure"] for row in rows)
    assert [(row["kind"], row["encoding"]) for row in rows] == [(case.kind, case.encoding) for case in cases]
    assert table(rows, read_rows(BEFORE)) in COMMITTED.with_suffix(".md").read_text()
