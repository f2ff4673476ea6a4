"""What the runs on plants found: a table and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from entroflow.plotting import STYLE, legend_below, new_figure, save

from .. import frame

COLUMNS = [
    *("plant", "method", "states", "inputs", "alpha", "seed", "mean_error_relative", "covariance_error_relative"),
    *("gap", "begun", "transitions", "seconds"),
]
ERRORS = {"mean_error_relative": "action mean", "covariance_error_relative": "action covariance"}


def number(value: Any) -> float:
    """Return a number of a table's cell; one that is not there is not a number."""
    return float("nan" if value in ("", None) else value)


def average(rows: Sequence[frame.Row], key: str) -> float:
    """Return the mean of a column; none of no rows."""
    return float(np.mean([number(row[key]) for row in rows])) if rows else float("nan")


def groups(rows: Sequence[frame.Row], *keys: str) -> dict[tuple[Any, ...], list[frame.Row]]:
    """Return the rows by the values of some columns, in their order."""
    found: dict[tuple[Any, ...], list[frame.Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def table(rows: Sequence[frame.Row]) -> str:
    """Return the errors at the end, a line for every plant and method, a column for every α: mean, covariance."""
    alphas = sorted({float(row["alpha"]) for row in rows})
    lines = []
    by_size = sorted(rows, key=lambda row: int(row["states"]))
    for (plant, method), group in groups(by_size, "plant", "method").items():
        sizes = f"{group[0]['states']}, {group[0]['inputs']}"
        cells = []
        for alpha in alphas:
            of = [row for row in group if float(row["alpha"]) == alpha]
            means = [average(of, key) for key in ERRORS]
            cells.append(f"{means[0]:.1%}, {means[1]:.1%}" if np.isfinite(means).all() else "broke down" if of else "–")
        seconds = average([row for row in group if row["seconds"]], "seconds")
        timing = "–" if np.isnan(seconds) else f"{seconds:.0f} s"
        lines.append(
            [
                f"`{plant}`",
                sizes,
                f"`{method}`",
                f"{number(group[0]['begun']):.0%}" if group[0]["begun"] else "–",
                *cells,
                timing,
            ]
        )
    heads = ["plant", "states, inputs", "method", "mean error at first", *(f"α = {alpha:g}" for alpha in alphas)]
    return frame.markdown([*heads, "processor time, a run"], lines)


def draw(out: Path, rows: Sequence[frame.Row], curves: Sequence[frame.Row]) -> None:
    """Draw errors by α and by dimension, and errors during training where all methods ran."""
    own = [row for row in rows if row["method"] == "sac_isfm"]
    plants = list(dict.fromkeys(row["plant"] for row in own))
    alphas = sorted({float(row["alpha"]) for row in own})
    shades = {key: mpl.colormaps["viridis"](x) for key, x in zip(plants, np.linspace(0, 0.9, len(plants)), strict=True)}
    compared = list(dict.fromkeys(row["plant"] for row in curves if row["method"] != "sac_isfm"))
    with mpl.rc_context(STYLE):
        figure = new_figure(11.0, 6.4, "Relative errors on plants of one to twelve states")
        panels = figure.subplots(2, 2 + len(compared), squeeze=False, sharey="row")
        for line, (key, name) in zip(panels, ERRORS.items(), strict=True):
            for plant in plants:
                of = [row for row in own if row["plant"] == plant]
                at = [average([row for row in of if float(row["alpha"]) == alpha], key) for alpha in alphas]
                states = of[0]["states"]
                line[0].plot(alphas, at, "o-", color=shades[plant], markersize=3, label=f"{plant} ({states})")
            line[0].set(xscale="log", yscale="log", ylabel=f"error of {name}", xlabel="temperature α")
            for alpha in alphas:
                points = sorted((int(row["states"]), number(row[key])) for row in own if float(row["alpha"]) == alpha)
                line[1].plot(*zip(*points, strict=True), "o-", markersize=3, label=f"α = {alpha:g}")
            line[1].set(xlabel="number of states")
            for panel, plant in zip(line[2:], compared, strict=True):
                of = [row for row in curves if row["plant"] == plant and float(row["alpha"]) == 1.0]
                for (method,), steps in groups(of, "method").items():
                    late = [row for row in steps if row["seed"] == steps[0]["seed"] and int(row["transitions"]) > 0]
                    panel.plot([int(r["transitions"]) for r in late], [number(r[key]) for r in late], label=method)
                panel.set(xscale="log", xlabel="transitions")
                panel.set_title(f"{plant}, α = 1", fontsize=8)
        for panel in panels[0]:
            panel.legend(fontsize=6)
        legend_below(figure, "Curves: seed 0.")
        save(out, "plants", figure)
