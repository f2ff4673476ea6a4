"""The default critic: networks that stay the same function in new units, bounded far away, and followed by targets."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.moments import Moments, standard
from entroflow.rl import MLPCritic
from entroflow.rl.critics import MLP, Experience


def random_moments(seed, *shape):
    """Moments far from mean zero and scale one."""
    mean_key, scale_key = jax.random.split(jax.random.key(seed))
    return Moments(3.0 * jax.random.normal(mean_key, shape), jnp.exp(jax.random.normal(scale_key, shape)))


@pytest.mark.parametrize(("depth", "layer_norm"), [(1, False), (2, False), (2, True)])
def test_critic_is_the_same_function_in_new_units(depth, layer_norm):
    """Restored from its units, a critic has the same values before and after its inputs' and outputs' units change."""
    critic = MLP(3, width=8, depth=depth, layer_norm=layer_norm, key=jax.random.key(0))
    old, new, old_value, new_value = random_moments(1, 3), random_moments(2, 3), random_moments(3), random_moments(4)
    converted = critic.change_units((old, new), (old_value, new_value))

    def values(critic, inputs, outputs, x):
        return jax.vmap(lambda x: outputs.restore(critic(inputs.normalise(x))))(x)

    x = jax.vmap(old.restore)(jax.random.normal(jax.random.key(5), (20, 3)))
    before = values(critic, old, old_value, x)
    np.testing.assert_allclose(values(converted, new, new_value, x), before, rtol=1e-4, atol=1e-4)
    # The comparison can fail: without the conversion the function is another one.
    assert np.max(np.abs(values(critic, new, new_value, x) - before)) > 0.1


def test_layer_norm_bounds_the_value_far_away():
    """Normalised hidden layers have the length √width at most, so that |Q| ≤ |last weight| √width + |last bias|."""
    points = jax.random.normal(jax.random.key(6), (50, 3))
    for layer_norm in (True, False):
        critic = MLP(3, width=8, depth=2, layer_norm=layer_norm, key=jax.random.key(0))
        last = critic.layers[-1]
        assert last.bias is not None
        bound = float(jnp.linalg.norm(last.weight) * jnp.sqrt(8.0) + jnp.abs(last.bias[0]))
        near, far = (np.asarray(jax.vmap(critic)(factor * points)) for factor in (1e3, 1e6))
        assert (np.abs(far).max() < bound) == layer_norm
        assert np.allclose(near, far, rtol=1e-2, atol=1e-2) == layer_norm


UPDATES = 100
CRITIC = MLPCritic(width=3, depth=1, layer_norm=False, target_rate=0.16, final_target_rate=0.01, rate=0.05)


@pytest.mark.parametrize(
    ("updates", "step", "rate"), [(UPDATES, 50, 0.04), (UPDATES, 75, 0.02), (UPDATES, 100, 0.01), (None, 50, 0.16)]
)
def test_targets_follow_ever_more_slowly_in_a_planned_training(updates, step, rate):
    """The rate falls geometrically from `target_rate` to `final_target_rate`; without a plan it stays.

    Half way through, the units of a planned training are settled, so that parameters can be compared.
    """
    keys = jax.random.split(jax.random.key(0))
    sizes = {"obs_units": standard(2), "action_size": 1}
    state = CRITIC.init(keys, updates=updates, **sizes)
    state = eqx.tree_at(lambda state: state.q_target, state, CRITIC.init(keys[::-1], updates=updates, **sizes).q)
    # Data of mean zero and variance one leave the units alone even where they are not settled.
    signs = jnp.float32([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    parts = signs[:, :2], signs[:, 2:], signs[:, :2], None, lambda _: signs[:, 0], None, standard(2)
    update = jax.jit(lambda state, step: CRITIC.update(state, Experience(*parts, step, updates)))
    after, _ = update(state, jnp.float32(step))
    for old, new, online in zip(*map(jax.tree.leaves, (state.q_target, after.q_target, after.q)), strict=True):
        np.testing.assert_allclose(new - old, rate * (online - old), rtol=2e-2, atol=1e-6)
        assert np.abs(online - old).max() > 0.1
