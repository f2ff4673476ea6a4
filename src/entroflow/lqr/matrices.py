"""Facts about matrices that the exact answers stand on: definiteness, stabilisability, square roots, entropy."""

import numpy as np
from jaxtyping import Float

from entroflow import checks


def symmetric(name: str, matrix: Float[np.ndarray, "n n"], definite: bool = False) -> Float[np.ndarray, "n n"]:
    """The matrix if it is symmetric and positive semidefinite, rounding aside.

    Args:
        name: what the message calls it.
        matrix: (n, n).
        definite: whether it has to be positive definite.

    Returns:
        The matrix, exactly symmetric.

    Raises:
        ValueError: if it is not.
    """
    size = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 1e-8 * size:
        given, remedy = f"entries that differ by {asymmetry:.3g} across the diagonal", f"pass ({name} + {name}.T)/2"
        raise checks.error(name, given, "a symmetric matrix", remedy)
    smallest = np.linalg.eigvalsh(matrix).min()
    given = f"a smallest eigenvalue of {smallest:.3g}"
    if definite and smallest <= 1e-12 * size:
        raise checks.error(name, given, "a positive definite matrix", "every action must cost something")
    if smallest < -1e-8 * size:
        raise checks.error(name, given, "a positive semidefinite matrix", "no direction may count negatively")
    return (matrix + matrix.T) / 2


def spectral_radius(matrix: Float[np.ndarray, "n n"]) -> float:
    """The largest absolute eigenvalue; below one, s' = matrix s decays."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def uncontrollable_mode(A: Float[np.ndarray, "n n"], B: Float[np.ndarray, "n d"]) -> float | None:
    """The size of a mode of A that neither decays nor can be reached through B: Popov–Belevitch–Hautus test.

    Args:
        A: (n, n) state matrix; for detectability, its transpose.
        B: (n, d) input matrix; for detectability, the cost Q.

    Returns:
        The size of the mode; None if there is none: (A, B) is stabilisable.
    """
    input_size = np.linalg.norm(B)
    if input_size > 0:
        B = B * (np.linalg.norm(A) / input_size)  # the verdict must not depend on the action's unit
    for mode in np.linalg.eigvals(A):
        singular = np.linalg.svd(np.hstack([mode * np.eye(len(A)) - A, B]), compute_uv=False)
        if abs(mode) >= 1 - 1e-9 and singular[-1] <= 1e-10 * singular[0]:
            return float(abs(mode))
    return None


def matrix_root(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """The symmetric L with L L = covariance; unlike Cholesky, for semidefinite matrices too."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def gaussian_entropy(covariance: Float[np.ndarray, "d d"]) -> float:
    """Entropy ½ log det(2πe Σ) in nats; −∞ for a singular covariance."""
    sign, log_det = np.linalg.slogdet(2 * np.pi * np.e * covariance)
    return 0.5 * float(log_det) if sign > 0 else -np.inf
