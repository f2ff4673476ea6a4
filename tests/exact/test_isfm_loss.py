"""The ISFM loss and its candidates against the equations written out."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from entroflow.flow import Box, FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import (
    BroadenedPolicy,
    Control,
    CurrentPolicy,
    draw_candidates,
    isfm_loss,
    posterior_target,
    stein_control,
    stratified_times,
)
from entroflow.moments import Moments

OBS = jnp.array([0.5, -1.0])
N, PAIRS = 6, 3


class GaussianField(eqx.Module):
    """The exact marginal velocity of the path to N(mean, sd² I): the field that flow matching should find."""

    mean: jax.Array
    sd: jax.Array
    obs_size: int = eqx.field(static=True, default=2)
    action_size: int = eqx.field(static=True, default=2)

    def condition(self, obs):
        return self.mean + 0.5 * obs

    def _slope(self, time):
        variance = (1 - time) ** 2 + (time * self.sd) ** 2
        return (time * self.sd**2 - (1 - time)) / variance

    def __call__(self, x, time, context):
        return context + self._slope(time) * (x - time * context)

    def with_divergence(self, x, time, context):
        return self(x, time, context), 2 * self._slope(time)


def gaussian_policy(**options):
    field = GaussianField(jnp.array([1.0, -0.5]), jnp.float32(0.6))
    return FlowPolicy(field, Unbounded(2), solver=RungeKutta("rk4", 32), **options)


def network_policy(space):
    network = VelocityNetwork(2, 2, width=8, depth=1, key=jax.random.key(0))
    return FlowPolicy(jax.tree.map(lambda leaf: leaf + 0.1, network), space, solver=RungeKutta("rk4", 16))


def test_loss_is_equation_7():
    """The loss is the weighted sum over candidates of the mean over pairs, written out in NumPy loops."""
    policy = gaussian_policy(obs_units=Moments(jnp.array([1.0, 2.0]), jnp.ones(2)))
    key, latents = jax.random.key(1), jax.random.normal(jax.random.key(2), (N, 2))
    weights = jnp.linspace(0.1, 0.9, N)
    times = stratified_times(jax.random.key(3), N, PAIRS)
    noises = np.asarray(jax.random.normal(key, (N, PAIRS, 2)))

    expected = 0.0
    mean = np.array([1.0, -0.5]) + 0.5 * (np.asarray(OBS) - np.array([1.0, 2.0]))
    for i in range(N):
        for p in range(PAIRS):
            x1, x0, t = np.asarray(latents[i]), noises[i, p], float(times[i, p])
            x = t * x1 + (1 - t) * x0
            slope = (t * 0.6**2 - (1 - t)) / ((1 - t) ** 2 + (t * 0.6) ** 2)
            velocity = mean + slope * (x - t * mean)
            expected += float(weights[i]) * np.sum((velocity - (x1 - x0)) ** 2) / PAIRS
    np.testing.assert_allclose(isfm_loss(policy, key, OBS, latents, weights, times), expected, rtol=1e-4)


def test_the_field_that_flow_matching_seeks_has_the_target_s_density():
    """Path and flow belong together: the marginal velocity of the path to a Gaussian has that Gaussian's density."""
    policy = gaussian_policy()
    action = jnp.array([1.7, -1.4])
    mean = np.array([1.0, -0.5]) + 0.5 * np.asarray(OBS)
    expected = norm(mean, 0.6).logpdf(np.asarray(action)).sum()
    np.testing.assert_allclose(policy.log_prob(OBS, action), expected, atol=2e-3)


def test_times_are_stratified():
    """All times together are an equally spaced, shifted grid of [0, 1); so are the times of each candidate."""
    times = np.asarray(stratified_times(jax.random.key(0), N, PAIRS))
    assert times.shape == (N, PAIRS) and times.min() >= 0 and times.max() < 1
    np.testing.assert_allclose(np.diff(np.sort(times.ravel())), 1 / (N * PAIRS), atol=1e-5)
    np.testing.assert_allclose(np.diff(np.sort(times, axis=1), axis=1), 1 / PAIRS, atol=1e-5)
    assert not np.allclose(times, stratified_times(jax.random.key(1), N, PAIRS))


def q_function(obs, action):
    """A soft action value with a skewed optimum."""
    return jnp.sum(jnp.sin(2 * action)) - 0.5 * jnp.sum((action - 0.3 * obs) ** 2)


