"""Print the tables of README.md and docs/results.md from committed data: python -m experiments.summary."""

import json
from pathlib import Path
from typing import Any

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
RUNS = {name: of for name, (of, *_) in long.PRESET.items()} | {
    "crossq-gaussian-every": "Gaussian SAC, whole steps",  # of the critic's last layer
    "paper": "SAC-ISFM as in the paper",
}
SEEDS = {2: " (two seeds)", 4: " (four seeds)", 5: " (five seeds)"}  # three where nothing is said
AUTHORS = {"CrossQ": "CrossQ, its authors", "SAC": "SAC, theirs"}


def table() -> str:
    """Return a Markdown table where the optimum is known: means over seeds, in brackets the lowest and the highest."""
    rows = []
    for name in ("coupled", "double_integrator"):
        ours, plain = (_runs(f"lqr/{part}{name}") for part in ("", "paper/"))
        for part in ("mean", "covariance"):
            cells = [_errors(ours, f"{part}_error_relative"), _errors(plain, f"{part}_error_relative"), "–"]
            rows.append([f"LQR `{name}`: error of the {part}", *cells])
    for folder, system in (("exact", "double_well"), ("exact/large", "swing_up"), ("exact/large", "dead_band")):
        settings = json.loads((ROOT / folder / "results.json").read_text(encoding="utf-8"))["settings"]
        made = settings["steps"] * settings["environments"]
        runs = [run for run in _runs(folder) if run["system"] == system]
        rows.append([f"`{system}`, {made:,} transitions: total variation from the optimum", *_apart(runs)])
    rows.append(["four goals: total variation from the optimum", *_apart(_runs("multigoal"))])
    return frame.markdown(["", "SAC-ISFM", "SAC-ISFM as in the paper", "Gaussian SAC"], rows)


def _runs(folder: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / folder / "results.json").read_text(encoding="utf-8"))["runs"]


def _errors(runs: list[dict[str, Any]], name: str) -> str:
    """Return the errors of runs of LQR, and how many have none, for the plant stays unstable under their policies."""
    known = [run[name] for run in runs if run[name] is not None]
    return frame.told(known, "{:.1%}") + (f" ({len(known)} of {len(runs)})" if len(known) < len(runs) else "")


def _apart(runs: list[dict[str, Any]]) -> list[str]:
    """Return the total variations of the flow and of the Gaussian; the paper's plain algorithm was not tried."""
    flow, gaussian = ([run["total_variation"] for run in runs if run["algorithm"] == name] for name in ALGORITHMS)
    return [frame.told(flow, "{:.3f}"), "–", frame.told(gaussian, "{:.3f}")]


def of_defaults() -> str:
    """Return a Markdown table of returns at the end of short trainings with the defaults."""
    rows = []
    for folder, task in TASKS.items():
        (last,) = {step for algorithm in ALGORITHMS for step, _ in [returns(folder, algorithm)]}
        cells = [frame.told(returns(folder, algorithm)[1], "{:,.0f}") for algorithm in ALGORITHMS]
        rows.append([task, f"{last:,}", *cells])
    return frame.markdown(["task", "steps", "SAC-ISFM", "Gaussian SAC"], rows)


def of_crossq(*, late: bool = False) -> str:
    """Return a Markdown table of MuJoCo's tasks after 100,000 steps, beside the numbers of CrossQ's authors.

    Args:
        late: whether to tell the mean of the evaluations from 80,000 steps on, which the authors' numbers are not of.
    """
    rows, published = [], frame.read_rows(ROOT / "mujoco/authors.csv")
    for folder, task in long.TASKS.items():
        cells = [_of_run(ROOT / "mujoco/100k" / folder / run, late) for run in RUNS]
        theirs = {row["method"].split()[0]: row for row in published if _is_of(row, task)}
        if not late:
            cells += [f"{float(theirs[name]['mean']):,.0f} ± {float(theirs[name]['sd']):,.0f}" for name in AUTHORS]
        rows.append([task, *cells])
    return frame.markdown(["", *RUNS.values(), *(AUTHORS.values() if not late else ())], rows)


def _of_run(folder: Path, late: bool) -> str:
    """Return what is told of a run."""
    if not folder.exists():
        return "–"
    rows = frame.read_rows(folder / "evaluations.csv")
    seeds, end = sorted({row["seed"] for row in rows}), long.MARKS[-1]
    found = [long.late(rows, seed) if late else long.means(rows, seed, end) for seed in seeds]
    known = [value for value in found if value is not None]
    return frame.told(known, "{:,.0f}") + SEEDS.get(len(known), "")


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
    print(of_defaults())
    print(of_crossq())
    print(of_crossq(late=True), end="")
