"""Every proposal's log-density is that of its samples, in unbounded and in boxed action spaces.

If candidates u_i come from μ and carry its density, the mean of f(u_i)/μ(u_i) is the integral of f, whatever f is. Each
proposal is asked for the integrals of five known densities over latents, all of them 1, within 4.5 standard errors.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad

from entroflow.flow import Box, FlowPolicy, RungeKutta, Unbounded
from entroflow.isfm import (
    BroadenedPolicy,
    CurrentPolicy,
    GaussianProposal,
    MixtureProposal,
    UniformProposal,
    defensive,
    draw_candidates,
    log_mean_exp,
)
from experiments.proposals.population import PopulationProposal

OBS = jnp.array([0.5, -1.0])
SPACES = {
    "unbounded": Unbounded(2, center=jnp.array([0.5, -1.0]), scale=jnp.array([2.0, 0.5])),
    "box": Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, 3.0])),
}
CENTERS = np.array([[0.0, 0.0], [0.35, 0.0], [-0.35, 0.0], [0.0, 0.35], [0.0, -0.35]])
WIDTH = 0.35  # of the densities that are integrated: within what every proposal covers
TEMPERATURE = 0.5
N, BATCHES = 30, 1000


class CurvedField(eqx.Module):
    """A velocity that turns, stretches and shifts, quick to compile."""

    obs_size: int = eqx.field(static=True, default=2)
    action_size: int = eqx.field(static=True, default=2)

    def condition(self, obs):
        return 0.3 * obs

    def __call__(self, x, time, context):
        return self.with_divergence(x, time, context)[0]

    def with_divergence(self, x, time, context):
        bend = jnp.array([0.8, -0.5]) * jnp.sin(x[::-1]) + jnp.array([0.5, 0.3]) * jnp.sin(x)
        return bend - 0.2 * x + time * context, jnp.dot(jnp.array([0.5, 0.3]), jnp.cos(x)) - 0.4


def policy_in(space):
    """A policy whose density is far from its noise's."""
    return FlowPolicy(CurvedField(), space, solver=RungeKutta("midpoint", 8))


def q_function(obs, action):
    """A critic with a slope and a curvature everywhere."""
    return jnp.sum(jnp.sin(2 * action)) - 0.5 * jnp.sum((action - 0.3 * obs) ** 2)


def uniform_in(policy, share=1.0):
    """Uniform over the box, or over what is a box of latents from −2 to 2 in the unbounded space."""
    low, high = ([-3.5, -2.0], [4.5, 0.0]) if isinstance(policy.action_space, Unbounded) else ([-1.0, 0.0], [1.0, 3.0])
    middle, half = 0.5 * (np.array(low) + np.array(high)), 0.5 * (np.array(high) - np.array(low))
    return UniformProposal(policy.action_space, middle - share * half, middle + share * half)


PROPOSALS = {
    "policy": CurrentPolicy,
    "broadened": lambda policy: BroadenedPolicy(policy, 1.5),
    "gaussian": lambda policy: GaussianProposal([0.2, -0.1], [[0.8, 0.3], [0.3, 0.5]]),
    "uniform": uniform_in,
    "uniform over a part": lambda policy: uniform_in(policy, 0.95),
    "defensive": lambda policy: defensive(policy, uniform_in(policy), 0.25),
    "mixture": lambda policy: MixtureProposal(
        [CurrentPolicy(policy), BroadenedPolicy(policy, 2.0), GaussianProposal([0.3, 0.0], 0.5)], [0.42, 0.35, 0.23]
    ),
    "population": lambda policy: PopulationProposal(policy, q_function, 0.5),
    "wide population": lambda policy: PopulationProposal(policy, q_function, 2.0, width=1.5),
}


def narrow_q(obs, action):
    """A critic whose exp(Q/α) lies inside of the box and of all that the proposals cover."""
    return -TEMPERATURE * jnp.sum(jnp.square((action - jnp.array([0.1, 1.4])) / jnp.array([0.35, 0.5])))


@functools.cache
def measured(name, space):
    """Of independent batches: candidates, their log-densities, those of `log_prob`, and log Ẑ; one program for all."""
    policy = policy_in(SPACES[space])
    proposal = PROPOSALS[name](policy)

    def batch(key):
        latents, log_probs = proposal.sample_and_log_prob(key, OBS, N)
        again = log_probs
        if hasattr(proposal, "log_prob"):
            again = jax.vmap(proposal.log_prob, in_axes=(None, 0))(OBS, latents)
        weighed = draw_candidates(key, policy, OBS, narrow_q, TEMPERATURE, n=N, proposal=proposal)
        return latents, log_probs, again, weighed.diagnostics.log_z

    return jax.jit(jax.vmap(batch))(jax.random.split(jax.random.key(1), BATCHES))


