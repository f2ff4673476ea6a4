"""Partial observation: against python-control, the moments of plant and filter together, and drawn trajectories."""

from typing import Any

import control
import numpy as np
import pytest
from scipy import linalg

from entroflow.lqr import design, observe

PLANT: dict[str, Any] = dict(
    A=[[0.9, 0.2], [-0.1, 0.8]], B=[[0.5, 0.1], [0, 0.4]], Q=np.diag([1.0, 2]), R=0.5 * np.eye(2)
)
PLANT |= dict(cross=[[0.1, 0], [0.05, -0.1]], noise_cov=[[0.02, 0.01], [0.01, 0.03]], temperature=0.5)
C, V = np.array([[1.0, 0.5]]), np.array([[0.04]])


def average(plant: Any, K: np.ndarray, S: np.ndarray, L: np.ndarray) -> float:
    """The average cost of N(−Kx̂, S) with the filter gain L, by the stationary covariance of (x, x̂)."""
    A, B, W = plant.A, plant.B, plant.noise_cov
    if plant.continuous:  # S moves nothing
        joint = np.block([[A, -B @ K], [L @ C, A - B @ K - L @ C]])
        X = linalg.solve_continuous_lyapunov(joint, -linalg.block_diag(W, L @ V @ L.T))
    else:  # x̂' = (I − LC)(A x̂ + B u) + L(C x' + v), and x' = A x + B u + w
        D = np.eye(2) - L @ C
        joint = np.block([[A, -B @ K], [L @ C @ A, D @ A - B @ K]])
        root = np.block([[np.eye(2), B], [L @ C, B]])
        X = linalg.solve_discrete_lyapunov(
            joint, root @ linalg.block_diag(W, S) @ root.T + linalg.block_diag(0 * W, L @ V @ L.T)
        )
    xx, xe, ee = X[:2, :2], X[:2, 2:], X[2:, 2:]
    return float(np.sum(plant.Q * xx) - 2 * np.sum(plant.cross * (xe @ K.T)) + np.sum(plant.R * (K @ ee @ K.T + S)))


@pytest.mark.parametrize("continuous", [False, True])
def test_separation(continuous: bool) -> None:
    """What is said is what it costs, and no other gain, covariance or filter is better; entropy counts."""
    full = design(**PLANT, continuous=continuous)
    found, plant = observe(full, C, V), full.plant

    def soft(K: np.ndarray, S: np.ndarray, L: np.ndarray) -> float:
        return average(plant, K, S, L) - 0.5 * 0.5 * np.linalg.slogdet(2 * np.pi * np.e * S).logabsdet

    best = soft(found.gain, found.covariance, found.filter_gain)
    assert best == pytest.approx(full.cost.soft_average + found.estimation, rel=1e-11)
    assert found.estimation > 0.01
    rng = np.random.default_rng(0)
    for part, size in (("gain", 0.05), ("covariance", 0.1), ("filter_gain", 0.1)):
        change = size * rng.standard_normal(getattr(found, part).shape)
        change = change @ change.T / size if part == "covariance" else change
        for sign in (1, -1):
            other = found._replace(**{part: getattr(found, part) + sign * change})
            assert soft(other.gain, other.covariance, other.filter_gain) > best + 1e-5, part


@pytest.mark.parametrize("continuous", [False, True])
def test_python_control_agrees(continuous: bool) -> None:
    """The filter is that of `dlqe`, whose gain A L is for the next prediction, or `lqe`."""
    full = design(**PLANT, continuous=continuous)
    found = observe(full, C, V)
    solver = control.lqe if continuous else control.dlqe
    L, spread, poles = solver(full.plant.A, np.eye(2), C, full.plant.noise_cov, V)
    moves = np.eye(2) if continuous else full.plant.A
    np.testing.assert_allclose(moves @ found.filter_gain, L, rtol=1e-9)
    error = spread if continuous else spread - found.filter_gain @ C @ spread
    np.testing.assert_allclose(found.error_cov, error, rtol=1e-9)
    np.testing.assert_allclose(np.sort(found.filter_poles), np.sort(poles), rtol=1e-8)


def test_drawn_trajectories() -> None:
    """Kalman's filter in a loop on 4,000 trajectories: the average cost within four standard errors of what is said."""
    full = design(**PLANT)
    found, plant, rng, m = observe(full, C, V), full.plant, np.random.default_rng(0), 4000
    normal = lambda covariance: rng.standard_normal((m, len(covariance))) @ np.linalg.cholesky(covariance).T  # noqa: E731
    x, estimate, costs = np.zeros((m, 2)), np.zeros((m, 2)), []
    for _ in range(120):
        u = -estimate @ found.gain.T + normal(found.covariance)
        costs.append(np.sum((x @ plant.Q + 2 * u @ plant.cross.T) * x, axis=1) + np.sum(u @ plant.R * u, axis=1))
        x = x @ plant.A.T + u @ plant.B.T + normal(plant.noise_cov)
        guess = estimate @ plant.A.T + u @ plant.B.T
        estimate = guess + (x @ C.T + normal(V) - guess @ C.T) @ found.filter_gain.T
    means = np.mean(costs[60:], axis=0)
    assert abs(means.mean() - full.cost.average - found.estimation) < 4 * means.std() / np.sqrt(m)
    covariance = np.cov((x - estimate).T)
    np.testing.assert_allclose(covariance, found.error_cov, atol=6 * found.error_cov.max() * np.sqrt(2 / m))


def test_all_seen_well_is_full_observation() -> None:
    """With hardly any noise on all states the error vanishes, and with more it costs more."""
    full = design(**PLANT)
    costs = [observe(full, np.eye(2), size * np.eye(2)).estimation for size in (1e-12, 1e-2, 1.0)]
    assert 0 < costs[0] < 1e-10 < costs[1] < costs[2]


def test_refusals() -> None:
    """Of wrong shapes, growth that no sensor sees, and multiplicative noise."""
    full = design([[1.2, 0], [0, 0.5]], np.eye(2), np.eye(2), np.eye(2), temperature=0.5, noise_cov=np.eye(2))
    with pytest.raises(ValueError, match=r"^C: got shape \(1, 3\)"):
        observe(full, [1, 2, 3], 1)
    with pytest.raises(ValueError, match=r"^C, noise_cov: got a mode .* C does not see .*measure more"):
        observe(full, [0, 1], 1)
    with pytest.raises(ValueError, match=r"^measurement_cov: got .*shape"):
        observe(full, [1, 1], np.eye(2))
    with pytest.raises(ValueError, match=r"^measurement_cov: got a smallest eigenvalue of 0"):
        observe(full, [1, 1], 0)
    with pytest.raises(ValueError, match=r"^C, noise_cov: .* or noise_cov does not drive"):
        observe(design([[1, 0.1], [0, 1]], [0, 1], np.eye(2), 1, temperature=0.5), [1, 0], 1)
    noisy = design(1, 1, 1, 1, temperature=0.5, multiplicative=[(0.1, 0)])
    with pytest.raises(ValueError, match=r"^design: got multiplicative noise"):
        observe(noisy, 1, 1)
