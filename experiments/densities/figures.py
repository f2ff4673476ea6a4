"""The picture of one target: exact density, learned density, samples, and the flow's paths."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from entroflow.plotting import LEARNED, OTHER, QUIET, STYLE, new_figure, save

SHOWN = 2000  # samples
BINS = 40
TICKS = 4  # intervals between them, at most


class Picture(NamedTuple):
    """What is drawn; in more than two dimensions the first two coordinates.

    Attributes:
        exact: exact samples.
        learned: samples of the flow.
        paths: points of paths at equal flow times, from the noise to the sample.
        bounds: lower and upper end of both axes.
        densities: target's and flow's density on a grid of both axes; histograms of the samples if not given.
    """

    exact: Float[np.ndarray, "m d"]
    learned: Float[np.ndarray, "k d"]
    paths: Float[np.ndarray, "p n d"]
    bounds: Float[np.ndarray, "2 2"]
    densities: Float[np.ndarray, "2 r c"] | None


def density_figure(folder: Path, name: str, title: str, picture: Picture) -> None:
    """Save `panels` as PNG and PDF."""
    save(folder, name, panels(title, picture))


def panels(title: str, picture: Picture) -> Figure:
    """Return four panels: target density, learned density on the same scale, samples of both, paths of the flow."""
    low, high = picture.bounds
    extent = low[0], high[0], low[1], high[1]
    densities = histograms(picture) if picture.densities is None else picture.densities
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 2.3, title)
        axes = figure.subplots(1, 4, sharex=True, sharey=True)
        for ax, density, label in zip(axes, densities, ("target", "learned"), strict=False):
            style = {"cmap": "Blues", "vmin": 0.0, "vmax": densities[0].max(), "interpolation": "bilinear"}
            ax.imshow(density, origin="lower", extent=extent, aspect="auto", rasterized=True, **style)
            ax.set_title(f"{label} density" + (", marginal" if picture.densities is None else ""))
        marker = {"linestyle": "", "marker": ".", "markersize": 2.5, "markeredgewidth": 0.0, "rasterized": True}
        axes[2].plot(*picture.exact[:SHOWN, :2].T, color="0.75", **marker)
        axes[2].plot(*picture.learned[:SHOWN, :2].T, color=LEARNED, alpha=0.7, **marker)
        axes[2].set_title("samples, exact: grey")
        lines = picture.paths[:, :, :2].transpose(1, 0, 2)
        axes[3].add_collection(LineCollection(list(lines), colors=QUIET, linewidths=0.5, alpha=0.7))
        axes[3].plot(*lines[:, 0].T, color=OTHER, **marker | {"markersize": 4})
        axes[3].plot(*lines[:, -1].T, color=LEARNED, **marker | {"markersize": 4})
        axes[3].set_title("paths, noise: orange")
        for ax in axes:
            ax.set_xlabel("x₁")
            ax.set_xlim(low[0], high[0])
            ax.locator_params(nbins=TICKS)
        axes[0].set_ylim(low[1], high[1])
        axes[0].set_ylabel("x₂")
    return figure


def histograms(picture: Picture) -> Float[np.ndarray, "2 r c"]:
    """Return the densities of the first two coordinates of exact and learned samples, by counting."""
    samples = picture.exact[:, :2], picture.learned[:, :2]
    return np.stack([np.histogram2d(*x.T, bins=BINS, range=picture.bounds.T, density=True)[0].T for x in samples])
