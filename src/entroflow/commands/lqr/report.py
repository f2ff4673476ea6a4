"""What the LQR study reports: errors against the exact optimum, files, figures and the table."""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Table

from ...agents import sampling
from ...lqr import LQR
from ...lqr.matrices import matrix_root
from ...plotting import save
from ...rl.actors import NoiseDensityPolicy
from .evaluate import LQREvaluation, normal_points
from .figures import Curve, Picture, errors_figure, learning_figure, policies_figure, returns_figure
from .plan import Run

PICTURE_SAMPLES = 4000


def errors(run: Run, evaluation: LQREvaluation) -> dict[str, float]:
    """Compare an evaluation with the optimum: averages and standard deviations over the visited states.

    A policy that does not stabilise the system may have overflowed: then errors are NaN.
    """
    bounded = all(np.isfinite(part).all() for part in (evaluation.states, evaluation.mean, evaluation.covariance))
    if bounded:
        exact = -evaluation.states @ run.K.T
        mean = np.linalg.norm(evaluation.mean - exact, axis=1)
        covariance = np.linalg.norm(np.asarray(evaluation.covariance) - run.covariance, ord=2, axis=(1, 2))
    else:
        exact, mean, covariance = np.full((3, 1, 1), math.nan)
    mean_scale, covariance_scale = np.linalg.norm(exact, axis=1).mean(), np.linalg.norm(run.covariance, 2)
    unit = _mean_unit(run, mean_scale)
    values = {
        "standard_return": evaluation.standard_return,
        "optimal_standard_return": run.best_return,
        "mean_error": mean.mean(),
        "mean_error_std": mean.std(),
        "mean_error_relative": mean.mean() / unit,
        "mean_error_relative_std": mean.std() / unit,
        "covariance_error": covariance.mean(),
        "covariance_error_std": covariance.std(),
        "covariance_error_relative": covariance.mean() / covariance_scale,
        "covariance_error_relative_std": covariance.std() / covariance_scale,
        "mean_scale": mean_scale,
        "covariance_scale": covariance_scale,
        "entropy": evaluation.entropy,
        "optimal_entropy": run.entropy,
    }
    return {name: float(value) for name, value in values.items()}


def _mean_unit(run: Run, mean_scale: float) -> float:
    """Return what errors of the mean are relative to: the average ‖K*s‖₂, or NaN where the optimal mean is always zero.

    This is so for a discount of zero, for Q = 0 and where the state stays at zero.
    """
    return mean_scale if mean_scale > 1e-6 * np.sqrt(np.linalg.norm(run.covariance, 2)) else math.nan


def floors(run: Run, samples: int, mean_scale: float) -> dict[str, float]:
    """Return what the same estimates give for the optimum itself, whose errors are zero: the samples' own share."""
    actions = normal_points(samples, len(run.covariance)) @ matrix_root(run.covariance).T
    mean = np.linalg.norm(actions.mean(axis=0))
    covariance = np.linalg.norm(np.atleast_2d(np.cov(actions.T, bias=True)) - run.covariance, 2)
    values = {
        "mean_error_floor": mean,
        "mean_error_relative_floor": mean / _mean_unit(run, mean_scale),
        "covariance_error_floor": covariance,
        "covariance_error_relative_floor": covariance / np.linalg.norm(run.covariance, 2),
    }
    return {name: float(value) for name, value in values.items()}


def pictures(lqr: LQR, run: Run, policy: NoiseDensityPolicy) -> list[Picture]:
    """Draw actions at three states: zero, and one standard deviation of s_0 in the first and last direction."""
    root = matrix_root(lqr.initial_cov)
    states = np.stack([np.zeros(len(root)), root[:, 0], -root[:, -1]])
    key = sampling.key_of(0)
    actions = np.asarray(sampling.draw(policy, "sample", jnp.asarray(states, jnp.float32), key, PICTURE_SAMPLES))
    shown = zip(states, actions, strict=True)
    return [Picture(run.temperature, state, part, -run.K @ state, run.covariance) for state, part in shown]


def draw(
    out: Path,
    title: str,
    runs: list[Run],
    rows: list[dict[str, Any]],
    results: list[dict[str, Any]],
    shown: list[Picture],
) -> None:
    """Draw all figures of the runs into a folder, from rows of metrics.csv, results and pictures of policies."""
    columns = ("transitions", "standard_return", "mean_error_relative", "covariance_error_relative")
    curves = [
        Curve(run.temperature, run.seed, *[np.array([row[name] for row in rows[i :: len(runs)]]) for name in columns])
        for i, run in enumerate(runs)
    ]
    optimal = {(run.temperature, run.seed): run.best_return for run in runs}
    save(out, "figure1", returns_figure(curves, optimal, title))
    save(out, "figure2", errors_figure(results, title))
    save(out, "figure3", learning_figure(curves, title))
    save(out, "policies", policies_figure(shown, title))


def table(results: list[dict[str, Any]]) -> Table:
    """Return the closing table, at most 80 columns wide: for each temperature its seeds' average and worst."""
    headers = "α", "mean\nerror %", "covariance\nerror %", "return", "optimal", "gap %", "entropy", "optimal", "ESS/N"
    caption = "average over seeds; in brackets, and for the gap, the worst seed"
    style = {"box": box.SIMPLE_HEAD, "padding": 0, "pad_edge": False}
    table = Table(title="learned policy against the exact optimum", caption=caption, **style)
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    for alpha in dict.fromkeys(row["alpha"] for row in results):
        rows = [row for row in results if row["alpha"] == alpha]
        values = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "policy"}
        gaps = 1 - values["standard_return"] / values["optimal_standard_return"]
        percent = lambda numbers: f"{_short(100 * numbers.mean())} ({_short(100 * numbers.max())})"  # noqa: E731
        table.add_row(
            f"{alpha:g}",
            percent(values["mean_error_relative"]),
            percent(values["covariance_error_relative"]),
            f"{values['standard_return'].mean():.4g}",
            f"{values['optimal_standard_return'].mean():.4g}",
            f"{100 * gaps[np.argmax(np.abs(gaps))]:+.3g}",
            f"{values['entropy'].mean():.3f}",
            f"{values['optimal_entropy'].mean():.3f}",
            f"{values['ess'].mean():.3f}",
        )
    return table


def diverging(results: list[dict[str, Any]]) -> str | None:
    """Say which policies let the plant diverge, so that nothing of them is finite, and what to do; None: none does."""
    runs = [f"α={row['alpha']:g} seed={row['seed']}" for row in results if not math.isfinite(row["standard_return"])]
    remedy = "make more --steps, or begin with a gain that does, --initial-gain FILE"
    return f"not finite, for these policies do not stabilise the plant: {', '.join(runs)}; {remedy}." if runs else None


def _short(number: float) -> str:
    """Write a number in at most six characters."""
    return f"{number:.1f}" if abs(number) < 1000 else f"{number:.0e}"
