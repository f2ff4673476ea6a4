"""What is recorded of an example: its last words, to the letter, and its processor time."""

import json
from pathlib import Path

import pytest

from experiments.examples import run as examples

EXAMPLE = """
import os, sys, time
print("   100 steps: reward -1.0")
while time.process_time() < 0.5: pass
print("gain error 1.0%", sys.argv[1:])
print("steps", os.environ["OMP_NUM_THREADS"])
sys.exit(sys.argv[1] == "bad")
"""


@pytest.fixture
def out(tmp_path, monkeypatch):
    """The folder of a run of two commands on an example that says all an example may say."""
    (tmp_path / "one.py").write_text(EXAMPLE)
    monkeypatch.setattr(examples, "EXAMPLES", tmp_path)
    monkeypatch.setattr(examples, "COMMANDS", [("one.py", "good"), ("one.py", "--seed", "1")])
    return tmp_path / "out"


def test_words_and_time_are_recorded(out):
    """Progress is left out; seconds are those of the one process, not of all so far."""
    assert examples.main(["--out", str(out)]) == 0
    first, second = json.loads((out / "results.json").read_text())["examples"]
    assert first["command"] == "python examples/one.py good"
    assert first["printed"] == ["gain error 1.0% ['good']", "steps 1"]
    assert second["printed"] == ["gain error 1.0% ['--seed', '1']", "steps 1"]
    assert all(0.5 <= row["processor_seconds"] < 1 for row in (first, second))
    line = "| `python examples/one.py good` | gain error 1.0% ['good']<br>steps 1 | "
    assert line in (out / "table.md").read_text()


def test_an_example_that_fails_is_told(out, monkeypatch, capsys):
    """With its exit code; nothing is recorded of it."""
    monkeypatch.setattr(examples, "COMMANDS", [("one.py", "bad")])
    assert examples.main(["--out", str(out)]) == 1
    assert "python examples/one.py bad ended with exit code 1" in " ".join(capsys.readouterr().out.split())
    assert not (out / "table.md").exists()


def test_every_example_is_run():
    """The commands leave no file of the folder out, and no name is misspelt."""
    assert {name for name, *_ in examples.COMMANDS} == {path.name for path in Path(examples.EXAMPLES).glob("*.py")}
