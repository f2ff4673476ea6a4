"""Tables and figures of policies beside the exact optimum; of an algorithm the first seed is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from entroflow.plotting import EXACT, LEARNED, QUIET, STYLE, legend_below, new_figure, save

from .. import frame
from . import measure
from .measure import Seen
from .systems import SYSTEMS

NAMES = {"exact": "exact", "sac_isfm": "SAC-ISFM", "paper": "paper's preset", "gaussian_sac": "Gaussian SAC"}
COLOURS = {"exact": EXACT, "sac_isfm": LEARNED, "paper": "#009e73", "gaussian_sac": "#d55e00"}
COLUMNS = {
    "total_variation": "TV",
    "total_variation_critic": "TV of critic",
    "w2": "W₂",
    "mode_weight": "mode",
    "value_error": "value error %",
    "soft_return_gap": "soft gap %",
    "return_gap": "return gap %",
}
Pictures = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by system and by policy


def shown(seen: Seen) -> dict[str, Any]:
    """Return what figures show of a policy, in lists."""
    return {
        "density": np.asarray(seen.density[measure.STATES :]).tolist(),
        "field": np.asarray(seen.field).tolist(),
        "paths": np.asarray(seen.paths)[..., 0].T.tolist(),
        "disturbed": np.asarray(seen.returns, float).mean(axis=1).tolist(),
    }


def draw(out: Path, pictures: Pictures) -> None:
    """Save all figures."""
    for name, make in (("densities", densities), ("values", values), ("trajectories", paths), ("robustness", robust)):
        save(out, name, make(pictures))


def densities(pictures: Pictures) -> Figure:
    """Densities of the action at chosen states, a row per problem."""
    with mpl.rc_context(STYLE):
        figure = new_figure(8.4, 1.2 + 1.9 * len(pictures), "density of the action")
        panels = figure.subplots(len(pictures), 3, squeeze=False)
        for row, (system, policies) in zip(panels, pictures.items(), strict=True):
            actions = np.asarray(measure.middles(SYSTEMS[system].make()))[:, 0]
            for i, ax in enumerate(row):
                for name, shown in list(policies.items())[::-1]:
                    ax.plot(actions, shown["density"][i], color=COLOURS[name], linewidth=1.1, label=NAMES[name])
                ax.set_ylim(0, 1.4 * np.max(policies["exact"]["density"][i]))
                state = ", ".join(f"{x:.2g}" for x in SYSTEMS[system].states[i])
                ax.set_title(f"{system} at ({state})", fontsize=8)
            row[0].set_ylabel("density")
        for ax in panels[-1]:
            ax.set_xlabel("action")
        legend_below(figure, "", columns=4)
    return figure


def values(pictures: Pictures) -> Figure:
    """Soft value by the grid and by the critics, a row per problem; lines where the state is one number."""
    columns = len(next(iter(pictures.values())))
    with mpl.rc_context(STYLE):
        figure = new_figure(1.0 + 2.1 * columns, 0.8 + 1.9 * len(pictures), "soft value V(s)")
        panels = figure.subplots(len(pictures), columns, squeeze=False)
        for row, (system, policies) in zip(panels, pictures.items(), strict=True):
            axes, best = SYSTEMS[system].grid, np.array(policies["exact"]["field"])
            image = None
            for ax, (name, shown) in zip(row, policies.items(), strict=True):
                if len(axes) == 1:
                    places = np.linspace(axes[0].low, axes[0].high, measure.ACROSS)
                    ax.plot(places, best, color=QUIET, linewidth=2.5)
                    ax.plot(places, shown["field"], color=COLOURS[name], linewidth=1.1)
                else:
                    field = np.reshape(shown["field"], (measure.ACROSS, measure.ACROSS))
                    extent = (axes[0].low, axes[0].high, axes[1].low, axes[1].high)
                    style = {"vmin": best.min(), "vmax": best.max(), "aspect": "auto", "origin": "lower"}
                    image = ax.imshow(field.T, extent=extent, **style)
                ax.set_title(f"{system}, {NAMES[name]}", fontsize=8)
            row[0].set_ylabel("V" if image is None else "$s_2$")
            if image is not None:
                figure.colorbar(image, ax=row, shrink=0.8, label="V")
        for ax in panels[-1]:
            ax.set_xlabel("$s_1$")
    return figure


def paths(pictures: Pictures) -> Figure:
    """Trajectories from the first state, the first coordinate against time."""
    columns = len(next(iter(pictures.values())))
    with mpl.rc_context(STYLE):
        figure = new_figure(1.0 + 2.1 * columns, 0.8 + 1.8 * len(pictures), "trajectories, first coordinate")
        panels = figure.subplots(len(pictures), columns, sharey="row", squeeze=False)
        for row, (system, policies) in zip(panels, pictures.items(), strict=True):
            for ax, (name, shown) in zip(row, policies.items(), strict=True):
                ax.plot(np.transpose(shown["paths"]), color=COLOURS[name], linewidth=0.6, alpha=0.7)
                ax.set_title(f"{system}, {NAMES[name]}", fontsize=8)
            row[0].set_ylabel("$s_1$")
        for ax in panels[-1]:
            ax.set_xlabel("step")
    return figure


def robust(pictures: Pictures) -> Figure:
    """Standard returns under a constant disturbance of the input."""
    with mpl.rc_context(STYLE):
        figure = new_figure(1.0 + 2.6 * len(pictures), 3.2, "standard return under a constant disturbance of the input")
        panels = figure.subplots(1, len(pictures), squeeze=False)[0]
        for ax, (system, policies) in zip(panels, pictures.items(), strict=True):
            for name, shown in policies.items():
                style = {"color": COLOURS[name], "linewidth": 1.1, "marker": ".", "label": NAMES[name]}
                ax.plot(measure.DISTURBANCES, shown["disturbed"], **style)
            ax.set(title=system, xlabel="share of the largest input")
        panels[0].set_ylabel("standard return")
        legend_below(figure, "", columns=4)
    return figure


def table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Return the closing table: the average over the seeds, and the worst in brackets."""
    caption = "average over seeds (worst); mode: the exact weight first"
    shown = frame.new_table("learned policies against the exact soft optimum", caption, ["", *COLUMNS.values()])
    for cells in _cells(runs):
        shown.add_row(*cells)
    return shown


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the same table in Markdown."""
    return frame.markdown(["", *COLUMNS.values()], _cells(runs))


def _cells(runs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for system, algorithm in dict.fromkeys((row["system"], row["algorithm"]) for row in runs):
        rows = [row for row in runs if (row["system"], row["algorithm"]) == (system, algorithm)]
        cells = [f"{system}, {NAMES[algorithm]}"]
        for name, heading in COLUMNS.items():
            found = np.array([row[name] for row in rows]) * (100 if "%" in heading else 1)
            if name == "mode_weight":
                exact = rows[0]["mode_weight_exact"]
                cells.append(f"{exact:.2f}: {found.mean():.2f} ({found[np.argmax(np.abs(found - exact))]:.2f})")
            else:
                digits = 1 if "%" in heading else 3
                cells.append(f"{found.mean():.{digits}f} ({found.max():.{digits}f})")
        yield cells
