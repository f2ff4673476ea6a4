"""What entropy buys: the duality with risk-sensitive control and the worst-case cost, each by other means."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import dblquad

from entroflow import lqr
from entroflow.lqr import risk
from entroflow.lqr.riccati import evaluate, improve

ALPHA = 0.3


def a_design(rng, discount=1.0, noise=0.0, **more):
    """A random design of three states and two inputs, with a cross term."""
    n, d = 3, 2
    A, B = 0.6 * rng.standard_normal((n, n)), rng.standard_normal((n, d))
    root = rng.standard_normal((n + d, n + d))
    cost = root @ root.T + 0.1 * np.eye(n + d)
    W = noise * np.eye(n)
    parts = {"cross": cost[:n, n:], "noise_cov": W, "discount": discount, "temperature": ALPHA}
    return lqr.design(A, B, cost[:n, :n], cost[n:, n:], **parts, **more)


@pytest.mark.parametrize("seed", range(4))
def test_the_soft_cost_is_a_risk_seeking_one(seed):
    """One determinant of all inputs gives what the Riccati recursion gives, with cross and final cost."""
    rng = np.random.default_rng(seed)
    x, last = rng.standard_normal(3), np.diag(rng.uniform(size=3))
    plant = replace(a_design(rng).plant, initial_cov=np.outer(x, x))
    expected = lqr.finite_horizon(plant, 7, last).cost.soft_total
    assert lqr.risk_seeking_cost(plant, x, 7, last) == pytest.approx(expected, rel=1e-9)


def test_two_inputs_integrated_by_brute_force():
    """−α log ∫∫ exp(−cost/α) du_0 du_1 by quadrature, the cost of a scalar plant written out."""
    plant = lqr.design(1.2, 0.7, 1.0, 0.5, cross=[[0.2]], temperature=ALPHA).plant

    def density(u1, u0):
        x0, x1 = 0.8, 1.2 * 0.8 + 0.7 * u0
        cost = x0**2 + 0.4 * x0 * u0 + 0.5 * u0**2 + x1**2 + 0.4 * x1 * u1 + 0.5 * u1**2
        return np.exp(-(cost + 2 * (1.2 * x1 + 0.7 * u1) ** 2) / ALPHA)

    total = dblquad(density, -6, 6, -6, 6)[0]
    assert lqr.risk_seeking_cost(plant, [0.8], 2, [[2.0]]) == pytest.approx(-ALPHA * np.log(total), rel=1e-6)


def test_with_noise_it_is_a_lower_bound():
    """Risk-seeking in the noise, too: as inputs w of cost (α/2) wᵀW⁻¹w, less what that density integrates to."""
    rng, noise, steps = np.random.default_rng(5), 0.2, 6
    x = rng.standard_normal(3)
    plant = replace(a_design(rng, noise=noise).plant, initial_cov=np.outer(x, x))
    R = np.block([[plant.R, np.zeros((2, 3))], [np.zeros((3, 2)), ALPHA / 2 * np.eye(3) / noise]])
    cross = np.hstack([plant.cross, np.zeros((3, 3))])
    driven = replace(plant, B=np.hstack([plant.B, np.eye(3)]), R=R, cross=cross, noise_cov=0 * plant.Q)
    lower = lqr.risk_seeking_cost(driven, x, steps) + ALPHA * steps * 1.5 * np.log(2 * np.pi * noise)
    soft = lqr.finite_horizon(plant, steps).cost.soft_total
    assert lower < soft - 0.01
    almost = replace(plant, noise_cov=1e-6 * np.eye(3))
    assert (
        soft
        > lqr.finite_horizon(almost, steps).cost.soft_total
        > lqr.risk_seeking_cost(replace(plant, noise_cov=0 * plant.Q), x, steps)
    )


@pytest.mark.parametrize("continuous", [False, True])
def test_against_its_worst_case_every_controller_costs_the_same(continuous):
    """Stationary second moments of random controllers, by a recursion or Lyapunov's equation, under c + α log π*."""
    rng = np.random.default_rng(6)
    design = a_design(rng, 0.9, 0.1, continuous=continuous)
    plant, worst = design.plant, risk.worst_cost(design)
    for _ in range(3):
        gain = design.gain + 0.05 * rng.standard_normal(design.gain.shape)
        root = rng.standard_normal((2, 2))
        covariance = root @ root.T
        np.testing.assert_allclose(evaluate(worst, gain), design.cost_matrix, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(worst.R + (improve(plant, design.cost_matrix)[1] - plant.R), 0, atol=1e-9)
        if continuous:
            continue
        closed, X, total = plant.A - plant.B @ gain, plant.initial_cov, 0.0
        for time in range(300):
            linear = X @ gain.T  # E x (Kx)ᵀ
            stage = np.sum(worst.Q * X) - 2 * np.sum(worst.cross * linear)
            stage += np.sum(worst.R * (gain @ linear + covariance)) + worst.offset
            total += 0.9**time * stage
            X = closed @ X @ closed.T + plant.B @ covariance @ plant.B.T + plant.noise_cov
        assert total == pytest.approx(design.cost.soft_total, rel=1e-8)


def test_the_worst_change_of_the_cost_is_one_that_is_allowed():
    """∫ exp(δ*/α) du = 1 at any state, and δ* = α log π*."""
    design = lqr.design(1.1, 0.5, 1.0, 0.3, temperature=ALPHA)
    plant, worst = design.plant, risk.worst_cost(design)
    u, x = np.linspace(-12, 12, 4001), 0.7
    cost = lambda plant: plant.Q[0, 0] * x**2 + 2 * plant.cross[0, 0] * x * u + plant.R[0, 0] * u**2 + plant.offset  # noqa: E731
    change = cost(worst) - cost(plant)
    assert np.trapezoid(np.exp(change / ALPHA), u) == pytest.approx(1, rel=1e-9)
    mean, variance = -design.gain[0, 0] * x, design.covariance[0, 0]
    expected = -0.5 * ((u - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    np.testing.assert_allclose(change / ALPHA, expected, rtol=1e-9)


def test_additive_disturbances_cost_the_same_with_and_without_exploration():
    """N(−Kx, Σ) costs α d/2 a step more than −Kx under any disturbance of the inputs, by simulation to 4 errors."""
    rng, steps, discount, count = np.random.default_rng(7), 40, 0.7, 20_000
    design = a_design(rng, discount)
    plant, root = design.plant, np.linalg.cholesky(design.covariance)
    for size in (0.0, 2.0):
        disturbance = size * rng.standard_normal((steps, 2))
        draws, costs = rng.standard_normal((steps, count, 2)), []
        for spread in (0.0, 1.0):
            x, total = np.ones((count, 3)), 0.0
            for time in range(steps):
                u = -x @ design.gain.T + spread * draws[time] @ root.T + disturbance[time]
                stage = np.einsum("ei,ij,ej->e", x, plant.Q, x) + 2 * np.einsum("ei,ij,ej->e", x, plant.cross, u)
                total = total + discount**time * (stage + np.einsum("ei,ij,ej->e", u, plant.R, u))
                x = x @ plant.A.T + u @ plant.B.T
            costs.append(total)
        more = costs[1] - costs[0]
        assert abs(more.mean() - ALPHA / (1 - discount)) < 4 * more.std() / np.sqrt(count)


def test_bad_input():
    """What the theorem says nothing of is refused."""
    plant = a_design(np.random.default_rng(8)).plant
    for wrong in ({"discount": 0.9}, {"continuous": True}, {"noise_cov": np.eye(3)}):
        with pytest.raises(ValueError, match="duality does not hold"):
            lqr.risk_seeking_cost(replace(plant, **wrong), np.ones(3), 3)
    with pytest.raises(ValueError, match=r"state: got shape \(2,\)"):
        lqr.risk_seeking_cost(plant, np.ones(2), 3)
