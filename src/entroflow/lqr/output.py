"""Partial observation y = Cx + v, v ~ N(0, V): Kalman's filter and the soft-optimal gain, each by itself.

For a fixed temperature separation holds. Whatever a policy sees, a step costs E (u + Kx)ᵀM(u + Kx) more than −Kx would.
Of an input N(−Kx̂, Σ) that is tr(ΣM), which with the entropy is least at Σ = (α/2) M⁻¹, and tr(KᵀMK E), where the
error's covariance E depends on no policy and is least for Kalman's filter.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.controller import Design, designed
from entroflow.lqr.design import design as solve
from entroflow.lqr.matrices import symmetric


class OutputFeedback(NamedTuple):
    """The policy N(−gain x̂, covariance) on the estimate x̂ = x̃ + filter_gain (y − C x̃), x̃ what the last one predicts.

    In continuous time dx̂ = (A x̂ + B u) dt + filter_gain (dy − C x̂ dt).
    """

    gain: Float[np.ndarray, "d n"]
    """K, as at full observation."""
    covariance: Float[np.ndarray, "d d"]
    """Σ, as at full observation."""
    filter_gain: Float[np.ndarray, "n p"]
    """Of Kalman's filter, at rest."""
    error_cov: Float[np.ndarray, "n n"]
    """E = Cov(x − x̂)."""
    filter_poles: Complex[np.ndarray, " n"]
    """Of the error, beside those of the design."""
    estimation: float
    """tr(KᵀMK E), what not seeing the state costs per step or unit of time once the filter is at rest."""


def observe(design: Design, C: ArrayLike, measurement_cov: ArrayLike) -> OutputFeedback:
    """The soft-optimal policy on what sensors tell.

    Args:
        design: the controller at full observation.
        C: (p, n) what is measured.
        measurement_cov: (p, p) covariance V of its noise, positive definite; in continuous time per unit of time.

    Returns:
        Filter and policy.

    Raises:
        ValueError: for a wrong shape, multiplicative noise, or a plant that the measurements do not tell enough about.
    """
    plant, K = designed(design).plant, design.gain
    if plant.multiplicative:
        raise checks.error("design", "multiplicative noise", "additive noise alone", "leave it out")
    rows = lambda given: [given] if np.ndim(given) == 1 else [[given]] if np.ndim(given) == 0 else given  # noqa: E731
    C = checks.finite_array("C", rows(C), (None, len(plant.A)), "one column per state")
    shape, meaning = (len(C), len(C)), "one row and column per measurement"
    covariance = checks.finite_array("measurement_cov", rows(measurement_cov), shape, meaning)
    covariance = symmetric("measurement_cov", covariance, definite=True)
    try:  # the filter is the controller of the transposed plant
        settings = {"temperature": 2.0, "continuous": plant.continuous}
        dual = solve(plant.A.T, C.T, plant.noise_cov, covariance, **settings)
    except ValueError:
        given = "a mode that does not decay, and that C does not see or noise_cov does not drive"
        remedy = "measure more, or design with noise"
        raise checks.error("C, noise_cov", given, "a filter that settles", remedy) from None
    error = dual.cost_matrix
    L = error @ C.T @ dual.covariance
    error = error if plant.continuous else error - L @ C @ error
    weight = plant.temperature / 2 * K.T @ np.linalg.solve(design.covariance, K)  # KᵀMK
    estimation = float(np.sum(weight * error))
    return OutputFeedback(K, design.covariance, L, (error + error.T) / 2, dual.poles, estimation)
