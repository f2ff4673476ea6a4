"""What the exact answers are given as: policies and values."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class LinearGaussian(NamedTuple):
    """The policy a ~ N(−K s, covariance)."""

    K: Float[np.ndarray, "d n"]
    """Gain."""
    covariance: Float[np.ndarray, "d d"]
    """Covariance of the action."""


class Evaluation(NamedTuple):
    """The value of N(−K s, Σ), −sᵀPs plus a constant, and its discounted returns over s_0 ~ N(0, initial_cov)."""

    P: Float[np.ndarray, "n n"]
    """Value matrix."""
    standard_return: float
    """The expected sum of rewards."""
    soft_return: float
    """The same with temperature × entropy for each step."""


class Optimum(NamedTuple):
    """The optimal policy N(−K s, covariance) of Theorem 3, and its discounted returns, see `Evaluation`."""

    K: Float[np.ndarray, "d n"]
    """Gain."""
    P: Float[np.ndarray, "n n"]
    """Value matrix."""
    covariance: Float[np.ndarray, "d d"]
    """Covariance of the action."""
    standard_return: float
    """The expected sum of rewards."""
    soft_return: float
    """The same with temperature × entropy for each step."""
    entropy: float
    """The policy's entropy in nats, the same at all states."""


class Quadratic(NamedTuple):
    """The function x ↦ constant − xᵀ matrix x, where x is the concatenation of the arguments."""

    matrix: Float[np.ndarray, "m m"]
    """Symmetric."""
    constant: float
    """The value at zero."""

    def __call__(self, *parts: Float[np.ndarray, "*batch _"]) -> Float[np.ndarray, "*batch"]:
        """Value at x = (s) or x = (s, a), given as arrays (..., n) and (..., d)."""
        x = np.concatenate(parts, axis=-1)
        return np.asarray(self.constant - np.einsum("...i,ij,...j->...", x, self.matrix, x))
