"""Records of a run: whatever numbers are written come back, and any truncation leaves a prefix of the rows."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entroflow.storage import records
from entroflow.storage import trackers as sinks

whole = st.integers(0, 2**40)
values = st.none() | st.floats() | st.floats(width=32).map(np.float32)
names = st.lists(st.from_regex(r"[a-z][a-z_/.]{0,8}", fullmatch=True), max_size=3, unique=True)


@st.composite
def rows(draw):
    """Rows of one table."""
    learners = [name for name in draw(names) if name not in records.METRICS]
    return [
        {"seed": draw(whole), "step": draw(whole), "seconds": draw(st.floats(0, 1e9)), "episodes": draw(whole)}
        | {name: draw(values) for name in ("return", "length", *learners)}
        for _ in range(draw(st.integers(1, 4)))
    ]


@pytest.fixture(scope="module", autouse=True)
def bare():
    """As if TensorBoard were not installed: it is no part of this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinks, "find_spec", lambda name: None)
        patch.setattr(records, "versions", dict)
        yield


def write(folder, rows):
    seeds = sorted({row["seed"] for row in rows} | {0})
    with records.create(folder, algorithm="a", env="b", seeds=seeds, steps=1, settings={}) as writer:
        for row in rows:
            writer.metrics([row])


def agrees(columns, rows):
    """Whether columns hold rows; None and NaN are the same."""
    for name, column in columns.items():
        given = [np.nan if row.get(name) is None else row[name] for row in rows]
        shortest = [float(str(value)) if isinstance(value, np.float32) else value for value in given]
        np.testing.assert_array_equal(column, shortest)


@given(rows())
def test_round_trip(rows):
    """Every number comes back, a float32 as the shortest decimal that stands for it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows)
        found = records.read(folder).metrics
        assert set(found) == set(rows[0])
        agrees(found, rows)


@given(rows(), st.data())
def test_truncated_anywhere(rows, data):
    """A file cut at any byte gives the rows that are complete, and resuming goes on after them."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows)
        path = Path(folder) / "metrics.csv"
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        complete = max(path.read_bytes().count(b"\n") - 1, 0)
        agrees(records.read(folder).metrics, rows[:complete])
        with records.resume(Path(folder), 2**41) as writer:
            writer.metrics(rows[:1])
        agrees(records.read(folder).metrics, [*rows[:complete], rows[0]])


@given(rows(), whole)
def test_resuming_keeps_what_was_before(rows, step):
    """Exactly the rows up to the step are left, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows)
        records.resume(Path(folder), step).close()
        agrees(records.read(folder).metrics, [row for row in rows if row["step"] <= step])


@given(st.binary(max_size=60))
def test_no_file_breaks_reading(content):
    """Any bytes are a table or a ValueError of one sentence."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), [])
        (Path(folder) / "evaluations.csv").write_bytes(content)
        try:
            records.read(folder)
        except ValueError as problem:
            assert "evaluations.csv" in str(problem) and "\n" not in str(problem)
