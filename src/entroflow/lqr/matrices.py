"""Facts about matrices that the exact answers stand on: definiteness, stabilisability, square roots, entropy."""

import numpy as np
from jaxtyping import Float

from entroflow import checks


def symmetric(name: str, matrix: Float[np.ndarray, "n n"], definite: bool = False) -> Float[np.ndarray, "n n"]:
    """The matrix, exactly symmetric, if it is so and positive (semi)definite but for rounding; else a `ValueError`."""
    unit, flat = units(matrix), np.diag(matrix) <= 0  # beside such an entry a semidefinite matrix has rounding alone
    rounding = (flat | flat[:, None]) & (np.abs(matrix) <= 1e-14 * np.abs(matrix).max())
    matrix = np.where(rounding, 0.0, matrix)
    scaled = matrix / np.outer(unit, unit)  # the verdict must not depend on units
    size = np.abs(scaled).max()
    if np.abs(scaled - scaled.T).max() > 1e-8 * size:
        given = f"entries that differ by {np.abs(matrix - matrix.T).max():.3g} across the diagonal"
        raise checks.error(name, given, "a symmetric matrix", f"pass ({name} + {name}.T)/2")
    smallest = np.linalg.eigvalsh(scaled).min()
    given = f"a smallest eigenvalue of {np.linalg.eigvalsh(matrix).min():.3g}"
    if definite and smallest <= 1e-12 * size:
        remedy = "every action must cost something" if name == "R" else "every direction must vary"
        raise checks.error(name, given, "a positive definite matrix", remedy)
    if smallest < -1e-8 * size or matrix[flat].any():
        raise checks.error(name, given, "a positive semidefinite matrix", "no direction may count negatively")
    return (matrix + matrix.T) / 2


def units(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Powers of two in whose units the diagonal of a covariance or cost is of order one; dividing by them is exact.

    Where it is not positive, as in no semidefinite matrix but for zero, the unit is that of the largest entry.
    """
    diagonal = np.diag(matrix)
    largest = np.abs(matrix).max()
    positive = np.where(diagonal > 0, diagonal, largest if largest > 0 else 1.0)
    return np.exp2(np.floor(np.log2(positive) / 2))


def state_units(
    cost: Float[np.ndarray, "n n"],
    A: Float[np.ndarray, "n n"],
    B: Float[np.ndarray, "n d"],
    R: Float[np.ndarray, "d d"],
) -> Float[np.ndarray, " n"]:
    """Powers of two w such that states w s are the same in all units: by what they cost, see `units`.

    A state that never costs anything is weighed by what moves it, from states that are weighed and inputs.
    """
    state, idle = units(cost), np.diag(cost) <= 0
    for _ in A:
        moves = np.hstack([A / state * ~idle, B / units(R)])
        square = moves @ moves.T
        moved = idle & (np.diag(square) > 0)
        state, idle = np.where(moved, 1 / units(square), state), idle & ~moved
    return state


def spectral_radius(matrix: Float[np.ndarray, "n n"]) -> float:
    """The largest absolute eigenvalue; below one, s' = matrix s decays."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def uncontrollable_mode(A: Float[np.ndarray, "n n"], B: Float[np.ndarray, "n d"]) -> float | None:
    """The size of a mode of A that neither decays nor can be reached through B (Popov–Belevitch–Hautus test), or None.

    For detectability A is to be the transpose of the state matrix, B the cost Q.
    """
    input_size = np.linalg.norm(B)
    if input_size > 0:
        B = B * (np.linalg.norm(A) / input_size)
    for mode in np.linalg.eigvals(A):
        singular = np.linalg.svd(np.hstack([mode * np.eye(len(A)) - A, B]), compute_uv=False)
        if abs(mode) >= 1 - 1e-9 and singular[-1] <= 1e-10 * singular[0]:
            return float(abs(mode))
    return None


def matrix_root(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """An L with L Lᵀ = covariance, accurate in all units; unlike Cholesky, for semidefinite matrices too."""
    unit = units(covariance)
    values, vectors = np.linalg.eigh(covariance / np.outer(unit, unit))
    return unit[:, None] * (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def without_cross(
    A: Float[np.ndarray, "n n"],
    B: Float[np.ndarray, "n d"],
    Q: Float[np.ndarray, "n n"],
    R: Float[np.ndarray, "d d"],
    cross: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """A and Q of the plant whose input is u + R⁻¹Nᵀx: the same problem without cross term."""
    if not cross.any():
        return A, Q
    shift, unit = np.linalg.solve(R, cross.T), units(Q)
    values, vectors = np.linalg.eigh((Q - cross @ shift) / np.outer(unit, unit))
    values[values < 1e-13] = 0  # rounding, which must not look like a cost
    Q = (vectors * values) @ vectors.T * np.outer(unit, unit)
    return A - B @ shift, (Q + Q.T) / 2


def gaussian_entropy(covariance: Float[np.ndarray, "d d"]) -> float:
    """Entropy ½ log det(2πe Σ) in nats; −∞ for a singular covariance."""
    unit = units(covariance)
    sign, log_det = np.linalg.slogdet(2 * np.pi * np.e * covariance / np.outer(unit, unit))
    return 0.5 * float(log_det) + float(np.log(unit).sum()) if sign > 0 else -np.inf


def doubled(
    A: Float[np.ndarray, "n n"],
    B: Float[np.ndarray, "n d"],
    Q: Float[np.ndarray, "n n"],
    R: Float[np.ndarray, "d d"],
) -> Float[np.ndarray, "n n"]:
    """P of the Riccati equation, as by SciPy's `solve_discrete_are`, by doubling (Chu, Fan, Lin and Wang 2004).

    P is what 2^k steps cost, A what they make of states, G what inputs can do at a price of one.
    """
    P, G = Q, B @ np.linalg.solve(R, B.T)
    for _ in range(64):
        X, Y = np.split(np.linalg.solve(np.eye(len(A)) + G @ P, np.hstack([A, G])), 2, axis=1)
        more, unit = A.T @ P @ X, units(P)
        P, G, A = P + (more + more.T) / 2, G + A @ Y @ A.T, A @ X
        if np.abs(more / np.outer(unit, unit)).max() < 1e-14:
            break
    return P
