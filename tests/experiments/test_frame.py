"""What every experiment shares: cells that are kept, going on with them, what is refused, how it ends."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.storage import keeping
from experiments import frame

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options(frame.Options):
    """Halve a number."""

    start: float = 1.0
    """Where to start."""
    cells: int = 4
    """Number of cells."""


class Halving:
    """An experiment of cells, each of which halves a JAX array and records it; `at` acts before a cell."""

    def __init__(self, at=()):
        self.at, self.made = dict(at), []

    def plan(self, options):
        if options.cells < 1:
            raise ValueError("--cells: got 0, expected 1; pass 1.")
        return lambda job: self.work(options, job)

    def work(self, options, job):
        state, rows, job.cells = jnp.float32([options.start]), [], options.cells
        if job.found:
            state = job.restored("state", state)
        for i in range(options.cells):
            if f"cell {i}" not in job.found:
                state = state / 2
                job.trees["state"] = state
            rows.append(job.cell(f"cell {i}", lambda i=i, state=state: self.cell(i, state)))
            job.rows("rows.csv", rows)
        return {"settings": {"more": 1}, "rows": rows}, [frame.new_table("halves", "all of them", ["cell", "value"])]

    def cell(self, i, state):
        self.made.append(i)
        self.at.get(i, lambda: None)()
        return {"cell": np.int64(i), "value": np.float32(state[0]), "infinite": math.inf}

    def main(self, *argv):
        return frame.command("halving", self.plan, Options)(list(argv))


@pytest.fixture(autouse=True)
def every_cell(monkeypatch):
    """Cells are kept however fast they are."""
    monkeypatch.setattr(keeping, "SHARE", math.inf)


def results_of(out):
    return {name: part for name, part in json.loads((out / "results.json").read_text()).items() if name != "seconds"}


@pytest.fixture
def whole(tmp_path):
    """A run that nothing happened to."""
    assert Halving().main("--out", str(tmp_path / "whole")) == 0
    return tmp_path / "whole"


def test_a_run_leaves_its_results(whole):
    """Results with settings and versions, rows as a table, no checkpoint, no half-written file."""
    assert set(os.listdir(whole)) == {".lock", "config.json", "results.json", "rows.csv"}
    results = results_of(whole)
    assert results["settings"] == {"start": 1.0, "cells": 4, "more": 1} and "jax" in results["versions"]
    assert [row["value"] for row in results["rows"]] == [0.5, 0.25, 0.125, 0.0625]
    assert (whole / "rows.csv").read_text().splitlines()[:2] == ["cell,value,infinite", "0,0.5,inf"]


def test_the_end_is_said(tmp_path, capsys):
    """Tables, the time, the folder."""
    assert Halving().main("--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "halves" in said and f"results are in {tmp_path}" in said.replace("\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("cell", [0, 2])
def test_a_stopped_run_goes_on_as_if_it_had_not(whole, tmp_path, capsys, number, cell):
    """The cell that was begun is finished; the same command with --resume makes the others; the files are the same."""
    stopped, out = Halving([(cell, lambda: signal.raise_signal(number))]), tmp_path / "out"
    assert stopped.main("--out", str(out)) == 128 + number
    assert stopped.made == list(range(cell + 1)) and not (out / "results.json").exists()
    again = re.search(r"to go on: python -m experiments.halving.run (.*)", capsys.readouterr().out)
    assert again is not None and again[1].split() == ["--out", str(out), "--resume"]
    resumed = Halving()
    assert resumed.main(*again[1].split()) == 0
    assert resumed.made == list(range(cell + 1, 4))
    assert results_of(out) == results_of(whole)
    assert (out / "rows.csv").read_bytes() == (whole / "rows.csv").read_bytes()
    assert not (out / "checkpoints").exists()


def test_a_run_that_is_stopped_when_all_is_done_is_done(whole, tmp_path):
    """After the last cell there is nothing to stop."""
    assert Halving([(3, lambda: signal.raise_signal(signal.SIGTERM))]).main("--out", str(tmp_path / "out")) == 0
    assert results_of(tmp_path / "out") == results_of(whole)


KILLED = """
import math, os, signal, sys
from entroflow.storage import keeping
from experiments import frame
from test_frame import Halving