def errors(latents, log_probs):
    """How many standard errors the estimated integrals are from 1, in NumPy."""
    squares = np.sum(np.square(np.asarray(latents, np.float64)[..., None, :] - CENTERS), axis=-1) / WIDTH**2
    log_f = -0.5 * squares - np.log(2 * np.pi * WIDTH**2)
    each = np.mean(np.exp(log_f - np.asarray(log_probs, np.float64)[..., None]), axis=1)
    return (each.mean(axis=0) - 1) / (each.std(axis=0) / np.sqrt(len(each)))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", PROPOSALS)
def test_the_density_is_that_of_the_samples(name, space):
    """The integrals of five densities come out right, and do not for a density that is a little off."""
    latents, log_probs, again, _ = measured(name, space)
    assert np.max(np.abs(errors(latents, log_probs))) < 4.5
    np.testing.assert_allclose(again, log_probs, atol=0.01)  # what comes with the samples is `log_prob` at them
    # The test can fail: a constant factor of 1.15, and a Jacobian with the wrong sign, are many errors away.
    assert np.max(np.abs(errors(latents, log_probs + 0.14))) > 4.5
    if space == "box":
        log_det = jax.vmap(jax.vmap(SPACES[space].log_det))(latents)
        assert np.max(np.abs(errors(latents, log_probs - 2 * log_det))) > 4.5


@pytest.mark.parametrize("name", PROPOSALS)
def test_log_z_is_estimated_without_bias(name):
    """With raw weights the mean of exp(log Ẑ) over batches is the integral of exp(Q/α) over the box, by quadrature."""
    found = np.exp(np.asarray(measured(name, "box")[-1], np.float64))
    exact = dblquad(lambda y, x: np.exp(-(((x - 0.1) / 0.35) ** 2) - ((y - 1.4) / 0.5) ** 2), -1, 1, 0, 3)[0]
    assert abs(found.mean() - exact) < 4.5 * found.std() / np.sqrt(BATCHES)
    assert found.std() / np.sqrt(BATCHES) < 0.04 * exact


def test_the_mixture_s_candidates_are_allotted_by_its_weights():
    """Each component gives n ω_k candidates, rounded down or up, its exact share on average, in any order."""
    mixture = MixtureProposal([GaussianProposal([10.0 * k], 0.01) for k in range(3)], [0.55, 0.3, 0.15])
    keys = jax.random.split(jax.random.key(6), 4000)
    latents, _ = jax.jit(jax.vmap(lambda key: mixture.sample_and_log_prob(key, OBS, 6)))(keys)
    origin = np.rint(np.asarray(latents[..., 0]) / 10)
    counts = np.stack([(origin == k).sum(axis=1) for k in range(3)])
    shares = 6 * np.array([0.55, 0.3, 0.15])
    assert np.all(counts.sum(axis=0) == 6)
    assert np.all((counts >= np.floor(shares)[:, None]) & (counts <= np.ceil(shares)[:, None]))
    spread = np.sqrt((shares - np.floor(shares)) * (np.ceil(shares) - shares) / 4000)
    assert np.all(np.abs(counts.mean(axis=1) - shares) < 4.5 * spread)
    first = np.mean(origin == 0, axis=0)  # at every place of the order as often as anywhere else
    assert np.all(np.abs(first - 0.55) < 4.5 * np.sqrt(0.55 * 0.45 / 4000))


def test_mixtures_keep_whole_shares_whole():
    """Without a remainder nothing is left to chance, and a component of weight zero is never asked."""

    class Refuses(eqx.Module):
        def log_prob(self, obs, latent):
            raise AssertionError

        def sample_and_log_prob(self, key, obs, n):
            raise AssertionError

    mixture = MixtureProposal(
        [Refuses(), GaussianProposal([0.0], 0.01), GaussianProposal([10.0], 0.01)], [0.0, 0.9, 0.1]
    )
    latents, _ = mixture.sample_and_log_prob(jax.random.key(7), OBS, 20)
    assert int(jnp.sum(latents > 5)) == 2


def test_a_mixture_covers_what_its_parts_miss():
    """Raw weights of the policy alone lose a mode that it has forgotten; with a defensive mixture log Z is right."""
    policy = policy_in(Unbounded(2))
    modes = jnp.array([[0.0, 0.0], [8.0, 0.0]])

    def q(obs, action):
        return jax.nn.logsumexp(jax.vmap(lambda mode: jnp.sum(jax.scipy.stats.norm.logpdf(action - mode)))(modes))

    def log_z(proposal):
        draw = lambda key: draw_candidates(key, policy, OBS, q, 1.0, n=64, proposal=proposal).diagnostics.log_z  # noqa: E731
        return float(log_mean_exp(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(9), 300))))

    assert abs(log_z(CurrentPolicy(policy)) - np.log(1)) < 0.05
    assert abs(log_z(defensive(policy, UniformProposal(Unbounded(2), -12.0, 12.0), 0.25)) - np.log(2)) < 0.05
