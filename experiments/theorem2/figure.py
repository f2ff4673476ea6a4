"""The figure of Theorem 2: candidates, divergence, proposals and normalisations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from entroflow.plotting import EXACT, LEARNED, QUIET, STYLE, new_figure, save

from . import weights as weighing
from .report import DIVERGENCE_SLOPE, SAMPLES_SLOPE, average, proposal_rows

ORANGE, GREEN = "#d55e00", "#009e73"
COLOURS = {"shifted": LEARNED, "widened": ORANGE, "narrowed": GREEN, "self": LEARNED, "state": ORANGE, "raw": GREEN}
TITLE = "Theorem 2: W₂² between the learned distribution and its target (dots: seeds; lines: their geometric mean)"
BOUND = {"color": EXACT, "linestyle": "--", "linewidth": 1.2}


def draw(folder: Path, document: dict[str, Any]) -> None:
    """Save `theorem2_figure` as theorem2.png and theorem2.pdf."""
    save(folder, "theorem2", theorem2_figure(document))


def theorem2_figure(document: dict[str, Any]) -> Figure:
    """Return the figure: dots are seeds, lines their geometric mean, dashed black lines the bound's trends.

    Args:
        document: what `report.summarise` returns, or results.json.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(11.0, 6.8, TITLE)
        panels = figure.subplots(2, 3)
        for ax, d in zip(panels[0, :2], (1, 2), strict=True):
            _samples(ax, document, d)
        _divergence(panels[0, 2], document)
        _proposals(panels[1, 0], document)
        _weights(panels[1, 1], document)
        _fitted(panels[1, 2], document)
    return figure


def _samples(ax: Axes, document: dict[str, Any], d: int) -> None:
    rows = [row for row in document["cells"] if row["study"] == "samples" and row["dimension"] == d]
    (floor,) = (row for row in document["cells"] if row["study"] == "floor" and row["dimension"] == d)
    sizes = np.array([row["candidates"] for row in rows], float)
    _seeds(ax, sizes, rows, LEARNED)
    means = np.array([average(row) for row in rows])
    ax.plot(sizes, means, color=LEARNED, label="learned flow")
    if d == 1:
        ax.plot(
            sizes,
            [average(row, "set_w2_squared") for row in rows],
            color=ORANGE,
            linestyle=":",
            label="the weighted set itself",
        )
    ax.axhline(average(floor), color=QUIET, linewidth=1, label="the network's floor")
    ax.plot(sizes, means[0] * (sizes / sizes[0]) ** SAMPLES_SLOPE, label="bound's trend $N^{-1/2}$", **BOUND)
    ax.set(xscale="log", yscale="log", xlabel="candidates N", ylabel="$W_2^2$ to the target")
    values = np.array([value for row in rows for value in row["w2_squared"]], float)
    ax.set_ylim(bottom=np.nanmin(values) / 8)  # room for the legend
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set_title(f"candidates, d = {d}", fontweight="bold")
    _say_slope(ax, document, f"N, d = {d}")
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
            label = "narrowed"
        else:
            chosen = [start, *chosen]
            x = np.array([row["renyi_4"] for row in chosen])
            label = family
            ax.plot(x, [average(row) for row in chosen], color=COLOURS[family])
        _seeds(ax, x, chosen, COLOURS[family])
        ax.plot(x, [average(row) for row in chosen], "_", color=COLOURS[family], markersize=10, markeredgewidth=2)
        ax.plot([], [], color=COLOURS[family], label=label)
    x = np.linspace(0, max(finite), 50)
    trend = average(start) * np.exp(DIVERGENCE_SLOPE * x)
    ax.plot(x, trend, label=r"bound's trend $\exp(\frac{3}{4} D_4)$", **BOUND)
    ax.axvline((max(finite) + edge) / 2, color="0.8", linewidth=0.8)
    ticks = list(range(int(max(finite)) + 1))
    ax.set_xticks([*ticks, edge + 0.2], [*map(str, ticks), "∞"])
    ax.set(yscale="log", xlabel="$D_4(\\pi_{new}\\|\\mu)$", ylabel="$W_2^2$ to the target")
    values = np.array([value for row in rows for value in row["w2_squared"]], float)
    ax.set_ylim(top=8 * np.nanmax([*values, trend[-1]]))  # room for the legend
    ax.set_title(f"proposal, N = {start['candidates']}, d = 1", fontweight="bold")
    _legend(ax, "upper left")


