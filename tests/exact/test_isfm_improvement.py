"""`improve` with gradient steps that are known: the average that it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import FitConfig, improve, improvement


def test_the_average_of_a_fit(monkeypatch):
    """With parameters that grow by one in every step, it goes a share of 1/(1 + A n) of the way at step n."""
    longer = lambda optimiser, gradient, model, state: (jax.tree.map(lambda leaf: leaf + 1, model), state)  # noqa: E731
    monkeypatch.setattr(improvement.optimise, "descend", longer)
    network = VelocityNetwork(1, 1, width=2, depth=1, key=jax.random.key(0))
    policy = FlowPolicy(network, Unbounded(1), solver=RungeKutta("euler", 1))
    config = FitConfig(steps=6, candidates=2, pairs=1, average=0.4)
    q_function = lambda obs, action: -jnp.sum(action**2)  # noqa: E731
    found, _ = improve(config, policy, jax.random.key(1), lambda _: jnp.zeros((1, 1)), q_function, 1.0)
    expected = 0.0
    for n in range(6):
        expected += (n + 1 - expected) / (1 + 0.4 * n)
    for new, old in zip(*map(jax.tree.leaves, (found.velocity, network)), strict=True):
        np.testing.assert_allclose(new - old, np.full(old.shape, expected), atol=1e-5)


def test_a_temperature_is_positive():
    """Where it is known; compiled programs take any."""
    policy = FlowPolicy(VelocityNetwork(1, 1, width=2, depth=1, key=jax.random.key(0)), Unbounded(1))
    q_function = lambda obs, action: -jnp.sum(action**2)  # noqa: E731
    with pytest.raises(ValueError, match="temperature: got -1.0"):
        improve(FitConfig(steps=1), policy, jax.random.key(1), lambda _: jnp.zeros((1, 1)), q_function, -1.0)
