"""Kill trainings at random moments, resume them, and compare with those that were never killed, bit for bit.

One process after the other works on a run (see `child`) until it is killed, at a random moment or in the midst of
writing; the next one resumes it. When a run has come to its end its last checkpoint, metrics and results are compared
with those of the run that was left in peace.
"""

import csv
import functools
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from entroflow import checks
from entroflow.storage import checkpoint

from .. import frame
from .child import COMMANDS, MOMENTS

TASKS = (*COMMANDS, "memory")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    task: tuple[str, ...] = TASKS
    """What is killed: train, flow (a flow policy there), lqr, multigoal; memory: what a training takes of it."""
    kills: int = 20
    """Kills of each."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    for task in checks.distinct("--task", options.task, "tasks"):
        checks.choice("--task", task, TASKS)
    checks.positive_int("--kills", options.kills)
    return functools.partial(run, options)


def run(options: Options, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Kill and resume runs of every task until there were enough kills."""
    document: frame.Row = {"kills": {}}
    kills, job.cells = [], len(options.task) * options.kills
    table = frame.new_table("killed and resumed", "", ["run", "kills", "while writing", "mismatches"])
    for task in options.task:
        if task == "memory":
            document["memory"] = job.cell(task, functools.partial(memory_of, job.out))
            continue
        job.cell(f"{task} in peace", functools.partial(in_peace, task, job.out / task / "whole"))
        found: list[frame.Row] = []
        for chain in itertools.count():
            if len(found) >= options.kills:
                break
            work = functools.partial(killed, job.out / task, task, chain, options.kills - len(found))
            found += job.cell(f"{task}, run {chain}", work)
            job.rows("kills.csv", kills + found)
        kills += found
        counts = {
            "kills": len(found),
            "while_writing": sum(row["moment"] != "any" for row in found),
            "resumes": len(found),
            "mismatches": len({row["run"] for row in found if row["different"]}),
        }
        document["kills"][task] = counts
        table.add_row(task, *(str(counts[name]) for name in ("kills", "while_writing", "mismatches")))
    return document, [table]


def in_peace(task: str, folder: Path) -> int:
    """Make a run that nothing happens to."""
    shutil.rmtree(folder, ignore_errors=True)
    return start(task, folder)


def killed(out: Path, task: str, chain: int, most: int) -> list[frame.Row]:
    """Kill and resume a run until it comes to its end; return a row for every kill, with what is different then."""
    draw, folder, rows = random.Random(f"{task} {chain}"), out / f"killed-{chain}", []
    shutil.rmtree(folder, ignore_errors=True)
    while True:
        moment = draw.choice(MOMENTS[task]) if len(rows) < most else "never"
        if start(task, folder, moment, draw.randrange(2**31)) == 0:
            break
        steps = list(checkpoint.folders(folder / "checkpoints"))
        rows.append({"task": task, "run": chain, "moment": moment, "resumed_from": steps[-1] if steps else 0})
    whole, found = content(out / "whole"), content(folder)
    different = sorted(part for part in whole.keys() | found.keys() if whole.get(part) != found.get(part))
    return [row | {"different": " ".join(different)} for row in rows]


def start(task: str, folder: Path, moment: str = "never", seed: int = 0) -> int:
    """Let a process of its own begin a run or resume it; return its exit code, negative for a signal."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "experiments.resume.child", task, str(folder.resolve()), moment, str(seed)]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
    if code not in (0, -signal.SIGKILL):
        raise frame.Broken(f"{task} ended with exit code {code}, see {folder}.log")
    return code


def content(folder: Path) -> dict[str, object]:
    """Return all that must be the same: checkpoints, whose arrays tell by their SHA-256, tables, results, policies."""
    found: dict[str, object] = {}
    for step, path in checkpoint.folders(folder / "checkpoints").items():
        header, _ = checkpoint.read(path / checkpoint.HEADER)
        found[f"checkpoint {step}"] = (header["arrays"]["sha256"], _timeless(header["numbers"]))
    for path in folder.glob("*.csv"):
        with path.open(newline="") as file:
            found[path.name] = [_timeless(row) for row in csv.DictReader(file)]
    if (folder / "results.json").exists():
        results = json.loads((folder / "results.json").read_text())
        found["results"] = results["runs"]
    for path in folder.rglob("policy.npz"):
        with np.load(path) as arrays:
            found[str(path.relative_to(folder))] = {name: arrays[name].tobytes() for name in arrays.files}
    return found


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in row.items() if name != "seconds"}


def memory_of(out: Path) -> list[dict[str, float]]:
    """Train for a while in a process of its own; return its resident memory at every row of metrics.csv."""
    start("memory", out / "memory")
    return json.loads((out / "memory.json").read_text())


main = frame.command("resume", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
