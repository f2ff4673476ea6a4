"""What a policy N(−K s, Σ) does and earns within H steps of a plant, exactly, whether it stabilises or not."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow.lqr import LQR
from entroflow.lqr.matrices import gaussian_entropy


class Returns(NamedTuple):
    """Expected discounted returns over s_0 ~ N(0, initial_cov)."""

    standard_return: float
    """The sum of rewards."""
    soft_return: float
    """The same with temperature × entropy for each step."""


def state_covariances(lqr: LQR, K: ArrayLike, covariance: ArrayLike, horizon: int) -> Float[np.ndarray, "states n n"]:
    """Covariances of s_0, …, s_H: X₊ = (A−BK) X (A−BK)ᵀ + BΣBᵀ + W."""
    closed = lqr.A - lqr.B @ np.asarray(K)
    spread = lqr.B @ np.asarray(covariance) @ lqr.B.T + lqr.noise_cov
    covariances = [lqr.initial_cov]
    for _ in range(horizon):
        covariances.append(closed @ covariances[-1] @ closed.T + spread)
    return np.stack(covariances)


def finite_horizon_return(lqr: LQR, K: ArrayLike, covariance: ArrayLike, temperature: float, horizon: int) -> Returns:
    """What an average over H-step trajectories estimates, unlike the infinite sum of `LQR.evaluate`."""
    gain, sigma = np.asarray(K), np.asarray(covariance)
    covariances = state_covariances(lqr, gain, sigma, horizon)[:-1]
    weights = lqr.discount ** np.arange(horizon)
    per_state = lqr.Q - lqr.cross @ gain - gain.T @ lqr.cross.T + gain.T @ lqr.R @ gain
    standard = -float(weights @ (np.einsum("hij,ij->h", covariances, per_state) + np.sum(lqr.R * sigma)))
    return Returns(standard, standard + temperature * gaussian_entropy(sigma) * float(weights.sum()))
