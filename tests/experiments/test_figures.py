"""Every figure can be read: each is drawn from its committed data, and from short runs, and is searched for faults."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.colors import same_color
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from entroflow import plotting
from entroflow.commands.lqr import figures as lqr
from entroflow.plotting import PAGE, looks, new_figure
from entroflow.storage.comparison import compare
from entroflow.storage.curves import draw
from experiments.figures import figures
from experiments.spi.figures import GAP, apart
from tests.exact.test_storage_comparison import run

COMMITTED = dict(figures())
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALLEST = 8  # points, of any letter on a page


def faults(figure: Figure) -> list[str]:
    """What is wrong with a figure that is drawn as wide as it is saved."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, found = canvas.get_renderer(), []
    if figure.get_figwidth() > PAGE:
        found.append(f"{figure.get_figwidth()} inches wide")
    for i, ax in enumerate(figure.axes):
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            labels = shown(axis)
            if len(labels) < 2 and not left_to_another(axis):
                found.append(f"panel {i}, {axis.axis_name}: {len(labels)} labels")
            boxes = [label.get_window_extent(renderer) for label in labels]
            found += [f"panel {i}: {a} on {b}" for a, b in overlapping(boxes, labels)]
            found += [f"panel {i}: {label.get_text()} cut" for label in labels if outside(figure, label, renderer)]
    texts = [text for text in figure.findobj(lambda part: hasattr(part, "get_fontsize")) if text.get_text().strip()]
    found += [
        f"{text.get_text()!r} in {text.get_fontsize()} points" for text in texts if text.get_fontsize() < SMALLEST
    ]
    for ax in figure.axes:
        if (legend := ax.get_legend()) and not inside(legend.get_window_extent(renderer), ax.bbox):
            found.append("a legend that leaves its panel")
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes)]:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True) if legend else ():
            if not any(alike(handle, artist) for ax in figure.axes for artist in visible(ax)):
                found.append(f"legend: nothing is drawn as {text.get_text()!r}")
    return found


def shown(axis):
    """The tick labels inside of the axis' limits."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-6 * (high - low)
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    inside = [tick for tick in ticks if low - slack <= tick.get_loc() <= high + slack]
    labels = [label for tick in inside for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]


def left_to_another(axis):
    """Whether panels share the axis, of which one is labelled."""
    return len(axis._get_shared_axes()) > 1 and any(
        len(shown(getattr(ax, f"{axis.axis_name}axis"))) > 1 for ax in axis._get_shared_axes()
    )


def overlapping(boxes, labels):
    """Labels of one axis that lie on each other."""
    pairs = [(i, j) for j in range(len(boxes)) for i in range(j)]
    return [(labels[i].get_text(), labels[j].get_text()) for i, j in pairs if boxes[i].overlaps(boxes[j])]


def outside(figure, text, renderer):
    """Whether a label leaves the figure."""
    return not inside(text.get_window_extent(renderer), figure.bbox)


def inside(box, page):
    """Whether a box is inside of another, but for a pixel."""
    return box.x0 > page.x0 - 1 and box.y0 > page.y0 - 1 and box.x1 < page.x1 + 1 and box.y1 < page.y1 + 1


def visible(ax):
    """What is drawn in a panel and has a point inside of it."""
    x, y = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    for line in ax.lines:
        points = np.ma.filled(np.ma.asarray(line.get_xydata(), float), np.nan)
        if line.get_transform() == ax.transData and len(points):
            inside = (x[0] <= points[:, 0]) & (points[:, 0] <= x[1]) & (y[0] <= points[:, 1]) & (points[:, 1] <= y[1])
            if inside.any():
                yield line
        elif len(points):
            yield line
    yield from ax.collections
    yield from (patch for patch in ax.patches if tall(patch))


def tall(patch):
    """Whether a patch is more than a hair: two pixels or more."""
    box = patch.get_window_extent()
    return box.width > 2 and box.height > 2


def alike(handle, artist):
    """Whether a legend shows an artist: of its kind, its dashes or marker, and its colour unless that is neutral."""
    if isinstance(handle, Container):
        handle = handle.get_children()[0]
    if isinstance(handle, Line2D) and isinstance(artist, Line2D):
        same = handle.get_linestyle() in ("None", artist.get_linestyle())
        same &= handle.get_marker() in ("None", None, artist.get_marker())
        return same and (neutral(handle) or same_color(handle.get_color(), artist.get_color()))
    if isinstance(handle, Patch):
        return isinstance(artist, Patch | Collection)
    return isinstance(handle, Collection) and isinstance(artist, Collection)


def neutral(line):
    """Whether a line is black or grey, which then stands for every colour."""
    return any(same_color(line.get_color(), colour) for colour in (plotting.EXACT, plotting.QUIET, "0.2"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "/".join(path.parts[-3:]))
def test_figures_of_committed_data(path):
    """Labels are there, apart and on the page, letters large enough, and legends show what is drawn."""
    assert path.is_file() and faults(COMMITTED[path]()) == []


def test_every_committed_figure_can_be_drawn():
    """From its data, by `python -m experiments.figures`; or its README names the run that does it alone."""
    for path in sorted(EXPERIMENTS.glob("*/**/*.png")):
        readme = next(folder / "README.md" for folder in path.parents if (folder / "README.md").exists())
        told = [text for part in readme.read_text().split("\n\n") if " alone" in (text := " ".join(part.split()))]
        named = set(re.findall(r"`([\w.*]+\.png)`", " ".join(told)))
        assert path in COMMITTED or any(path.match(name) for name in named), path


@pytest.mark.parametrize(
    "path", [path for path in COMMITTED if path.name == "errors.png"], ids=lambda path: path.parent.name
)
def test_no_flow_s_error_is_cut_off(path):
    """The exact policies' distances fall out of the panels; those of the flows, which are the result, do not."""
    for ax in COMMITTED[path]().axes:
        flows = [line.get_ydata() for line in ax.lines if line.get_linestyle() == "-" and len(line.get_ydata()) > 2]
        assert flows and min(np.nanmin(values) for values in flows) >= ax.get_ylim()[0]


