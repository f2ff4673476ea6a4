"""The flow actor's loss: what stands beside the ISFM loss, which has tests of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box, RungeKutta, Unbounded
from entroflow.moments import standard
from entroflow.rl import Flow
from entroflow.rl.actors import Goal
from entroflow.rl.soft_bellman import pathwise_values

ALPHA, WEIGHT, STATES = jnp.float32(0.7), 0.6, 8
BOX = Box(jnp.float32([-1.0, 0.0]), jnp.float32([2.0, 5.0]))


def q_function(obs, action):
    return jnp.sum(jnp.sin(2 * action)) - 0.5 * jnp.sum((action - 0.3 * obs) ** 2)


def test_the_pathwise_term_has_its_weight():
    """With candidates that weigh nothing the loss is −c β/α times the mean of Q − α log π of one action per state."""
    sizes = {"width": 4, "depth": 1, "state_width": 4, "states": STATES, "candidates": 8}
    actor = Flow(**sizes, solver=RungeKutta("midpoint", 1), pathwise=WEIGHT, normalise=jnp.zeros_like, ess_floor=0.5)
    network = actor.network(2, 2, key=jax.random.key(0))
    policy = actor.policy(network, BOX, standard(2), ALPHA)
    obs = jax.random.normal(jax.random.key(1), (STATES, 2))

    @jax.jit
    def both(key):
        found = actor.loss_and_gradient(policy, network, key, Goal(obs, q_function, ALPHA))
        draw, own_key = policy.sample_and_solver_log_prob, jax.random.split(key, 4)[3]
        return found.loss, found.metrics["beta"], jnp.mean(pathwise_values(draw, own_key, obs, q_function, ALPHA))

    loss, beta, value = both(jax.random.key(2))
    assert 0.1 < beta < 0.95 and abs(value) > 0.1
    np.testing.assert_allclose(loss, -WEIGHT * beta / ALPHA * value, rtol=1e-4)


@pytest.mark.parametrize("offset", [-50.0, 0.0, 5.0])
def test_units_of_actions_do_not_hear_of_a_constant_in_q(offset):
    """The variance that they follow is that of the weighted candidates, whatever their weights sum to."""
    actor = Flow(width=4, depth=1, state_width=4, states=STATES, candidates=64, pathwise=0, normalise="raw")
    network, space = actor.network(2, 1, key=jax.random.key(0)), Unbounded(1)
    policy = actor.policy(network, space, standard(2), ALPHA)
    obs = jax.random.normal(jax.random.key(1), (STATES, 2))
    found = []
    for constant in (0.0, offset):
        q = lambda obs, action, more=constant: more - 0.5 * ALPHA * jnp.sum(action**2)  # noqa: E731
        goal = Goal(obs, q, ALPHA)
        step = eqx.filter_jit(actor.loss_and_gradient)(policy, network, jax.random.key(2), goal)
        found.append(step.variance)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert 0.8 < found[0][0] < 1.2  # of N(0, 1)
