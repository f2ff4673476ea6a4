"""What the multi-goal comparison shows: trajectories, densities at the origin, and the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from rich.table import Table

from entroflow.envs.multigoal import GOALS, MultiGoal
from entroflow.plotting import LEARNED, NAMES, QUIET, STYLE, new_figure, save

from .. import frame
from .exact import Solution
from .measure import Measured

SHOWN = 60  # trajectories of a picture


class Picture(NamedTuple):
    """One policy to draw: its name, paths, and density at the origin, on a grid or averaged over cells."""

    name: str
    paths: Sequence[Sequence[Sequence[float]]]
    density: Any


def picture(name: str, world: MultiGoal, measured: Measured) -> Picture:
    """Return what to draw of a policy, in lists: its density is a histogram where there is none."""
    densities, episodes = measured.histograms if measured.densities is None else measured.densities, measured.episodes
    paths = []
    for i in range(min(SHOWN, episodes.going.shape[1])):
        length = int(episodes.going[: world.time_limit, i].sum())
        last = episodes.states[length - 1, i] + episodes.actions[length - 1, i]
        paths.append([*episodes.states[:length, i].tolist(), np.clip(last, -world.size, world.size).tolist()])
    return Picture(name, paths, densities[-1].tolist())


def draw(out: Path, solution: Solution, pictures: Sequence[Picture]) -> None:
    """Save all figures; the first picture is that of the exact policy."""
    save(out, "trajectories", trajectories_figure(solution, pictures))
    save(out, "density", density_figure(solution, pictures))


def trajectories_figure(solution: Solution, pictures: Sequence[Picture]) -> Figure:
    """Trajectories from the origin until a goal is reached or time is over, over the exact soft value."""
    world = solution.world
    with mpl.rc_context(STYLE):
        title = f"multi-goal world, α = {solution.temperature:g}: trajectories from the origin"
        figure = new_figure(0.8 + 1.6 * len(pictures), 2.5, title)
        panels = figure.subplots(1, len(pictures), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (name, paths, _) in zip(panels, pictures, strict=True):
            ax.contour(solution.axis, solution.axis, solution.value.T, 12, colors="0.8", linewidths=0.6)
            for path in paths:
                ax.plot(*np.transpose(path), color=LEARNED, linewidth=0.6, alpha=0.6)
            for goal in GOALS:
                ax.add_patch(Circle(tuple(goal), world.goal_radius, fill=False, color=QUIET, linewidth=1))
            ax.set(title=NAMES.get(name, name), xlabel="position $x_1$", aspect="equal")
            ax.set(xlim=(-world.size, world.size), ylim=(-world.size, world.size), xticks=(-5, 0, 5), yticks=(-5, 0, 5))
        panels[0].set_ylabel("position $x_2$")
    return figure


def density_figure(solution: Solution, pictures: Sequence[Picture]) -> Figure:
    """Densities of the action at the origin, all on one scale."""
    with mpl.rc_context(STYLE):
        title = f"multi-goal world, α = {solution.temperature:g}: density of the action at the origin"
        figure = new_figure(0.8 + 1.6 * len(pictures), 2.3, title)
        panels = figure.subplots(1, len(pictures), sharex=True, sharey=True, squeeze=False)[0]
        largest = 1.2 * np.max(pictures[0].density)
        image = None
        for ax, (name, _, density) in zip(panels, pictures, strict=True):
            image = ax.imshow(
                np.transpose(density), origin="lower", extent=(-1, 1, -1, 1), vmin=0, vmax=largest, cmap="Blues"
            )
            ax.set(title=NAMES.get(name, name), xlabel="action $a_1$", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        panels[0].set_ylabel("action $a_2$")
        assert image is not None
        figure.colorbar(image, ax=panels, shrink=0.8, extend="max", label="density")
    return figure


def table(results: Sequence[dict[str, Any]], exact: dict[str, Any]) -> Table:
    """Return the closing table, at most 80 columns wide: the average over the seeds, and the worst in brackets."""
    caption = "average over seeds (worst); last row: what the exact policy scores"
    title, headers = "learned policies against the exact soft optimum", ("", "TV", "TV\nhistogram", "mode\nerror")
    shown = frame.new_table(title, caption, [*headers, "gap %", "entropy"], padding=0)
    for name in [*dict.fromkeys(row["algorithm"] for row in results), "exact"]:
        rows = [row for row in results if row["algorithm"] == name] if name != "exact" else [exact]
        cells = []
        for column in ("total_variation", "total_variation_histogram", "mode_weight_error"):
            values = np.array([row[column] for row in rows])
            cells.append(f"{values.mean():.3f} ({values.max():.3f})")
        gaps = 100 * np.array([row["soft_return_gap_relative"] for row in rows])
        cells.append(f"{frame.short(gaps.mean())} ({frame.short(gaps.max())})")
        shown.add_row(name, *cells, f"{np.mean([row['entropy_origin'] for row in rows]):.2f}")
    return shown
