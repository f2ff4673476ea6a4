"""Policy evaluation, policy improvement and the Riccati equation of a `Plant`, in discrete and continuous time.

A linear policy u ~ N(−Kx, Σ) has the cost-to-go xᵀPx + constant. With M = R + γ Σ_j B_jᵀPB_j, over the plant's own pair
(A, B) in discrete time and those of multiplicative noise in both, the improved policy (Lemma 1) is

    K₊ = M⁻¹ (Nᵀ + γ Σ_j B_jᵀPA_j)   or, in continuous time,   M⁻¹ (Nᵀ + BᵀP + Σ_j B_jᵀPA_j),   Σ₊ = (α/2) M⁻¹,

the same in P's place at the optimum. In continuous time this is the exploratory control of Wang, Zariphopoulou and Zhou
(JMLR 2020). Signs are those of costs: the value function of reinforcement learning is −xᵀPx − constant.
"""

import warnings
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy import linalg

from entroflow import checks
from entroflow.lqr.matrices import doubled, spectral_radius, state_units, uncontrollable_mode, units, without_cross
from entroflow.lqr.plant import Plant

LARGEST = 1e75  # of a plant's numbers in units of its own
SMALLEST = 1e-3  # step in the intensity of multiplicative noise


def improve(plant: Plant, P: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "d n"], Float[np.ndarray, "d d"]]:
    """The gain that is best when xᵀPx is the cost-to-go of the next state, and the curvature M."""
    weight, pairs = plant.squares
    M = sum((weight * b.T @ P @ b for _, b in pairs), plant.R)
    S = sum((weight * b.T @ P @ a for a, b in pairs), plant.cross.T)
    return np.linalg.solve(M, S + plant.B.T @ P if plant.continuous else S), M


def evaluate(plant: Plant, K: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "n n"]:
    """The cost matrix of a gain: a Lyapunov equation."""
    n, closed, cost = len(plant.A), plant.A - plant.B @ K, plant.stage_cost(K)
    if plant.multiplicative:
        P = np.linalg.solve(np.eye(n * n) * (not plant.continuous) - moments(plant, K).T, cost.ravel()).reshape(n, n)
    elif plant.continuous:
        P = linalg.solve_continuous_lyapunov(closed.T - plant.rate / 2 * np.eye(n), -cost)
    else:
        P = linalg.solve_discrete_lyapunov(np.sqrt(plant.discount) * closed.T, cost)
    return (P + P.T) / 2


