"""Hutchinson's estimate: unbiased, and its log-density too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import FlowPolicy, Hutchinson, RungeKutta, Unbounded, VelocityNetwork, hutchinson_divergence

DRAWS = 4000


@pytest.fixture(scope="module")
def policy():
    """A policy with a divergence far from zero."""
    network = VelocityNetwork(2, 3, width=8, depth=1, key=jax.random.key(0))
    network = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), network)
    return FlowPolicy(network, Unbounded(3), solver=RungeKutta("midpoint", 4))


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_estimates_are_unbiased(policy, distribution):
    """The mean over many probes is the exact divergence, and the log-density's mean the exact one, within 4 errors."""
    obs, latent = jnp.array([0.5, -1.0]), jnp.array([0.3, -0.8, 1.1])
    estimated = FlowPolicy(
        policy.velocity, policy.action_space, solver=policy.solver, divergence=Hutchinson(1, distribution)
    )
    context, draw = policy.condition(obs), getattr(jax.random, distribution.replace("gaussian", "normal"))
    field = lambda x: policy.velocity(x, jnp.float32(0.4), context)  # noqa: E731

    @jax.jit
    def estimates(keys):
        divergences = jax.vmap(lambda k: hutchinson_divergence(field, latent, draw(k, (1, 3), jnp.float32))[1])(keys)
        log_probs = jax.vmap(lambda k: estimated.latent_log_prob(obs, latent, key=k))(keys)
        exact = policy.velocity.with_divergence(latent, jnp.float32(0.4), context)[1]
        return (divergences, exact), (log_probs, policy.latent_log_prob(obs, latent))

    for found, exact in estimates(jax.random.split(jax.random.key(1), DRAWS)):
        error = float(jnp.std(found)) / DRAWS**0.5
        assert error < 0.1 * abs(float(exact))  # sharp enough to see a wrong sign or factor
        np.testing.assert_allclose(jnp.mean(found), exact, atol=4 * error)
