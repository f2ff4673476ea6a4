"""The figures of Theorem 2: candidates and divergence; proposals and normalisations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entroflow.plotting import EXACT, LEARNED, OTHER, QUIET, STYLE, label_logarithmic, new_figure, save

from .. import frame
from . import weights as weighing
from .report import DIVERGENCE_SLOPE, SAMPLES_SLOPE, average, proposal_rows

GREEN = "#009e73"
LOOKS = {"shifted": (LEARNED, "o", "-"), "widened": (OTHER, "s", "--"), "narrowed": (GREEN, "^", "-")}
LOOKS |= {"self": (LEARNED, "o", "-"), "state": (OTHER, "s", "-"), "raw": (GREEN, "^", "-")}
TITLE = "Theorem 2: W₂² between the learned distribution and its target\n(marks: seeds; lines: their geometric mean)"
BOUND = {"color": EXACT, "linestyle": "--", "linewidth": 1.2}


def draw(folder: Path, document: dict[str, Any]) -> None:
    """Save `bound_figure` and `weights_figure` as theorem2 and weights, PNG and PDF."""
    save(folder, "theorem2", bound_figure(document))
    save(folder, "weights", weights_figure(document))


def bound_figure(document: dict[str, Any]) -> Figure:
    """Return the figure of the bound: marks are seeds, lines their geometric mean, dashed black lines its trends.

    Args:
        document: what `report.summarise` returns, or results.json.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 3.4, TITLE)
        panels = figure.subplots(1, 3)
        for ax, d in zip(panels[:2], (1, 2), strict=True):
            _samples(ax, document, d)
        _divergence(panels[2], document)
    return figure


