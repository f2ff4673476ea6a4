"""Print the README's table from committed data: python -m experiments.summary."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from . import frame

ROOT = Path(__file__).parent
TASKS = {
    "pendulum": "Pendulum-v1",
    "mujoco/inverted_double_pendulum": "InvertedDoublePendulum-v5",
    "mujoco/hopper": "Hopper-v5",
    "mujoco/halfcheetah": "HalfCheetah-v5",
}
LONG = [  # with the critic of CrossQ: task, steps, how it began, the flow's folder and the Gaussian's
    ("Hopper-v5", 50_000, ", begun timidly", "hopper/crossq-five", "hopper/crossq-gaussian-five"),
    ("Hopper-v5", 50_000, "", "hopper/crossq-bold-five", "hopper/crossq-gaussian-bold-five"),
    ("HalfCheetah-v5", 50_000, ", begun timidly", "halfcheetah/crossq-five", "halfcheetah/crossq-gaussian-five"),
    ("HalfCheetah-v5", 50_000, "", "halfcheetah/crossq-bold-five", "halfcheetah/crossq-gaussian-bold-five"),
]


def table() -> str:
    """Return a Markdown table: means over seeds, in brackets the lowest and the highest seed."""
    rows = []
    for name in ("coupled", "double_integrator"):
        runs = json.loads((ROOT / f"lqr/{name}/results.json").read_text(encoding="utf-8"))["runs"]
        for part in ("mean", "covariance"):
            errors = [run[f"{part}_error_relative"] for run in runs]
            rows.append([f"LQR `{name}`: error of the {part}, at 4 temperatures", told(errors, "{:.1%}"), "–"])
    worlds = json.loads((ROOT / "multigoal/results.json").read_text(encoding="utf-8"))["runs"]
    cells = [
        told([run["total_variation"] for run in worlds if run["algorithm"] == algorithm], "{:.3f}")
        for algorithm in ("sac_isfm", "gaussian_sac")
    ]
    rows.append(["four goals: total variation from the exact optimum", *cells])
    for folder, task in TASKS.items():
        (last,) = {step for algorithm in ("sac_isfm", "gaussian_sac") for step, _ in [returns(folder, algorithm)]}
        cells = [told(returns(folder, algorithm)[1], "{:,.0f}") for algorithm in ("sac_isfm", "gaussian_sac")]
        rows.append([f"{task}: return after {last:,} steps", *cells])
    for task, steps, begun, *folders in LONG:
        cells = [told(returns("mujoco/100k", folder, steps)[1], "{:,.0f}") for folder in folders]
        rows.append([f"{task}, `--preset crossq`{begun}: return after {steps:,} steps", *cells])
    return frame.markdown(["", "SAC-ISFM", "Gaussian SAC"], rows)


def told(values: Iterable[float], form: str) -> str:
    """Write a mean with its lowest and highest value, or that it is one value."""
    numbers = np.array(list(values))
    if len(numbers) == 1:
        return form.format(numbers[0]).replace("-", "−") + " (one seed)"
    text = [form.format(part).replace("-", "−") for part in (numbers.mean(), numbers.min(), numbers.max())]
    return f"{text[0]} [{text[1]}, {text[2]}]"


def returns(folder: str, algorithm: str, step: int | None = None) -> tuple[int, list[float]]:
    """Return the step of an evaluation, by default the last, and for every seed the mean return of its episodes."""
    with (ROOT / folder / algorithm / "evaluations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = step or max(int(row["step"]) for row in rows)
    at_end = [row for row in rows if int(row["step"]) == last]
    seeds = dict.fromkeys(row["seed"] for row in at_end)
    return last, [float(np.mean([float(row["return"]) for row in at_end if row["seed"] == seed])) for seed in seeds]


if __name__ == "__main__":
    print(table(), end="")
