"""The pendulum in JAX against Gymnasium's, step by step."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from entroflow.envs import GymAdapter, PendulumEnv


def test_it_is_gymnasium_s():
    """A whole episode from the same state with the same actions, beyond the bounds too, ends at the same time."""
    expected, found = gymnasium.make("Pendulum-v1"), GymAdapter(PendulumEnv())
    expected.reset(seed=0)
    start, _ = found.reset(seed=0)
    other: Any = expected.unwrapped
    current: Any = found._current
    other.state = np.asarray(current.state, float)
    np.testing.assert_allclose(start, other._get_obs(), atol=1e-6)
    assert found.action_space == expected.action_space
    rng = np.random.default_rng(0)
    for time in range(1, 201):
        action = rng.uniform(-3, 3, 1).astype(np.float32)
        was, now = expected.step(action), found.step(action)
        np.testing.assert_allclose(now[0], was[0], atol=2e-5)  # single precision, of angles up to some hundred
        np.testing.assert_allclose(now[1], float(was[1]), atol=2e-4)
        assert now[2:4] == was[2:4] == (False, time == 200)
        current = found._current
        found._current = current._replace(state=jnp.asarray(other.state, jnp.float32))


def test_speed_is_bounded():
    """At 8, as Gymnasium has it."""
    made = PendulumEnv().transition(jax.random.key(0), jnp.array([1.5, 7.9]), jnp.array([2.0]))
    expected: Any = gymnasium.make("Pendulum-v1").unwrapped
    expected.reset(seed=0)
    expected.state = np.array([1.5, 7.9])
    expected.step(np.array([2.0], np.float32))
    np.testing.assert_allclose(made, expected.state, rtol=1e-6)
    assert made[1] == 8


def test_starts_are_uniform():
    """The angle over the circle, the speed in ±1, each by Kolmogorov–Smirnov, and they are independent."""
    angle, speed = np.asarray(jax.vmap(PendulumEnv().initial)(jax.random.split(jax.random.key(0), 2000))).T
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    assert stats.kstest(speed, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(angle, speed)[0, 1]) < 4 / np.sqrt(2000)
