"""The population proposal of the experiment, against its equations."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from entroflow.flow import Box, FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import draw_candidates
from experiments.proposals.population import PopulationProposal

OBS = jax.numpy.array([0.5, -1.0])
BOX = Box(np.array([-1.0, 0.0]), np.array([1.0, 3.0]))


def policy_in(space):
    network = VelocityNetwork(2, 2, width=8, depth=1, key=jax.random.key(7))
    return FlowPolicy(network, space, solver=RungeKutta("euler", 1))


def q_function(obs, action):
    return jax.numpy.sum(jax.numpy.sin(2 * action)) - 0.5 * jax.numpy.sum((action - 0.3 * obs) ** 2)


def test_population_moves_up_the_critic():
    """Candidates are the parents, moved by ½σ²∇(Q/α + log det) but no further than σ, and jittered; density of all."""
    policy, temperature, width, n = policy_in(BOX), 0.4, 0.6, 7
    proposal = PopulationProposal(policy, q_function, temperature, width)
    key = jax.random.key(3)
    latents, density = jax.jit(lambda: proposal.sample_and_log_prob(key, OBS, n))()

    parent_key, jitter_key = jax.random.split(key)
    parents = jax.vmap(policy.sample_latent, in_axes=(0, None))(jax.random.split(parent_key, n), OBS)
    sd = width * np.std(np.asarray(parents, np.float64), axis=0)
    jitter = np.asarray(jax.random.normal(jitter_key, (n, 2)), np.float64)
    centers = []
    for parent in np.asarray(parents, np.float64):

        def log_target(u):
            action = np.array([0.0, 1.5]) + np.array([1.0, 1.5]) * np.tanh(u)
            q = np.sum(np.sin(2 * action)) - 0.5 * np.sum((action - 0.3 * np.asarray(OBS)) ** 2)
            return q / temperature + np.sum(np.log(1 - np.tanh(u) ** 2))

        slope = np.array([(log_target(parent + e) - log_target(parent - e)) / 2e-5 for e in 1e-5 * np.eye(2)])
        step = 0.5 * sd * slope
        centers.append(parent + sd * step / max(1.0, np.linalg.norm(step)))
    centers = np.array(centers)
    np.testing.assert_allclose(latents, centers + sd * jitter, atol=1e-3)
    kernels = norm(centers[None], sd).logpdf(np.asarray(latents)[:, None]).sum(axis=2)
    np.testing.assert_allclose(density, logsumexp(kernels, axis=1) - np.log(n), atol=2e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda policy: PopulationProposal(policy, q_function, 0.0), "temperature: got 0.0"),
        (lambda policy: PopulationProposal(policy, q_function, 1.0, -1.0), "width: got -1.0"),
        (
            lambda policy: draw_candidates(
                jax.random.key(0),
                policy,
                OBS,
                q_function,
                1.0,
                n=1,
                proposal=PopulationProposal(policy, q_function, 1.0),
            ),
            "candidates: got 1, expected at least 2",
        ),
    ],
)
def test_bad_populations_are_refused(make, message):
    """Temperature, width and number of candidates are checked."""
    with pytest.raises(ValueError, match=message):
        make(policy_in(Unbounded(2)))