def evaluate_beside(plant: Plant, K: Float[np.ndarray, "d n"], P: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """The same, calculated in units of a cost matrix like it."""
    x = 1 / state_units(P, plant.A, plant.B, plant.R)
    return evaluate(plant.in_units(x, np.ones(len(K))), K * x) / np.outer(x, x)


def moments(plant: Plant, K: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "n*n n*n"]:
    """The discounted map from E xxᵀ, row by row, to the next one or to its derivative under u = −Kx."""
    weight, pairs = plant.squares
    one = np.eye(len(plant.A))
    total = weight * sum((np.kron(a - b @ K, a - b @ K) for a, b in pairs), 0 * np.kron(one, one))
    if plant.continuous:
        closed = plant.A - plant.B @ K - plant.rate / 2 * one
        total += np.kron(closed, one) + np.kron(one, closed)
    return total


def stabilises(plant: Plant, K: Float[np.ndarray, "d n"]) -> bool:
    """Whether the discounted E xxᵀ decays under u = −Kx."""
    if plant.multiplicative:
        modes = np.linalg.eigvals(moments(plant, K))
        return bool(modes.real.max() < 0 if plant.continuous else np.abs(modes).max() < 1)
    modes = np.linalg.eigvals(plant.A - plant.B @ K)
    return bool(modes.real.max() < plant.rate / 2 if plant.continuous else plant.discount * max(abs(modes)) ** 2 < 1)


def solve(plant: Plant) -> Float[np.ndarray, "n n"]:
    """The optimum's P, the stabilising solution of the Riccati equation; a `ValueError` if there is none."""
    P = (_continuous if plant.continuous else solve_discrete)(plant)
    x, u = 1 / state_units(P, plant.A, plant.B, plant.R), 1 / units(improve(plant, P)[1])
    scaled = plant.in_units(x, u)
    K, level, step = improve(scaled, P * np.outer(x, x))[0], 0.0, 1.0
    while level < 1:  # let multiplicative noise grow while the gain bears it
        share = min(1.0, level + step)
        pairs = tuple((np.sqrt(share) * a, np.sqrt(share) * b) for a, b in scaled.multiplicative)
        trial = replace(scaled, multiplicative=pairs)
        if stabilises(trial, K):
            P, level = _policy_iteration(trial, K), share
            K = improve(trial, P)[0]
        elif (step := step / 2) < SMALLEST:
            given, expected = f"noise of which at most {level:.3g} can be borne", "a plant that some gain stabilises"
            raise checks.error("multiplicative", given, f"{expected} in mean square", "make it smaller")
    return P / np.outer(x, x)


def _policy_iteration(plant: Plant, K: np.ndarray) -> np.ndarray:
    """Repeat evaluation and improvement until P or K stays; P is nothing but rounding where the best cost is zero."""
    P, change = evaluate(plant, K), np.inf
    relative = lambda new, old: np.abs(new - old).max() / np.abs(new).max(initial=1e-300)  # noqa: E731
    for _ in range(60):
        before, last, K = (P, K), change, improve(plant, P)[0]
        P = evaluate(plant, K)
        change = min(relative(P, before[0]), relative(K, before[1]))
        if change <= 1e-12 or last <= change <= 1e-8:  # the rounding of a Lyapunov equation that is nearly singular
            return P
    remedy = "give B and Q entries that are not so small where A grows"
    raise checks.error("the plant", "no convergence to rounding", "a Riccati equation that can be solved", remedy)


def check_solvable(plant: Plant) -> None:
    """Refuse a plant in discrete time whose optimum does not exist or does not stabilise √γ(A − BK)."""
    with np.errstate(all="ignore"):
        _, A, B, Q, R = _balanced(plant)
    if not all(np.abs(part).max() < LARGEST for part in (A, B, Q, R)):  # or not a number
        given, expected = "numbers that overflow within a few steps", "ones to calculate with"
        raise checks.error("A, B, Q, R", given, expected, "make the largest ones smaller")
    expected = "none among the modes of sqrt(discount)*A of size 1 or more"
    sizes = np.linalg.norm(B, axis=0)
    if (mode := uncontrollable_mode(A, B / np.where(sizes > 0, sizes, 1.0))) is not None:
        given = f"a mode of size {mode:.4g} that B cannot reach (not stabilisable)"
        raise checks.error("A, B", given, expected, "change B or lower the discount")
    if (mode := uncontrollable_mode(A.T, Q)) is not None:
        given = f"a mode of size {mode:.4g} that costs nothing (not detectable)"
        raise checks.error("A, Q", given, expected, "give it weight in Q or lower the discount")


def _balanced(plant: Plant) -> tuple[np.ndarray, ...]:
    """What states cost in n steps as `state_units`, and, so weighed, √γ A, √γ B, Q and R without cross term."""
    cost, root = plant.Q, np.sqrt(plant.discount)
    for _ in plant.A:
        cost = plant.Q + plant.discount * plant.A.T @ cost @ plant.A
    state = state_units(cost, plant.A, plant.B, plant.R)
    scaled = plant.in_units(1 / state, 1 / units(plant.R))
    A, B = root * scaled.A, root * scaled.B
    A, Q = without_cross(A, B, scaled.Q, scaled.R, scaled.cross)
    return state, A, B, Q, scaled.R


def solve_discrete(plant: Plant, name: str = "the plant") -> Float[np.ndarray, "n n"]:
    """P in discrete time without multiplicative noise: P = Q + γAᵀPA − KᵀMK, the Riccati equation of (√γ A, √γ B).

    By SciPy, or else by doubling, which sees growing modes that are cheap beside others. `name` is what the error about
    one that cannot be solved speaks of.
    """
    plant = replace(plant, multiplicative=())
    check_solvable(plant)
    (state, A, B, Q, R), failure = _balanced(plant), ""
    for solver in (linalg.solve_discrete_are, doubled):
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():  # what overflows does not converge
                warnings.simplefilter("error", linalg.LinAlgWarning)
                return _refined(plant, solver(A, B, Q, R) * np.outer(state, state))
        except (ValueError, linalg.LinAlgWarning) as exception:  # LinAlgError included
            failure = failure or str(exception)
    remedy = "give B and Q entries that are not so small where A grows"
    raise checks.error(name, f"'{failure}'", "a Riccati equation that can be solved", remedy)


def _refined(plant: Plant, P: np.ndarray) -> np.ndarray:
    """P without its solver's rounding, by policy iteration, whose change of P is the residual."""
    change = np.inf
    for _ in range(10):
        K = improve(plant, P)[0]
        if not stabilises(plant, K):
            raise ValueError("a gain that does not stabilise")
        previous, last, P = P, change, evaluate_beside(plant, K, plant.Q + P)
        change = np.abs((P - previous) / np.outer(unit := units(plant.Q + P), unit)).max()
        if change <= 1e-10 or last <= change <= 1e-8:  # as far as rounding lets it
            return P
    raise ValueError("no convergence to rounding")


def _continuous(plant: Plant) -> np.ndarray:
    """The same in continuous time, whose P is that of the midpoint rule's steps, for any length of theirs.

    Along x' = x + hv with v = Az + Bu at z = (x + x')/2 the change of xᵀPx is 2h zᵀPv, without error.
    """
    one, pull = np.eye(len(plant.A)), plant.B @ np.linalg.solve(plant.R, plant.B.T)
    free, Q = without_cross(plant.A - plant.rate / 2 * one, plant.B, plant.Q, plant.R, plant.cross)
    half = 0.5 / (spectral_radius(np.block([[free, -pull], [-Q, -free.T]])) or 1.0)  # the fastest pole's time
    middle = np.linalg.inv(one - half * free)
    B = half * middle @ plant.B
    found = {"A": middle @ (one + half * free), "B": 2 * B, "Q": middle.T @ Q @ middle, "R": plant.R + B.T @ Q @ B}
    try:
        step = replace(plant, **found, cross=middle.T @ Q @ B, discount=1.0, continuous=False)
        return solve_discrete(step) * 2 * half
    except ValueError as failure:
        fault = [word for word in ("stabilisable", "detectable") if word in str(failure)] or ["solvable to rounding"]
        given, remedy = f"a plant that is not {fault[0]}", "change B or Q, or lower the discount exp(-rate)"
        expected = "modes of A - rate/2 that decay, or that B reaches and that cost"
        raise checks.error("A, B, Q", given, expected, remedy) from None
