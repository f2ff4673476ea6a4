"""Learning on LQR with every state, action and the reward counted in a random unit: the same errors as in its own."""

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.markdown import Markdown

import entroflow
from entroflow import checks
from entroflow.commands.lqr import plan as lqr_plan
from entroflow.commands.lqr import report
from entroflow.commands.lqr.evaluate import evaluate, normal_points
from entroflow.commands.lqr.units import Units
from entroflow.envs import LQREnv
from entroflow.lqr import LQR, systems
from entroflow.options import LQROptions

from .. import frame

SYSTEMS = ("double_integrator", "coupled", "mass_spring")
HERE = Path(__file__).parent
DECADES = 4.0  # units are between 1e-4 and 1e4
ALPHA, SEED = 0.5, 0
ERRORS = {"mean": 0.05, "covariance": 0.08}  # what is to be reached


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    draws: int = 3
    """Draws of units for every system."""
    steps: int = LQROptions.steps
    """Training steps."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    checks.positive_int("--draws", options.draws)
    return functools.partial(run, options)


def run(options: Options, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Learn in all units."""
    cells = [(name, draw) for draw in range(options.draws) for name in SYSTEMS]
    rows, job.cells = [], len(cells)
    for name, draw in cells:
        work = functools.partial(measure, name, draw, options.steps, job.out / "runs")
        rows.append(job.cell(f"{name} {draw}", work))
        job.rows("results.csv", rows)
    job.text("table.md", table(rows))
    return {"settings": {"alpha": ALPHA, "seed": SEED, "decades": DECADES}}, [Markdown(table(rows))]


def drawn(name: str, draw: int) -> tuple[LQR, Units]:
    """Return a named system in the units of a draw, log-uniform."""
    lqr = systems.get(name)
    n, d = lqr.B.shape
    sizes = 10 ** np.random.default_rng([draw, SYSTEMS.index(name)]).uniform(-DECADES, DECADES, n + d + 1)
    units = Units(sizes[:n], sizes[n:-1], float(sizes[-1]))
    return lqr.in_units(*units), units


def measure(name: str, draw: int, steps: int, folder: Path) -> frame.Row:
    """Learn by `entroflow lqr` from a system file; measure as it does, and in the system's own units."""
    lqr, units = drawn(name, draw)
    out, alpha = folder / f"{name}-{draw}", ALPHA / units.reward
    folder.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".json")
    file.write_text(json.dumps(lqr.to_dict()))
    options = {"system": file, "alpha": repr(alpha), "seeds": 1, "seed": SEED, "steps": steps, "out": out}
    command = [sys.executable, "-m", "entroflow", "lqr", *(f"--{key}={value}" for key, value in options.items())]
    if (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode != 0:
        raise frame.Broken(f"{name} {draw}: {done.stdout[-500:]} {done.stderr[-500:]}")
    (told,) = json.loads((out / "results.json").read_text())["runs"]
    own = in_own_units(entroflow.load(out).policy, lqr, name, units)
    row = {"system": name, "draw": draw}
    row |= {key: np.asarray(part).tolist() for key, part in units._asdict().items()}
    row |= {f"{part}_error": told[f"{part}_error_relative"] for part in ERRORS}
    row |= {f"own_{part}_error": own[f"{part}_error_relative"] for part in ERRORS}
    return row | {"gap": 1 - told["standard_return"] / told["optimal_standard_return"]}


def in_own_units(policy: Any, lqr: LQR, name: str, units: Units) -> dict[str, float]:
    """Return the errors of a policy with states and actions counted as the system's author did."""
    x, u, _ = units
    points = jnp.asarray(normal_points(lqr_plan.FINAL_SAMPLES, len(u)))
    visits = jnp.asarray(lqr_plan.visits(lqr_plan.FINAL_STATES))
    noise = lqr_plan.Noise(*(part.astype(np.float32) for part in lqr_plan.noise(lqr)))
    measured = jax.jit(lambda policy: evaluate(LQREnv(lqr), policy, jnp.float32(lqr.discount), noise, visits, points))
    found = jax.tree.map(np.asarray, measured(policy))
    found = found._replace(states=found.states * x, mean=found.mean * u, covariance=found.covariance * np.outer(u, u))
    (run,) = lqr_plan.plan(LQROptions(temperature=(ALPHA,), seeds=1), systems.get(name))
    return report.errors(run, found)


def table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table of the draws."""
    columns = [f"{own}{part}_error" for own in ("", "own_") for part in ERRORS]
    words = ["mean error", "covariance error", "the same in own units: mean", "covariance"]
    lines = []
    for row in rows:
        sizes = [row[key] if isinstance(row[key], list) else json.loads(str(row[key])) for key in Units._fields[:2]]
        texts = [" ".join(f"{size:.1g}" for size in part) for part in sizes] + [f"{float(row['reward']):.1g}"]
        errors = [f"{float(row[column]):.1%}" for column in columns]
        lines.append([f"`{row['system']}`", *texts, *errors, f"{float(row['gap']):+.2%}"])
    return frame.markdown(["system", "state units", "action units", "reward unit", *words, "return's gap"], lines)


main = frame.command("units", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
