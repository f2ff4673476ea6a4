"""System files of every kind are read, or refused in one sentence, with the right verdict."""

from experiments import frame
from experiments.hostile import system_files


def test_a_file_of_every_kind(tmp_path):
    """No traceback, nothing slow, the right word."""
    rows = [system_files.judge(case, tmp_path / "system.json") for case in system_files.cases(each=1)]
    assert len(rows) == len(system_files.KINDS) == 30
    assert [row for row in rows if row["fault"]] == []


def test_a_wrong_word_is_a_fault(tmp_path):
    """A system accepted where it is to be refused, and the other way round."""
    fine, *_ = system_files.cases(each=1)
    for verdict in ("accepted", "not stabilisable"):
        row = system_files.judge(fine._replace(verdict=verdict), tmp_path / "system.json")
        assert (row["said"], row["fault"]) == ("accepted", "" if verdict == "accepted" else "verdict")
    bad = fine._replace(content=b"{", verdict="accepted")
    assert system_files.judge(bad, tmp_path / "system.json")["fault"] == "verdict"


def test_the_committed_table_is_that_of_the_committed_rows():
    """300 files, no faults."""
    rows = frame.read_rows(system_files.HERE / "system_files.csv")
    assert len(rows) == 300
    assert system_files.table(rows) in (system_files.HERE / "system_files.md").read_text()
    assert not any(row["fault"] for row in rows)