keeping.SHARE = math.inf
Halving([(2, lambda: os.kill(os.getpid(), signal.SIGKILL))]).main(*sys.argv[1:])
"""


def test_a_killed_run_goes_on_from_what_was_kept(whole, tmp_path):
    """SIGKILL in the third cell, in a process of its own: two cells are kept, two are made."""
    out = tmp_path / "out"
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT), *sys.path])
    command = [sys.executable, "-c", KILLED, "--out", str(out)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = Halving()
    assert resumed.main("--out", str(out), "--resume") == 0
    assert resumed.made == [2, 3] and results_of(out) == results_of(whole)


def stop(tmp_path, *options):
    assert Halving([(1, lambda: signal.raise_signal(signal.SIGTERM))]).main("--out", str(tmp_path), *options) == 143


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume", "--start", "3"], r"--resume: got start 3.0 where 1.0 was, expected the options"),
        (["--resume", "--cells", "5"], r"--resume: got cells 5 where 4 was"),
        ([], "already holds another run"),
        (["--cells", "0"], "--cells: got 0"),
        (["--start", "1", "--start", "2"], "--start: got it 2 times, expected it once"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, capsys, options, message):
    """Other options, a folder in use, bad options: exit code 2, one sentence, the folder stays as it is."""
    stop(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert Halving().main("--out", str(tmp_path), *options) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_another_experiment_is_not_gone_on_with(tmp_path, capsys):
    """The folder says whose it is."""
    stop(tmp_path)
    assert frame.command("doubling", Halving().plan, Options)(["--out", str(tmp_path), "--resume"]) == 2
    assert "--resume: got command 'doubling' where 'halving' was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prepare", "message"), [(None, "expected the folder of an experiment"), ("whole", "finished")]
)
def test_nothing_to_go_on_with(tmp_path, capsys, request, prepare, message):
    """A folder without a run, or with a finished one."""
    folder = request.getfixturevalue(prepare) if prepare else tmp_path / "missing"
    assert Halving().main("--out", str(folder), "--resume") == 2
    assert message in capsys.readouterr().err


def raising(error):
    def act():
        raise error

    return act


def test_a_run_that_breaks_down_says_why(tmp_path, capsys):
    """Exit code 1, the reason, and what was finished stays: with the fault mended the run goes on."""
    assert Halving([(2, raising(frame.Broken("the loss is not finite")))]).main("--out", str(tmp_path)) == 1
    assert "the loss is not finite" in capsys.readouterr().out
    resumed = Halving()
    assert resumed.main("--out", str(tmp_path), "--resume") == 0 and resumed.made == [2, 3]


def test_a_second_ctrl_c_ends_at_once(tmp_path, capsys):
    """Exit code 130; where what was finished is, even in a folder whose name a terminal would stumble over."""
    out = tmp_path / "[/]out"
    assert Halving([(1, raising(KeyboardInterrupt))]).main("--out", str(out)) == 130
    assert f"what was finished is in {out}" in capsys.readouterr().out.replace("\n", "")


def test_a_fault_of_the_program_is_not_bad_input(tmp_path):
    """A ValueError from inside is no exit code 2 with a sentence: it shows where it came from."""
    with pytest.raises(RuntimeError):
        Halving([(0, raising(ValueError("shapes do not match")))]).main("--out", str(tmp_path))


def test_tables_in_markdown():
    """A header, a rule, rows."""
    assert frame.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (["lqr", "ARGS=--out x --seeds 2"], ["entroflow lqr --out x --seeds 2"]),
        (["lqr", "ARGS=--seeds 2"], ["entroflow lqr --out out/lqr-", "--seeds 2"]),
        (["experiment", "NAME=theorem2", "ARGS=--steps 4"], ["-m experiments.theorem2.run --steps 4"]),
        (["bench", "ARGS=update"], ["-m benchmarks.run update"]),
    ],
)
def test_make_passes_arguments_on(target, words):
    """What `make` would run names the output folder once, and the experiment."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *target]
    told = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout
    last = " ".join(told.splitlines()[-1].split())
    assert all(word in last for word in words) and last.count("--out") <= 1


def test_the_library_knows_nothing_of_experiments():
    """The package imports neither experiments nor benchmarks."""
    modules = list((ROOT / "src").rglob("*.py"))
    known = [
        path for path in modules if re.search(r"^ *(from|import) (experiments|benchmarks)\b", path.read_text(), re.M)
    ]
    assert modules and known == []


def test_make_asks_for_a_name():
    """Without one the message says what to write."""
    told = subprocess.run(["make", "--dry-run", "experiment"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode != 0 and "make experiment NAME=" in told.stderr
