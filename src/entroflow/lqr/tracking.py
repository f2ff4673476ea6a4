"""Tracking a constant reference: soft-optimal affine policies.

    cost (x−r)ᵀQ(x−r) + 2(x−r)ᵀN(u−v) + (u−v)ᵀR(u−v),   u ~ N(offset − Kx, Σ)

Gain and covariance are the regulator's. The distance z = x − r drifts by e = Ar + Bv − r per step, Ar + Bv per unit of
time. Its cost-to-go zᵀPz + 2pᵀz + constant shifts the input by −g:

    Mg = γ Bᵀ(Pe + p),   p = γ (A − BK)ᵀ(Pe + p),   or in continuous time   Mg = Bᵀp,   ρp = (A − BK)ᵀp + Pe.

Multiplicative noise adds to both γ or 1 times BⱼᵀPeⱼ and (Aⱼ − BⱼK)ᵀPeⱼ, with eⱼ = Aⱼr + Bⱼv.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.controller import Design, designed


class Tracker(NamedTuple):
    """The policy N(offset − gain x, covariance)."""

    gain: Float[np.ndarray, "d n"]
    """K, the regulator's."""
    offset: Float[np.ndarray, "d"]
    """The input at x = 0."""
    covariance: Float[np.ndarray, "d d"]
    """Σ, the regulator's."""
    rest: Float[np.ndarray, "n"]
    """Where the mean of the state comes to rest; not a number if it does not."""
    cost: float
    """J from x = 0, or from the initial states of `initial_cov`; at discount 1 the average per step or unit of time."""


def track(design: Design, reference: ArrayLike, input_reference: ArrayLike | None = None) -> Tracker:
    """The soft-optimal policy that follows a constant reference.

    Args:
        design: the regulator.
        reference: (n,) state r to be near.
        input_reference: (d,) input v to be near, zero by default; if it holds the plant at r, the state rests there.

    Returns:
        The policy.

    Raises:
        ValueError: for a wrong shape, or a sampled plant that v does not hold at r, as it moves between the samples.
    """
    plant, K, P, (n, d) = designed(design).plant, design.gain, design.cost_matrix, design.plant.B.shape
    r = checks.finite_array("reference", reference, (n,), "one entry per state")
    v = np.zeros(d) if input_reference is None else input_reference
    v = checks.finite_array("input_reference", v, (d,), "one entry per input")
    drift = plant.A @ r + plant.B @ v - (0 if plant.continuous else r)
    if (given := design.given) is not plant:
        moves = given.A @ r + given.B @ v
        if np.any(np.abs(moves) > 1e-9 * (np.abs(given.A) @ np.abs(r) + np.abs(given.B) @ np.abs(v))):
            expected, remedy = "a sampled plant at rest", "pass an input_reference that holds it there"
            raise checks.error("reference", f"one from which it moves by {moves} per unit of time", expected, remedy)
    weight, pairs = plant.squares
    fixed = [(a, b, drift if a is plant.A else a @ r + b @ v) for a, b in pairs]
    closed = plant.A - plant.B @ K
    pull = weight * sum(((a - b @ K).T @ P @ e for a, b, e in fixed), np.zeros(n))
    if plant.continuous:
        p, scale = np.linalg.solve(plant.rate * np.eye(n) - closed.T, pull + P @ drift), 1.0
    else:
        p, scale = np.linalg.solve(np.eye(n) - plant.discount * closed.T, pull), plant.discount
    push = weight * sum((b.T @ P @ e for _, b, e in fixed), np.zeros(d)) + scale * plant.B.T @ p  # Mg
    g = design.covariance @ push * (2 / plant.temperature)
    offset = v + K @ r - g
    stable = design.poles[0].real < 0 if plant.continuous else abs(design.poles[0]) < 1
    still = closed if plant.continuous else closed - np.eye(n)
    rest = -np.linalg.solve(still, plant.B @ offset) if stable else np.full(n, np.nan)
    average = design.cost.average + weight * sum(e @ P @ e for *_, e in fixed) + 2 * scale * p @ drift - push @ g
    if plant.duration < np.inf:
        average = design.cost.control + r @ P @ r - 2 * p @ r + plant.duration * average
    return Tracker(K, offset, design.covariance, rest, float(average))
