"""Constant references: against value iteration by hand, and against small changes of the policy."""

from typing import Any

import numpy as np
import pytest
from scipy import linalg

from entroflow.lqr import design, track

PLANT: dict[str, Any] = dict(
    A=[[0.9, 0.2], [-0.1, 0.8]], B=[[0.5, 0.1], [0, 0.4]], Q=np.diag([1.0, 2]), R=0.5 * np.eye(2)
)
PLANT |= dict(
    cross=[[0.1, 0], [0.05, -0.1]], noise_cov=0.01 * np.eye(2), temperature=0.5, initial_cov=np.diag([0.3, 0.1])
)
NOISE = [(np.diag([0.2, 0.0]), [[0.15, 0.03], [0, 0.12]]), ([[0, 0.1], [0, 0]], np.zeros((2, 2)))]
R, V = np.array([1.0, -2.0]), np.array([0.3, 0.4])


def average(plant: Any, K: np.ndarray, k: np.ndarray, S: np.ndarray, noise: Any) -> float:
    """The average cost of N(k − Kx, S) about (R, V), by the stationary first and second moments."""
    A, B, one, n = plant.A, plant.B, np.eye(2), 2
    closed = A - B @ K
    pairs = [(a - b @ K, b) for a, b in ((np.asarray(a), np.asarray(b)) for a, b in noise)]
    if plant.continuous:
        mean = np.linalg.solve(-closed, B @ k)
        moves = np.kron(closed, one) + np.kron(one, closed)
        drift = np.outer(B @ k, mean)
    else:
        mean = np.linalg.solve(one - closed, B @ k)
        pairs = [(closed, B), *pairs]
        moves, drift = -np.eye(n * n), 0
    source = plant.noise_cov + drift + np.transpose(drift)
    for c, b in pairs:
        moves = moves + np.kron(c, c)
        source = source + b @ S @ b.T + np.outer(b @ k, c @ mean) + np.outer(c @ mean, b @ k) + np.outer(b @ k, b @ k)
    X = np.linalg.solve(moves, -source.ravel()).reshape(n, n)
    zz = X - np.outer(mean, R) - np.outer(R, mean) + np.outer(R, R)
    h = k - V  # u − v = h − Kx
    zu = -X @ K.T + np.outer(mean, h) + np.outer(R, K @ mean) - np.outer(R, h)
    uu = K @ X @ K.T + S - np.outer(K @ mean, h) - np.outer(h, K @ mean) + np.outer(h, h)
    return float(np.sum(plant.Q * zz) + 2 * np.sum(plant.cross * zu) + np.sum(plant.R * uu))


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("noise", [(), NOISE])
def test_no_small_change_is_cheaper(continuous: bool, noise: Any) -> None:
    """At discount 1 the stationary moments cost what is said, and any other offset or gain costs more."""
    regulator = design(**PLANT, continuous=continuous, multiplicative=noise)
    found, plant = track(regulator, R, V), regulator.plant
    cost = lambda K, k: average(plant, K, k, found.covariance, noise)  # noqa: E731
    best = cost(found.gain, found.offset)
    assert found.cost == pytest.approx(best, rel=1e-10)
    assert np.linalg.norm(found.rest - R) > 0.1  # it is not at rest at the reference, whose price is above zero
    assert best > regulator.cost.average + 0.1
    for direction in (*np.eye(2), [1, -1]):
        up, down = (cost(found.gain, found.offset + step * np.array(direction)) for step in (1e-4, -1e-4))
        assert min(up, down) > best and abs(up - down) < 1e-5 * (up + down - 2 * best) / 1e-4 + 1e-12
    assert cost(1.02 * found.gain, found.offset) > best < cost(0.98 * found.gain, found.offset)


