"""What each deviation of `entroflow lqr` from Algorithm 2 as it is written buys, one at a time and one left in."""

import functools
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markdown import Markdown

from entroflow import checks
from entroflow.options import LQROptions

from .. import frame
from .changed import CHANGES, TRIED

HERE = Path(__file__).parent
SYSTEMS = "double_integrator", "coupled"
ALPHA = 0.5
PARTS = "mean", "covariance"


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    changes: tuple[str, ...] = tuple(CHANGES)
    """Which changes."""
    systems: tuple[str, ...] = SYSTEMS
    """Which systems."""
    alpha: float = ALPHA
    """Temperature α."""
    seeds: int = 3
    """Number of seeds, from 0."""
    steps: int = LQROptions.steps
    """Training steps."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    for name in options.changes:
        checks.choice("--changes", name, CHANGES | TRIED)
    for system in options.systems:
        checks.choice("--systems", system, SYSTEMS)
    checks.positive_number("--alpha", options.alpha)
    checks.positive_int("--steps", options.steps)
    checks.seeds(0, options.seeds)
    return functools.partial(run, options)


def run(options: Options, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Learn both systems with every change."""
    cells = [(name, system) for name in options.changes for system in options.systems]
    rows, job.cells = [], len(cells)
    for name, system in cells:
        work = functools.partial(measure, name, system, options, job.out / "runs")
        rows += job.cell(f"{name}, {system}", work)
        job.rows("results.csv", rows)
        job.text("table.md", table(rows))
    return {"settings": {"alpha": options.alpha, "steps": options.steps}}, [Markdown(table(rows))]


def measure(name: str, system: str, options: Options, folder: Path) -> list[frame.Row]:
    """Learn by `entroflow lqr` with a change; return the errors of all seeds, empty where the job broke down."""
    out = folder / f"{name.replace(' ', '-').replace(',', '')}-{system}"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {"system": system, "alpha": options.alpha, "seeds": options.seeds, "steps": options.steps, "out": out}
    words = ["lqr", *(f"--{key}={value}" for key, value in chosen.items())]
    command = [sys.executable, "-m", f"{__package__}.changed", name, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise frame.Broken(f"{name}, {system}: {done.stdout[-500:]} {done.stderr[-500:]}")
    head = {"change": name, "system": system, "alpha": options.alpha}
    if done.returncode == 1:
        broken = re.search(r"(\w+ of the run .*? at step \d+); training cannot go on", " ".join(done.stdout.split()))
        if broken is None:
            raise frame.Broken(f"{name}, {system}: {done.stdout[-500:]} {done.stderr[-500:]}")
        return [head | {"seed": None, **dict.fromkeys((*PARTS, "gap", "ess")), "broke": broken[1]}]
    runs = json.loads((out / "results.json").read_text())["runs"]
    return [
        head
        | {"seed": row["seed"]}
        | {part: row[f"{part}_error_relative"] for part in PARTS}
        | {"gap": 1 - row["standard_return"] / row["optimal_standard_return"], "ess": row["ess"], "broke": None}
        for row in runs
    ]


def table(rows: Sequence[frame.Row]) -> str:
    """Return in Markdown the mean over the seeds of every change, and the worst seed."""
    lines = []
    for name, system, alpha in dict.fromkeys((row["change"], row["system"], row["alpha"]) for row in rows):
        found = [row for row in rows if (row["change"], row["system"], row["alpha"]) == (name, system, alpha)]
        cells = ["–"] * 3
        if not (broke := found[0]["broke"]):
            parts = [[float(row[part]) for row in found] for part in (*PARTS, "gap")]
            cells = [f"{statistics.fmean(part):.1%} ({max(part, key=abs):.1%})" for part in parts]
        lines.append([name, f"`{system}`", f"{float(alpha):g}", *cells, broke or ""])
    return frame.markdown(["change", "system", "α", "mean error", "covariance error", "return's gap", ""], lines)


main = frame.command("deviations", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