@pytest.mark.parametrize("scale", [None, 1.5], ids=["current policy", "broadened"])
def test_candidates_are_weighed_by_equation_9(scale):
    """In a box the weights are exp(Q/α)/μ normalised, with the action's density from the backward integration."""
    policy = network_policy(Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, 3.0])))
    temperature, key = 0.7, jax.random.key(4)
    proposal = None if scale is None else BroadenedPolicy(policy, scale)
    draw = lambda floor: draw_candidates(  # noqa: E731
        key, policy, OBS, q_function, temperature, n=32, proposal=proposal, ess_floor=floor
    )
    full, tempered = jax.jit(lambda: (draw(None), draw(0.8)))()

    actions = jax.vmap(policy.action_space.to_action)(full.latents)
    backwards = jax.vmap(policy.latent_log_prob, in_axes=(None, 0, None))
    log_det = jax.vmap(policy.action_space.log_det)(full.latents)
    log_proposal, log_policy = (backwards(OBS, full.latents, width) - log_det for width in (scale or 1.0, 1.0))
    log_target = jax.vmap(q_function, in_axes=(None, 0))(OBS, actions) / temperature
    np.testing.assert_allclose(full.weights, jax.nn.softmax(log_target - log_proposal), rtol=2e-3, atol=1e-5)
    assert float(full.beta) == 1.0

    beta = float(tempered.beta)
    assert 0 < beta < 1
    expected = jax.nn.softmax((1 - beta) * log_policy + beta * log_target - log_proposal)
    np.testing.assert_allclose(tempered.weights, expected, rtol=2e-3, atol=1e-5)
    start = jax.nn.softmax(log_policy - log_proposal)  # equal weights if the policy proposes
    np.testing.assert_allclose(jnp.sum(start**2) / jnp.sum(tempered.weights**2), 0.8, atol=2e-3)
    np.testing.assert_allclose(tempered.diagnostics, full.diagnostics, rtol=1e-5)  # of the whole step


def test_current_policy_is_the_default_proposal():
    """Without a proposal the candidates are the current policy's own."""
    policy = network_policy(Unbounded(2))
    key = jax.random.key(5)
    draw = jax.jit(lambda proposal: draw_candidates(key, policy, OBS, q_function, 1.0, n=4, proposal=proposal))
    np.testing.assert_allclose(draw(None).latents, draw(CurrentPolicy(policy)).latents, rtol=1e-5)


def test_the_target_policy_has_equal_weights():
    """When the policy is exp(Q/α)/Z already, all weights are 1/N and log Ẑ is log Z."""
    policy = gaussian_policy()
    temperature, log_z = 0.3, 0.8
    mean = jnp.array([1.0, -0.5]) + 0.5 * OBS

    def q(obs, action):
        log_normal = -0.5 * jnp.sum(((action - mean) / 0.6) ** 2) - 2 * jnp.log(0.6 * jnp.sqrt(2 * jnp.pi))
        return temperature * (log_normal + log_z)

    candidates = draw_candidates(jax.random.key(6), policy, OBS, q, temperature, n=8)
    np.testing.assert_allclose(candidates.weights, 1 / 8, rtol=5e-3)
    np.testing.assert_allclose(candidates.diagnostics.log_z, log_z, atol=2e-3)


