"""Print the README's table of the defaults, and the first of history.md: python -m experiments.mujoco.table."""

import statistics
from pathlib import Path

from entroflow.plotting import NAMES

from .. import frame

HERE = Path(__file__).parent
TASKS = "hopper", "halfcheetah", "inverted_double_pendulum"
STEP = "20000"
RUNS = {
    "sac_isfm_without_pathwise": "before: ISFM alone, the state read by 64 units, N = 16",
    "sac_isfm_256_units_without_pathwise": "ISFM alone, 256 units, N = 16",
    "sac_isfm": "with the pathwise term, 256 units, N = 8",
    "gaussian_sac": "Gaussian SAC",
}
COLUMNS = {  # of metrics.csv: what it is called, and how it is written
    "entropy": ("entropy (target −3)", ".1f"),
    "temperature": ("α", ".3f"),
    "ess": ("ESS/N", ".2f"),
    "kl": ("KL to exp(Q/α)/Z, nats", ".2g"),
    "beta": ("β", ".2f"),
}


def table() -> str:
    """Return in Markdown what `entroflow compare` found on every task."""
    rows = [row for task in TASKS for row in frame.read_rows(HERE / task / "compare.csv")]
    lines = [[row["task"], NAMES.get(row["algorithm"], row["algorithm"]), *frame.compared(row)] for row in rows]
    names = ["task", "algorithm", "at the end [lowest, highest seed]", "mean over training", "minutes"]
    return frame.markdown(names, lines)


def learned() -> str:
    """Return in Markdown what runs on Hopper-v5 had learned at a step, the mean over their seeds."""
    lines = []
    for folder, name in RUNS.items():
        rows = [row for row in frame.read_rows(HERE / "hopper" / folder / "metrics.csv") if row["step"] == STEP]
        means = {key: statistics.fmean(float(row[key]) for row in rows) for key in COLUMNS if key in rows[0]}
        cells = [frame.minus(format(means[key], form)) if key in means else "" for key, (_, form) in COLUMNS.items()]
        lines.append([name, *cells])
    return frame.markdown(
        [f"Hopper-v5 at {int(STEP):,} steps, seeds averaged", *(name for name, _ in COLUMNS.values())], lines
    )


if __name__ == "__main__":
    print(table(), learned(), sep="\n", end="")
