"""The paper's two figures for LQR, the learning curves behind them and a picture of the learned policies.

A figure takes the `runs` as results.json has them, or one curve for each, or pictures for each temperature and state.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from ...lqr.design_figure import draw_gaussian
from ...plotting import DASHES, EXACT, LEARNED, OTHER, QUIET, STYLE, label_logarithmic, legend_below, new_figure

RETURN_TOLERANCE = 0.01  # shaded about the optimal return
ERROR_TARGETS = {"mean": 0.03, "covariance": 0.05}  # relative errors, drawn as dotted lines


class Curve(NamedTuple):
    """What was measured during one run, by E evaluations."""

    alpha: float
    seed: int
    transitions: Real[np.ndarray, "E"]
    standard_return: Float[np.ndarray, "E"]
    mean_error_relative: Float[np.ndarray, "E"]
    covariance_error_relative: Float[np.ndarray, "E"]


class Picture(NamedTuple):
    """Samples of one run's policy at one state, with the exact one."""

    alpha: float
    state: Float[np.ndarray, "n"]
    actions: Float[np.ndarray, "m d"]
    mean: Float[np.ndarray, "d"]  # −K*s
    covariance: Float[np.ndarray, "d d"]  # Σ*


def returns_figure(curves: Sequence[Curve], optimal_returns: Mapping[tuple[float, int], float], title: str) -> Figure:
    """Figure 1: standard return during training, one panel per temperature, against the optimal policy's.

    The line is the mean over seeds, broken where a seed's return is not finite; the band is their range, and thin lines
    are the seeds, where that happens. The return of an untrained policy may be any size, so a panel shows what lies
    near the optimum.
    """
    groups = _by_alpha(curves)
    columns = len(groups) if len(groups) <= 3 else int(np.ceil(np.sqrt(len(groups))))
    rows = -(-len(groups) // columns)
    with mpl.rc_context(STYLE):
        figure = new_figure(1.0 + 3.1 * columns, 1.4 + 2.2 * rows, title)
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for ax, (alpha, runs) in zip(panels, groups.items(), strict=False):
            optimum = float(np.mean([optimal_returns[run.alpha, run.seed] for run in runs]))
            returns = np.stack([run.standard_return for run in runs]).astype(float)
            low, high = _limits_near(optimum, returns[:, returns.shape[1] // 2 :])
            drawable = np.clip(returns, low - 1e3 * (high - low), None)  # renderers stumble over 1e300
            drawable[~np.isfinite(returns)] = np.nan
            bounds = optimum - RETURN_TOLERANCE * abs(optimum), optimum + RETURN_TOLERANCE * abs(optimum)
            visible = bounds[1] - bounds[0] > 0.02 * (high - low)
            within = f"within {_percent(RETURN_TOLERANCE)} of optimum" if visible else None
            ax.axhspan(*bounds, color="0.92", label=within, zorder=0)
            label = f"mean over {len(runs)} seeds" if len(runs) > 1 else "learned policy"
            _mean_and_range(ax, runs[0].transitions, drawable, {"color": LEARNED}, label)
            if len(runs) > 1 and not np.isfinite(drawable.mean(axis=0)).all():
                ax.plot(runs[0].transitions, drawable.T, color=LEARNED, linewidth=0.5)
            ax.axhline(optimum, color=EXACT, linestyle="--", linewidth=1.2, label="optimal policy")
            ax.set_ylim(low, high)
            ax.set_title(f"α = {alpha:g}", fontweight="bold")
            ax.set_title(_comparison(returns[:, -1], optimum), loc="right", color=QUIET, fontsize=8)
            if lost := int(np.sum(~(returns[:, -1] >= low))):
                note = f"{lost} of {len(runs)} seeds end below\nor not finite"
                text = {"color": "#b2182b", "fontsize": 8, "transform": ax.transAxes}
                ax.text(0.03, 0.05, note, bbox={"color": "white", "pad": 1}, **text)
        _tidy_grid(figure, columns, len(groups))
        figure.supylabel("standard return (no entropy)", fontsize=9)
        bands = "; bands: worst to best seed" if len(curves) > len(groups) else ""
        note = f"Returns are means over 100 trajectories{bands}."
        legend_below(figure, f"{note}\nAxes show the optimum and the second half of training.")
    return figure


def errors_figure(runs: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Figure 2: errors of the learned action mean and covariance in 2-norm, absolute above, relative below.

    A marker is one seed's average over the visited states, its bar one standard deviation over these states. The grey
    stroke is what a perfect policy would get, because the error is estimated from finitely many actions.
    """
    alphas = sorted({run["alpha"] for run in runs})
    with mpl.rc_context(STYLE):
        figure = new_figure(2.4 + 2 * max(2.2, 0.75 * len(alphas)), 5.6, title)
        panels = figure.subplots(2, 2, sharex=True)
        for column, name in enumerate(ERROR_TARGETS):
            _error_panels(panels[0, column], panels[1, column], runs, alphas, name)
        panels[0, 0].set_title("action mean: ‖mean + K*s‖₂", fontweight="bold")
        panels[0, 1].set_title("action covariance: ‖cov − Σ*‖₂", fontweight="bold")
        panels[0, 0].set_ylabel("error (action units)")
        panels[0, 1].set_ylabel("error (action units²)")
        panels[1, 0].set_ylabel("relative to mean ‖K*s‖₂")
        panels[1, 1].set_ylabel("relative to ‖Σ*‖₂")
        seed = panels[0, 0].errorbar([], [], [], fmt="o", markersize=4, color="0.2", elinewidth=1)
        stroke = panels[0, 0].plot([], [], color=QUIET, linewidth=2)[0]
        dots = panels[1, 0].plot([], [], color=EXACT, linestyle=":", linewidth=1)[0]
        targets = " and ".join(_percent(target) for target in ERROR_TARGETS.values())
        labels = ["one seed: mean ± std over visited states", "Monte-Carlo floor of the estimate", f"target: {targets}"]
        note = "Percentages above the lower panels: mean over seeds."
        style = {"loc": "outside lower center", "ncols": 2, "fontsize": 8, "title_fontsize": 8}
        figure.legend([seed, stroke, dots], labels, title=note, **style)
    return figure


def _error_panels(
    absolute: Axes, relative: Axes, runs: Sequence[Mapping[str, Any]], alphas: Sequence[float], name: str
) -> None:
    """One column of figure 2: the errors of the mean or of the covariance, and these divided by their scale."""
    keys = [f"{name}_error", f"{name}_error_std", f"{name}_error_floor", f"{name}_error_relative", f"{name}_scale"]
    extent = []
    for place, (alpha, colour) in enumerate(zip(alphas, _colours(len(alphas)), strict=True)):
        group = np.array([[run[key] for key in keys] for run in runs if run["alpha"] == alpha], dtype=float)
        group[~np.isfinite(group)] = np.nan
        error, deviation, floor, share, scale = group.T
        scale = np.where(scale > 0, scale, np.nan)
        x = place + np.linspace(-0.25, 0.25, len(group) + 2)[1:-1]
        size = 4 if len(group) <= 5 else 2.5
        stroke = [place - 0.33, place + 0.33]
        for ax, value, bar, level in (
            (absolute, error, deviation, floor.mean()),
            (relative, share, deviation / scale, (floor / scale).mean()),
        ):
            ax.errorbar(x, value, bar, fmt="o", markersize=size, color=colour, elinewidth=1)
            ax.plot(stroke, [level, level], color=QUIET, linewidth=2, zorder=1)
        text = {"ha": "center", "color": colour, "weight": "bold", "transform": relative.get_xaxis_transform()}
        text |= {"fontsize": 8 if len(alphas) > 3 else 9}
        relative.text(place, 1.02, _percent(share.mean()), **text)
        extent += [*error, *floor, *(error + deviation)]
    _log_if_positive(absolute, np.array(extent))
    relative.axhline(ERROR_TARGETS[name], color=EXACT, linestyle=":", linewidth=1)
    relative.set_ylim(bottom=0)
    relative.yaxis.set_major_formatter(FuncFormatter(lambda share, _: _percent(share)))
    relative.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    relative.set_xlabel("temperature α")
    relative.set_xlim(-0.5, len(alphas) - 0.5)


def learning_figure(curves: Sequence[Curve], title: str) -> Figure:
    """Relative errors of action mean and covariance against the number of transitions, both axes logarithmic."""
    groups = _by_alpha(curves)
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 3.6, title)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for ax, (name, target) in zip(panels, ERROR_TARGETS.items(), strict=True):
            for i, (colour, (alpha, runs)) in enumerate(zip(_colours(len(groups)), groups.items(), strict=True)):
                errors = np.stack([getattr(run, f"{name}_error_relative") for run in runs]).astype(float)
                drawable = (errors > 0) & (errors < 1e30) & (runs[0].transitions > 0)  # on logarithmic axes
                errors[~drawable] = np.nan
                look = {"color": colour, "linestyle": DASHES[i % len(DASHES)]}
                _mean_and_range(ax, runs[0].transitions, errors, look, f"α = {alpha:g}")
            ax.axhline(target, color=EXACT, linestyle=":", linewidth=1)
            times = np.concatenate([run.transitions for run in curves])
            ax.update_datalim([(time, target) for time in times if time > 0])  # even if no error can be drawn
            place = {"xy": (1, target), "xycoords": ax.get_yaxis_transform()}
            ax.annotate(_percent(target), **place, xytext=(3, 0), textcoords="offset points", va="center")
            ax.set(xscale="log", yscale="log", xlabel="environment transitions")
            ax.set_title(f"action {name}", fontweight="bold")
            ax.grid(which="major", color="0.92", zorder=0)
        for ax in panels:
            label_logarithmic(ax.xaxis, most=4)
            label_logarithmic(ax.yaxis, _percent, most=8)
        panels[0].set_ylabel("relative error in 2-norm")
        note = "Lines: mean over seeds. Bands: worst to best seed." if len(curves) > len(groups) else ""
        legend_below(figure, note, columns=6)
    return figure


def policies_figure(pictures: Sequence[Picture], title: str) -> Figure:
    """What was learned: actions sampled at a few states against the exact Gaussian, a row per temperature.

    One action is a histogram with the exact density. Of several actions the first two are shown, with the exact and
    the samples' own ellipses at 1, 2 and 3 standard deviations.
    """
    groups = _by_alpha(pictures)
    columns, dimension = max(map(len, groups.values())), pictures[0].actions.shape[1]
    with mpl.rc_context(STYLE):
        figure = new_figure(0.8 + 2.6 * columns, 1.3 + 2.2 * len(groups), title)
        panels = figure.subplots(len(groups), columns, squeeze=False)
        for row, (alpha, group) in zip(panels, groups.items(), strict=True):
            for ax, picture in zip(row, group, strict=False):
                finite = np.isfinite(picture.actions).all(axis=1)
                if not finite.all():
                    note = f"{np.mean(~finite):.0%} of the samples are not finite"
                    ax.text(0.03, 0.95, note, transform=ax.transAxes, color="#b2182b", fontsize=8, va="top")
                (_histogram if dimension == 1 else _ellipses)(ax, picture, picture.actions[finite].astype(float))
                ax.xaxis.set_major_locator(MaxNLocator(4))
                ax.yaxis.set_major_locator(MaxNLocator(4))
                ax.set_title(f"s = ({', '.join(f'{x + 0:.2g}' for x in picture.state)})".replace("-", "−"), fontsize=8)
            for ax in row[len(group) :]:
                ax.set_axis_off()
            row[0].set_ylabel(f"α = {alpha:g}\n{'density' if dimension == 1 else 'action a₂'}")
        for ax in panels[-1]:
            ax.set_xlabel("action a" if dimension == 1 else "action a₁")
        legend_below(figure, f"The first two of {dimension} actions." if dimension > 2 else "")
    return figure


def _histogram(ax: Axes, picture: Picture, actions: np.ndarray) -> None:
    """One action: the histogram of the samples (m, 1) and the exact normal density."""
    if len(actions):
        ax.hist(actions[:, 0], bins=50, density=True, color=LEARNED, alpha=0.4, label="learned policy")
    draw_gaussian(ax, picture.mean, picture.covariance, "exact optimum", color=EXACT, linewidth=1.2)


def _ellipses(ax: Axes, picture: Picture, actions: np.ndarray) -> None:
    """The first two of several actions: samples (m, d), learned and exact means and ellipses."""
    actions = actions[:, :2]
    ax.scatter(*actions[:2000].T, s=3, color=LEARNED, alpha=0.25, linewidths=0, rasterized=True)
    ax.plot([], [], ".", color=LEARNED, label="learned policy: samples")  # the legend's dot, large enough to see
    gaussians = [("exact optimum", picture.mean[:2], picture.covariance[:2, :2], "-", EXACT)]
    if len(actions) > 1:
        gaussians.append(("learned policy", actions.mean(axis=0), np.cov(actions.T), "--", OTHER))
    for name, mean, covariance, linestyle, colour in gaussians:
        style = {"color": colour, "linestyle": linestyle, "linewidth": 1}
        draw_gaussian(ax, mean, covariance, f"{name}: mean, 1, 2, 3 std", **style)
        ax.plot(*mean, color=colour, marker="+", markersize=7)


def _mean_and_range(ax: Axes, x: np.ndarray, values: np.ndarray, look: dict[str, Any], label: str) -> None:
    """The mean over seeds, (seeds, E) → a line, and the range of the finite ones as a band."""
    marker, mean = "o" if len(x) < 12 else None, values.mean(axis=0)  # a single evaluation has no line
    named = label if np.isfinite(mean).any() else None
    ax.plot(x, mean, linewidth=1.5, marker=marker, markersize=3, label=named, **look)
    if len(values) > 1:
        low, high = np.fmin.reduce(values), np.fmax.reduce(values)
        ax.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def _limits_near(optimum: float, late: np.ndarray) -> tuple[float, float]:
    """Axis limits that hold the optimum, at least 2 % of it on either side, and the late returns but for outliers."""
    late = late[np.abs(late) < 1e100]
    distance = np.abs(late - optimum)
    near = late[distance <= 10 * np.median(distance)] if len(late) else late
    low, high = min([optimum, *near]), max([optimum, *near])
    margin, least = 0.15 * (high - low), 2 * RETURN_TOLERANCE * abs(optimum) or 1e-12
    return min(low - margin, optimum - least), max(high + margin, optimum + least)


def _comparison(returns: np.ndarray, optimum: float) -> str:
    """How far the mean of the last returns is from the optimum, in words."""
    with np.errstate(over="ignore", invalid="ignore"):
        gap = (np.mean(returns) - optimum) / abs(optimum or np.nan)
    if not np.isfinite(gap):
        return ""
    size = _percent(float(abs(gap))) if abs(gap) < 10 else "over 1000 %"
    return f"ends {size} {'below' if gap < 0 else 'above'} optimum"


def _percent(share: float) -> str:
    """A share to two digits, or a whole number, as in 0.31 %, 12 % or 3,180 %."""
    if not np.isfinite(share):
        return "not finite"
    percent = 100 * share
    return f"{percent:.2g} %" if percent < 99.5 else f"{percent:,.0f} %" if percent < 1e6 else f"{percent:.0e} %"


def _log_if_positive(ax: Axes, values: np.ndarray) -> None:
    """A logarithmic axis that holds all positive values, or a linear one if there are none."""
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive):
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(positive.min() / 2, positive.max() * 1.5)


def _by_alpha(items: Sequence[Any]) -> dict[float, list[Any]]:
    """Curves or pictures by temperature, in increasing order."""
    return {alpha: [item for item in items if item.alpha == alpha] for alpha in sorted({item.alpha for item in items})}


def _colours(count: int) -> Iterator[Any]:
    """Colours that the colour-blind tell apart and that darken with the temperature's rank."""
    return iter(mpl.colormaps["viridis"](np.linspace(0.7, 0.0, count) if count > 1 else [0.3]))


def _tidy_grid(figure: Figure, columns: int, used: int) -> None:
    """Label the lowest panel of each column and hide the empty ones."""
    for index, ax in enumerate(figure.axes):
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        if index >= used:
            ax.set_axis_off()
        elif index + columns >= used:
            ax.set_xlabel("environment transitions")
