"""Comparisons of runs for people: figure, table, compare.json and compare.csv; the learning curve of one run."""

import itertools
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from rich import box
from rich.console import Group
from rich.constrain import Constrain
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .. import plotting
from .comparison import ALL_TASKS, Comparison, Curve, Estimate, compare
from .folder import write_json
from .records import read
from .tables import write_rows

ACROSS = 3  # panels beside each other
LETTERS = 56  # in a line of the legend, at most


def draw_learning_curve(folder: str | Path) -> None:
    """Write learning_curve.png and .pdf of one run into its folder."""
    plotting.save(Path(folder), "learning_curve", draw(compare([read(folder)])))


def draw(comparison: Comparison) -> Figure:
    """Draw one panel per task, and one for all tasks together if there is an aggregate.

    A line per algorithm is the interquartile mean over seeds, with 95 % intervals as bands; of three seeds or fewer it
    is their mean, with their range. Where a single algorithm is shown, its seeds are thin lines.
    """
    curves = comparison.curves + comparison.aggregate
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    styles = _styles(comparison)
    across = 2 if len(tasks) == 4 else min(len(tasks), ACROSS)
    down = -(-len(tasks) // across)
    seeds = sorted({len(curve.values) for curve in comparison.curves})
    few, counted = _are_few(comparison), " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    kind, band = ("mean", "lowest to highest seed") if few else ("interquartile mean", "95 % bootstrap intervals")
    note = f"{kind} over {counted} seeds; bands: {band}" if seeds[-1] > 1 else "one seed"
    note += "; thin: each seed" if seeds[-1] > 1 and len(styles) == 1 else ""
    width = min(max(3.3 * across + 0.3, 5.2), plotting.PAGE)
    columns = min(len(styles), max(int(12 * width) // (min(max(map(len, styles)), LETTERS) + 8), 1))
    rows = sum(-(-len(name) // LETTERS) for name in styles) / columns
    with mpl.rc_context(plotting.STYLE):
        title = tasks[0] if len(tasks) == 1 else ""
        figure = plotting.new_figure(width, 2.5 * down + 0.2 * rows + 0.4, title)
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for task, ax in zip(tasks, axes, strict=False):
            shown = [curve for curve in curves if curve.task == task]
            for curve in shown:
                _draw_curve(ax, curve, styles[curve.algorithm], few=few, alone=len(styles) == 1)
            _label(ax, task, comparison.metric, titled=not title, first=ax in axes[::across])
        for ax in axes[len(tasks) :]:
            ax.remove()
        plotting.legend_below(figure, note, columns=columns)
    return figure


def _are_few(comparison: Comparison) -> bool:
    """Return whether intervals would be no more than the range."""
    return max(len(curve.values) for curve in comparison.curves) <= 3


def _styles(comparison: Comparison) -> dict[str, dict[str, Any]]:
    names = list(dict.fromkeys(curve.algorithm for curve in comparison.curves))
    looks = zip(names, plotting.looks(len(names)), strict=True)
    return {name: look | {"zorder": 3 - i / len(names)} for i, (name, look) in enumerate(looks)}  # the first on top


def _draw_curve(ax: Axes, curve: Curve, style: dict[str, Any], *, few: bool, alone: bool) -> None:
    runs = curve.values.mean(axis=1)
    center = runs.mean(axis=0) if few else curve.iqm
    ends = np.stack([runs.min(axis=0), runs.max(axis=0)]) if few else curve.interval
    every = max(1, len(curve.steps) // 12)
    ax.plot(curve.steps, center, label=_shown(curve.algorithm), markevery=every, **style)
    if alone and len(runs) > 1:
        ax.plot(curve.steps, runs.T, **style | {"linewidth": 0.5, "alpha": 0.6, "marker": ""})
    if ends is not None and len(runs) > 1:
        band = {"alpha": 0.18, "linewidth": 0.0, "zorder": style["zorder"] - 1, "color": style["color"]}
        if len(curve.steps) == 1:
            ax.vlines(curve.steps, *ends, color=style["color"])
        ax.fill_between(curve.steps, *ends, **band)


def _shown(name: str) -> str:
    """Call an algorithm by its name; break a long one; take dollar signs and a leading underscore literally."""
    for code, called in plotting.NAMES.items():
        name = re.sub(rf"^{code}\b", called, name)
    name = textwrap.fill(name, LETTERS).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _label(ax: Axes, task: str, metric: str, *, titled: bool, first: bool) -> None:
    if titled:
        ax.set_title(task, parse_math=False)
    ax.margins(x=0)
    ax.set_xlim(left=0)
    ax.grid(color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    if task == ALL_TASKS:
        ax.set_xlabel("compared steps")
        ax.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        ax.set_ylabel(f"normalised {metric}", parse_math=False)
    else:
        ax.set_xlabel("environment steps")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        names = {"return": "evaluation return", "length": "evaluation length"}
        ax.set_ylabel(names.get(metric, metric) if first else "", parse_math=False)


def table(comparison: Comparison) -> Constrain:
    """Return the closing tables, at most 80 columns wide: scores by task, probabilities of improvement, notes."""
    style = {"box": box.SIMPLE_HEAD, "padding": 0, "pad_edge": False}
    plain = _are_few(comparison) and not comparison.aggregate
    kind = "mean [lowest, highest seed]" if plain else "interquartile mean [95 % interval]"
    scores = Table(title=f"{comparison.metric}: {kind}", **style)
    scores.add_column("", no_wrap=True)
    for header in ("seeds", "steps", "at the end", "average over steps", "minutes"):
        scores.add_column(header, justify="right", overflow="fold", no_wrap=len(header) < 6)
    for task, curves in itertools.groupby(comparison.curves + comparison.aggregate, lambda curve: curve.task):
        together = task == ALL_TASKS
        digits = "{:.2f}".format if together else _short
        scores.add_section()
        scores.add_row(f"[bold]{_wrapped(task)}{', normalised' if together else ''}")
        for curve in curves:
            scores.add_row(
                _wrapped(curve.algorithm, "  "),
                str(len(curve.values)),
                "" if together else EngFormatter(sep="")(curve.steps[-1]),
                *(_cell(estimate, digits) for estimate in (curve.final, curve.area)),
                f"{curve.minutes:.1f}" if curve.minutes < 100 else f"{curve.minutes:.0f}",
            )
    parts: list[Any] = [scores]
    if comparison.improvements:
        first = escape(comparison.improvements[0].first)
        better = Table(title=f"probability that a run of {first} ends better [95 % interval]", **style)
        for header in ("task", "than"):
            better.add_column(header, overflow="fold", max_width=28)
        better.add_column("probability", justify="right")
        for step in comparison.improvements:
            better.add_row(escape(step.task), escape(step.other), _cell(step.probability, "{:.2f}".format))
        parts.append(better)
    return Constrain(Group(*parts, *[Text(f"note: {note}", "dim") for note in comparison.notes]), 80)


def _wrapped(name: str, indent: str = "") -> str:
    return escape(textwrap.fill(name, 26, initial_indent=indent, subsequent_indent=2 * indent))


def _cell(estimate: Estimate, digits: Callable[[float], str]) -> str:
    interval = "" if estimate.interval is None else f"[{', '.join(map(digits, estimate.interval))}]"
    return f"{digits(estimate.value)} {interval}".rstrip()


def _short(value: float) -> str:
    """Write a score in at most six characters, if it is below a million."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def write(out: Path, comparison: Comparison) -> None:
    """Write compare.json, which holds everything that is drawn, and compare.csv, which holds the table."""
    drawn = lambda curves: [_row(curve) | {"curve": _points(curve)} for curve in curves]  # noqa: E731
    document = {
        "metric": comparison.metric,
        "curves": drawn(comparison.curves),
        "aggregate": drawn(comparison.aggregate),
        "bounds": comparison.bounds,
        "improvements": [
            {"task": step.task, "first": step.first, "other": step.other} | _estimate("probability", step.probability)
            for step in comparison.improvements
        ],
        "notes": comparison.notes,
    }
    write_json(out / "compare.json", document)
    write_rows(out / "compare.csv", [_row(curve) for curve in comparison.curves + comparison.aggregate])


def _row(curve: Curve) -> dict[str, Any]:
    steps = None if curve.task == ALL_TASKS else int(curve.steps[-1])
    head = {"task": curve.task, "algorithm": curve.algorithm, "seeds": len(curve.values), "steps": steps}
    return head | _estimate("final", curve.final) | _estimate("area", curve.area) | {"minutes": round(curve.minutes, 2)}


def _points(curve: Curve) -> dict[str, Any]:
    low, high = [None, None] if curve.interval is None else curve.interval
    values = curve.values if curve.task == ALL_TASKS else curve.values[:, 0]
    return {"at": curve.steps, "iqm": curve.iqm, "low": low, "high": high, "values": values}


def _estimate(name: str, estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate.interval or (None, None)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
