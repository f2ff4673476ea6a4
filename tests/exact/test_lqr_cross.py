"""The cost's cross term 2 sᵀN a: against other solvers, and as part of the cost of one larger state."""

from dataclasses import replace

import control
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.envs import LQREnv
from entroflow.lqr import LQR, Noise, design, simulate, systems
from experiments.plants.horizon import finite_horizon_return

ALPHA = 0.3


def sampled() -> LQR:
    """An oscillator of two inputs whose cost in continuous time is sampled: the cross term is a third of the rest."""
    F, G = [[0.0, 1.0], [-2.0, -0.1]], [[0.0, 0.3], [1.0, 0.2]]
    given = {"temperature": ALPHA, "discount": 0.8, "continuous": True, "dt": 0.5, "noise_cov": 0.1 * np.eye(2)}
    plant = design(F, G, np.diag([2.0, 1.0]), 0.1 * np.eye(2), initial_cov=np.eye(2), **given).plant
    assert np.abs(plant.cross).max() > 0.2 * np.abs(plant.R).max()
    parts = plant.A, plant.B, plant.Q, plant.R, plant.noise_cov, plant.initial_cov, plant.discount
    return LQR(*parts, cross=plant.cross)


def test_the_optimum_is_that_of_other_solvers():
    """The gain of python-control for (√γ A, √γ B), and all of `design`'s, which completes the square first."""
    lqr = sampled()
    root, optimum = np.sqrt(lqr.discount), lqr.optimal(ALPHA)
    K, P, _ = control.dlqr(root * lqr.A, root * lqr.B, lqr.Q, lqr.R, lqr.cross)
    np.testing.assert_allclose(optimum.K, K, rtol=1e-9)
    np.testing.assert_allclose(optimum.P, P, rtol=1e-9)
    parts = lqr.A, lqr.B, lqr.Q, lqr.R
    spread = {"noise_cov": lqr.noise_cov, "initial_cov": lqr.initial_cov, "cross": lqr.cross}
    made = design(*parts, temperature=ALPHA, discount=lqr.discount, **spread)
    np.testing.assert_allclose(optimum.K, made.gain, rtol=1e-9)
    np.testing.assert_allclose(optimum.covariance, made.covariance, rtol=1e-9)
    assert optimum.soft_return == pytest.approx(-made.cost.soft_total, rel=1e-9)


def test_soft_q_is_the_bellman_equation_s():
    """Q(s, a) = r(s, a) + γ E V(s'), V(s) = E Q − α E log π for any gain; and one step improves to the best of Q."""
    lqr, rng = sampled(), np.random.default_rng(0)
    K = lqr.optimal(1.0).K + 0.1 * rng.normal(size=(2, 2))
    covariance = np.array([[0.2, 0.05], [0.05, 0.1]])
    value, q = lqr.soft_value(K, covariance, ALPHA), lqr.soft_q(K, covariance, ALPHA)
    s, a = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    joint = np.concatenate([s, a], axis=1)
    cost = np.block([[lqr.Q, lqr.cross], [lqr.cross.T, lqr.R]])
    reward = -np.einsum("ki,ij,kj->k", joint, cost, joint)
    mean = s @ lqr.A.T + a @ lqr.B.T
    P = lqr.evaluate(K, covariance, ALPHA).P
    following = value(mean) - np.sum(P * lqr.noise_cov)
    np.testing.assert_allclose(q(s, a), reward + lqr.discount * following, rtol=1e-10)
    step, better = 1e-5, lqr.policy_iteration_step(K, ALPHA)
    best = -s @ better.K.T
    for i in range(2):
        push = step * np.eye(2)[i]
        np.testing.assert_allclose(q(s, best + push), q(s, best - push), atol=1e-9)


def test_the_environment_and_simulations_pay_it():
    """Step by step the cost of state and action together, with an input of its own scale and gain, too."""
    lqr, rng = sampled(), np.random.default_rng(1)
    cost = np.block([[lqr.Q, lqr.cross], [lqr.cross.T, lqr.R]])
    noise = Noise(rng.normal(size=(3, 2)), rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2)))
    seen = simulate(lqr, lqr.optimal(1.0).K, np.eye(2), noise)
    joint = np.concatenate([seen.states[:-1], seen.actions], axis=2)
    np.testing.assert_allclose(seen.rewards, -np.einsum("hki,ij,hkj->hk", joint, cost, joint), rtol=1e-12)
    env = LQREnv(lqr)
    own = jax.vmap(jax.vmap(lambda s, a: env.reward(s, a, s)))(*map(jnp.float32, (seen.states[:-1], seen.actions)))
    np.testing.assert_allclose(own, seen.rewards, rtol=1e-4)


def test_returns_of_a_finite_horizon_are_those_of_covariances():
    """For H steps, by sums over the covariances of state and action together."""
    lqr, K, Sigma = sampled(), np.array([[0.3, 0.2], [0.1, 0.4]]), 0.3 * np.eye(2)
    cost = np.block([[lqr.Q, lqr.cross], [lqr.cross.T, lqr.R]])
    total, X = 0.0, lqr.initial_cov
    for h in range(5):
        both = np.block([[X, -X @ K.T], [-K @ X, K @ X @ K.T + Sigma]])
        total -= lqr.discount**h * np.sum(cost * both)
        closed = lqr.A - lqr.B @ K
        X = closed @ X @ closed.T + lqr.B @ Sigma @ lqr.B.T + lqr.noise_cov
    assert finite_horizon_return(lqr, K, Sigma, ALPHA, 5).standard_return == pytest.approx(total, rel=1e-10)


def test_units_and_files_keep_it():
    """In other units the same problem; a file has the term where there is one."""
    lqr = sampled()
    x, u, reward = np.array([3.0, 0.2]), np.array([0.5, 7.0]), 4.0
    there, own = lqr.in_units(x, u, reward).optimal(ALPHA / reward), lqr.optimal(ALPHA)
    np.testing.assert_allclose(there.K * u[:, None] / x, own.K, rtol=1e-9)
    assert there.standard_return * reward == pytest.approx(own.standard_return, rel=1e-9)
    np.testing.assert_array_equal(LQR.from_dict(lqr.to_dict()).cross, lqr.cross)
    assert "cross" not in systems.get("coupled").to_dict() and not systems.get("coupled").cross.any()


def test_what_makes_the_cost_negative_is_refused():
    """And what asks for an input that leaves a growing state without a cost."""
    lqr = sampled()
    with pytest.raises(ValueError, match=r"^the cost \[Q cross; cross\.T R\]: got .*expected"):
        replace(lqr, cross=5 * lqr.cross)
    with pytest.raises(ValueError, match="cross: got .*shape"):
        replace(lqr, cross=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="not detectable"):
        LQR([[3.0]], [[1.0]], [[1.0]], [[1.0]], [[0.1]], [[1.0]], 0.9, cross=[[1.0]])
