"""The soft Bellman equation (1): the signs of entropy, discount and termination, alone and in the critics' update."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box, Unbounded
from entroflow.moments import Moments
from entroflow.rl import Config, Flow, MLPCritic, sac
from entroflow.rl.soft_bellman import credible, soft_target, soft_value
from entroflow.types import Transition

CRITIC = MLPCritic(width=8, soft_value="network", improve_on="target", rate=0.05, target_rate=0.1)
CONFIG = Config(Flow(width=4, states=8), CRITIC, updates=100, batch_size=32)
GAMMA = 0.9


@pytest.fixture(scope="module")
def state():
    """A run before its first update, with value units that matter."""
    state = sac.init(
        CONFIG,
        jax.random.key(1),
        obs_size=3,
        action_space=Unbounded(2),
        temperature=jnp.float32(0.7),
        discount=jnp.float32(GAMMA),
    )
    critic = dataclasses.replace(state.critic, value_units=Moments(jnp.float32(4.0), jnp.float32(5.0)))
    return dataclasses.replace(state, critic=critic)


@pytest.fixture(scope="module")
def batch():
    """Transitions of which about a third each terminate, are truncated and go on."""
    keys = jax.random.split(jax.random.key(2), 5)
    size = CONFIG.batch_size
    end = jax.random.randint(keys[4], (size,), 0, 3)
    return Transition(
        obs=jax.random.normal(keys[0], (size, 3)),
        action=jax.random.normal(keys[1], (size, 2)),
        reward=3.0 * jax.random.normal(keys[2], (size,)),
        next_obs=jax.random.normal(keys[3], (size, 3)),
        terminated=end == 1,
        truncated=end == 2,
    )


@pytest.fixture(scope="module")
def evaluate_policy():
    """The compiled critics' update with known soft values; the network V draws no actions, so any key will do."""
    evaluate = jax.jit(sac.evaluate_policy, static_argnums=0)
    return lambda state, batch, *known: evaluate(CONFIG, state, batch, jax.random.key(0), known)


def test_soft_value_rewards_unlikely_actions():
    """Q − α log π: entropy adds to the value."""
    found = soft_value(jnp.float32([1.0, 1.0]), jnp.log(jnp.float32([0.5, 0.01])), 2.0)
    np.testing.assert_allclose(found, [1.0 + 2.0 * np.log(2.0), 1.0 + 2.0 * np.log(100.0)], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_only_log_densities_that_can_be_true_are_heard_of(scale):
    """Within 30 nats a component, in any units of the actions; beyond them no gradient passes."""
    low = scale * jnp.float32([-1.0, 2.0])
    box, uniform = Box(low, low + 2 * scale), -2 * np.log(scale)  # of half-widths
    told = jnp.float32(uniform + np.array([-1e6, -61.0, -59.0, 0.0, 59.0, 61.0, 1e6]))
    expected = uniform + np.array([-60.0, -60.0, -59.0, 0.0, 59.0, 60.0, 60.0])
    np.testing.assert_allclose(credible(told, box), expected, atol=2e-5)
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda x: credible(x, box)))(told), [0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(credible(told, Unbounded(2, scale=scale)), expected, atol=2e-5)


def test_soft_target_ends_at_termination_only():
    """r + γ V(s') where the return goes on, r where it terminated."""
    found = soft_target(jnp.float32([1.0, 1.0]), 0.9, jnp.float32([0.0, 1.0]), jnp.float32([10.0, 10.0]))
    np.testing.assert_allclose(found, [10.0, 1.0], rtol=1e-6)


def test_critics_regress_on_the_soft_bellman_target(state, batch, evaluate_policy):
    """The critics' error before the step is that to r + γ (1 − terminated) V(s'), truncated transitions included."""
    obs, values = batch.next_obs[:8], jnp.zeros(8)
    _, metrics = evaluate_policy(state, batch, obs, values)
    next_values = jax.vmap(lambda obs: CRITIC.v(state.critic, obs))(batch.next_obs)
    terminated = np.asarray(batch.terminated)
    assert terminated.any() and np.asarray(batch.truncated).any() and not (terminated | batch.truncated).all()
    target = np.where(terminated, batch.reward, batch.reward + GAMMA * next_values)

    def error(i):
        alone = dataclasses.replace(state.critic, q=jax.tree.map(lambda leaf: leaf[i : i + 1], state.critic.q))
        online = dataclasses.replace(CRITIC, improve_on="online")
        q = jax.vmap(lambda obs, action: online.policy_q(alone, obs, action))(batch.obs, batch.action)
        return np.mean((q - target) ** 2)

    np.testing.assert_allclose(metrics["critic_error"], np.sqrt(np.mean([error(0), error(1)])), rtol=1e-4)


def test_truncation_does_not_touch_the_critics(state, batch, evaluate_policy):
    """A time limit does not end the return: the flag changes no bit of the update; termination does."""
    obs, values = batch.next_obs[:8], jnp.ones(8)
    found = evaluate_policy(state, batch, obs, values)
    flipped = evaluate_policy(state, batch._replace(truncated=~batch.truncated), obs, values)
    jax.tree.map(np.testing.assert_array_equal, found, flipped)
    other = evaluate_policy(state, batch._replace(terminated=~batch.terminated), obs, values)
    assert abs(other[1]["critic_error"] - found[1]["critic_error"]) > 0.1


def test_update_moves_each_critic_toward_its_target(state, batch, evaluate_policy):
    """Repeated on one batch that terminates, Q approaches the rewards and V the given soft values."""
    rewards = 3.0 * batch.obs[:, 0] - 2.0 * batch.action[:, 1]
    batch = batch._replace(reward=rewards, terminated=jnp.ones_like(batch.terminated))
    obs = batch.next_obs[:8]
    values = 10.0 + obs[:, 0]
    start = state
    for step in range(60):
        state, _ = evaluate_policy(dataclasses.replace(state, step=jnp.float32(step)), batch, obs, values)

    def errors(state):
        v = jax.vmap(lambda obs: CRITIC.v(state.critic, obs))(obs)
        q = jax.vmap(lambda obs, action: sac.q_value(CONFIG, state, obs, action))(batch.obs, batch.action)
        return np.array([np.mean((v - values) ** 2), np.mean((q - batch.reward) ** 2)])

    assert (errors(state) < 0.2 * errors(start)).all()


def test_value_of_the_ensemble_is_that_of_the_targets(state):
    """Q(s, a) is the mean or the minimum of the target critics (not the online ones), in the units of the return."""
    obs, action = jnp.float32([0.3, -0.2, 0.9]), jnp.float32([0.5, -1.0])
    network = lambda i: jax.tree.map(lambda leaf: leaf[i], state.critic.q_target)  # noqa: E731
    each = [4.0 + 5.0 * float(network(i)(jnp.concatenate([obs, action]))) for i in range(2)]
    assert abs(each[0] - each[1]) > 1e-2
    blank = dataclasses.replace(state.critic, q=jax.tree.map(jnp.zeros_like, state.critic.q))
    state = dataclasses.replace(state, critic=blank)
    for name, expected in {"mean": np.mean(each), "min": np.min(each)}.items():
        config = dataclasses.replace(CONFIG, critic=dataclasses.replace(CRITIC, ensemble=name))
        np.testing.assert_allclose(sac.q_value(config, state, obs, action), expected, rtol=1e-5)
