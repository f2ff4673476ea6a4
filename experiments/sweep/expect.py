"""What a large study takes, on paper, from what was measured.

python -m experiments.sweep.expect
"""

import json
from pathlib import Path

from ..frame import markdown

ROOT = Path(__file__).parents[2]
TASK, OBS, ACTIONS = "HalfCheetah-v5", 17, 6
TRIALS, STEPS, CORES = 1000, 1_000_000, 500
PEAK_STEPS = 1000  # of an evaluation's episodes, which step together


def table() -> str:
    """Return what 1,000 trials of 1M steps take on 500 cores, in Markdown."""
    bench = json.loads((ROOT / "benchmarks/results/bench.json").read_text())
    memory = json.loads((ROOT / "experiments/resume/results.json").read_text())["memory"]
    process = max(row["megabytes"] for row in memory) / 1e3  # GB
    replay = STEPS * (4 * (2 * OBS + ACTIONS + 1) + 2) / 1e9  # GB, see entroflow.memory
    rows = []
    for algorithm in ("sac_isfm", "gaussian_sac"):
        step = bench["steps"][TASK]["found"][algorithm]["steps"]["wall_median"]
        best = bench["act"][TASK]["found"][algorithm]["best_1"]["wall_median"]
        for every in (5000, 50_000):
            checkpoints = STEPS // every
            hours = (STEPS * step + checkpoints * PEAK_STEPS * best) / 3600
            written = CORES * replay / 2 * checkpoints / hours / 3.6  # half of the replay, on average; MB/s
            cells = f"{every:,}", f"{1000 * step:.1f} ms", f"{1 / hours:.2f}", f"{TRIALS / CORES * hours:.1f} h"
            memory_of_all = CORES * (process + 2 * replay)
            more = f"{memory_of_all:,.0f} GB", f"{2 * TRIALS * replay:,.0f} GB", f"{written:,.0f} MB/s"
            rows.append((algorithm, *cells, *more))
    headers = "algorithm", "evaluate_every", "a step", "trials per core and hour", "all", "memory", "disk", "written"
    return markdown(headers, rows)


if __name__ == "__main__":
    print(table(), end="")
