"""The problems: an environment, the grid on which it is solved, its temperature, and where to look at policies."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from entroflow.envs import ControlEnv, DeadBand, DoubleWell, SwingUp
from entroflow.exact import Axis


class System(NamedTuple):
    """One problem.

    Attributes:
        make: makes the environment.
        grid: where it is solved.
        temperature: α.
        discount: γ.
        states: states at which policies are drawn; at the first the modes are counted.
        mode: half-open interval of actions that is one of the modes there.
        words: what that mode is.
    """

    make: Callable[[], ControlEnv]
    grid: tuple[Axis, ...]
    temperature: float
    discount: float
    states: tuple[tuple[float, ...], ...]
    mode: tuple[float, float]
    words: str


SYSTEMS = {
    "double_well": System(
        DoubleWell, (Axis(-2.0, 2.0, 321),), 0.2, 0.9, ((0.0,), (0.1,), (1.2,)), (0.0, np.inf), "to the right"
    ),
    "swing_up": System(
        SwingUp,
        (Axis(-np.pi, np.pi, 193, periodic=True), Axis(-4.0, 4.0, 193)),
        0.1,
        0.95,
        ((np.pi, 0.0), (2.5, 0.0), (0.0, 0.0)),
        (0.0, np.inf),
        "to the right",
    ),
    "dead_band": System(
        DeadBand,
        (Axis(-3.0, 3.0, 193), Axis(-3.0, 3.0, 193)),
        0.1,
        0.9,
        ((0.5, 0.0), (1.0, 0.0), (0.0, 0.0)),
        (-1.0, 1.0),
        "within the band",
    ),
}