def test_no_gradient_passes_through_candidates():
    """The gradient of a whole improvement step is that of the regression on fixed candidates."""
    policy = network_policy(Unbounded(2))
    times = stratified_times(jax.random.key(7), 8, 2)

    def improve(policy, candidates):
        if candidates is None:
            candidates = draw_candidates(jax.random.key(8), policy, OBS, q_function, 0.5, n=8, ess_floor=0.5)
        return isfm_loss(policy, jax.random.key(9), OBS, candidates.latents, candidates.weights, times), candidates

    gradient = jax.jit(jax.value_and_grad(improve, has_aux=True))
    (_, candidates), through = gradient(policy, None)
    _, fixed = gradient(policy, candidates)
    for a, b in zip(jax.tree.leaves(through), jax.tree.leaves(fixed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert float(jnp.max(jnp.abs(through.velocity.last.weight))) > 1e-3


def test_bad_proposals_are_refused():
    """A broadened policy needs a positive noise scale."""
    with pytest.raises(ValueError, match="noise_scale"):
        BroadenedPolicy(network_policy(Unbounded(2)), 0.0)


def test_posterior_target_is_the_weighted_candidates_marginal_velocity():
    """Bayes' rule written out: the mean of x_1 − x_0 over the candidates that may have led to x_τ, with its control."""
    latents = np.array([[0.2, -0.4], [1.0, 0.3], [-0.7, 0.9]])
    weights, scores = np.array([0.5, 1.5, 1.0]), np.array([[0.3, -1.0], [0.8, 0.1], [-0.2, 0.6]])
    x0, t = np.array([0.4, -0.3]), 0.6
    x = t * latents[1] + (1 - t) * x0
    noises = (x - t * latents) / (1 - t)
    posterior = weights * norm.pdf(noises).prod(axis=1)
    posterior /= posterior.sum()
    plain = posterior @ (latents - noises)
    counted = weights[:, None] * scores**2
    fisher = (counted.sum(axis=0) - counted) / (weights.sum() - weights)[:, None]
    control = posterior @ ((t * noises + (1 - t) * scores) / (t**2 + (1 - t) ** 2 * fisher))
    given: Any = [jnp.asarray(part, jnp.float32) for part in (latents, weights, latents[1], x0, t)]
    np.testing.assert_allclose(posterior_target(*given), plain, rtol=1e-5)
    # A second state whose target the scores do not describe changes nothing.
    both = [jnp.asarray(np.stack([part, 7 * part]), jnp.float32) for part in (scores, weights)]
    prepared = jax.tree.map(lambda leaf: leaf[0], stein_control(both[0], both[1], jnp.array([0.25, 0.0])))
    np.testing.assert_allclose(posterior_target(*given, control=prepared), plain + 0.25 * control, rtol=1e-5)


@pytest.mark.parametrize("time", [0.0, 1 - 2**-24])
def test_posterior_target_is_accurate_at_both_ends(time):
    """At τ = 0 it is the mean candidate minus the noise, next to τ = 1 the pair's own x_1 − x_0; a dead weight is no
    obstacle, and neither is a flat Q."""
    latents = jnp.array([[0.2, -0.4], [1.0, 0.3], [-0.7, 0.9]])
    x0, weights = jnp.array([0.4, -0.3]), jnp.array([0.5, 0.5, 0.0])
    expected = (jnp.mean(latents[:2], axis=0) if time == 0 else latents[1]) - x0
    found = posterior_target(latents, weights, latents[1], x0, jnp.float32(time))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    one = jnp.ones(())
    flat = posterior_target(
        latents, weights, latents[1], x0, jnp.float32(time), Control(jnp.zeros((3, 2)), jnp.zeros((3, 2)), one)
    )
    assert float(jnp.max(jnp.abs(flat))) < 3


def test_stein_leaves_no_noise_where_the_target_is_gaussian():
    """With the scores and the information of N(mean, sd²) the target is the exact velocity, whatever the weights."""
    field = GaussianField(jnp.array([1.0, -0.5]), jnp.float32(0.6))
    # Candidates at mean ± sd have the exact Fisher information 1/sd² with any weights.
    signs = jnp.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], jnp.float32)
    latents, weights = field.mean[None] + 0.6 * signs, jnp.array([0.1, 0.2, 0.3, 0.4])
    control = jax.tree.map(lambda leaf: leaf[0], stein_control(-signs[None] / 0.6, weights[None], jnp.ones(1)))
    for time in (0.1, 0.5, 0.9):
        x0, t = jnp.array([0.4, -0.3]), jnp.float32(time)
        exact = field(t * latents[0] + (1 - t) * x0, t, field.mean)
        np.testing.assert_allclose(posterior_target(latents, weights, latents[0], x0, t, control), exact, rtol=1e-4)


def test_bad_targets_are_refused():
    """A target needs a known name, and "stein" needs a control variate."""
    policy, latents, weights = gaussian_policy(), jnp.zeros((N, 2)), jnp.ones(N) / N
    arguments = policy, jax.random.key(0), OBS, latents, weights, jnp.zeros((N, 1))
    with pytest.raises(ValueError, match="did you mean 'stein'"):
        isfm_loss(*arguments, target="stien")
    with pytest.raises(ValueError, match="control"):
        isfm_loss(*arguments, target="stein")
