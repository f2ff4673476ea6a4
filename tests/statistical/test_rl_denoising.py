"""The diffusion policy without a density: reverse sampling in closed form, and a bandit whose exp(Q/α) is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from entroflow.flow import Box, Unbounded
from entroflow.moments import standard
from entroflow.optimise import descend, optimiser, planned
from entroflow.rl.actors import Denoising, DensityPolicy, Goal, Policy
from entroflow.rl.actors.denoising import reverse_sample

ALPHA, LOW, HIGH = 0.5, -2.0, 3.0
WEIGHTS, MEANS, STDS = np.array([0.7, 0.3]), np.array([-1.0, 1.75]), np.array([0.25, 0.35])
STEPS, SAMPLES = 1500, 20_000
ACTOR = Denoising(width=32, depth=1, states=32, candidates=128, pairs=2, exploration=0.0, rate=1e-2)
BOX = Box(np.array([LOW], np.float32), np.array([HIGH], np.float32))


def q_function(obs, action):
    """α times the log of two Gaussian modes, in the units of the action."""
    parts = [
        np.log(w) + jax.scipy.stats.norm.logpdf(action[0], m, s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
    ]
    return ALPHA * jax.nn.logsumexp(jnp.stack(parts)) + 0.0 * obs[0]


@pytest.fixture(scope="module")
def actions():
    """Actions of a policy trained on the bandit."""
    muon = planned(ACTOR.rate, 0.02, STEPS)
    units, alpha = standard(1), jnp.float32(ALPHA)
    obs = jnp.zeros((ACTOR.states, 1))

    @jax.jit
    def train(key):
        network_key, train_key, sample_key = jax.random.split(key, 3)
        network = ACTOR.network(1, 1, key=network_key)

        def step(carry, key):
            network, state = carry
            policy = ACTOR.policy(network, BOX, units, alpha)
            found = ACTOR.loss_and_gradient(policy, network, key, Goal(obs, q_function, alpha))
            return descend(muon, found.gradient, network, state), None

        (network, _), _ = jax.lax.scan(step, (network, muon.init(network)), jax.random.split(train_key, STEPS))
        policy = ACTOR.policy(network, BOX, units, alpha)
        return jax.vmap(policy.sample, in_axes=(0, None))(jax.random.split(sample_key, SAMPLES), obs[0])

    return np.asarray(train(jax.random.key(0)), np.float64)[:, 0]


@pytest.mark.slow
def test_trained_policy_has_the_modes_with_the_right_weights(actions):
    """Weight, mean and standard deviation of both modes of exp(Q/α), within 4 standard errors and the 20 steps' bias.

    The allowance for that and for what 1,500 gradient steps leave: 0.03 of weight, 0.05 of mean, a tenth of a width.
    """
    assert actions.min() >= LOW and actions.max() <= HIGH
    left = actions < 0.4
    error = np.sqrt(np.prod(WEIGHTS) / SAMPLES)
    assert abs(left.mean() - WEIGHTS[0]) < 4 * error + 0.03
    for part, mean, std in zip((actions[left], actions[~left]), MEANS, STDS, strict=True):
        assert abs(part.mean() - mean) < 4 * std / np.sqrt(len(part)) + 0.05
        assert abs(part.std() / std - 1) < 4 / np.sqrt(2 * len(part)) + 0.1


@pytest.mark.slow
def test_trained_policy_is_close_in_distribution(actions):
    """The largest difference between the distribution functions of the actions and of exp(Q/α)/Z is below 0.04."""

    def cdf(x):
        return sum(w * scipy.stats.norm.cdf(x, m, s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True))

    assert scipy.stats.kstest(actions, cdf).statistic < 0.04


def test_training_learns_the_noise_that_is_to_be_expected():
    """For a Gaussian well inside the box E[ε|x_t] is linear; 60 steps leave a tenth of the squared distance from it."""
    mean, std, steps = 0.2, 0.3, 60
    actor, alpha = dataclasses.replace(ACTOR, width=8, states=8, candidates=32), jnp.float32(ALPHA)
    obs, adam = jnp.zeros((actor.states, 1)), optimiser(1e-2, 0.0, None)
    angles = 0.5 * np.pi * np.arange(4, actor.steps, 4)[:, None] / (actor.steps + 1)
    spread, offsets = np.sqrt(np.cos(angles) ** 2 * std**2 + np.sin(angles) ** 2), np.array([-1.0, 0.0, 1.0])
    points = jnp.float32(np.cos(angles) * mean + spread * offsets)
    expected = jnp.float32(offsets * np.sin(angles) / spread)

    def q_function(obs, action):
        x = 2 * (action[0] - LOW) / (HIGH - LOW) - 1
        return ALPHA * jax.scipy.stats.norm.logpdf(x, mean, std) + 0.0 * obs[0]

    def distance(network):
        policy = actor.policy(network, BOX, standard(1), alpha)
        told = lambda point, level: policy._noise_in(point[None], level, policy.condition(obs[0]))[0]  # noqa: E731
        found = jax.vmap(jax.vmap(told, (0, None)))(points, jnp.arange(4, actor.steps, 4))
        return jnp.mean((found - expected) ** 2)

    @jax.jit
    def train(key):
        network_key, train_key = jax.random.split(key)
        begun = actor.network(1, 1, key=network_key)

        def step(carry, key):
            network, state = carry
            policy = actor.policy(network, BOX, standard(1), alpha)
            found = actor.loss_and_gradient(policy, network, key, Goal(obs, q_function, alpha))
            return descend(adam, found.gradient, network, state), None

        (network, _), _ = jax.lax.scan(step, (begun, adam.init(begun)), jax.random.split(train_key, steps))
        return distance(begun), distance(network)

    before, after = train(jax.random.key(0))
    assert after < 0.1 * before


@pytest.mark.parametrize("angle", [0.3, 0.8, 1.2])
def test_reverse_sampling_is_exact_for_a_gaussian(angle):
    """For N(m, s²) well inside the box, E[ε|x_t] = (x_t − cos θ m) sin θ / (cos² θ s² + sin² θ), m and s by component.

    The weighted mean of K candidates has a standard error below √(V/(K ESS)), V ≤ 1 the variance of ε given x_t.
    """
    mean, std, count = np.array([0.2, -0.1]), np.array([0.1, 0.15]), 200_000
    point = np.array([0.5, -0.9]) * np.sin(angle) + np.cos(angle) * mean

    def log_density(x):
        return -0.5 * jnp.sum(((x - jnp.float32(mean)) / jnp.float32(std)) ** 2)

    found, ess = jax.jit(lambda key: reverse_sample(key, jnp.float32(point), jnp.float32(angle), log_density, count))(
        jax.random.key(1)
    )
    variance = np.cos(angle) ** 2 * std**2 + np.sin(angle) ** 2
    exact = (point - np.cos(angle) * mean) * np.sin(angle) / variance
    np.testing.assert_allclose(found, exact, atol=4 / np.sqrt(count * float(ess)))


def test_candidates_fill_the_box_and_no_more():
    """Under a constant Q and much noise, the noise expected is that of actions uniform in the box: tan θ → ∞, x = 0."""
    angle = 1.5

    def log_density(x):
        return jnp.where(jnp.all(jnp.abs(x) <= 1), 0.0, jnp.nan)

    found, ess = reverse_sample(jax.random.key(0), jnp.float32([0.6]), jnp.float32(angle), log_density, 4096)
    noise = (0.6 - np.cos(angle) * scipy.stats.uniform(-1, 2).rvs(100_000, random_state=0)) / np.sin(angle)
    expected = np.average(noise, weights=scipy.stats.norm.pdf(noise))
    np.testing.assert_allclose(found, [expected], atol=4 * noise.std() / np.sqrt(4096))
    assert float(ess) == pytest.approx(1)


def test_temperature_follows_the_entropy_of_the_added_noise():
    """It is that of Gaussian noise of deviation exploration · α, in units of the action; there is no log π at all."""
    actor = dataclasses.replace(ACTOR, exploration=0.3)
    policy = actor.policy(actor.network(1, 1, key=jax.random.key(0)), BOX, standard(1), jnp.float32(ALPHA))
    entropy = scipy.stats.norm(0, 0.3 * ALPHA * (HIGH - LOW) / 2).entropy()
    np.testing.assert_allclose(policy.exploration_entropy(), entropy, rtol=1e-5)
    assert isinstance(policy, Policy) and not isinstance(policy, DensityPolicy) and not actor.has_density
    assert not any(hasattr(policy, name) for name in ("log_prob", "sample_and_log_prob", "push_and_log_prob"))


def test_unbounded_actions_are_refused():
    """The candidates need a box; an unbounded space is named, with another actor."""
    with pytest.raises(ValueError, match="action_space.*choose another actor"):
        ACTOR.policy(ACTOR.network(1, 1, key=jax.random.key(0)), Unbounded(1), standard(1), jnp.float32(ALPHA))
