"""Print the README's tables from committed data: python -m experiments.summary."""

import json
from pathlib import Path

import numpy as np

from . import frame
from .mujoco import long

ROOT = Path(__file__).parent
TASKS = {
    "pendulum": "Pendulum-v1",
    "mujoco/inverted_double_pendulum": "InvertedDoublePendulum-v5",
    "mujoco/hopper": "Hopper-v5",
    "mujoco/halfcheetah": "HalfCheetah-v5",
}
ALGORITHMS = "sac_isfm", "gaussian_sac"
# With the critic of CrossQ: task, its last layer making whole steps or not, acting by an average of the actors or not,
# the flow's run and the Gaussian's, whose policy is updated at every step as the flow's is, and at every third as
# CrossQ's authors have it.
LONG = [
    ("hopper", "", "crossq-tame", None, None),
    ("hopper", ", before", "crossq-averaged", "crossq-gaussian-every", "crossq-gaussian-averaged"),
    ("hopper", ", before, `average=0`", "crossq-bold", None, "crossq-gaussian-bold"),
    ("halfcheetah", "", "crossq-tame", "crossq-gaussian-tame", None),
    ("halfcheetah", ", before", "crossq-averaged", "crossq-gaussian-every", None),
    ("halfcheetah", ", before, `average=0`", "crossq-bold", None, "crossq-gaussian-bold"),
    ("walker2d", ", before", None, "crossq-gaussian-every", None),
    ("walker2d", ", before, `average=0`", "crossq-bold", None, "crossq-gaussian-bold"),
    ("ant", ", before, `average=0`", "crossq-bold", None, None),
    ("humanoid", ", before", "crossq-averaged", "crossq-gaussian-every", None),
]


def table() -> str:
    """Return a Markdown table: means over seeds, in brackets the lowest and the highest seed."""
    rows = []
    for name in ("coupled", "double_integrator"):
        runs = json.loads((ROOT / f"lqr/{name}/results.json").read_text(encoding="utf-8"))["runs"]
        for part in ("mean", "covariance"):
            errors = [run[f"{part}_error_relative"] for run in runs]
            rows.append([f"LQR `{name}`: error of the {part}, at 4 temperatures", frame.told(errors, "{:.1%}"), "–"])
    for folder, system in (("exact", "double_well"), ("exact/large", "swing_up"), ("exact/large", "dead_band")):
        document = json.loads((ROOT / folder / "results.json").read_text(encoding="utf-8"))
        runs, settings = document["runs"], document["settings"]
        found = [[run for run in runs if (run["system"], run["algorithm"]) == (system, name)] for name in ALGORITHMS]
        cells = [frame.told([run["total_variation"] for run in part], "{:.3f}") for part in found]
        made = settings["steps"] * settings["environments"]
        rows.append([f"`{system}`, {made:,} transitions: total variation from the exact optimum", *cells])
    worlds = json.loads((ROOT / "multigoal/results.json").read_text(encoding="utf-8"))["runs"]
    cells = [
        frame.told([run["total_variation"] for run in worlds if run["algorithm"] == algorithm], "{:.3f}")
        for algorithm in ALGORITHMS
    ]
    rows.append(["four goals: total variation from the exact optimum", *cells])
    for folder, task in TASKS.items():
        (last,) = {step for algorithm in ALGORITHMS for step, _ in [returns(folder, algorithm)]}
        cells = [frame.told(returns(folder, algorithm)[1], "{:,.0f}") for algorithm in ALGORITHMS]
        rows.append([f"{task}: return after {last:,} steps", *cells])
    return frame.markdown(["", "SAC-ISFM", "Gaussian SAC"], rows)


def of_crossq() -> str:
    """Return a Markdown table of the preset of that name on MuJoCo's tasks, beside its authors' own numbers."""
    rows, published = [], frame.read_rows(ROOT / "mujoco/authors.csv")
    for folder, told, *runs in LONG:
        task = long.TASKS[folder]
        found = [late(f"{folder}/{run}") if run else [] for run in runs]
        cells = [frame.told(part, "{:,.0f}") + " (two seeds)" * (len(part) == 2) if part else "–" for part in found]
        theirs = {row["method"].split()[0]: row for row in published if _is_of(row, task)}
        for name in ("CrossQ", "SAC"):
            cells.append(f"{float(theirs[name]['mean']):,.0f} ± {float(theirs[name]['sd']):,.0f}")
        rows.append([f"{task}{told}", *cells])
    heads = (
        "",
        "SAC-ISFM",
        "Gaussian",
        "Gaussian, its policy updated every third step",
        "CrossQ, its authors",
        "SAC, theirs",
    )
    return frame.markdown(heads, rows)


def _is_of(row: dict[str, str], task: str) -> bool:
    return row["task"][:-3] == task[:-3] and int(row["env_steps"]) == 100_000  # whatever the task's version


def late(folder: str) -> list[float]:
    """Return for every seed of a run of 100,000 steps the mean return over its evaluations from 80,000 on."""
    rows = frame.read_rows(ROOT / "mujoco/100k" / folder / "evaluations.csv")
    found = [long.late(rows, seed) for seed in sorted({row["seed"] for row in rows})]
    return [mean for mean in found if mean is not None]


def returns(folder: str, algorithm: str, step: int | None = None) -> tuple[int, list[float]]:
    """Return the step of an evaluation, by default the last, and for every seed the mean return of its episodes."""
    rows = frame.read_rows(ROOT / folder / algorithm / "evaluations.csv")
    last = step or max(int(row["step"]) for row in rows)
    at_end = [row for row in rows if int(row["step"]) == last]
    seeds = dict.fromkeys(row["seed"] for row in at_end)
    return last, [float(np.mean([float(row["return"]) for row in at_end if row["seed"] == seed])) for seed in seeds]


if __name__ == "__main__":
    print(table())
    print(of_crossq(), end="")
