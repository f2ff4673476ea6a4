"""Draw every figure anew that committed data hold, beside its data: `python -m experiments.figures`.

What is drawn from policies themselves (those of LQR and of the rooms, the densities, the multi-goal world) is drawn
by its own run alone.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.report import accuracy_figure, scaling_figure
from entroflow.commands.lqr import figures as lqr
from entroflow.plotting import STYLE
from entroflow.storage.comparison import compare
from entroflow.storage.curves import draw
from entroflow.storage.records import read

from .changes import report as changes
from .frame import read_rows
from .mujoco import long
from .plants import report as plants
from .proposals.run import figure_of as proposals_figure
from .spi import figures as spi
from .spi.lqr_problem import LQRProblem
from .spi.rooms_problem import RoomsProblem
from .theorem2.figure import bound_figure, weights_figure
from .variance import run as variance

ROOT = Path(__file__).parent
RUNS = {  # of a comparison: its folder, and what its lines are called where settings differ
    "pendulum": {"sac_isfm": "SAC-ISFM", "gaussian_sac": "Gaussian SAC"},
    "mujoco/halfcheetah": {"sac_isfm": "SAC-ISFM", "gaussian_sac": "Gaussian SAC"},
    "mujoco/inverted_double_pendulum": {"sac_isfm": "SAC-ISFM", "gaussian_sac": "Gaussian SAC"},
    "mujoco/hopper": {
        "sac_isfm": "SAC-ISFM",
        "gaussian_sac": "Gaussian SAC",
        "sac_isfm_without_pathwise": "before: no pathwise term, 64 units, N = 16",
    },
}


def figures() -> Iterator[tuple[Path, Callable[[], Figure]]]:
    """Yield every figure's file with what draws it."""
    for folder in sorted((ROOT / "lqr").glob("*/metrics.csv")):
        yield from _of_lqr(folder.parent)
    for name, runs in RUNS.items():
        yield ROOT / name / "compare.png", partial(_comparison, ROOT / name, runs)
    yield ROOT / "mujoco/100k/curves.png", long.curves
    yield ROOT / "mujoco/1M/curves.png", long.longest
    for path in sorted((ROOT / "spi").glob("*/results.json")):
        yield from _of_spi(path)
    theorem2, gradients = ROOT / "theorem2/results.json", ROOT / "variance/results.json"
    yield theorem2.with_name("theorem2.png"), lambda: bound_figure(_json(theorem2))
    yield theorem2.with_name("weights.png"), lambda: weights_figure(_json(theorem2))
    yield gradients.with_name("gains.png"), lambda: variance.draw(variance.compare(_json(gradients)["gradients"]))
    yield ROOT / "changes/curves.png", lambda: changes.figure_of(read_rows(ROOT / "changes/results.csv"))
    found, actions = _json(ROOT / "proposals/results.json"), read_rows(ROOT / "proposals/actions.csv")
    yield ROOT / "proposals/figure.png", lambda: proposals_figure(found["recover"], actions)
    learned, curves = read_rows(ROOT / "plants/results.csv"), read_rows(ROOT / "plants/curves.csv")
    yield ROOT / "plants/plants.png", lambda: plants.plants_figure(learned)
    yield ROOT / "plants/methods.png", lambda: plants.methods_figure(learned, curves)
    results = ROOT.parent / "benchmarks/results"
    timed = _json(results / "bench.json")
    yield results / "scaling.png", lambda: scaling_figure(timed["scaling"])
    yield results / "accuracy.png", lambda: accuracy_figure(timed["accuracy"])


def _of_lqr(folder: Path) -> Iterator[tuple[Path, Callable[[], Figure]]]:
    document, rows = _json(folder / "results.json"), read_rows(folder / "metrics.csv")
    title, runs = document["system"]["name"], document["runs"]
    columns = "transitions", "standard_return", "mean_error_relative", "covariance_error_relative"
    curves, optimal = [], {}
    for run in runs:
        of = [row for row in rows if (float(row["alpha"]), int(row["seed"])) == (run["alpha"], run["seed"])]
        curves.append(lqr.Curve(run["alpha"], run["seed"], *[_column(of, name) for name in columns]))
        optimal[run["alpha"], run["seed"]] = run["optimal_standard_return"]
    yield folder / "figure1.png", lambda: lqr.returns_figure(curves, optimal, title)
    yield folder / "figure2.png", lambda: lqr.errors_figure(runs, title)
    yield folder / "figure3.png", lambda: lqr.learning_figure(curves, title)


def _of_spi(path: Path) -> Iterator[tuple[Path, Callable[[], Figure]]]:
    rows, name = _json(path)["iterations"], path.parent.name
    shown, title = (RoomsProblem if name == "rooms" else LQRProblem).shown, f"soft policy iteration: {name}"
    yield path.with_name("errors.png"), lambda: spi.errors_figure(title, shown, rows)
    if name != "rooms":
        yield path.with_name("trajectories.png"), lambda: spi.trajectories_figure(title, rows)


def _comparison(folder: Path, runs: dict[str, str]) -> Figure:
    return draw(compare([read(folder / run) for run in runs], labels=list(runs.values())))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


if __name__ == "__main__":
    for path, make in figures():
        with mpl.rc_context(STYLE):
            make().savefig(path, dpi=150)
        print(path.relative_to(ROOT.parent))
