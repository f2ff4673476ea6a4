"""What the LQR study reports: errors against the exact optimum, files, figures and the table."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from rich.table import Table

from ..lqr import LQR
from ..lqr.figures import Curve, Picture, draw_errors, draw_learning, draw_policies, draw_returns
from ..lqr.matrices import matrix_root
from ..rl.evaluate import Evaluation, Noise, normal_points
from .agent import Agent

PICTURE_SAMPLES = 4000


class Run(NamedTuple):
    """One run of the study with its exact optimum.

    Attributes:
        alpha: temperature.
        seed: seed.
        K: the optimum's gain K*.
        covariance: the optimum's covariance Σ*.
        entropy: the optimum's entropy.
        best_return: the optimum's average return on `noise`.
        noise: what the run's evaluations draw from.
    """

    alpha: float
    seed: int
    K: Float[np.ndarray, "d n"]
    covariance: Float[np.ndarray, "d d"]
    entropy: float
    best_return: float
    noise: Noise


def errors(run: Run, evaluation: Evaluation) -> dict[str, float]:
    """Compare an evaluation with the optimum: averages and standard deviations over the visited states."""
    exact = -evaluation.states @ run.K.T
    mean = np.linalg.norm(evaluation.mean - exact, axis=1)
    covariance = np.linalg.norm(evaluation.covariance - run.covariance, ord=2, axis=(1, 2))
    mean_scale = np.linalg.norm(exact, axis=1).mean()
    covariance_scale = np.linalg.norm(run.covariance, 2)
    values = {
        "standard_return": evaluation.standard_return,
        "optimal_standard_return": run.best_return,
        "mean_error": mean.mean(),
        "mean_error_std": mean.std(),
        "mean_error_relative": mean.mean() / mean_scale,
        "mean_error_relative_std": mean.std() / mean_scale,
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


def floors(run: Run, samples: int) -> dict[str, float]:
    """Return what the same estimates give for the optimum itself, whose errors are zero: the samples' own share."""
    actions = normal_points(samples, len(run.covariance)) @ matrix_root(run.covariance)
    covariance = np.atleast_2d(np.cov(actions.T, bias=True))
    return {
        "mean_error_floor": float(np.linalg.norm(actions.mean(axis=0))),
        "covariance_error_floor": float(np.linalg.norm(covariance - run.covariance, 2)),
    }


def pictures(lqr: LQR, run: Run, agent: Agent) -> list[Picture]:
    """Draw actions at three states: zero, and one standard deviation of s_0 in the first and last direction."""
    root = matrix_root(lqr.initial_cov)
    states = np.stack([np.zeros(len(root)), root[:, 0], -root[:, -1]])
    actions = agent.sample(states, PICTURE_SAMPLES)
    shown = zip(states, actions, strict=True)
    return [Picture(run.alpha, state, part, -run.K @ state, run.covariance) for state, part in shown]


def draw(
    out: Path,
    title: str,
    runs: list[Run],
    rows: list[dict[str, Any]],
    results: list[dict[str, Any]],
    shown: list[Picture],
) -> None:
    """Draw all figures."""
    columns = ("transitions", "standard_return", "mean_error_relative", "covariance_error_relative")
    curves = [
        Curve(run.alpha, run.seed, *[np.array([row[name] for row in rows[i :: len(runs)]]) for name in columns])
        for i, run in enumerate(runs)
    ]
    draw_returns(out, curves, {(run.alpha, run.seed): run.best_return for run in runs}, title)
    draw_errors(out, results, title)
    draw_learning(out, curves, title)
    draw_policies(out, shown, title)


def write(
    out: Path, lqr: LQR, settings: dict[str, Any], seconds: dict[str, float], results: list[dict[str, Any]]
) -> None:
    """Write results.json."""
    packages = ("entroflow", "jax", "equinox", "optax", "numpy", "scipy")
    document = {
        "system": lqr.to_dict(),
        "settings": settings,
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version(), "device": str(jax.devices()[0])},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "runs": results,
    }
    (out / "results.json").write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")


def table(results: list[dict[str, Any]]) -> Table:
    """Return the closing table: for each temperature the average over its seeds, and the worst seed."""
    table = Table(title="learned policy against the exact optimum (average over seeds, worst seed in brackets)")
    for column in ("α", "mean error", "covariance error", "return", "optimal", "gap", "entropy", "optimal", "ESS/N"):
        table.add_column(column, justify="right")
    for alpha in dict.fromkeys(row["alpha"] for row in results):
        rows = [row for row in results if row["alpha"] == alpha]
        values = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "policy"}
        gaps = 1 - values["standard_return"] / values["optimal_standard_return"]
        percent = lambda numbers: f"{numbers.mean():.1%} ({numbers.max():.1%})"  # noqa: E731
        table.add_row(
            f"{alpha:g}",
            percent(values["mean_error_relative"]),
            percent(values["covariance_error_relative"]),
            f"{values['standard_return'].mean():.4g}",
            f"{values['optimal_standard_return'].mean():.4g}",
            f"{gaps[np.argmax(np.abs(gaps))]:+.2%}",
            f"{values['entropy'].mean():.3f}",
            f"{values['optimal_entropy'].mean():.3f}",
            f"{values['ess'].mean():.3f}",
        )
    return table