def curve(alpha, seed, returns, errors, first=2048):
    returns, errors = np.array(returns, float), np.array(errors, float)
    return lqr.Curve(alpha, seed, first * np.arange(1, len(returns) + 1), returns, errors, 30 * errors)


SHORT = {
    "one evaluation": ([-900.0], [40.0]),
    "one that is no number": ([np.nan], [np.nan]),
    "a seed that is lost": ([-12, -30, -150, np.nan, -np.inf], [1.0, 1.01, 0.99, 1.1, 1.0]),
    "errors as good as constant": ([-8.4, -8.41, -8.4], [0.0101, 0.0102, 0.0101]),
    "errors over many decades": ([-1e6, -1e3, -8.4], [1e5, 1.0, 1e-4]),
}


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", SHORT)
def test_figures_of_short_runs(name, seeds):
    """The LQR figures of runs of a few steps, however these went."""
    returns, errors = SHORT[name]
    curves = [
        curve(a, s, returns if s == 0 else [-12.0] * len(returns), errors) for a in (0.5, 1) for s in range(seeds)
    ]
    optimal = dict.fromkeys([(c.alpha, c.seed) for c in curves], -8.4)
    assert faults(lqr.returns_figure(curves, optimal, "short")) == []
    assert faults(lqr.learning_figure(curves, "short")) == []


@pytest.mark.parametrize("seeds", [1, 2, 3, 6])
def test_what_is_said_of_seeds_is_what_is_drawn(seeds):
    """Up to three seeds a line is their mean, and a band reaches from the lowest to the highest."""
    returns = np.arange(3.0) + np.arange(seeds)[:, None] ** 2
    figure = draw(compare([run(returns, "sac_isfm"), run(returns + 1, "gaussian_sac")]))
    assert faults(figure) == []
    ax: Any = figure.axes[0]
    said = figure.legends[0].get_title().get_text()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SAC-ISFM", "Gaussian SAC"]
    if seeds > 3:
        assert "interquartile mean over 6 seeds; bands: 95 % bootstrap intervals" in said
        assert not np.allclose(ax.lines[0].get_ydata(), returns.mean(axis=0))
        return
    np.testing.assert_allclose(ax.lines[0].get_ydata(), returns.mean(axis=0))
    if seeds > 1:
        assert said == f"mean over {seeds} seeds; bands: lowest to highest seed"
        band = ax.collections[0].get_paths()[0].vertices
        assert (band[:, 1].min(), band[:, 1].max()) == (returns.min(), returns.max())


def test_lines_differ_by_more_than_their_colour():
    """As many as twenty-eight, and the first seven by marker alone."""
    many = [(look["color"], look["marker"], str(look["linestyle"])) for look in looks(28)]
    assert len(set(many)) == 28 and len({marker for _, marker, _ in many[:7]}) == 7
    assert len({str(look["linestyle"]) for look in looks(4)}) == 4


def test_faults_are_found():
    """Overlapping and missing labels, small letters and legends of nothing: each is told."""
    with plotting.mpl.rc_context(plotting.STYLE):
        figure = new_figure(5.2, 2.0, "")
        first, second = figure.subplots(1, 2)
        first.set_xticks(np.linspace(0, 1, 30), ["a long label"] * 30)
        second.plot([0, 1], [0, 1], "o-", label="there")
        second.plot([], [], "s--", color="red", label="not there")
        second.axhspan(0.5, 0.5001, label="a hair")
        second.legend()
        second.set_yticks([])
        second.set_xlabel("small", fontsize=6)
    found = " | ".join(faults(figure))
    for fault in ("a long label on a long label", "panel 1, y: 0 labels", "'small' in 6", "'not there'", "'a hair'"):
        assert fault in found, found
    assert "as 'there'" not in found


def test_bars_of_gains_are_standard_errors():
    """They are as long as ratios of two variances of so many normal numbers vary in a simulation."""
    path = next(path for path in COMMITTED if path.name == "gains.png")
    variances = np.random.default_rng(0).normal(size=(2, 4000, 128)).var(axis=2, ddof=1)
    spread = np.std(np.log(variances[0] / variances[1]))  # standard error 1.1 %
    container: Any = COMMITTED[path]().axes[1].containers[0]
    (bars,) = container.lines[2]
    (low, high) = bars.get_segments()[0][:, 0]
    assert (high - low) / (high + low) == pytest.approx(spread, rel=0.05)


def test_labels_of_entries_stand_apart():
    """In the order of their values, inside of the axis, and where the values are if these are far from each other."""
    np.testing.assert_allclose(apart([3.0, 1.0, 2.0], 0.0, 4.0), [0.75, 0.25, 0.5])
    crowded = apart([1.0, 0.0, 1.0, 0.0, 0.01], 0.0, 1.0)
    assert (np.diff(np.sort(crowded)) > GAP - 1e-9).all() and crowded.min() >= 0 and crowded.max() <= 1
    assert max(crowded[1], crowded[3]) < crowded[4] < min(crowded[0], crowded[2])
