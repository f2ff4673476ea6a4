"""The figure of a fitted flow: target, learned density, samples and paths."""

from collections.abc import Callable

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from .. import plotting

POINTS, PATHS = 100, 60  # grid points along an axis, and paths that are shown


def draw(log_prob: Callable, log_target: Callable, paths: Float[np.ndarray, "n times d"]) -> Figure:
    """Draw a fitted flow of points with one or two components: its log-density, and the target's up to a constant.

    Both are functions of many points (n, d); paths lead from noise to samples.
    """
    dim = paths.shape[2]
    samples = paths[:, -1]
    low, high = paths.min(axis=(0, 1)), paths.max(axis=(0, 1))
    axes = [np.linspace(*ends, POINTS, dtype=np.float32) for ends in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    cell = np.prod((high - low) / (POINTS - 1))
    learned, values = np.exp(log_prob(grid)), np.asarray(log_target(jnp.asarray(grid)))
    target = np.exp(values - values.max())
    target = target / (target.sum() * cell)
    with mpl.rc_context(plotting.STYLE):
        figure = plotting.new_figure(3.1 * (dim + 1), 3.0, "")
        panels = list(np.ravel(np.asarray(figure.subplots(1, dim + 1))))
        if dim == 1:
            panels[0].plot(grid[:, 0], target, color=plotting.EXACT, label="target")
            panels[0].plot(grid[:, 0], learned, color=plotting.LEARNED, label="learned")
            panels[0].hist(samples[:, 0], bins=40, density=True, color="0.85", label="samples")
            panels[0].legend()
            panels[0].set_xlabel("x")
            panels[1].plot(
                np.linspace(0, 1, paths.shape[1]), paths[:PATHS, :, 0].T, color=plotting.QUIET, linewidth=0.5
            )
            panels[1].set(xlabel="flow time", ylabel="x, from noise to samples")
        else:
            for panel, density, title in zip(panels, (target, learned), ("target", "learned density"), strict=False):
                panel.pcolormesh(*axes, density.reshape(POINTS, POINTS).T, cmap="Blues", vmin=0, vmax=target.max())
                panel.set_title(title)
            panels[2].plot(*paths[:PATHS].transpose(2, 1, 0), color=plotting.QUIET, linewidth=0.4)
            panels[2].plot(*samples.T, ".", color=plotting.LEARNED, markersize=2)
            panels[2].set_title("samples and paths")
            for panel in panels:
                panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    return figure
