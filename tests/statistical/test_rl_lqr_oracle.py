"""Policy improvement with an oracle for a critic: the exact soft Q of a linear Gaussian policy on LQR, method §5."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm, logm
from scipy.stats import multivariate_normal

from entroflow.flow import RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import draw_candidates
from entroflow.lqr import systems
from entroflow.moments import Moments
from entroflow.rl import Config, Flow, sac
from entroflow.rl.actors import flow
from entroflow.rl.soft_bellman import pathwise_values

LQR, ALPHA = systems.get("coupled"), 0.5
OPTIMUM = LQR.optimal(ALPHA)
# A policy that is neither optimal nor isotropic, and broad enough for weights of finite variance.
K, SIGMA = 0.5 * OPTIMUM.K + 0.1, np.array([[0.6, 0.2], [0.2, 0.5]])
OBS_MEAN, OBS_SCALE, ACTION_SCALE = np.array([0.3, -0.5]), np.array([2.0, 0.7]), np.array([0.8, 1.5])
BATCH, N = 256, 64


@dataclass(frozen=True)
class Oracle:
    """A critic that knows Q(s, a) = constant − xᵀ matrix x, x = (s, a), and has nothing to learn.

    Its state is what it knows.
    """

    learns_v: bool = False

    def init(self, keys, obs_units, action_size, updates):
        size = obs_units.mean.size + action_size
        return jnp.zeros((size, size)), jnp.float32(0)

    def q(self, state, obs, action):
        matrix, constant = state
        x = jnp.concatenate([obs, action])
        return constant - x @ matrix @ x

    policy_q = q

    def update(self, state, experience):
        return state, {}


CONFIG = Config(Flow(solver=RungeKutta("rk4", 8), states=BATCH, candidates=N, pairs=1), Oracle())


class LinearField(VelocityNetwork):
    """v(x, τ, s) = M x + G s, whose flow is exactly Gaussian."""

    matrix: jax.Array
    gain: jax.Array

    def __init__(self, matrix, gain):
        super().__init__(2, 2, width=2, depth=1, key=jax.random.key(0))
        self.matrix, self.gain = jnp.asarray(matrix, jnp.float32), jnp.asarray(gain, jnp.float32)

    def condition(self, obs) -> Any:
        return self.gain @ obs

    def __call__(self, x, time, context: Any):
        return self.matrix @ x + context

    def with_divergence(self, x, time, context: Any):
        return self(x, time, context), jnp.trace(self.matrix)


def run_with(gain, covariance, temperature=ALPHA):
    """A run whose policy is exactly N(−gain s, covariance), in units of observations and actions that matter."""
    unit = np.diag(1 / ACTION_SCALE)
    matrix = 0.5 * np.real(logm(unit @ covariance @ unit))
    # x_1 = e^M x_0 + M⁻¹(e^M − 1) G s, with s in units of its moments.
    drift = np.linalg.solve(expm(matrix) - np.eye(2), matrix) @ unit @ (-gain * OBS_SCALE)
    space = Unbounded(2, jnp.asarray(-gain @ OBS_MEAN, jnp.float32), jnp.asarray(ACTION_SCALE, jnp.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "VelocityNetwork", lambda *sizes, **options: LinearField(matrix, drift))
        state = sac.init(
            CONFIG,
            jax.random.key(0),
            obs_size=2,
            action_space=space,
            temperature=jnp.float32(temperature),
            discount=jnp.float32(LQR.discount),
        )
    units = Moments(jnp.asarray(OBS_MEAN, jnp.float32), jnp.asarray(OBS_SCALE, jnp.float32))
    return dataclasses.replace(state, obs_units=units)


def q_oracle(gain, covariance):
    """The exact soft Q of that policy, (s, a) ↦ Q(s, a) in float32."""
    matrix, constant = LQR.soft_q(gain, covariance, ALPHA)
    return functools.partial(Oracle().q, (jnp.asarray(matrix, jnp.float32), jnp.float32(constant)))


@pytest.fixture(scope="module")
def improve():
    """Policy improvement with the oracle of a policy as critic: soft values and metrics at states."""
    step = jax.jit(lambda state, obs, key: sac.improve_policy(CONFIG, state, obs, key)[1:])

    def run(gain, covariance, obs, temperature=ALPHA):
        matrix, constant = LQR.soft_q(gain, covariance, ALPHA)
        known = jnp.asarray(matrix, jnp.float32), jnp.float32(constant)
        state = dataclasses.replace(run_with(gain, covariance, temperature), critic=known)
        (seen, values), metrics = step(state, obs, jax.random.key(5))
        np.testing.assert_array_equal(seen, obs)
        return values, metrics

    return run


def states(size=BATCH):
    """States as wide as initial ones."""
    return jax.random.normal(jax.random.key(4), (size, 2))


def test_the_linear_field_is_the_gaussian_policy():
    """The oracle's policy is what it claims to be: density and mean of N(−K s, Σ)."""
    policy = sac.policy(CONFIG, run_with(K, SIGMA))
    obs = jnp.float32([0.7, -1.2])
    action, log_prob = eqx.filter_jit(policy.sample_and_log_prob)(jax.random.key(1), obs)
    exact = multivariate_normal(-K @ np.asarray(obs), SIGMA)
    np.testing.assert_allclose(log_prob, exact.logpdf(action), atol=1e-5)
    np.testing.assert_allclose(policy.sample(jax.random.key(1), obs, 0.0), exact.mean, atol=1e-5)


