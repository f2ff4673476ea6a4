"""The Gaussian actor improved to convergence on a Q whose soft optimum is Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np

from entroflow.flow import Unbounded
from entroflow.moments import standard
from entroflow.optimise import descend, planned
from entroflow.rl.actors import Gaussian, GaussianPolicy, Goal

COST, SLOPE, ALPHA, STEPS, BATCH = np.array([1.0, 6.0]), np.array([1.0, -0.5]), 0.4, 1500, 64
STATES = np.array([[-1.5], [0.0], [1.0]])


def test_trained_on_a_quadratic_q_it_is_the_soft_optimum():
    """For Q = −½ Σ COST (a − SLOPE s)² it becomes N(SLOPE s, α/COST), where every action tells the value α log Z.

    Means are allowed to be 5 per cent of the width away, widths and values (in nats) 3 per cent.
    """
    cost, slope = jnp.asarray(COST, jnp.float32), jnp.asarray(SLOPE, jnp.float32)
    actor, space = Gaussian(width=16, depth=1), Unbounded(2, jnp.float32([1.0, 0.0]), jnp.float32([2.0, 0.5]))
    muon = planned(2e-2, 0.02, STEPS)

    def q_function(obs, action):
        return -0.5 * jnp.sum(cost * (action - slope * obs[0]) ** 2)

    def policy_of(network):
        return GaussianPolicy(network, space, standard(1))

    @jax.jit
    def train(network):
        def step(carry, key):
            network, state = carry
            obs_key, key = jax.random.split(key)
            obs = jax.random.normal(obs_key, (BATCH, 1))
            goal = Goal(obs, q_function, jnp.float32(ALPHA))
            found = actor.loss_and_gradient(policy_of(network), network, key, goal)
            return descend(muon, found.gradient, network, state), found.values

        (network, _), values = jax.lax.scan(step, (network, muon.init(network)), jax.random.split(key, STEPS))
        means, log_stds = jax.vmap(network)(jnp.asarray(STATES, jnp.float32))
        return jax.vmap(space.to_action)(means), jnp.exp(log_stds) * space.scale[None], values

    key = jax.random.key(1)
    means, widths, values = train(actor.network(1, 2, key=jax.random.key(0, impl="unsafe_rbg")))
    width = np.sqrt(ALPHA / COST)
    np.testing.assert_array_less(np.abs(means - SLOPE * STATES) / width, 0.05)
    np.testing.assert_allclose(widths, np.broadcast_to(width, widths.shape), rtol=0.03)
    log_z = 0.5 * np.sum(np.log(2 * np.pi * ALPHA / COST))
    np.testing.assert_allclose(values[-20:] / ALPHA, log_z, atol=0.3)
    np.testing.assert_allclose(np.mean(values[-20:]) / ALPHA, log_z, atol=0.03)
