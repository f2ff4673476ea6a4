"""Print the README's table from committed data: python -m experiments.pendulum.table."""

from pathlib import Path

from entroflow.plotting import NAMES

from .. import frame
from ..mujoco.long import means

HERE = Path(__file__).parent
MARKS = 4000, 5000, 8000, 10_000


def table() -> str:
    """Return in Markdown the mean returns of every seed at the marks, and what `entroflow compare` found."""
    lines = []
    for row in frame.read_rows(HERE / "compare.csv"):
        rows = frame.read_rows(HERE / row["algorithm"] / "evaluations.csv")
        found = [[means(rows, seed, mark) for seed in dict.fromkeys(row["seed"] for row in rows)] for mark in MARKS]
        cells = [frame.minus(", ".join(f"{mean:.0f}" for mean in part)) for part in found]
        lines.append([NAMES[row["algorithm"]], *cells, *frame.compared(row)[1:]])
    steps = [f"{mark:,} steps" for mark in MARKS]
    return frame.markdown(["", *steps, "mean over training [lowest, highest seed]", "minutes"], lines)


if __name__ == "__main__":
    print(table(), end="")
