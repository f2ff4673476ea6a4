"""SAC-ISFM on plants of one to twelve states from the literature, from α = 0.01 to 10, begun as a detuned controller.

Plants in continuous time are sampled exactly. Completing the square, u = v − R⁻¹Nᵀx, leaves cost and policies as they
are and takes the cross term away that sampling brings. Initial states are so large that each costs the same and all
together 5, which is what α is to be compared with; noise has a hundredth of their variance per step. The controller to
begin with is the optimum for inputs ten times as dear.
"""

import functools
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markdown import Markdown

from entroflow import checks
from entroflow.lqr import LQR, design
from entroflow.lqr.matrices import spectral_radius
from entroflow.plotting import save

from .. import frame
from . import report
from .horizon import state_covariances

HERE = Path(__file__).parent
PLANTS = {plant["name"]: plant for plant in json.loads((HERE / "plants.json").read_text(encoding="utf-8"))}
ALPHAS = 0.1, 1.0, 10.0, 0.01  # in the order of their importance
DISCOUNT, COST, NOISE, DEARER = 0.95, 5.0, 0.01, 10.0
SMALL = 6  # states
COMPARED = "double_integrator"  # by all methods, each of which begins with nothing
METHODS = {
    "default": {},
    "paper": {"preset": "paper"},
    "gaussian_sac": {"algorithm": "gaussian_sac"},
}
FOUND = "mean_error_relative", "covariance_error_relative"


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    plants: tuple[str, ...] = tuple(PLANTS)
    """Which plants."""
    alphas: tuple[float, ...] = ALPHAS
    """Which temperatures."""
    seeds: int = 1
    """Number of seeds, from 0."""
    steps: int = 2000
    """Training steps, of 2048 transitions each; half as many for plants of at most six states that do not grow."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    for name in options.plants:
        checks.choice("--plants", name, PLANTS)
    checks.positive_int("--steps", options.steps)
    checks.seeds(0, options.seeds)
    return functools.partial(run, options)


def system(name: str) -> tuple[LQR, np.ndarray]:
    """Return a plant as a problem without a cross term, and the gain to begin with."""
    plant = PLANTS[name]
    dt, matrices = plant["dt"], [plant[key] for key in "ABQR"]
    sampled = {"continuous": True, "dt": dt, "discount": DISCOUNT ** (1 / dt)} if dt else {"discount": DISCOUNT}
    made = design(*matrices, temperature=1.0, **sampled)
    own = made.plant
    feedback = np.linalg.solve(own.R, own.cross.T)
    A, Q = own.A - own.B @ feedback, own.Q - own.cross @ feedback
    initial = np.diag(COST / len(A) / np.diag(made.cost_matrix))
    dear = LQR(A, own.B, (Q + Q.T) / 2, DEARER * own.R, NOISE * initial, initial, DISCOUNT, name)
    gain = dear.optimal(1.0).K
    return LQR(A, own.B, dear.Q, own.R, dear.noise_cov, initial, DISCOUNT, name), gain


def distance(lqr: LQR, gain: np.ndarray) -> float:
    """Return how far the means of a gain are from the best ones, relatively, where the best gain brings the plant."""
    best = lqr.optimal(1.0)
    visited = state_covariances(lqr, best.K, 0 * best.covariance, 100).mean(axis=0)
    root = np.linalg.cholesky(visited)
    return float(np.linalg.norm((gain - best.K) @ root) / np.linalg.norm(best.K @ root))


def signal(lqr: LQR, alpha: float) -> float:
    """Return the best mean action in deviations of the best exploration: root mean square over 101 visited states."""
    best = lqr.optimal(alpha)
    visited = state_covariances(lqr, best.K, best.covariance, 100).mean(axis=0)
    return float(np.sqrt(np.trace(np.linalg.solve(best.covariance, best.K @ visited @ best.K.T)) / len(lqr.R)))


def run(options: Options, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Learn on every plant, then by the other methods on some."""
    cells = []
    for name in options.plants:
        cells += [(name, "sac_isfm", options.alphas)]
        cells += [(name, method, (1.0,)) for method in METHODS if name == COMPARED]
    rows, curves, job.cells = [], [], len(cells)
    for name, method, alphas in cells:
        work = functools.partial(measure, name, method, alphas, options, job.out / "runs")
        found = job.cell(f"{name} {method}", work)
        rows, curves = rows + found["rows"], curves + found["curves"]
        job.rows("results.csv", rows)
        job.rows("curves.csv", curves)
        job.text("table.md", report.table(rows))
        job.text("beside_exploration.md", report.beside_exploration(rows))
    save(job.out, "plants", report.plants_figure(rows))
    if any(row["method"] in METHODS for row in rows):
        save(job.out, "methods", report.methods_figure(rows, curves))
    settings = {"alphas": ALPHAS, "discount": DISCOUNT, "cost": COST, "noise": NOISE, "dearer": DEARER}
    return {"settings": settings}, [Markdown(report.table(rows))]


