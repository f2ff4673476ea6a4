"""Print the README's table of the runs of 100,000 steps beside this script: python -m experiments.mujoco.long."""

import csv
from pathlib import Path

import numpy as np

from .. import frame

MARKS = 10_000, 20_000, 50_000, 75_000, 100_000
TASKS = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}


def table(folder: Path = Path(__file__).parent / "100k") -> str:
    """Return in Markdown the mean return of every evaluation at the marks."""
    lines = []
    for path in sorted(folder.glob("*/*/evaluations.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = {mark: [float(row["return"]) for row in rows if int(row["step"]) == mark] for mark in MARKS}
        task, change = path.parts[-3:-1]
        lines.append([TASKS[task], change, *(f"{np.mean(part):.0f}" if part else "–" for part in found.values())])
    return frame.markdown(["task", "run", *(f"{mark:,}" for mark in MARKS)], lines)


if __name__ == "__main__":
    print(table(), end="")
