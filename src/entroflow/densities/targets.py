"""Densities known up to a constant, with exact samples and exact log Z: targets with one state for ISFM.

A target is exp(Q/α)/Z with a single state: `log_density` is Q/α.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


class Target(NamedTuple):
    """A density exp(log_density(x)) / Z on R^d.

    Attributes:
        name: what the command line calls it.
        size: dimension d.
        log_density: x ↦ Q/α, in JAX, shapes (d,) and ().
        log_z: log ∫ exp(log_density), exact.
        sample: exact samples, (generator, n) ↦ (n, d) in float64.
        scale: typical distance of samples from the origin per component, the unit of the flow's latent.
        modes: centres of the modes, (k, d), or None where there are too many or no clear ones.
        mode_weights: their exact probabilities, (k,); a sample belongs to the nearest mode.
    """

    name: str
    size: int
    log_density: Callable[[Array], Array]
    log_z: float
    sample: Callable[[np.random.Generator, int], Float[np.ndarray, "n d"]]
    scale: float
    modes: Float[np.ndarray, "k d"] | None = None
    mode_weights: Float[np.ndarray, " k"] | None = None