def measure(name: str, method: str, alphas: tuple[float, ...], options: Options, folder: Path) -> frame.Row:
    """Learn by `entroflow lqr`; return the errors at the end and during training.

    The runs of all temperatures are one program, which ends when one of them breaks down: then each runs alone.
    """
    lqr, gain = system(name)
    folder.mkdir(parents=True, exist_ok=True)
    written = "-".join(f"{alpha:g}" for alpha in alphas)
    out, files = folder / f"{name}-{method}-{written}", [folder / f"{name}{part}.json" for part in ("", "-gain")]
    for file, content in zip(files, (lqr.to_dict(), {"gain": gain.tolist()}), strict=True):
        file.write_text(json.dumps(content))
    chosen: dict[str, Any] = {"system": files[0], "out": out, "seeds": options.seeds}
    if method in METHODS:
        chosen |= {"steps": options.steps} | METHODS[method]
    else:
        easy = len(lqr.A) <= SMALL and spectral_radius(lqr.A) < 1.001
        steps = max(1, options.steps // 2) if easy else options.steps
        chosen |= {"steps": steps, "initial-gain": files[1]}
    words = [f"--{key}={value}" for key, value in chosen.items()]
    command = [sys.executable, "-m", "entroflow", "lqr", *words, "--alpha", *map(str, alphas)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise frame.Broken(f"{name} {method}: {done.stdout[-500:]} {done.stderr[-500:]}")
    if done.returncode == 1 and len(alphas) > 1:
        alone = [measure(name, method, (alpha,), options, folder) for alpha in alphas]
        return {key: [row for found in alone for row in found[key]] for key in ("rows", "curves")}
    watched = frame.read_rows(out / "metrics.csv")
    head = {"plant": name, "method": method, "states": len(lqr.A), "inputs": len(lqr.R)}
    curves = [head | {key: step[key] for key in ("alpha", "seed", "transitions", *FOUND)} for step in watched]
    start = None if method in METHODS else distance(lqr, gain)
    if done.returncode == 1:
        lost = head | dict.fromkeys(report.COLUMNS[4:]) | {"begun": start}
        return {"rows": [lost | {"alpha": alpha, "signal": signal(lqr, alpha)} for alpha in alphas], "curves": curves}
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    runs = json.loads((out / "results.json").read_text())["runs"]
    rows = [
        head
        | {"alpha": each["alpha"], "seed": each["seed"]}
        | {key: each[key] for key in FOUND}
        | {"gap": 1 - report.number(each["standard_return"]) / each["optimal_standard_return"]}
        | {"begun": start, "signal": signal(lqr, each["alpha"])}
        | {"transitions": each["transitions"], "seconds": seconds / len(runs)}
        for each in runs
    ]
    return {"rows": rows, "curves": curves}


main = frame.command("plants", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
