"""The picture of a designed controller: its response, its poles and the randomness of its inputs.

Import this module by name: `entroflow.lqr` does not load Matplotlib.
"""

import matplotlib as mpl
import numpy as np
from jaxtyping import Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entroflow.lqr.matrices import matrix_root
from entroflow.lqr.responses import Response
from entroflow.plotting import EXACT, LEARNED, QUIET, STYLE, new_figure


def design_figure(
    response: Response,
    poles: Complex[np.ndarray, " n"],
    covariance: Float[np.ndarray, "d d"],
    unit: str,
    continuous: bool,
) -> Figure:
    """Draw states and inputs with bands of one standard deviation, poles, and the distribution of exploration.

    Args:
        response: means and deviations.
        poles: of the closed loop.
        covariance: of the input; of several inputs the first two are drawn, at 1, 2 and 3 standard deviations.
        unit: what time is counted in.
        continuous: whether poles are those of continuous time.

    Returns:
        The figure.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(8.4, 5.2, "u = −Kx + exploration: mean and one standard deviation")
        (states, inputs), (plane, random) = figure.subplots(2, 2)
        _bands(states, response.time, response.state_mean, response.state_std, "x")
        _bands(inputs, response.time, response.input_mean, response.input_std, "u")
        for ax, name in ((states, "states"), (inputs, "inputs")):
            ax.set(xlabel=unit, ylabel=name)
            ax.legend(fontsize=8, ncols=2)
        _poles(plane, poles, continuous)
        _exploration(random, covariance)
    return figure


def _bands(ax: Axes, time: np.ndarray, mean: np.ndarray, deviation: np.ndarray, letter: str) -> None:
    for index, (line, width) in enumerate(zip(mean.T, deviation.T, strict=True)):
        (drawn,) = ax.plot(time, line, linewidth=1.2, label=f"${letter}_{{{index + 1}}}$")
        ax.fill_between(time, line - width, line + width, color=drawn.get_color(), alpha=0.2, linewidth=0)


def _poles(ax: Axes, poles: np.ndarray, continuous: bool) -> None:
    """Poles beside the border of stability: the imaginary axis or the unit circle."""
    if continuous:
        ax.axvline(0, color=QUIET, linewidth=1)
    else:
        angle = np.linspace(0, 2 * np.pi, 181)
        ax.plot(np.cos(angle), np.sin(angle), color=QUIET, linewidth=1)
        ax.set_aspect("equal")
    ax.plot(np.real(poles), np.imag(poles), "x", color=LEARNED)
    ax.set(title="poles of A − BK", xlabel="real part", ylabel="imaginary part")


def _exploration(ax: Axes, covariance: np.ndarray) -> None:
    """The density of one input's exploration, or ellipses of the first two."""
    if len(covariance) == 1:
        deviation = np.sqrt(covariance[0, 0])
        grid = deviation * np.linspace(-4, 4, 201)
        ax.plot(grid, np.exp(-((grid / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi)), color=EXACT)
        ax.set(title="exploration: N(0, Σ)", xlabel="u + Kx", ylabel="density")
        return
    angle = np.linspace(0, 2 * np.pi, 181)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) @ matrix_root(covariance[:2, :2]).T
    for radius in (1, 2, 3):
        ax.plot(*(radius * ring).T, color=EXACT, linewidth=1)
    ax.set(title="exploration: 1, 2, 3 standard deviations", xlabel="$(u + Kx)_1$", ylabel="$(u + Kx)_2$")
