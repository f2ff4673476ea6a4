"""The picture of a designed controller. Import it by name: `entroflow.lqr` does not load Matplotlib."""

from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from entroflow.lqr.matrices import matrix_root
from entroflow.lqr.responses import Response
from entroflow.plotting import EXACT, LEARNED, QUIET, STYLE, new_figure

ANGLES = np.linspace(0, 2 * np.pi, 181)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)])


def design_figure(
    response: Response, poles: Complex[np.ndarray, " n"], covariance: Float[np.ndarray, "d d"], unit: str, edge: bool
) -> Figure:
    """Draw states and inputs with bands of one standard deviation, poles, and the inputs' random part.

    Of one input that is its density, of several the ellipses of the first two. `unit` is what time is counted in;
    `edge` tells whether the imaginary axis is the border of stability, not the unit circle.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(8.4, 5.2, "u = −Kx + exploration: mean and one standard deviation")
        (states, inputs), (plane, random) = figure.subplots(2, 2)
        time, x, u, x_std, u_std = response
        for ax, name, means, widths in ((states, "x", x, x_std), (inputs, "u", u, u_std)):
            for index, (mean, width) in enumerate(zip(means.T, widths.T, strict=True), 1):
                (line,) = ax.plot(time, mean, linewidth=1.2, label=f"${name}_{{{index}}}$")
                ax.fill_between(time, mean - width, mean + width, color=line.get_color(), alpha=0.2, linewidth=0)
            ax.set(xlabel=unit, ylabel="states" if name == "x" else "inputs")
            ax.legend(fontsize=8, ncols=2)
        _ = plane.axvline(0, color=QUIET) if edge else plane.plot(*CIRCLE, color=QUIET, linewidth=1)
        plane.plot(np.real(poles), np.imag(poles), "x", color=LEARNED)
        plane.set(title="poles of A − BK", xlabel="real part", ylabel="imaginary part")
        plane.set_aspect("equal", adjustable="datalim")
        draw_gaussian(random, np.zeros(len(covariance)), covariance, color=EXACT, linewidth=1)
        if len(covariance) == 1:
            random.set(title="exploration: N(0, Σ)", xlabel="u + Kx", ylabel="density")
        else:
            random.set(title="exploration: 1, 2, 3 std", xlabel="$(u + Kx)_1$", ylabel="$(u + Kx)_2$")
    return figure


def draw_gaussian(
    ax: Axes,
    mean: Float[np.ndarray, " d"],
    covariance: Float[np.ndarray, "d d"],
    label: str | None = None,
    **style: Any,
) -> None:
    """Draw the density of one component; of several the ellipses of the first two at 1, 2 and 3 deviations."""
    if len(mean) == 1:
        deviation = np.sqrt(covariance[0, 0])
        steps = np.linspace(-4, 4, 201)
        density = np.exp(-(steps**2) / 2) / (deviation * np.sqrt(2 * np.pi))
        ax.plot(mean[0] + deviation * steps, density, label=label, **style)
        return
    for radius in (1, 2, 3):
        ring = mean[:2, None] + radius * matrix_root(covariance[:2, :2]) @ CIRCLE
        ax.plot(*ring, label=label if radius == 1 else None, **style)
