"""What the runs on plants found: a table and two figures.

`python -m experiments.plants.report` makes them again from the committed rows.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from entroflow.plotting import STYLE, new_figure, save

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
        seconds = average([row for row in group if np.isfinite(number(row["seconds"]))], "seconds")
        begun = number(group[0]["begun"])
        first, timing = [
            "–" if np.isnan(x) else form.format(x) for x, form in ((begun, "{:.0%}"), (seconds, "{:.0f} s"))
        ]
        lines.append([f"`{plant}`", sizes, f"`{method}`", first, *cells, timing])
    heads = ["plant", "states, inputs", "method", "mean error at first", *(f"α = {alpha:g}" for alpha in alphas)]
    return frame.markdown([*heads, "processor time, a run"], lines)


def draw(out: Path, rows: Sequence[frame.Row], curves: Sequence[frame.Row]) -> None:
    """Draw errors by α and by dimension, and errors during training of the methods that began with nothing."""
    own = [row for row in rows if row["method"] == "sac_isfm"]
    plants = list(dict.fromkeys(row["plant"] for row in sorted(own, key=lambda row: int(row["states"]))))
    alphas = sorted({float(row["alpha"]) for row in own})
    with mpl.rc_context(STYLE):
        figure = new_figure(8.0, 6.4, "Relative errors on plants of one to twelve states")
        panels = figure.subplots(2, 2, sharey="row")
        for line, (key, name) in zip(panels, ERRORS.items(), strict=True):
            at = lambda plant, alpha, key=key: average(  # noqa: E731
                [row for row in own if row["plant"] == plant and float(row["alpha"]) == alpha], key
            )
            for plant, shade in zip(plants, np.linspace(0, 0.9, len(plants)), strict=True):
                states = next(row["states"] for row in own if row["plant"] == plant)
                look = {"color": mpl.colormaps["viridis"](shade), "markersize": 3, "label": f"{plant} ({states})"}
                line[0].plot(alphas, [at(plant, alpha) for alpha in alphas], "o-", **look)
            line[0].set(xscale="log", yscale="log", ylabel=f"error of {name}", xlabel="temperature α")
            for alpha in alphas:
                sizes = [next(int(row["states"]) for row in own if row["plant"] == plant) for plant in plants]
                line[1].plot(sizes, [at(plant, alpha) for plant in plants], "o-", markersize=3, label=f"α = {alpha:g}")
            line[1].set(xlabel="number of states")
        for panel in panels[0]:
            panel.legend(fontsize=6)
        save(out, "plants", figure)
    others = [row for row in rows if row["method"] != "sac_isfm" and np.isfinite(number(row["seconds"]))]
    if others:
        save(out, "methods", methods_figure(others, curves))


def methods_figure(rows: Sequence[frame.Row], curves: Sequence[frame.Row]) -> Figure:
    """Errors against transitions and against processor time, of which every step is taken to cost the same."""
    with mpl.rc_context(STYLE):
        figure = new_figure(
            8.0, 5.6, f"Three methods on equal data: {rows[0]['plant']}, α = {float(rows[0]['alpha']):g}"
        )
        panels = figure.subplots(2, 2, sharey="row", sharex="col")
        for line, (key, name) in zip(panels, ERRORS.items(), strict=True):
            for run in rows:
                same = ("plant", "method", "alpha", "seed")
                of = [row for row in curves if all(str(row[word]) == str(run[word]) for word in same)]
                seen = np.array(
                    [[number(row["transitions"]), number(row[key])] for row in of if int(row["transitions"])]
                )
                shares = seen[:, 0] / number(run["transitions"])
                for panel, x in zip(line, (seen[:, 0], number(run["seconds"]) * shares), strict=True):
                    panel.plot(x, seen[:, 1], "o-", markersize=2, label=run["method"])
            line[0].set(xscale="log", yscale="log", ylabel=f"error of {name}")
        panels[1][0].set(xlabel="transitions")
        panels[1][1].set(xscale="log", xlabel="processor seconds, compiling included")
        panels[0][0].legend(fontsize=7)
    return figure


def main() -> None:
    """Make table and figures of the committed rows again."""
    here = Path(__file__).parent
    rows, curves = (list(csv.DictReader((here / f"{name}.csv").open(newline=""))) for name in ("results", "curves"))
    (here / "table.md").write_text(table(rows), encoding="utf-8")
    draw(here, rows, curves)


if __name__ == "__main__":
    main()
