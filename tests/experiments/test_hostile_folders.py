"""A small size of the changed run folders: no traceback, no hang, no wrong answer; and what counts as one is seen."""

import pytest

from experiments.hostile import run_folders
from experiments.hostile.run_folders import Case, attempts, cases, table

EVERY = 43


def spoil(folder, place):
    """Write to what is not the run's."""
    (place / "outside" / "victim").write_text("theirs")


def test_changed_run_folders():
    """Every nth case, read by all; beside them an answer that differs, and one that was hindered."""
    harmless = Case("none", "more steps", run_folders.put("config.json", "steps", value=41), ("load",))
    wrong = Case("none", "no checkpoint", run_folders.drop("config.json", "format"), ("compare",))
    rows = attempts([*cases()[::EVERY], harmless, wrong])
    found = {(row["change"], row["reader"]): row["failure"] for row in rows if row["failure"]}
    assert found == {("more steps", "resume"): "silent", ("no checkpoint", "compare"): "refused"}
    lines = table(rows).splitlines()
    assert lines[-1].split(" | ")[1:] == [str(len(rows) // 5), str(len(rows)), "0", "0", "1", "0", "1", "0 |"]


@pytest.mark.parametrize("kind", ["traceback", "hangs", "writes elsewhere", "not one sentence"])
def test_every_failure_is_seen(kind, tmp_path, monkeypatch):
    """A reader that fails in one of the ways is found out."""
    for name in ("run", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "victim").write_text("mine")

    def ask(reader, folder, place):
        if kind == "traceback":
            raise KeyError("numbers")
        if kind == "hangs":
            raise run_folders.Hang
        if kind == "writes elsewhere":
            spoil(folder, place)
        return (1 if kind == "not one sentence" else 0), None

    monkeypatch.setattr(run_folders, "ask", ask)
    case = Case("none", "nothing", lambda folder, place: None)
    assert run_folders.attempt(case, "load", tmp_path, {"load": None})[0] == kind
