"""The control problems: steps by hand, walls, symmetry, and disturbances."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.envs import DeadBand, DoubleWell, SwingUp, reset, step

CASES = [
    (DoubleWell(), [0.5], [1.0], [0.5], [0.5 + 0.1 * (0.5 - 0.125) + 0.5 + 0.05], -((0.25 - 1) ** 2) - 0.5),
    (DoubleWell(), [1.9], [9.0], [0.0], [2.0], -((1.9**2 - 1) ** 2) - 2.0),
    (SwingUp(), [np.pi / 2, 1.0], [0.25], [1.0], None, -0.25 * (1 + 0.1 + 0.00625)),
    (DeadBand(), [1.0, 0.5], [-0.9], [1.0], [1.0 + 0.4 * 0.6, 0.6], -0.4 * (1 + 0.0625 + 0.405)),
    (DeadBand(), [0.0, 0.0], [1.5], [0.0], [0.4 * 0.2, 0.2], -0.4 * 1.125),
]


@pytest.mark.parametrize(("env", "state", "action", "noise", "following", "reward"), CASES)
def test_a_step_by_hand(env, state, action, noise, following, reward):
    """The next state and the reward, as the docstrings have them."""
    state, action, noise = (jnp.asarray(part, jnp.float32) for part in (state, action, noise))
    if following is None:
        speed = 1 + 0.25 * (1 + 0.25 - 0.05) + 0.05
        following = [np.pi / 2 + 0.25 * speed, speed]
    np.testing.assert_allclose(env.move(state, action, noise), following, rtol=1e-5, atol=1e-6)
    assert float(env.reward(state, action, state)) == pytest.approx(reward, rel=1e-5)
    np.testing.assert_allclose(env.state_of(env.observation(state)), state, rtol=1e-5)


@pytest.mark.parametrize("env", [DoubleWell(), SwingUp(), DeadBand()], ids=lambda env: type(env).__name__)
def test_left_is_right_and_a_disturbance_is_an_input(env, key):
    """Mirrored states, actions and noise lead to mirrored states; what is pushed goes as if the input were larger."""
    state = jax.vmap(env.initial)(jax.random.split(key, 50)) * 0.5
    action, noise = 0.3 * env.action_high, jnp.array([0.7])
    move = lambda env, s, a, w: jax.vmap(env.move, (0, None, None))(s, a, w)  # noqa: E731
    np.testing.assert_allclose(move(env, -state, -action, -noise), -move(env, state, action, noise), atol=1e-6)
    pushed = eqx.tree_at(lambda env: env.disturbance, env, action)
    np.testing.assert_allclose(move(pushed, state, action, noise), move(env, state, 2 * action, noise), atol=1e-6)
    over = eqx.tree_at(lambda env: env.disturbance, env, env.action_high)
    assert np.abs(move(over, state, env.action_high, noise) - move(env, state, 2 * env.action_high, noise)).max() > 0.01


def test_noise_and_episodes(key):
    """Transitions have the noise that is promised, to 4 standard errors; episodes end at the time limit alone."""
    env = DeadBand()
    keys = jax.random.split(key, 4000)
    speeds = jax.vmap(lambda key: env.transition(key, jnp.zeros(2), jnp.zeros(1)))(keys)[:, 1]
    assert float(speeds.std()) == pytest.approx(0.1, rel=4 / np.sqrt(8000))
    current, ends = reset(env, key), []
    for i in range(21):
        current, transition = jax.jit(step)(env, keys[i], current, jnp.zeros(1))
        ends.append((bool(transition.terminated), bool(transition.truncated)))
    assert ends == [(False, False)] * 19 + [(False, True), (False, False)]
