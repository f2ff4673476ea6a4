"""How far apart two distributions are: Rényi divergences of Gaussians, exact W₂ between samples. SciPy, float64."""

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import linalg
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from entroflow import checks
from entroflow.lqr import matrices

ROUNDING = 1e-9


def gaussian_renyi(
    order: float, mean_p: ArrayLike, covariance_p: ArrayLike, mean_q: ArrayLike, covariance_q: ArrayLike
) -> float:
    """Rényi divergence D_a(p‖q) = log E_q[(p/q)^a] / (a − 1) between two Gaussians (Gil, Alajaji and Linder, 2013).

    Order one is the KL divergence KL(p‖q), order infinity the logarithm of the largest density ratio p/q.

    Args:
        order: a, from 0 to infinity, both included.
        mean_p: (d,).
        covariance_p: (d, d), positive definite.
        mean_q: (d,).
        covariance_q: (d, d), positive definite.

    Returns:
        The divergence in nats, 0 or more; infinity where q's tails are too light for the integral.

    Raises:
        ValueError: for a negative order, or where the Gaussians are not two of one dimension.

    Example:
        >>> gaussian_renyi(1.0, [1.0], [[1.0]], [0.0], [[1.0]])
        0.5
    """
    if order != math.inf and checks.number("order", order, remedy="pass for example 2") < 0:
        raise checks.error("order", repr(order), "a number from 0 to infinity", "pass for example 2")
    mean_p, covariance_p, mean_q, covariance_q = _gaussians(mean_p, covariance_p, mean_q, covariance_q)
    for name, covariance in (("covariance_p", covariance_p), ("covariance_q", covariance_q)):
        try:
            whiten = linalg.cholesky(covariance, lower=True)
        except linalg.LinAlgError:
            given, remedy = "a matrix that is not positive definite", "a density needs variance in every direction"
            raise checks.error(name, given, "a positive definite one", remedy) from None
    # Coordinates in which q = N(0, I) and p = N(shift, diag(s)): the divergence is a sum over coordinates.
    whitened = linalg.solve_triangular(whiten, covariance_p, lower=True)
    s, axes = linalg.eigh(linalg.solve_triangular(whiten, whitened.T, lower=True))
    shift = axes.T @ linalg.solve_triangular(whiten, mean_p - mean_q, lower=True)
    if math.isinf(order):  # the largest ratio N(shift, diag s) / N(0, I), bounded only where p's tails are the lighter
        lighter, heavier = s < 1 - ROUNDING, s > 1 + ROUNDING
        if heavier.any() or (np.abs(shift[~lighter]) > ROUNDING).any():
            return math.inf
        return float(0.5 * np.sum(shift[lighter] ** 2 / (1 - s[lighter]) - np.log(s[lighter])))
    mixed = (order - 1) * (1 - s)
    if (mixed <= -1).any():
        return math.inf
    # log1p keeps its digits where the order is near one and the textbook's difference of logarithms is 0/0.
    spread = 1 - s if order == 1 else np.log1p(mixed) / (order - 1)
    return float(0.5 * np.sum(order * shift**2 / (1 + mixed) - spread - np.log(s)))


def sample_w2(x: ArrayLike, y: ArrayLike) -> float:
    """Exact Wasserstein-2 distance between two sets of equally weighted points.

    In more than one dimension it is an assignment problem, whose cost grows with the cube of the number of points.

    Args:
        x: (n, d) points.
        y: (m, d) points; m = n unless d = 1.

    Returns:
        W₂, not its square.

    Raises:
        ValueError: where the points do not match.

    Example:
        >>> sample_w2([[0.0, 0.0], [1.0, 0.0]], [[1.0, 2.0], [0.0, 2.0]])
        2.0
    """
    x = checks.finite_array("x", x, (None, None), "pass one row per point")
    y = checks.finite_array("y", y, (None, x.shape[1]), "pass one row per point, with as many columns as x")
    if x.shape[1] == 1:  # W₂² = ∫ (F⁻¹(u) − G⁻¹(u))² du over the pieces on which both quantile functions are constant
        n, m = len(x), len(y)
        ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1/(n m): no rounding
        gaps = np.sort(x[:, 0])[(ends - 1) // m] - np.sort(y[:, 0])[(ends - 1) // n]
        return math.sqrt(np.sum(gaps**2 * np.diff(ends, prepend=0)) / (n * m))
    if len(x) != len(y):
        raise checks.error("y", f"{len(y)} points", f"{len(x)} as in x", "drop points of the larger set")
    cost = cdist(x, y, "sqeuclidean")
    return math.sqrt(cost[linear_sum_assignment(cost)].mean())


def _gaussians(*given: ArrayLike) -> tuple[Float[np.ndarray, "..."], ...]:
    """Mean and covariance of two Gaussians of one dimension, checked."""
    mean_p = checks.finite_array("mean_p", given[0], (None,), "pass a vector")
    mean_q = checks.finite_array("mean_q", given[2], mean_p.shape, "pass two Gaussians of the same dimension")
    shape, meaning = (len(mean_p), len(mean_p)), "pass one row and one column per dimension"
    covariances = [
        matrices.symmetric(name, checks.finite_array(name, value, shape, meaning))
        for name, value in (("covariance_p", given[1]), ("covariance_q", given[3]))
    ]
    return mean_p, covariances[0], mean_q, covariances[1]
