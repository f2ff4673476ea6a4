"""The squashed Gaussian policy against SciPy and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from entroflow.flow import Box, Unbounded
from entroflow.moments import Moments
from entroflow.rl.actors import Goal
from entroflow.rl.actors.gaussian import LOG_STD_MAX, LOG_STD_MIN, Gaussian, GaussianNetwork, GaussianPolicy

OBS_UNITS = Moments(jnp.array([1.0, -2.0, 0.5]), jnp.array([2.0, 0.5, 1.0]))
OBS = jnp.array([0.3, -1.5, 2.0])


def make(space):
    network = GaussianNetwork(3, space.size, width=8, depth=2, key=jax.random.key(0))
    return GaussianPolicy(network, space, OBS_UNITS)


def test_unbounded_policy_is_a_gaussian():
    """Its density is SciPy's for the network's moments at the normalised observation, in the action's units."""
    space = Unbounded(2, jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5]))
    policy = make(space)
    mean, log_std = policy.network((OBS - OBS_UNITS.mean) / OBS_UNITS.scale)
    exact = scipy.stats.norm(space.to_action(mean), space.scale * jnp.exp(log_std))
    actions = np.array([[1.0, 2.0], [4.0, 1.5]], np.float32)
    densities = jax.vmap(policy.log_prob, in_axes=(None, 0))(OBS, jnp.asarray(actions))
    np.testing.assert_allclose(densities, exact.logpdf(actions).sum(axis=1), rtol=1e-5)


def test_density_in_a_box_integrates_to_one():
    """Quadrature over the box, whose bounds are not symmetric."""
    low, high = -1.0, 3.0
    policy = make(Box(np.array([low]), np.array([high])))
    edges = np.linspace(low, high, 4001)
    actions = jnp.asarray((edges[1:] + edges[:-1])[:, None] / 2, jnp.float32)
    density = jnp.exp(jax.vmap(policy.log_prob, in_axes=(None, 0))(OBS, actions))
    assert float(jnp.mean(density)) * (high - low) == pytest.approx(1, abs=1e-3)


def test_samples_come_with_their_density():
    """`sample`, `sample_and_log_prob` and `log_prob` agree, and samples follow the density (Kolmogorov–Smirnov)."""
    policy = make(Box(np.array([-2.0]), np.array([1.0])))
    keys = jax.random.split(jax.random.key(1), 2000)
    actions, log_probs = jax.vmap(policy.sample_and_log_prob, in_axes=(0, None))(keys, OBS)
    np.testing.assert_array_equal(actions, jax.vmap(policy.sample, in_axes=(0, None))(keys, OBS))
    np.testing.assert_allclose(log_probs, jax.vmap(policy.log_prob, in_axes=(None, 0))(OBS, actions), atol=1e-3)
    mean, log_std = policy.network((OBS - OBS_UNITS.mean) / OBS_UNITS.scale)
    latents = jax.vmap(policy.action_space.from_action)(actions)
    assert scipy.stats.kstest(latents[:, 0], scipy.stats.norm(mean[0], jnp.exp(log_std[0])).cdf).pvalue > 1e-3


def test_width_stays_in_its_range():
    """However large the network's outputs, log σ stays in its range and the density is finite at the bounds."""
    policy = make(Box(np.array([-1.0]), np.array([1.0])))
    for factor in (1e3, -1e3):
        steep = jax.tree.map(lambda leaf: factor * leaf, policy.network)  # noqa: B023
        _, log_std = steep(OBS)
        assert LOG_STD_MIN <= float(log_std[0]) <= LOG_STD_MAX
        extreme = GaussianPolicy(steep, policy.action_space, OBS_UNITS)
        assert np.isfinite(float(extreme.sample_and_log_prob(jax.random.key(0), OBS)[1]))


def test_no_gradient_reaches_the_statistics():
    """The reparametrised action moves with the network's parameters alone."""
    policy = make(Box(np.array([-1.0]), np.array([1.0])))
    gradient = jax.grad(lambda policy: policy.sample(jax.random.key(0), OBS)[0])(policy)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((gradient.obs_units, gradient.action_space)))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient.network))


def test_gradient_of_the_improvement_by_hand():
    """The gradient at the last layer's bias is minus the mean derivative of Q − α log π, worked out for a quadratic Q.

    With u = m + σ x_0 and a = centre + h tanh u, for t = tanh u and each component:
    ∂/∂m = Q'(a) h (1 − t²) − 2 α t, the last of these from the box's Jacobian, and ∂/∂log σ = σ x_0 ∂/∂m + α.
    """
    low, high, cost, goal, alpha = np.array([-1.0, 0.0]), np.array([3.0, 1.0]), np.array([2.0, 5.0]), 0.7, 0.3
    policy, key = make(Box(low, high)), jax.random.key(4)
    obs = OBS[None] + jax.random.normal(jax.random.key(5), (32, 3))
    q_function = lambda obs, action: -0.5 * jnp.sum(jnp.asarray(cost, jnp.float32) * (action - goal) ** 2)  # noqa: E731

    @jax.jit
    def improve(policy):
        step = Gaussian().loss_and_gradient(policy, policy.network, key, Goal(obs, q_function, jnp.float32(alpha)))
        actions = jax.vmap(policy.sample)(jax.random.split(key, len(obs)), obs)
        return step, actions, jax.vmap(lambda obs: policy.network((obs - OBS_UNITS.mean) / OBS_UNITS.scale))(obs)

    step, actions, moments = improve(policy)
    mean, log_std = (np.asarray(moment, np.float64) for moment in moments)
    half_width = (high - low) / 2
    t = (np.asarray(actions, np.float64) - (high + low) / 2) / half_width
    by_mean = -cost * (np.asarray(actions) - goal) * half_width * (1 - t**2) - 2 * alpha * t
    by_log_std = (np.arctanh(t) - mean) * by_mean + alpha
    share = 2 * (log_std - LOG_STD_MIN) / (LOG_STD_MAX - LOG_STD_MIN) - 1
    by_output = by_log_std * 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (1 - share**2)
    expected = -np.mean(np.concatenate([by_mean, by_output], axis=1), axis=0)
    assert np.abs(expected).min() > 0.01
    np.testing.assert_allclose(step.gradient.layers[-1].bias, expected, rtol=1e-3, atol=1e-4)
