"""The finite horizon: gains and covariances that change with time.

K_t and Σ_t are those of one exact improvement on the cost-to-go xᵀP_{t+1}x + constant, backwards from the final cost.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.controller import Cost, Design, plant_of
from entroflow.lqr.matrices import gaussian_entropy, symmetric
from entroflow.lqr.plant import Plant
from entroflow.lqr.riccati import improve


class Schedule(NamedTuple):
    """The controller u_t ~ N(−gains[t] x, covariances[t]) of H steps."""

    gains: Float[np.ndarray, "H d n"]
    """K_t."""
    covariances: Float[np.ndarray, "H d d"]
    """Σ_t."""
    cost_matrices: Float[np.ndarray, "states n n"]
    """P_0, …, P_H, of which the last is the final cost."""
    cost: Cost
    """E Σ γ^t cost_t + γ^H final cost by cause, as sums over the horizon, whose duration counts as one."""


def finite_horizon(plant: Plant | Design, steps: int, final_cost: ArrayLike | None = None) -> Schedule:
    """The optimal controller for a given number of steps.

    Args:
        plant: the plant, in discrete time, or a design, whose plant it is; it need not be stabilisable.
        steps: H.
        final_cost: (n, n) cost of the state after the last step, positive semidefinite; None: zero.

    Returns:
        The controller.

    Raises:
        ValueError: for a plant in continuous time, or a wrong shape or number.
    """
    plant = plant_of(plant)
    if plant.continuous:
        raise checks.error("plant", "continuous time", "discrete time", "pass dt to design, which samples the plant")
    given = 0 * plant.Q if final_cost is None else final_cost
    P = symmetric("final_cost", checks.finite_array("final_cost", given, plant.Q.shape, "one row per state"))
    gains, covariances, matrices, noise, spent, entropy = [], [], [P], 0.0, 0.0, 0.0
    for time in reversed(range(checks.positive_int("steps", steps))):
        (K, M), weight = improve(plant, P), plant.discount**time
        gains.insert(0, K)
        covariances.insert(0, plant.temperature / 2 * np.linalg.inv(M))
        noise += weight * (plant.discount * float(np.sum(P * plant.noise_cov)) + plant.offset)
        spent += weight * plant.temperature * len(M) / 2  # tr(Σ M)
        entropy += weight * gaussian_entropy(covariances[0])
        with np.errstate(over="ignore", invalid="ignore"):
            later = sum((a - b @ K).T @ P @ (a - b @ K) for a, b in plant.squares[1])
            P = plant.stage_cost(K) + plant.discount * later
        if not np.isfinite(P).all():
            given, remedy = f"a cost that overflows {steps - time} steps before the end", "take fewer steps"
            raise checks.error("steps", given, "numbers to calculate with", remedy)
        matrices.insert(0, (P + P.T) / 2)
    cost = Cost(float(np.sum(P * plant.initial_cov)), noise, spent, entropy, plant.temperature, 1.0)
    return Schedule(np.stack(gains), np.stack(covariances), np.stack(matrices), cost)