def weights_figure(document: dict[str, Any]) -> Figure:
    """Return the figure of what the weights do: proposals, and normalisations in gradients and in fits.

    Args:
        document: what `report.summarise` returns, or results.json.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 6.2, "Theorem 2: proposals and normalisations (marks: seeds; bars: geometric mean)")
        parts = figure.subplot_mosaic([["proposals", "proposals"], ["gradient", "fits"]], height_ratios=[1.1, 1])
        _proposals(parts["proposals"], document)
        _weights(parts["gradient"], document)
        _fitted(parts["fits"], document)
    return figure


def _samples(ax: Axes, document: dict[str, Any], d: int) -> None:
    rows = [row for row in document["cells"] if row["study"] == "samples" and row["dimension"] == d]
    (floor,) = (row for row in document["cells"] if row["study"] == "floor" and row["dimension"] == d)
    sizes = np.array([row["candidates"] for row in rows], float)
    _seeds(ax, sizes, rows, "self")
    means = np.array([average(row) for row in rows])
    ax.plot(sizes, means, color=LEARNED, label="learned flow")
    if d == 1:
        ax.plot(
            sizes,
            [average(row, "set_w2_squared") for row in rows],
            color=OTHER,
            linestyle=":",
            label="the weighted set itself",
        )
    ax.axhline(average(floor), color=QUIET, linewidth=1, label="the network's floor")
    ax.plot(sizes, means[0] * (sizes / sizes[0]) ** SAMPLES_SLOPE, label="bound's trend $N^{-1/2}$", **BOUND)
    ax.set(xscale="log", yscale="log", xlabel="candidates N", ylabel="$W_2^2$ to the target" if d == 1 else "")
    values = np.array([value for row in rows for value in row["w2_squared"]], float)
    ax.set_ylim(np.nanmin(values) / (200 if d == 1 else 2), 20 * np.nanmax(values))  # room for legend and slope
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=8)
    ax.minorticks_off()
    label_logarithmic(ax.yaxis, frame.power_of_ten)
    ax.set_title(f"candidates, d = {d}", fontweight="bold")
    _say_slope(ax, document, f"N, d = {d}")
    if d == 1:  # the other panel has the same lines
        _legend(ax, "lower left")


def _divergence(ax: Axes, document: dict[str, Any]) -> None:
    rows = [row for row in document["cells"] if row["study"] == "divergence"]
    (start,) = (row for row in rows if row["proposal"] == "target")
    finite = [row["renyi_4"] for row in rows if row["renyi_4"] is not None and np.isfinite(row["renyi_4"])]
    edge = 1.15 * max(finite)
    for family in ("shifted", "widened", "narrowed"):
        chosen = [row for row in rows if row["proposal"] == family]
        if family == "narrowed":
            x = edge + 0.4 * np.arange(len(chosen))
        else:
            chosen = [start, *chosen]
            x = np.array([row["renyi_4"] for row in chosen])
            ax.plot(x, [average(row) for row in chosen], color=LOOKS[family][0], linestyle=LOOKS[family][2])
        _seeds(ax, x, chosen, family, label=family)
        ax.plot(x, [average(row) for row in chosen], "_", color=LOOKS[family][0], markersize=10, markeredgewidth=2)
    x = np.linspace(0, max(finite), 50)
    trend = average(start) * np.exp(DIVERGENCE_SLOPE * x)
    ax.plot(x, trend, label=r"bound's trend $\exp(\frac{3}{4} D_4)$", **BOUND)
    ax.axvline((max(finite) + edge) / 2, color="0.8", linewidth=0.8)
    ticks = list(range(int(max(finite)) + 1))
    ax.set_xticks([*ticks, edge + 0.2], [*map(str, ticks), "∞"])
    ax.set(yscale="log", xlabel="$D_4(\\pi_{new}\\|\\mu)$")
    values = np.array([value for row in rows for value in row["w2_squared"]], float)
    ax.set_ylim(top=200 * np.nanmax([*values, trend[-1]]))  # room for the legend
    label_logarithmic(ax.yaxis, frame.power_of_ten)
    ax.set_title(f"proposal, N = {start['candidates']}", fontweight="bold")
    _legend(ax, "upper left")


def _proposals(ax: Axes, document: dict[str, Any]) -> None:
    rows = proposal_rows(document)
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        colour = LEARNED if "policy" in row["proposal"] else QUIET if "exact" in row["proposal"] else OTHER
        values = np.array(row["w2_squared"], float)
        ax.plot(values, np.full(len(values), float(place)), "o", color=colour, markersize=3, alpha=0.5)
        ax.plot([average(row)], [place], "|", color=colour, markersize=14, markeredgewidth=2)
    (floor,) = (row for row in document["cells"] if row["study"] == "floor" and row["dimension"] == 2)
    ax.axvline(average(floor), color=QUIET, linewidth=1)
    labels = [f"{row['proposal']}: D₄ {row['renyi_4']:.1f}, ESS/N {row['ess']:.2f}" for row in rows]
    ax.set_yticks(places, labels, fontsize=8)
    ax.set(xscale="log", xlabel="$W_2^2$ to the target (grey line: the network's floor)")
    label_logarithmic(ax.xaxis, lambda value: f"{value:g}")
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_title(f"proposals, N = {rows[0]['candidates']}, d = 2", fontweight="bold")


def _weights(ax: Axes, document: dict[str, Any]) -> None:
    sizes = sorted({row["candidates"] for row in document["weights"]})
    for name in document["fitted"]:
        rows = [row for row in document["weights"] if row["normalisation"] == name]
        colour, marker, _ = LOOKS[name]
        ax.plot(sizes, [row["gradient_sd"] for row in rows], color=colour, linestyle=":", marker=marker, markersize=3)
        biases = [row["gradient_bias"] if row["gradient_bias"] > 3 * row["noise"] else np.nan for row in rows]
        ax.plot(sizes, biases, color=colour, marker=marker, markersize=4)
        ax.plot([], [], color=colour, marker=marker, linestyle="", markersize=4, label=name)
    ax.plot([], [], color=QUIET, label="bias")
    ax.plot([], [], color=QUIET, linestyle=":", label="standard deviation")
    ax.set(xscale="log", yscale="log", xlabel="candidates N of a set", ylabel="relative to the gradient")
    ax.set_ylim(1e-3, 1e5)  # room for the legend
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=8)
    ax.minorticks_off()
    label_logarithmic(ax.yaxis, frame.power_of_ten)
    ax.set_title("normalisations: the gradient", fontweight="bold")
    _legend(ax, "upper right", columns=2)


def _fitted(ax: Axes, document: dict[str, Any]) -> None:
    fewest = min(row["candidates"] for row in document["weights"])
    for name, fit in document["fitted"].items():
        colour, marker, _ = LOOKS[name]
        ax.plot(fit["mean"], fit["variance"], marker, color=colour, markersize=4, alpha=0.6, label=f"{name}: fits")
    (limit,) = (r for r in document["weights"] if (r["normalisation"], r["candidates"]) == ("self", fewest))
    cross = {"color": LEARNED, "markersize": 9, "markeredgewidth": 1.5, "linestyle": "none"}
    ax.plot(limit["mean"], limit["variance"], marker="x", label="self: predicted limit", **cross)
    cross |= {"color": EXACT, "markersize": 12}
    ax.plot(weighing.MEAN, weighing.SD**2, marker="+", label="target", **cross)
    ax.set(xlabel="mean of the fitted policy", ylabel="its variance")
    ax.set_title(f"fits, {fewest} new candidates a step", fontweight="bold")
    _legend(ax, "upper left")


def _seeds(
    ax: Axes, x: Sequence[float] | np.ndarray, rows: list[dict[str, Any]], name: str, label: str | None = None
) -> None:
    colour, marker, _ = LOOKS[name]
    values = [np.array(row["w2_squared"], float) for row in rows]
    places = np.repeat(np.asarray(x, float), [len(part) for part in values])
    ax.plot(places, np.concatenate(values), marker, color=colour, markersize=3, alpha=0.5, label=label)


def _legend(ax: Axes, place: Literal["upper left", "upper right", "lower left"], columns: int = 1) -> None:
    """Put a legend on white, so that lines behind it do not cross it."""
    ax.legend(
        fontsize=8,
        loc=place,
        handlelength=1.6 if columns == 1 else 1,
        labelspacing=0.3,
        columnspacing=0.8,
        ncols=columns,
        frameon=True,
        framealpha=0.85,
        edgecolor="none",
    )


def _say_slope(ax: Axes, document: dict[str, Any], name: str) -> None:
    (found,) = (row for row in document["slopes"] if row["name"] == name)
    if found["slope"] is not None and np.isfinite(found["slope"]):
        text = f"slope {found['slope']:.2f}\n({found['low']:.2f} to {found['high']:.2f})".replace("-", "−")
        ax.text(0.98, 0.98, text, transform=ax.transAxes, ha="right", va="top", fontsize=8, color=LEARNED)