def test_value_iteration_by_hand() -> None:
    """Discounted, the constant as a third state, 2,000 steps of dynamic programming: gain, offset and cost."""
    gamma = 0.9
    found, plant = track(design(**PLANT, discount=gamma), R, V), design(**PLANT, discount=gamma).plant
    A = np.block([[plant.A, (plant.A @ R + plant.B @ V - R)[:, None]], [np.zeros((1, 2)), np.eye(1)]])
    B, N = np.vstack([plant.B, np.zeros((1, 2))]), np.vstack([plant.cross, np.zeros((1, 2))])
    Q, W, c = np.diag([1.0, 2, 0]), np.diag([0.01, 0.01, 0]), 0.0
    P, K = np.zeros((3, 3)), np.zeros((2, 3))
    for _ in range(2000):
        M = plant.R + gamma * B.T @ P @ B
        K = np.linalg.solve(M, gamma * B.T @ P @ A + N.T)
        c = gamma * (c + np.sum(P * W)) + 0.5  # tr(ΣM) = αd/2
        P = np.asarray(Q + gamma * A.T @ P @ A - K.T @ M @ K)
    start = np.diag([0.3, 0.1, 0]) + np.outer([*-R, 1], [*-R, 1])
    np.testing.assert_allclose(found.gain, K[:, :2], rtol=1e-10)
    np.testing.assert_allclose(found.offset, V + K[:, :2] @ R - K[:, 2], rtol=1e-10)
    assert found.cost == pytest.approx(np.sum(P * start) + c, rel=1e-10)


def test_discounted_in_continuous_time() -> None:
    """The constant as a third state of a Lyapunov equation: the cost, which no other offset lowers."""
    regulator = design(**PLANT, discount=0.6, continuous=True)
    found, plant, rate = track(regulator, R, V), regulator.plant, -np.log(0.6)
    A = np.block([[plant.A, (plant.A @ R + plant.B @ V)[:, None]], [np.zeros((1, 3))]]) - rate / 2 * np.eye(3)
    B, start = np.vstack([plant.B, np.zeros((1, 2))]), np.diag([0.3, 0.1, 0]) + np.outer([*-R, 1], [*-R, 1])

    def cost(offset: np.ndarray) -> float:
        K = np.column_stack([found.gain, V + found.gain @ R - offset])
        cross = np.vstack([plant.cross, np.zeros((1, 2))]) @ K
        stage = np.diag([1.0, 2, 0]) - cross - cross.T + K.T @ plant.R @ K
        P = linalg.solve_continuous_lyapunov((A - B @ K).T, -stage)
        return float(np.sum(P * start) + (np.sum(P[:2, :2] * plant.noise_cov) + 0.5) / rate)

    assert found.cost == pytest.approx(cost(found.offset), rel=1e-10)
    for change in ([0.01, 0], [0, 0.01], [-0.01, 0], [0, -0.01]):
        assert cost(found.offset + np.array(change)) > found.cost + 1e-6


@pytest.mark.parametrize("settings", [{}, {"discount": 0.9}, {"continuous": True}, {"continuous": True, "dt": 0.1}])
def test_an_input_that_holds_the_reference_costs_nothing(settings: Any) -> None:
    """A mass at x = 1 rests there, and only noise and exploration cost."""
    A = [[0, 1], [0, 0]] if settings.get("continuous") else [[1, 0.1], [0, 1]]
    B = [0, 1] if settings.get("continuous") else [0.005, 0.1]
    regulator = design(A, B, np.eye(2), 0.1, temperature=0.5, noise_cov=0.01 * np.eye(2), **settings)
    found = track(regulator, [1, 0], [0])
    np.testing.assert_allclose(found.offset, regulator.gain @ [1, 0], rtol=1e-12)
    np.testing.assert_allclose(found.rest, [1, 0], rtol=1e-9, atol=1e-12)
    if "discount" not in settings:
        assert found.cost == pytest.approx(regulator.cost.average, rel=1e-12)


def test_refusals() -> None:
    """Of wrong shapes, and of a sampled plant that moves between its samples."""
    regulator = design([[0, 1], [0, 0]], [0, 1], np.eye(2), 0.1, temperature=0.5, continuous=True, dt=0.1)
    with pytest.raises(ValueError, match=r"^reference: got shape \(1,\)"):
        track(regulator, [1])
    with pytest.raises(ValueError, match=r"^input_reference: got shape \(2,\)"):
        track(regulator, [1, 0], [1, 0])
    with pytest.raises(ValueError, match=r"^reference: got one from which it moves by \[1\. 0\.\]"):
        track(regulator, [1, 1])


def test_growth_that_the_discount_allows_comes_to_no_rest() -> None:
    """At discount 0.9 nothing is done about a state that costs nothing and grows by 4 %."""
    found = track(design([[1.04]], [[1]], [[0]], [[1]], temperature=0.5, discount=0.9), [1])
    assert np.isnan(found.rest).all() and np.isfinite(found.cost)