def test_at_the_optimum_all_weights_are_equal(improve):
    """With the optimum's Q and the optimal policy ESS/N is 1, and every state's value is exact, not only on average."""
    values, metrics = improve(OPTIMUM.K, OPTIMUM.covariance, states())
    np.testing.assert_allclose([metrics["ess"], metrics["beta"]], 1.0, atol=1e-5)
    np.testing.assert_allclose([metrics["kl"], metrics["renyi_4"]], 0.0, atol=1e-5)
    exact = LQR.soft_value(OPTIMUM.K, OPTIMUM.covariance, ALPHA)(np.asarray(states(), np.float64))
    np.testing.assert_allclose(values, exact, atol=1e-4)
    _, colder = improve(OPTIMUM.K, OPTIMUM.covariance, states(), temperature=0.5 * ALPHA)
    assert colder["ess"] < 0.9


def test_candidates_average_to_the_soft_value(improve):
    """Away from the optimum α (log Ẑ − kl) is the policy's soft value, within 4 standard errors over states."""
    values, metrics = improve(K, SIGMA, states())
    errors = np.asarray(values) - LQR.soft_value(K, SIGMA, ALPHA)(np.asarray(states(), np.float64))
    standard_error = np.std(errors) / np.sqrt(BATCH)
    assert abs(np.mean(errors)) < 4 * standard_error
    assert standard_error < 0.05  # while the entropy's part of the value is about 0.8
    assert metrics["ess"] < 0.95


@pytest.fixture(scope="module")
def candidates():
    """Many candidates of one state, with exact Q, and the state."""
    obs = jnp.float32([0.7, -1.2])
    policy = sac.policy(CONFIG, run_with(K, SIGMA))
    draw = jax.jit(lambda key: draw_candidates(key, policy, obs, q_oracle(K, SIGMA), ALPHA, n=50_000))
    found = draw(jax.random.key(6))
    return found, np.asarray(jax.vmap(policy.action_space.to_action)(found.latents), np.float64), np.asarray(obs)


def test_value_of_the_candidates_is_the_mean_of_q_minus_log_density(candidates):
    """α (log Ẑ − kl) is the mean of Q − α log π at the very same actions, both from closed forms."""
    found, actions, obs = candidates
    q = LQR.soft_q(K, SIGMA, ALPHA)(np.broadcast_to(obs, actions.shape).astype(np.float64), actions)
    expected = np.mean(q - ALPHA * multivariate_normal(-K @ obs, SIGMA).logpdf(actions))
    np.testing.assert_allclose(ALPHA * (found.diagnostics.log_z - found.diagnostics.kl), expected, rtol=1e-5, atol=1e-5)


def test_weighted_candidates_are_the_improved_policy(candidates):
    """Lemma 1: weighted moments are those of N(−K₊ s, Σ₊), within 4.5 standard errors, and unweighted ones are not."""
    found, actions, obs = candidates
    improved = LQR.policy_iteration_step(K, ALPHA)
    weights = np.asarray(found.weights, np.float64)
    centred = actions + improved.K @ obs
    outer = np.einsum("ni,nj->nij", centred, centred) - improved.covariance
    for values in (centred, outer.reshape(-1, 4)):
        mean = weights @ values
        error = np.sqrt(weights**2 @ (values - mean) ** 2)
        assert (np.abs(mean) < 4.5 * error).all()
        assert (np.abs(np.mean(values, axis=0)) > 10 * error).any()


def test_pathwise_gradient_is_that_of_the_soft_value():
    """d/dθ E[Q − α log π] through actions and densities is the closed form's, for all parameters of a Gaussian flow.

    The closed form: with a = m + S x_0, −E[xᵀPx] + α log det S and what does not depend on θ; 4 standard errors.
    """
    state, q = run_with(K, SIGMA), q_oracle(K, SIGMA)
    obs, (quadratic, _) = states(1024), LQR.soft_q(K, SIGMA, ALPHA)
    alpha, units = jnp.float32(ALPHA), jnp.diag(state.action_space.scale)

    def drawn(parameters, key, obs):
        field = eqx.tree_at(lambda field: (field.matrix, field.gain), state.actor, parameters)
        policy = dataclasses.replace(sac.policy(CONFIG, state), velocity=field)
        return pathwise_values(policy.sample_and_solver_log_prob, key, obs[None], q, alpha)[0]

    def exact(parameters, obs):
        matrix, gain = parameters
        spread, inputs = jax.scipy.linalg.expm(matrix), state.obs_units.normalise(obs)
        mean = state.action_space.center + units @ jnp.linalg.solve(matrix, (spread - jnp.eye(2)) @ gain @ inputs)
        x, factor = jnp.concatenate([obs, mean]), units @ spread
        weight = jnp.asarray(quadratic, jnp.float32)
        return -x @ weight @ x - jnp.trace(factor.T @ weight[2:, 2:] @ factor) + alpha * jnp.trace(matrix)

    parameters, keys = (state.actor.matrix, state.actor.gain), jax.random.split(jax.random.key(6), len(obs))
    found = jax.jit(jax.vmap(jax.grad(drawn), in_axes=(None, 0, 0)))(parameters, keys, obs)
    expected = jax.jit(jax.vmap(jax.grad(exact), in_axes=(None, 0)))(parameters, obs)
    for ours, theirs in zip(found, expected, strict=True):
        errors = np.asarray(ours - theirs)
        standard_error = errors.std(axis=0) / np.sqrt(len(errors))
        assert np.all(np.abs(errors.mean(axis=0)) < 4 * standard_error), (errors.mean(axis=0), standard_error)
        assert np.max(np.abs(np.mean(theirs, axis=0)) / standard_error) > 8  # so that a missing gradient would show
