"""What the runs on plants found: a table and two figures."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from entroflow.plotting import PAGE, STYLE, label_logarithmic, legend_below, looks, new_figure

from .. import frame

COLUMNS = [
    *("plant", "method", "states", "inputs", "alpha", "seed", "mean_error_relative", "covariance_error_relative"),
    *("gap", "begun", "signal", "transitions", "seconds"),
]
NAMES = {"default": "SAC-ISFM", "paper": "SAC-ISFM, paper's preset", "gaussian_sac": "Gaussian SAC"}
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
        seconds = average([row for row in group if np.isfinite(number(row["seconds"]))], "seconds")
        begun = number(group[0]["begun"])
        first, timing = [
            "–" if np.isnan(x) else form.format(x) for x, form in ((begun, "{:.0%}"), (seconds, "{:.0f} s"))
        ]
        lines.append([f"`{plant}`", sizes, f"`{method}`", first, *cells, timing])
    heads = ["plant", "states, inputs", "method", "mean error at first", *(f"α = {alpha:g}" for alpha in alphas)]
    return frame.markdown([*heads, "processor time, a run"], lines)


def error_beside(row: frame.Row) -> float:
    """Return the error of the mean in deviations of the exploration."""
    return number(row["signal"]) * number(row["mean_error_relative"])


def beside_exploration(rows: Sequence[frame.Row]) -> str:
    """Return how large the best mean is, and how large the learned one's error, in deviations of the exploration."""
    own = sorted((row for row in rows if row["method"] == "sac_isfm"), key=lambda row: int(row["states"]))
    alphas = sorted({float(row["alpha"]) for row in own})
    lines = []
    for (plant, states), group in groups(own, "plant", "states").items():
        cells = []
        for alpha in alphas:
            of = [row for row in group if float(row["alpha"]) == alpha]
            size, error = average(of, "signal"), float(np.mean([error_beside(row) for row in of] or [np.nan]))
            cells.append(f"{size:.2g}: {error:.1%}" if np.isfinite(error) else f"{size:.2g}: broke down" if of else "–")
        lines.append([f"`{plant}`", str(states), *cells])
    return frame.markdown(["plant", "states", *(f"α = {alpha:g}" for alpha in alphas)], lines)


def plants_figure(rows: Sequence[frame.Row]) -> Figure:
    """Errors by α, a line for a plant, and by dimension, a line for a temperature."""
    own = [row | {"mean_error": error_beside(row)} for row in rows if row["method"] == "sac_isfm"]
    errors_of = {"mean_error": "mean, in deviations of\nthe exploration", "covariance_error_relative": "covariance"}
    states = {row["plant"]: int(row["states"]) for row in sorted(own, key=lambda row: int(row["states"]))}
    alphas = sorted({float(row["alpha"]) for row in own})
    with mpl.rc_context(STYLE):
        figure = new_figure(PAGE, 6.4, "Errors on plants of one to twelve states, begun as a detuned controller")
        panels = figure.subplots(2, 2, sharey="row", sharex="col")
        for line, (key, name) in zip(panels, errors_of.items(), strict=True):
            cells = groups(own, "plant", "alpha").items()
            at = {(plant, float(alpha)): average(of, key) for (plant, alpha), of in cells}
            nothing = float("nan")
            for plant, look in zip(states, looks(len(states)), strict=True):
                errors = [at.get((plant, alpha), nothing) for alpha in alphas]
                line[0].plot(alphas, errors, **look, label=f"{plant} ({states[plant]})")
            for alpha, look in zip(alphas, looks(len(alphas)), strict=True):
                errors = [at.get((plant, alpha), nothing) for plant in states]
                line[1].plot(list(states.values()), errors, **look, label=f"α = {alpha:g}")
            line[0].set(xscale="log", yscale="log", ylabel=f"error of {name}")
            label_logarithmic(line[0].yaxis, lambda x: f"{x:.1%}" if x < 0.01 else f"{x:.0%}")
        panels[1][0].set_xlabel("temperature α")
        panels[1][1].set_xlabel("number of states")
        panels[1][1].legend(loc="upper center")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def methods_figure(rows: Sequence[frame.Row], curves: Sequence[frame.Row]) -> Figure:
    """Errors against transitions and against processor time, of which every step is taken to cost the same."""
    own = [row for row in rows if row["method"] != "sac_isfm" and np.isfinite(number(row["seconds"]))]
    same = "plant", "method", "alpha", "seed"
    with mpl.rc_context(STYLE):
        title = ", ".join(f"{plant}, α = {alpha:g}" for plant, alpha in {(r["plant"], float(r["alpha"])) for r in own})
        figure = new_figure(PAGE, 5.6, f"Three methods that begin with nothing: {title}")
        panels = figure.subplots(2, 2, sharey="row", sharex="col")
        for line, (key, name) in zip(panels, ERRORS.items(), strict=True):
            for run, look in zip(own, looks(len(own)), strict=True):
                of = [row for row in curves if all(str(row[word]) == str(run[word]) for word in same)]
                seen = np.array([[number(row["transitions"]), number(row[key])] for row in of])
                line[0].plot(*seen.T, **look, label=NAMES[run["method"]])
                line[1].plot(seen[:, 0] * number(run["seconds"]) / number(run["transitions"]), seen[:, 1], **look)
            line[0].set(xscale="log", yscale="log", ylabel=f"error of {name}")
            line[1].set(xscale="log")
            label_logarithmic(line[0].yaxis, lambda x: f"{x:.1%}" if x < 0.01 else f"{x:.0%}")
        panels[1][0].set_xlabel("transitions")
        panels[1][1].set_xlabel("processor seconds, compiling included")
        legend_below(figure, "")
    return figure
