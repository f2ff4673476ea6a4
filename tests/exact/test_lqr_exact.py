"""Theorem 3, Lemma 1 and the returns, against numbers and identities that do not come from this code."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import control
import numpy as np
import pytest
from scipy import stats

from entroflow.lqr import LQR, Noise, simulate, systems
from experiments.plants.horizon import finite_horizon_return, state_covariances

ALL = list(systems.CATALOGUE)


def far_gain(lqr: LQR) -> np.ndarray:
    """A stabilising gain far from the optimum: that of a problem in which actions are a hundred times dearer."""
    return replace(lqr, R=100 * lqr.R).optimal(1.0).K


def gaussian_mean(f: Callable[[np.ndarray], np.ndarray], mean: np.ndarray, covariance: np.ndarray) -> float:
    """E f(x) for x ~ N(mean, covariance), exact for quadratic f: the average over symmetric sigma points."""
    n = len(mean)
    root = np.sqrt(n) * np.linalg.cholesky(covariance).T
    return float(np.mean(f(np.concatenate([mean + root, mean - root]))))


def test_double_integrator_reference_values() -> None:
    """The optimum of `double_integrator` is the one found by an independent value iteration."""
    optimum = systems.get("double_integrator").optimal(0.5)
    np.testing.assert_allclose(optimum.K, [[1.888585589, 3.0571081795]], atol=1e-9)
    np.testing.assert_allclose(optimum.P, [[9.8633145301, 2.3317513155], [2.3317513155, 4.1736957453]], atol=1e-9)
    np.testing.assert_allclose(optimum.covariance, [[1.75933027]], atol=1e-8)
    np.testing.assert_allclose(0.25 / optimum.covariance, [[0.1420995271]], atol=1e-9)
    assert optimum.standard_return == pytest.approx(-21.70404223, abs=1e-8)
    assert optimum.soft_return == pytest.approx(-4.68999084, abs=1e-8)


@pytest.mark.parametrize(
    ("temperature", "covariance", "standard_return", "soft_return"),
    [
        (0.1, [[0.05699154, -0.00624979], [-0.00624979, 0.06666761]], -4.6887139, -4.64244785),
        (0.5, [[0.28495771, -0.03124896], [-0.03124896, 0.33333803]], -8.6887139, -0.41019406),
        (2, None, -23.6887139, 37.15125269),
    ],
)
def test_coupled_reference_values(
    temperature: float, covariance: list[list[float]] | None, standard_return: float, soft_return: float
) -> None:
    """The optima of `coupled` are the ones found by an independent value iteration."""
    optimum = systems.get("coupled").optimal(temperature)
    np.testing.assert_allclose(optimum.K, [[0.7800320041, 0.1249958265], [0.0322901569, 0.6666478608]], atol=1e-10)
    np.testing.assert_allclose(optimum.P, [[1.7174933341, 0.0322901569], [0.0322901569, 1.6666478608]], atol=1e-10)
    if covariance is not None:
        np.testing.assert_allclose(optimum.covariance, covariance, atol=1e-8)
    assert optimum.standard_return == pytest.approx(standard_return, abs=1e-7)
    assert optimum.soft_return == pytest.approx(soft_return, abs=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_optimum_satisfies_theorem_3(name: str) -> None:
    """P solves the Riccati equation when put back into it; gain, covariance and soft value follow Theorem 3."""
    lqr, alpha = systems.get(name), 0.7
    A, B, gamma, d = lqr.A, lqr.B, lqr.discount, lqr.B.shape[1]
    optimum = lqr.optimal(alpha)
    P = optimum.P
    M = lqr.R + gamma * B.T @ P @ B
    riccati = lqr.Q + gamma * A.T @ P @ A - gamma**2 * A.T @ P @ B @ np.linalg.inv(M) @ B.T @ P @ A
    np.testing.assert_allclose(riccati, P, rtol=1e-9, atol=1e-9 * np.abs(P).max())
    np.testing.assert_allclose(optimum.K, gamma * np.linalg.inv(M) @ B.T @ P @ A, rtol=1e-9)
    np.testing.assert_allclose(optimum.covariance, alpha / 2 * np.linalg.inv(M), rtol=1e-9, atol=1e-15)
    log_det = np.linalg.slogdet(M).logabsdet
    c = (alpha / 2 * (d * np.log(np.pi * alpha) - log_det) - gamma * np.trace(P @ lqr.noise_cov)) / (1 - gamma)
    assert optimum.soft_return == pytest.approx(c - np.trace(P @ lqr.initial_cov), rel=1e-10)
    assert optimum.entropy == pytest.approx(stats.multivariate_normal(cov=optimum.covariance).entropy(), rel=1e-10)
    assert np.sqrt(gamma) * np.abs(np.linalg.eigvals(A - B @ optimum.K)).max() < 1


@pytest.mark.parametrize("name", ALL)
def test_python_control_agrees(name: str) -> None:
    """python-control's dlqr on the discounted system gives the same gain and value matrix."""
    lqr = systems.get(name)
    root = np.sqrt(lqr.discount)
    K, P, _ = control.dlqr(root * lqr.A, root * lqr.B, lqr.Q, lqr.R)
    optimum = lqr.optimal(1)
    np.testing.assert_allclose(optimum.K, K, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(optimum.P, P, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_price_of_entropy(name: str) -> None:
    """Randomness costs the optimum αd/(2(1−γ)) of standard return, against the same gain without noise."""
    lqr, alpha = systems.get(name), 0.5
    optimum = lqr.optimal(alpha)
    d = len(lqr.R)
    silent = lqr.evaluate(optimum.K, np.zeros((d, d)), alpha)
    price = alpha * d / (2 * (1 - lqr.discount))
    assert silent.standard_return - optimum.standard_return == pytest.approx(price, rel=1e-9)
    assert silent.soft_return == -np.inf


@pytest.mark.parametrize("name", ALL)
def test_policy_iteration_reaches_the_riccati_solution(name: str) -> None:
    """Lemma 1, iterated from a far stabilising gain, improves at every step and ends at Theorem 3's optimum."""
    lqr, alpha = systems.get(name), 0.5
    optimum, start = lqr.optimal(alpha), far_gain(lqr)
    assert np.linalg.norm(start - optimum.K) > 0.2 * np.linalg.norm(optimum.K)
    policies = [lqr.policy_iteration_step(start, alpha)]
    while len(policies) < 2 or np.abs(policies[-1].K - policies[-2].K).max() > 1e-9 * np.abs(policies[-1].K).max():
        policies.append(lqr.policy_iteration_step(policies[-1].K, alpha))
    np.testing.assert_allclose(policies[-1].K, optimum.K, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(policies[-1].covariance, optimum.covariance, rtol=1e-8, atol=1e-9)
    returns = [lqr.evaluate(*policy, alpha).soft_return for policy in policies]
    assert 3 <= len(policies) < 20
    assert np.all(np.diff(returns) > -1e-9)
    assert returns[0] < returns[-1] - 1e-6


def test_optimum_is_a_maximum_of_the_soft_return() -> None:
    """Moving the gain or the covariance away from the optimum, either way, lowers the soft return."""
    lqr, alpha = systems.get("coupled"), 0.5
    optimum = lqr.optimal(alpha)
    for scale in (0.8, 0.95, 1.05, 1.25):
        assert lqr.evaluate(scale * optimum.K, optimum.covariance, alpha).soft_return < optimum.soft_return
        assert lqr.evaluate(optimum.K, scale * optimum.covariance, alpha).soft_return < optimum.soft_return


@pytest.mark.parametrize("name", ["coupled", "unstable", "cartpole"])
def test_soft_q_satisfies_the_soft_bellman_equation(name: str) -> None:
    """Q = r + γ E[Q(s',a') − α log π(a'|s')] (equation 1) and V = E[Q − α log π], with every expectation exact."""
    lqr, alpha, rng = systems.get(name), 0.5, np.random.default_rng(0)
    n, d = lqr.B.shape
    K, covariance = far_gain(lqr), 0.3 * np.eye(d) + 0.1
    q, v = lqr.soft_q(K, covariance, alpha), lqr.soft_value(K, covariance, alpha)
    s, a = rng.standard_normal(n), rng.standard_normal(d)

    def soft_q_minus_log_prob(state: np.ndarray) -> float:
        policy = stats.multivariate_normal(-K @ state, covariance)
        return gaussian_mean(
            lambda actions: q(np.tile(state, (len(actions), 1)), actions) - alpha * policy.logpdf(actions),
            -K @ state,
            covariance,
        )

    next_value = gaussian_mean(
        lambda states: np.array([soft_q_minus_log_prob(state) for state in states]),
        lqr.A @ s + lqr.B @ a,
        lqr.noise_cov,
    )
    reward = -(s @ lqr.Q @ s + a @ lqr.R @ a)
    assert q(s, a) == pytest.approx(reward + lqr.discount * next_value, rel=1e-10)
    assert v(s) == pytest.approx(soft_q_minus_log_prob(s), rel=1e-10)
    mean_value = gaussian_mean(v, np.zeros(n), lqr.initial_cov)
    assert mean_value == pytest.approx(lqr.evaluate(K, covariance, alpha).soft_return, rel=1e-10)


def test_improved_policy_is_the_exponential_of_soft_q() -> None:
    """Equation (4): log π_new and Q/α differ by a constant in the action, whatever the state."""
    lqr, alpha, rng = systems.get("coupled"), 0.5, np.random.default_rng(1)
    K = far_gain(lqr)
    q, step = lqr.soft_q(K, 0.2 * np.eye(2), alpha), lqr.policy_iteration_step(K, alpha)
    s, actions = rng.standard_normal(2), rng.standard_normal((20, 2))
    log_prob = stats.multivariate_normal(-step.K @ s, step.covariance).logpdf(actions)
    log_z = q(np.tile(s, (20, 1)), actions) / alpha - log_prob
    np.testing.assert_allclose(log_z, log_z[0], rtol=1e-10)


@pytest.mark.parametrize("horizon", [1, 7, 200])
def test_finite_and_infinite_horizons_fit_together(horizon: int) -> None:
    """The infinite return is the H-step return plus γ^H times the infinite return from where H steps lead."""
    lqr, alpha = systems.get("cartpole"), 0.5
    K, covariance = far_gain(lqr), np.array([[0.4]])
    whole = lqr.evaluate(K, covariance, alpha)
    first = finite_horizon_return(lqr, K, covariance, alpha, horizon)
    after = replace(lqr, initial_cov=state_covariances(lqr, K, covariance, horizon)[-1])
    rest = after.evaluate(K, covariance, alpha)
    weight = lqr.discount**horizon
    assert first.standard_return + weight * rest.standard_return == pytest.approx(whole.standard_return, rel=1e-9)
    assert first.soft_return + weight * rest.soft_return == pytest.approx(whole.soft_return, rel=1e-9)


def test_one_step_return_by_hand() -> None:
    """One step of a scalar system: −(q + k²ρ)x₀ − ρσ², plus α times the entropy."""
    lqr = LQR([[2.0]], [[1.0]], [[3.0]], [[0.5]], [[7.0]], [[4.0]], 0.9)
    value = finite_horizon_return(lqr, [[-2.0]], [[0.3]], 1.5, 1)
    assert value.standard_return == pytest.approx(-(3 + 4 * 0.5) * 4 - 0.5 * 0.3)
    assert value.soft_return - value.standard_return == pytest.approx(1.5 * 0.5 * np.log(2 * np.pi * np.e * 0.3))


def test_simulation_without_noise_follows_the_value_function() -> None:
    """From any state the noiseless discounted return is −s₀ᵀPs₀, and the states obey s' = As + Ba."""
    lqr, horizon, count = systems.get("unstable"), 300, 4
    optimum = lqr.optimal(0.5)
    start = np.random.default_rng(2).standard_normal((count, 3))
    noise = Noise(start, np.zeros((horizon, count, 3)), np.ones((horizon, count, 3)))
    run = simulate(lqr, optimum.K, np.zeros((3, 3)), noise)
    np.testing.assert_allclose(run.discounted_returns, -np.einsum("ni,ij,nj->n", start, optimum.P, start), rtol=1e-6)
    np.testing.assert_allclose(run.actions, -run.states[:-1] @ optimum.K.T, atol=1e-12)
    np.testing.assert_allclose(run.states[1:], run.states[:-1] @ lqr.A.T + run.actions @ lqr.B.T, atol=1e-12)


def test_simulation_uses_the_noise_it_is_given() -> None:
    """Process noise is added as it is; action noise is multiplied by the root of the covariance."""
    lqr = systems.get("coupled")
    process, z = np.array([[[0.3, -0.2]]]), np.array([[[1.0, 2.0]]])
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    run = simulate(lqr, np.zeros((2, 2)), covariance, Noise(np.zeros((1, 2)), process, z))
    a = run.actions[0, 0]
    assert a @ np.linalg.solve(covariance, a) == pytest.approx(5.0)  # |z|², for whichever root of the covariance
    np.testing.assert_allclose(run.states[1, 0], lqr.B @ a + process[0, 0], atol=1e-12)
    np.testing.assert_allclose(run.rewards, [[-a @ lqr.R @ a]])


def test_degenerate_systems() -> None:
    """No discounting ahead, no input, no state cost: each has the optimum that it must have by hand."""
    two, one = np.eye(2), [[1.0]]
    blind = LQR(3 * two, [[1.0], [1.0]], two, one, two, two, 0.0).optimal(2.0)
    np.testing.assert_allclose(blind.P, two)
    np.testing.assert_allclose(blind.K, [[0, 0]], atol=1e-12)
    np.testing.assert_allclose(blind.covariance, [[1.0]])
    powerless = LQR(0.5 * two, np.zeros((2, 1)), two, one, two, two, 0.9).optimal(2.0)
    np.testing.assert_allclose(powerless.P, two / (1 - 0.9 * 0.25))
    free = LQR(0.5 * two, [[1.0], [1.0]], 0 * two, one, two, two, 0.9).optimal(2.0)
    np.testing.assert_allclose(free.P, 0 * two, atol=1e-12)
    assert free.standard_return == pytest.approx(-10.0)


def test_unstable_is_unstable_even_when_discounted() -> None:
    """The catalogue's `unstable` and `cartpole` need control; the others decay when discounted."""
    radii = {name: np.sqrt(s.discount) * np.abs(np.linalg.eigvals(s.A)).max() for name, s in _built().items()}
    assert {name for name, radius in radii.items() if radius > 1} == {"unstable", "cartpole"}


def _built() -> dict[str, LQR]:
    return {name: systems.get(name) for name in ALL}


def test_exact_answers_do_not_import_jax() -> None:
    """A control engineer can use the exact answers without waiting for JAX."""
    code = (
        "import sys, entroflow.lqr as l; l.systems.get('coupled').optimal(1.0);"
        "sys.exit('jax' in sys.modules or 'equinox' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
