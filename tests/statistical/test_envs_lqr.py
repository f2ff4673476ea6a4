"""Rollouts of the JAX environment and of the NumPy simulation against the closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import stats

from entroflow.envs import EnvState, LQREnv, advance, reset
from entroflow.lqr import LQR, sample_noise, simulate, systems
from entroflow.lqr.matrices import matrix_root
from experiments.plants.horizon import finite_horizon_return, state_covariances

TRAJECTORIES, HORIZON, TEMPERATURE = 20_000, 25, 0.5


@jax.jit
def rollouts(
    env: LQREnv, K: Float[Array, "d n"], root: Float[Array, "d d"], keys: PRNGKeyArray
) -> tuple[Float[Array, "count h d"], Float[Array, "count h d"], Float[Array, "count h"]]:
    """Standard normal draws z, actions −Ks + root z and rewards of one trajectory per key."""

    def one(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        def body(current: EnvState, key: PRNGKeyArray) -> tuple[EnvState, tuple[Array, Array, Array]]:
            key_action, key_step = jax.random.split(key)
            z = jax.random.normal(key_action, (K.shape[0],), jnp.float32)
            following, t = advance(env, key_step, current, -K @ current.state + root @ z)
            return following, (z, t.action, t.reward)

        key_start, key_run = jax.random.split(key)
        return jax.lax.scan(body, reset(env, key_start), jax.random.split(key_run, HORIZON))[1]

    return jax.vmap(one)(keys)


def assert_mean(samples: np.ndarray, expected: float, part: float) -> None:
    """The sample mean is within four standard errors of the expected value; `part` of it could not go unnoticed."""
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert 20 * error < abs(part)
    assert abs(samples.mean() - expected) < 4 * error


@pytest.mark.parametrize("name", ["coupled", "unstable"])
def test_environment_returns_agree_with_the_closed_form(name: str) -> None:
    """The environment's average standard and soft returns are the finite-horizon sums, off the optimum too."""
    lqr = systems.get(name)
    d = len(lqr.R)
    K = 0.8 * lqr.optimal(TEMPERATURE).K
    covariance = 0.3 * np.eye(d) + 0.1
    arrays = (jnp.asarray(x, jnp.float32) for x in (K, matrix_root(covariance)))
    z, _, rewards = rollouts(LQREnv(lqr), *arrays, jax.random.split(jax.random.key(3), TRAJECTORIES))
    weights = lqr.discount ** np.arange(HORIZON)
    log_prob = stats.norm.logpdf(np.asarray(z)).sum(-1) - 0.5 * np.linalg.slogdet(covariance).logabsdet
    exact = finite_horizon_return(lqr, K, covariance, TEMPERATURE, HORIZON)
    bonus = exact.soft_return - exact.standard_return
    assert_mean(np.asarray(rewards) @ weights, exact.standard_return, exact.standard_return)
    assert_mean((np.asarray(rewards) - TEMPERATURE * log_prob) @ weights, exact.soft_return, bonus)


def test_environment_noise_has_the_given_covariance() -> None:
    """Initial states and process noise have the system's covariances, a singular one included."""
    W, X = np.array([[4.0, 2.0], [2.0, 1.0]]), np.array([[1.0, -0.5], [-0.5, 2.0]])
    env = LQREnv(LQR([[0.5, 0.2], [0.1, 0.3]], [[1.0], [2.0]], np.eye(2), [[1.0]], W, X, 0.9))
    state, action = jnp.array([1.0, -1.0], jnp.float32), jnp.array([0.5], jnp.float32)
    keys = jax.random.split(jax.random.key(4), 50_000)
    moved = np.asarray(jax.vmap(lambda key: env.transition(key, state, action))(keys)) - np.asarray(
        env.drift(state, action)
    )
    started = np.asarray(jax.vmap(env.initial)(keys))
    for samples, covariance in ((moved, W), (started, X)):
        variance = np.diag(covariance)
        error = np.sqrt((covariance**2 + np.outer(variance, variance)) / len(keys))  # of a sample covariance
        assert np.all(np.abs(samples.T @ samples / len(keys) - covariance) < 4 * error)
        assert np.all(np.abs(samples.mean(0)) < 4 * np.sqrt(variance / len(keys)))
    np.testing.assert_allclose(moved[:, 0], 2 * moved[:, 1], atol=1e-4)


def test_simulated_returns_agree_with_the_closed_form() -> None:
    """The NumPy simulation averages to the finite-horizon sum, and visits states of the predicted covariance."""
    lqr, count = systems.get("double_integrator"), 20_000
    K, covariance = 0.9 * lqr.optimal(TEMPERATURE).K, np.array([[1.3]])
    run = simulate(lqr, K, covariance, sample_noise(lqr, np.random.default_rng(5), count, HORIZON))
    expected = finite_horizon_return(lqr, K, covariance, TEMPERATURE, HORIZON).standard_return
    assert_mean(run.discounted_returns, expected, expected)
    predicted = state_covariances(lqr, K, covariance, HORIZON)
    observed = np.einsum("hni,hnj->hij", run.states, run.states) / count
    variance = np.diagonal(predicted, axis1=1, axis2=2)
    error = np.sqrt((predicted**2 + variance[:, :, None] * variance[:, None, :]) / count)
    assert np.all(np.abs(observed - predicted) < 4.5 * error)  # 104 numbers at once
