"""What the entropy buys: which disturbances a soft-optimal controller is made for, and risk-sensitive control.

**Theorem.** For a plant with cost c(x, u), price α and discount γ, and controllers π(u|x) with densities:

(i) *Robustness in the cost of inputs.* The soft cost of π is its plain cost in the worst case over changes δ_t(x, u) of
the cost of inputs that are dear on few of them only:

    E_π Σ γ^t (c − α H(π)) = max { E_π Σ γ^t (c + δ_t) : ∫ exp(δ_t(x, u)/α) du ≤ 1 },   at δ* = α log π.

So the soft optimum is the minimax controller. In its worst case, c + α log π*, every controller costs the same.

(ii) *Duality.* Without noise and discount, over H steps, the optimal soft cost is what the plant costs without control,
driven by noise u_t ~ N(0, (α/2) R⁻¹), to somebody who is risk-seeking by 1/α (for a cost without cross term):

    min_π E_π Σ (c − α H) = −α log ∫ exp(−Σ c/α) du_0 … du_{H−1}
                          = −α log E exp(−Σ xᵀQx/α) − H (α/2) log det(πα R⁻¹),

and the optimal inputs are distributed as this noise is, weighted by exp(−Σ xᵀQx/α). With noise the first = is ≥.

(iii) *No robustness to additive disturbances.* K does not depend on α. Whatever is added to inputs or states, u = −Kx
and N(−Kx, Σ) have the same mean, and costs that differ by the same α d/2 per step.

**Proof.** (i) is Gibbs' variational formula at every x: E_π δ − α log ∫ exp(δ/α) = −α H(π) − α KL(π‖exp(δ/α)/∫ …), at
most −α H(π), with equality where exp(δ/α) = π. By Bellman's equation c + γ E V(x') + α log π*(u|x) = V(x) for all u:
summed along any trajectory, this telescopes to V(x_0). (ii) V_t(x) = −α log ∫ exp(−(c + V_{t+1}(Ax + Bu))/α) du, with
V_{t+1} itself such a logarithm, whose exponential is an integral: put one into another. With noise, E V_{t+1} is at
least −α log E exp(−V_{t+1}/α) (Jensen). (iii) The mean obeys the linear equation without exploration, the covariance
one without disturbance, and the expected quadratic cost is a sum of one term of each.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.controller import Design, designed, plant_of
from entroflow.lqr.matrices import symmetric
from entroflow.lqr.plant import Plant
from entroflow.lqr.riccati import improve


def worst_cost(design: Design) -> Plant:
    """The plant with the cost c + α log π* that is worst for a design by (i).

    −α log det(πα M⁻¹)/2 − (u + Kx)ᵀ M (u + Kx) is added: inputs far from those of the design become cheaper.

    Example:
        >>> import entroflow.lqr as lqr
        >>> controller = lqr.design([[1, 0.1], [0, 1]], [0, 0.1], [[1, 0], [0, 1]], 0.1, temperature=0.5, discount=0.9)
        >>> from entroflow.lqr.riccati import evaluate
        >>> another = np.array([[5.0, 4.0]])  # neither better nor worse
        >>> np.allclose(evaluate(worst_cost(controller), another), controller.cost_matrix)
        True
    """
    plant = designed(design).plant
    K, M = improve(plant, design.cost_matrix)
    constant = plant.temperature / 2 * float(np.linalg.slogdet(M / (np.pi * plant.temperature))[1])
    cost = {"Q": plant.Q - K.T @ M @ K, "cross": plant.cross - K.T @ M, "R": plant.R - M}
    return replace(plant, **cost, offset=plant.offset + constant)


def risk_seeking_cost(
    plant: Plant | Design, state: ArrayLike, steps: int, final_cost: ArrayLike | None = None
) -> float:
    """−α log ∫ exp(−cost/α) over all sequences of inputs, by one determinant and no Riccati equation: see (ii).

    It is the optimal soft cost from that state, that of `finite_horizon` without noise and discount.

    Args:
        plant: the plant, or its design, in discrete time, without discount or noise.
        state: (n,) the state at first.
        steps: H.
        final_cost: (n, n) cost of the state after the last step, positive semidefinite; None: zero.

    Returns:
        The cost.

    Raises:
        ValueError: for a plant of which the theorem says nothing, or a wrong shape or number.
    """
    plant = plant_of(plant)
    n, d = plant.B.shape
    noisy = plant.noise_cov.any() or plant.multiplicative or plant.offset
    if plant.continuous or plant.discount != 1 or noisy:
        expected, remedy = (
            "one in discrete time, of discount 1 and no noise",
            "design it so; noise leaves a bound alone",
        )
        raise checks.error("plant", "one for which the duality does not hold", expected, remedy)
    x = checks.finite_array("state", state, (n,), "one number per state")
    given = 0 * plant.Q if final_cost is None else final_cost
    last = symmetric("final_cost", checks.finite_array("final_cost", given, (n, n), "one row per state"))
    horizon = checks.positive_int("steps", steps)
    # x_t = G_t [x; u_0; …; u_{H−1}]: the cost is a quadratic form in the state at first and all inputs.
    G, form = np.eye(n, n + horizon * d), np.zeros((n + horizon * d,) * 2)
    for time in range(horizon):
        u = np.eye(d, n + horizon * d, n + time * d)
        cross = G.T @ plant.cross @ u
        form += G.T @ plant.Q @ G + u.T @ plant.R @ u + cross + cross.T
        G = plant.A @ G + plant.B @ u
    form += G.T @ last @ G
    curvature, slope = form[n:, n:], form[n:, :n] @ x
    best = x @ form[:n, :n] @ x - slope @ np.linalg.solve(curvature, slope)
    log_det = np.linalg.slogdet(curvature)[1] - horizon * d * np.log(np.pi * plant.temperature)
    return float(best + plant.temperature / 2 * log_det)
