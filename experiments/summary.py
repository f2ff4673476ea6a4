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
WHOLE = "crossq-gaussian-every"  # the Gaussian when the critic's last layer made whole steps


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
    for folder, task in long.TASKS.items():
        runs = ROOT / "mujoco/100k" / folder
        cells = [cell for run in long.PRESET for cell in _of_run(runs / run)] + _of_run(runs / WHOLE)[1:]
        theirs = {row["method"].split()[0]: row for row in published if _is_of(row, task)}
        for name in ("CrossQ", "SAC"):
            cells.append(f"{float(theirs[name]['mean']):,.0f} ± {float(theirs[name]['sd']):,.0f}")
        rows.append([task, *cells])
    ours = [f"{name}, {when}" for name, *_ in long.PRESET.values() for when in ("at 100,000", "from 80,000 on")]
    return frame.markdown(["", *ours, "Gaussian SAC, before", "CrossQ, its authors", "SAC, theirs"], rows)


def _of_run(folder: Path) -> list[str]:
    """Return what is told of a run: returns after 100,000 steps, and over the evaluations from 80,000 on."""
    if not folder.exists():
        return ["–", "–"]
    rows = frame.read_rows(folder / "evaluations.csv")
    seeds = sorted({row["seed"] for row in rows})
    found = [long.means(rows, seed, long.MARKS[-1]) for seed in seeds], [long.late(rows, seed) for seed in seeds]
    known = [[value for value in part if value is not None] for part in found]
    return [frame.told(part, "{:,.0f}") + " (two seeds)" * (len(part) == 2) for part in known]


def _is_of(row: dict[str, str], task: str) -> bool:
    return row["task"][:-3] == task[:-3] and int(row["env_steps"]) == 100_000  # whatever the task's version


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
