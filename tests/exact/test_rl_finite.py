"""The watch finds a single number that is not finite, wherever it is, and says where."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box
from entroflow.rl import Config, Gaussian, MLPCritic, finite, sac

CONFIG = Config(Gaussian(width=3, depth=1), MLPCritic(width=3, depth=1))
METRICS = {"q": jnp.float32(1.0), "entropy": jnp.float32(-2.0)}
FINE = jnp.int32(0)


@pytest.fixture(scope="module")
def agent():
    """A small agent that is well."""
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.9)}
    space = Box(np.array([-1.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32))
    return sac.init(CONFIG, jax.random.key(0), obs_size=3, action_space=space, **numbers)


def spoil(tree, numbers):
    """The same tree with some numbers in place of the first ones of its last leaf that has room for them."""
    leaves, structure = jax.tree.flatten(tree)
    i = max(i for i, leaf in enumerate(leaves) if leaf.size >= len(numbers))
    flat = leaves[i].reshape(-1).at[: len(numbers)].set(jnp.array(numbers))
    return structure.unflatten([*leaves[:i], flat.reshape(leaves[i].shape), *leaves[i + 1 :]])


def test_what_is_finite_is_left_alone(agent):
    """Nothing is found; numbers as large as parameters never are do not count as infinite."""
    assert int(finite.watch(agent, METRICS, FINE)) == 0
    assert int(finite.watch(dataclasses.replace(agent, critic=spoil(agent.critic, [1e30, -1e30])), METRICS, FINE)) == 0


@pytest.mark.parametrize("numbers", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf]], ids=str)
@pytest.mark.parametrize("part", finite.WATCHED)
def test_the_part_is_named(agent, part, numbers):
    """One number is enough in every part, and opposite infinities do not cancel."""
    tree = getattr(agent, part)
    if max(leaf.size for leaf in jax.tree.leaves(tree)) < len(numbers):
        numbers = numbers[:1]
    fault = finite.watch(dataclasses.replace(agent, **{part: spoil(tree, numbers)}), METRICS, FINE)
    assert finite.describe(int(fault), METRICS) == f"{part} of the agent"


def test_metrics_come_first_and_the_first_fault_stays(agent):
    """A loss that is not finite explains parameters that are not; later faults do not hide the first."""
    metrics = METRICS | {"q": jnp.float32(np.nan)}
    spoilt = dataclasses.replace(agent, actor=spoil(agent.actor, [np.nan]))
    assert finite.describe(int(finite.watch(spoilt, metrics, FINE)), metrics) == "q"
    first = finite.watch(spoilt, METRICS, FINE)
    assert int(finite.watch(agent, metrics, first)) == int(first)
