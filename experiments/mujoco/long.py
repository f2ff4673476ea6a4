"""Print the README's table of the runs of 100,000 steps beside this script: python -m experiments.mujoco.long."""

import csv
import statistics
from pathlib import Path

from .. import frame

MARKS = 10_000, 20_000, 50_000, 80_000, 100_000
LATE = 80_000, 100_000  # returns swing: the mean over the evaluations from here to there tells more than the last
TASKS = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}


def table(folder: Path = Path(__file__).parent / "100k") -> str:
    """Return in Markdown the mean return at the marks, and of several seeds the lowest and the highest, too."""
    lines = []
    for path in sorted(folder.glob("*/*/evaluations.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        seeds = sorted({row["seed"] for row in rows})
        found = [[means(rows, seed, mark) for seed in seeds] for mark in MARKS]
        task, change = path.parts[-3:-1]
        found.append([late(rows, seed) for seed in seeds])
        cells = [
            frame.told(filter(None, part), "{:.0f}").removesuffix(" (one seed)") if any(part) else "–" for part in found
        ]
        lines.append([TASKS[task], change, str(len(seeds)), *cells])
    steps = [*(f"{mark:,}" for mark in MARKS), f"from {LATE[0]:,} on"]
    return frame.markdown(["task", "run", "seeds", *steps], lines)


def means(rows: list[dict[str, str]], seed: str, step: int) -> float | None:
    """Return the mean return of the episodes that a seed was evaluated with at a step."""
    found = [float(row["return"]) for row in rows if row["seed"] == seed and int(row["step"]) == step]
    return statistics.fmean(found) if found else None


def late(rows: list[dict[str, str]], seed: str) -> float | None:
    """Return the mean return of a seed over its evaluations from 80,000 to 100,000 steps, if it came to the last."""
    steps = {int(row["step"]) for row in rows if row["seed"] == seed}
    found = [means(rows, seed, step) for step in sorted(steps) if LATE[0] <= step <= LATE[1]]
    return statistics.fmean(filter(None, found)) if LATE[1] in steps else None


if __name__ == "__main__":
    print(table(), end="")
