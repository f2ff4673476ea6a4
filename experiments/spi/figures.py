"""What the study of soft policy iteration shows: errors at every iteration, trajectories, policies and the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from entroflow.plotting import (
    DASHES,
    EXACT,
    LEARNED,
    QUIET,
    STYLE,
    label_logarithmic,
    legend_below,
    new_figure,
    save,
)

from .. import frame

GAP = 0.07  # between the labels of a matrix's entries, as a share of the axis
TARGET = 0.03  # relative error, drawn as a dotted line
LOWEST = (
    1e-4  # relative error; the exact policies' own, which fall faster and faster, are cut off below it or the flows'
)


class Shown(NamedTuple):
    """A quantity of the table and of the figure of errors.

    Attributes:
        name: what it is called.
        error: column of the flow's distance from the exact policy of the same iteration.
        exact: column of the exact policy's distance from the optimum.
    """

    name: str
    error: str
    exact: str


Rows = Sequence[dict[str, Any]]


def draw(folder: Path, problem: Any, iterates: Rows, pictures: Sequence[Sequence[Any]]) -> None:
    """Save all figures of a study.

    Args:
        folder: output folder.
        problem: the problem.
        iterates: one record per iteration, temperature and seed.
        pictures: by iteration, then by temperature, what the problem draws of the first seed's policy.
    """
    save(folder, "errors", errors_figure(f"soft policy iteration: {problem.name}", problem.shown, iterates))
    for name, figure in problem.figures(iterates, pictures):
        save(folder, name, figure)


def errors_figure(title: str, shown: Sequence[Shown], rows: Rows) -> Figure:
    """The flow's relative distance from the exact policy at every iteration, a column of panels per temperature.

    Args:
        title: the figure's title.
        shown: the quantities, one row of panels each.
        rows: one record per iteration, temperature and seed.

    Returns:
        The figure.
    """
    temperatures = sorted({row["alpha"] for row in rows})
    with mpl.rc_context(STYLE):
        figure = new_figure(1.2 + 2.4 * len(temperatures), 1.4 + 1.7 * len(shown), title)
        panels = figure.subplots(len(shown), len(temperatures), sharex=True, sharey="row", squeeze=False)
        for line, quantity in zip(panels, shown, strict=True):
            values = [row[name] for row in rows for name in (quantity.error, quantity.exact)]
            largest = np.nanmax([*np.array(values, float), TARGET])
            flows = np.array([row[quantity.error] for row in rows], float)
            lowest = min(LOWEST, 0.7 * np.min(flows[flows > 0], initial=LOWEST))
            for ax, temperature in zip(line, temperatures, strict=True):
                errors, k = by_seed(rows, temperature, quantity.error)
                exact, _ = by_seed(rows, temperature, quantity.exact)
                style = {"markersize": 3, "linewidth": 0.8}
                for seed in errors:
                    ax.plot(k, seed, "o-", color=LEARNED, label="flow to exact policy $\\pi_k$, one seed", **style)
                ax.plot(k, exact[0], "s--", color=EXACT, label="exact policy $\\pi_k$ to optimum $\\pi^*$", **style)
                ax.axhline(TARGET, color=QUIET, linestyle=":", linewidth=1, label=f"{100 * TARGET:g} %")
                ax.set_yscale("log")
                ax.set_ylim(lowest, 2 * largest)
                label_logarithmic(ax.yaxis, lambda share: f"{100 * share:g} %")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            line[0].set_ylabel(f"{quantity.name}\nrelative distance")
        for ax, temperature in zip(panels[0], temperatures, strict=True):
            ax.set_title(f"α = {temperature:g}", fontweight="bold")
        for ax in panels[-1]:
            ax.set_xlabel("iteration k")
        legend_below(figure, "")
    return figure


def trajectories_figure(title: str, rows: Rows) -> Figure:
    """Every entry of the gain and of the covariance against the iteration: exact lines, flow policies as dots.

    Args:
        title: the figure's title.
        rows: one record per iteration, temperature and seed, with `K`, `covariance` and both of them `exact_`.

    Returns:
        The figure.
    """
    temperatures = sorted({row["alpha"] for row in rows})
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 1.2 + 2.2 * len(temperatures), title)
        panels = figure.subplots(len(temperatures), 2, sharex=True, squeeze=False)
        for line, temperature in zip(panels, temperatures, strict=True):
            for ax, name in zip(line, ("K", "covariance"), strict=True):
                flows, k = by_seed(rows, temperature, name)
                exact, _ = by_seed(rows, temperature, f"exact_{name}")
                shape = exact.shape[2:]
                entries = list(np.ndindex(shape) if name == "K" else zip(*np.triu_indices(shape[0]), strict=True))
                colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.75, len(entries)))
                for place, ((i, j), colour) in enumerate(zip(entries, colours, strict=True)):
                    ax.plot(k, exact[0, :, i, j], color=colour, linewidth=1.2, linestyle=DASHES[place % len(DASHES)])
                    for seed in flows:
                        ax.plot(k, seed[:, i, j], "o", markersize=4.5, markerfacecolor="none", color=colour)
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
                ends = [exact[0, -1, i, j] for i, j in entries]
                for height, (i, j), colour in zip(apart(ends, *ax.get_ylim()), entries, colours, strict=True):
                    text = f"${'K' if name == 'K' else 'Σ'}_{{{i + 1}{j + 1}}}$"
                    ax.text(1.01, height, text, transform=ax.transAxes, color=colour, fontsize=8, va="center")
            line[0].set_ylabel(f"α = {temperature:g}: gain K\n(action per state)")
            line[1].set_ylabel("covariance Σ (action²)")
        panels[0, 0].set_title("entries of the gain K", fontweight="bold")
        panels[0, 1].set_title("entries of the covariance Σ", fontweight="bold")
        for ax in panels[-1]:
            ax.set_xlabel("iteration k")
        panels[0, 0].plot([], [], color=EXACT, linewidth=1.2, label="exact (Lemma 1)")
        panels[0, 0].plot([], [], "o", color=EXACT, markersize=4.5, markerfacecolor="none", label="flow policies")
        legend_below(figure, "")
    return figure


def apart(values: Sequence[float], low: float, high: float) -> np.ndarray:
    """Return where labels of values stand on an axis, from 0 to 1, at least `GAP` from each other.

    Args:
        values: the values.
        low: lower end of the axis.
        high: its upper end.

    Returns:
        The places, in the order of the values.
    """
    shares = (np.array(values) - low) / (high - low)
    order = np.argsort(shares, kind="stable")
    steps = GAP * np.arange(len(shares))
    raised = np.maximum.accumulate(shares[order] - steps) + steps
    lowered = np.minimum.accumulate((shares[order] - steps)[::-1])[::-1] + steps
    places = np.empty(len(shares))
    places[order] = np.clip((raised + lowered) / 2, steps, 1 - steps[::-1])
    return places


def policies_figure(
    title: str,
    flows: Sequence[tuple[np.ndarray, np.ndarray]],
    exact: Sequence[np.ndarray],
    grid: np.ndarray,
) -> Figure:
    """Densities of a bounded action, a row per iteration and a column per state: flow policy and exact policy.

    Args:
        title: the figure's title.
        flows: by iteration, actions and their log-densities, each of shape (k, S).
        exact: by iteration, the exact log-densities on the grid, (m, S).
        grid: the grid of actions, (m,).

    Returns:
        The figure.
    """
    states = exact[0].shape[1]
    with mpl.rc_context(STYLE):
        figure = new_figure(0.8 + 1.4 * states, 1.0 + 1.25 * len(exact), title)
        panels = figure.subplots(len(exact), states, sharex=True, squeeze=False)
        for k, (line, (actions, log_probs), log_exact) in enumerate(zip(panels, flows, exact, strict=True)):
            for state, ax in enumerate(line):
                order = np.argsort(actions[:, state])
                density = np.exp(log_probs[order, state])
                style = {"color": LEARNED, "alpha": 0.35, "linewidth": 0, "label": "flow policy"}
                ax.fill_between(actions[order, state], density, **style)
                ax.plot(grid, np.exp(log_exact[:, state]), color=EXACT, linewidth=1, label="exact, on a grid")
                ax.set_xlim(-1, 1)
                ax.set_ylim(bottom=0)
                ax.set_xticks([-1, 0, 1])
                ax.yaxis.set_major_locator(MaxNLocator(2))
            line[0].set_ylabel(f"k = {k}")
        for state, ax in enumerate(panels[0]):
            ax.set_title(f"room {state}")
        for ax in panels[-1]:
            ax.set_xlabel("action a")
        legend_below(figure, "")
    return figure


def table(problem: Any, rows: Rows) -> Table:
    """Return the closing table, at most 80 columns wide: for each temperature and iteration, all seeds together."""
    headers = ["α", "k", *[header for quantity in problem.shown for header in (f"{quantity.name}\nexact", "\nflow")]]
    caption = "in %: exact from optimum; flow from exact, mean (worst) of seeds"
    title = "soft policy iteration: flow policies against exact ones"
    table = frame.new_table(title, caption, [*headers, "ESS/N"])
    for temperature in dict.fromkeys(row["alpha"] for row in rows):
        for k in range(rows[-1]["iteration"] + 1):
            group = [row for row in rows if row["alpha"] == temperature and row["iteration"] == k]
            cells = [f"{temperature:g}" if k == 0 else "", f"{k}"]
            for quantity in problem.shown:
                errors = 100 * np.array([row[quantity.error] for row in group])
                cells += [f"{100 * group[0][quantity.exact]:.3g}", f"{errors.mean():.2g} ({errors.max():.2g})"]
            table.add_row(*cells, f"{np.mean([row['ess'] for row in group]):.3f}")
        table.add_section()
    return table


def by_seed(rows: Rows, temperature: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a column at one temperature, (seeds, iterations, ...), and the iterations."""
    chosen = [row for row in rows if row["alpha"] == temperature]
    seeds = dict.fromkeys(row["seed"] for row in chosen)
    values = np.array([[row[name] for row in chosen if row["seed"] == seed] for seed in seeds], dtype=float)
    return values, np.arange(values.shape[1])
