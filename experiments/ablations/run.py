"""What each choice of SAC-ISFM is worth: one setting changed at a time, on two tasks.

python experiments/ablations/run.py [--draw]: trains what results.csv does not hold yet, so that it goes on where it was
stopped; --draw only redoes table.md from results.csv.
"""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from entroflow.agents.learner import change
from entroflow.agents.settings import of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import NotFinite, Training
from entroflow.flow import RungeKutta
from entroflow.storage.folder import cache_compilations

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
FIELDS = ("task", "variant", "seed", "step", "return", "entropy", "temperature", "ess", "beta", "seconds")
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
    "population proposal": {"proposal": "population"},
    "4 pairs per candidate": {"pairs": 4},
    "target: pairs": {"target": "pair"},
    "K = 2": {"solver": RungeKutta("midpoint", 2)},
    "weights by state": {"normalise": "state"},
    "weights raw": {"normalise": "raw"},
}


def train(name: str, variant: str) -> list[dict[str, Any]]:
    """Train all seeds; return a row for every seed and evaluation."""
    algorithm = "gaussian_sac" if variant == "Gaussian SAC" else "sac_isfm"
    settings = change(of_algorithm(algorithm), COMMON | VARIANTS[variant])
    training, rows = Training(task(name), settings, SEEDS, STEPS), []
    begun = time.perf_counter()
    while training.step < STEPS:
        try:
            metrics = training.advance(EVERY)
        except NotFinite as problem:
            print(f"{name}, {variant}: {problem}", flush=True)
            empty = {"task": name, "variant": variant, "step": training.step, "return": np.nan}
            return rows + [empty | {"seed": seed} for seed in SEEDS]
        episodes = training.evaluate(EPISODES)
        for row in metrics:
            returns = [episode["return"] for episode in episodes if episode["seed"] == row["seed"]]
            found = {key: row.get(key, np.nan) for key in ("entropy", "temperature", "ess", "beta")}
            found |= {"task": name, "variant": variant, "seed": row["seed"], "step": training.step}
            rows.append(found | {"return": np.mean(returns), "seconds": round(time.perf_counter() - begun, 1)})
    training.close()
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table: the mean over the evaluations and the last evaluation, mean ± s.e. over the seeds."""
    lines = ["| variant |", "|---|"]
    for name in TASKS:
        lines[0] += f" {name}: mean over training | at {STEPS:,} steps | entropy | β |"
        lines[1] += "---|---|---|---|"
    for variant in VARIANTS:
        cells = []
        for name in TASKS:
            of = [row for row in rows if (row["task"], row["variant"]) == (name, variant)]
            last = [row for row in of if row["step"] == str(STEPS)]
            if not last:
                cells += ["broke down" if of else "not run"] * 4
                continue
            over = [np.mean([float(row["return"]) for row in of if row["seed"] == str(seed)]) for seed in SEEDS]
            cells += [_mean(over), _mean([float(row["return"]) for row in last])]
            cells += [f"{np.mean([float(row[key]) for row in last]):.2f}" for key in ("entropy", "beta")]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    digits = 0 if abs(np.mean(values)) > 50 else 1
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Train what is missing; write the table."""
    cache_compilations()
    if not RESULTS.exists():
        RESULTS.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    for variant in () if "--draw" in sys.argv else VARIANTS:
        for name in TASKS:
            with RESULTS.open(newline="") as file:
                if any((row["task"], row["variant"]) == (name, variant) for row in csv.DictReader(file)):
                    continue
            rows = train(name, variant)
            with RESULTS.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS).writerows(rows)
            print(f"{name}, {variant}: {np.mean([row['return'] for row in rows]):.1f}", flush=True)
    with RESULTS.open(newline="") as file:
        (HERE / "table.md").write_text(table(list(csv.DictReader(file))), encoding="utf-8")


main()