def _proposals(ax: Axes, document: dict[str, Any]) -> None:
    rows = proposal_rows(document)
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        colour = LEARNED if "policy" in row["proposal"] else QUIET if "exact" in row["proposal"] else ORANGE
        values = np.array(row["w2_squared"], float)
        ax.plot(values, np.full(len(values), float(place)), "o", color=colour, markersize=3, alpha=0.5)
        ax.plot([average(row)], [place], "|", color=colour, markersize=14, markeredgewidth=2)
    (floor,) = (row for row in document["cells"] if row["study"] == "floor" and row["dimension"] == 2)
    ax.axvline(average(floor), color=QUIET, linewidth=1)
    labels = [f"{row['proposal']}\nD₄ {row['renyi_4']:.1f}, ESS/N {row['ess']:.2f}" for row in rows]
    ax.set_yticks(places, labels, fontsize=7)
    ax.set(xscale="log", xlabel="$W_2^2$ to the target (grey line: the network's floor)")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_title(f"proposals, N = {rows[0]['candidates']}, d = 2", fontweight="bold")


def _weights(ax: Axes, document: dict[str, Any]) -> None:
    sizes = sorted({row["candidates"] for row in document["weights"]})
    for name in document["fitted"]:
        rows = [row for row in document["weights"] if row["normalisation"] == name]
        ax.plot(sizes, [row["gradient_sd"] for row in rows], color=COLOURS[name], linestyle=":")
        biases = [row["gradient_bias"] if row["gradient_bias"] > 3 * row["noise"] else np.nan for row in rows]
        ax.plot(sizes, biases, "o-", color=COLOURS[name], markersize=3)
        ax.plot([], [], color=COLOURS[name], label=name)
    ax.plot([], [], "o-", color=QUIET, markersize=3, label="bias")
    ax.plot([], [], color=QUIET, linestyle=":", label="standard deviation")
    ax.set(xscale="log", yscale="log", xlabel="candidates N of a set", ylabel="relative to the gradient")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set_ylim(1e-3, 40)
    ax.set_title("normalisations: the gradient", fontweight="bold")
    _legend(ax, "upper right", columns=2)


def _fitted(ax: Axes, document: dict[str, Any]) -> None:
    fewest = min(row["candidates"] for row in document["weights"])
    for name, fit in document["fitted"].items():
        ax.plot(fit["mean"], fit["variance"], "o", color=COLOURS[name], markersize=4, alpha=0.6, label=f"{name}: fits")
    (limit,) = (r for r in document["weights"] if (r["normalisation"], r["candidates"]) == ("self", fewest))
    cross = {"color": COLOURS["self"], "markersize": 9, "markeredgewidth": 1.5, "linestyle": "none"}
    ax.plot(limit["mean"], limit["variance"], marker="x", label="self: predicted limit", **cross)
    cross |= {"color": EXACT, "markersize": 12}
    ax.plot(weighing.MEAN, weighing.SD**2, marker="+", label="target", **cross)
    ax.set(xlabel="mean of the fitted policy", ylabel="its variance")
    ax.set_title(f"normalisations: fits, {fewest} new candidates", fontweight="bold")
    _legend(ax, "upper left")


def _seeds(ax: Axes, x: Sequence[float] | np.ndarray, rows: list[dict[str, Any]], colour: str) -> None:
    for place, row in zip(x, rows, strict=True):
        values = np.array(row["w2_squared"], float)
        ax.plot(np.full(len(values), place), values, "o", color=colour, markersize=3, alpha=0.4)


def _legend(ax: Axes, place: Literal["upper left", "upper right", "lower left"], columns: int = 1) -> None:
    """Put a legend on white, so that lines behind it do not cross it."""
    ax.legend(fontsize=7, loc=place, ncols=columns, frameon=True, framealpha=0.85, edgecolor="none")


def _say_slope(ax: Axes, document: dict[str, Any], name: str) -> None:
    (found,) = (row for row in document["slopes"] if row["name"] == name)
    if found["slope"] is not None and np.isfinite(found["slope"]):
        text = f"slope {found['slope']:.2f}\n({found['low']:.2f} to {found['high']:.2f})".replace("-", "−")
        ax.text(0.98, 0.98, text, transform=ax.transAxes, ha="right", va="top", fontsize=8, color=LEARNED)
