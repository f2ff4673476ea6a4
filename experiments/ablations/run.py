"""What each choice of SAC-ISFM is worth: one setting changed at a time, on two tasks."""

import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.markdown import Markdown

from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import NotFinite, Training
from entroflow.flow import RungeKutta

from .. import frame
from ..proposals.population import PopulationProposal

TASKS = "Pendulum-v1", "Reacher-v5"
SEEDS, STEPS, EVERY, EPISODES = (0, 1, 2), 3000, 1000, 10
COMMON: dict[str, Any] = {"learning_starts": 500}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "Gaussian SAC": {},
    "no pathwise term": {"pathwise": 0.0},
    "no pathwise term, no tempering": {"pathwise": 0.0, "ess_floor": 0.0},
    "no tempering": {"ess_floor": 0.0},
    "no entropy in targets": {"entropy_in_target": False},
    "N = 4": {"candidates": 4},
    "N = 16": {"candidates": 16},
    "population proposal": {"proposal": PopulationProposal},
    "4 pairs per candidate": {"pairs": 4},
    "target: pairs": {"target": "pair"},
    "K = 2": {"solver": RungeKutta("midpoint", 2)},
    "weights by state": {"normalise": "state"},
    "weights raw": {"normalise": "raw"},
}


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Train all variants on all tasks."""
    pairs, rows = [(name, variant) for variant in VARIANTS for name in TASKS], []
    job.cells = len(pairs)
    for pair in pairs:
        rows += job.cell(", ".join(pair), functools.partial(train, *pair))
        job.rows("results.csv", rows)
    job.text("table.md", table(rows))
    return {"settings": {"steps": STEPS, "seeds": SEEDS, "episodes": EPISODES}}, [Markdown(table(rows))]


def train(name: str, variant: str) -> list[frame.Row]:
    """Train all seeds; return a row for every seed and evaluation, or one without a return if a run broke down."""
    algorithm = "gaussian_sac" if variant == "Gaussian SAC" else "sac_isfm"
    settings = change(of_algorithm(algorithm), COMMON | VARIANTS[variant])
    training, rows = Training(task(name), settings, SEEDS, STEPS), []
    begun, broke, label = time.perf_counter(), False, {"task": name, "variant": variant}
    while training.step < STEPS and not broke:
        metrics: list[frame.Row] = [{"seed": seed} for seed in SEEDS]
        returns: dict[int, list[float]] = {seed: [] for seed in SEEDS}
        try:
            metrics = training.advance(EVERY)
            for episode in training.evaluate(EPISODES):
                returns[episode["seed"]].append(episode["return"])
        except NotFinite:
            broke = True
        for row in metrics:
            found = {"return": np.mean(returns[row["seed"]]) if not broke else np.nan}
            found |= {key: row.get(key, np.nan) for key in ("entropy", "temperature", "ess", "beta")}
            seconds = round(time.perf_counter() - begun, 1)
            rows.append(label | {"seed": row["seed"], "step": training.step} | found | {"seconds": seconds})
    training.close()
    return rows


def table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table: the mean over the evaluations and the last evaluation, mean ± s.e. over the seeds."""
    headers = ["variant"]
    for name in TASKS:
        headers += [f"{name}: mean over training", f"at {STEPS:,} steps", "entropy", "β"]
    lines = []
    for variant in VARIANTS:
        cells = [variant]
        for name in TASKS:
            of = [row for row in rows if (row["task"], row["variant"]) == (name, variant)]
            last = [row for row in of if int(row["step"]) == STEPS]
            if not last:
                cells += ["broke down" if of else "not run"] * 4
                continue
            over = [np.mean([float(row["return"]) for row in of if int(row["seed"]) == seed]) for seed in SEEDS]
            cells += [_mean(over), _mean([float(row["return"]) for row in last])]
            cells += [f"{np.mean([float(row[key]) for row in last]):.2f}" for key in ("entropy", "beta")]
        lines.append(cells)
    return frame.markdown(headers, lines)


def _mean(values: Sequence[Any]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    digits = 0 if abs(np.mean(values)) > 50 else 1
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


main = frame.command("ablations", lambda _: run)

if __name__ == "__main__":
    sys.exit(main())
