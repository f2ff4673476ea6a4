"""The units in which the LQR job learns, found on the environment itself before learning begins.

A plant comes in newtons or kilonewtons, radians or degrees, euros or cents; networks start with numbers of order one.
Three measurements make them so, each rounded down to a power of two, so that a change of units by powers of two leaves
every bit of what is learned as it was:

    rewards     their average size while nothing is done,
    actions     component by component, the size at which a random action costs a given reward, on a logarithmic search,
    states      their deviations while random actions of that size are taken.

The optimum spends α/2 of reward on the randomness of each action, whatever the units: E[(a−μ)ᵀM(a−μ)] = αd/2. So
exploration begins at the size that costs α/2, and later follows the policy's own width (`rl/sac.py`).
"""

import dataclasses
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ...agents.units import power_of_two
from ...envs.functional import EnvState, FunctionalEnv, advance, reset, step
from ...flow import Unbounded
from ...moments import Moments
from ...rl import sac
from ...rl.critics import MLPCriticState

EPISODES = 256  # of each measurement
EXPONENTS = np.arange(-64, 65)  # of the sizes of actions searched, powers of two


class Units(NamedTuple):
    """What counts as one."""

    state: Float[np.ndarray, " n"]
    action: Float[np.ndarray, " d"]
    reward: float


def find(env: FunctionalEnv, discount: float) -> Units:
    """Return the units of an environment, one where nothing is to be measured."""
    idle = np.zeros(env.action_low.shape[0], np.float32)
    reward = float(power_of_two(np.mean(np.abs(_play(env, idle)[1]))))
    action = action_sizes(env, discount, reward)
    return Units(power_of_two(np.std(_play(env, action.astype(np.float32))[0], axis=(0, 1))), action, reward)


def action_sizes(env: FunctionalEnv, discount: float, cost: float) -> Float[np.ndarray, " d"]:
    """Return for each action the largest power of two at which it costs no more than given, taken once at random.

    The cost is what n + 1 rewards lose, for within n steps an action reaches every one of n states that it moves.
    """
    dearer = ~(np.asarray(_costs(env, jnp.float32(discount), jnp.asarray(2.0**EXPONENTS, jnp.float32))) <= cost)
    return np.where(dearer.any(axis=0), 2.0 ** (EXPONENTS[dearer.argmax(axis=0)] - 1), 1.0)


def restored(agent: sac.State, units: Units) -> sac.State:
    """Return an agent that has learned in these units as one that sees and acts in those of the environment."""
    state, action, reward = (jnp.asarray(unit, jnp.float32) for unit in units)
    space, critic = cast(Unbounded, agent.action_space), agent.critic
    kinds = {"obs_units": state, "action_units": action, "value_units": reward}
    critic = dataclasses.replace(critic, **{name: _times(getattr(critic, name), unit) for name, unit in kinds.items()})
    return dataclasses.replace(
        agent,
        action_space=Unbounded(space.size, space.center * action, space.scale * action),
        critic=critic,
        obs_units=_times(agent.obs_units, state),
        log_temperature=agent.log_temperature + jnp.log(reward),
    )


def counted(agent: sac.State, volume: float) -> sac.State:
    """Return an agent, in the units of its environment, whose values count the entropy there.

    Of actions whose unit has a volume other than one log π differs by the logarithm of that volume, and values by what
    this is worth from now on (V) or from the next step on (Q), at α each time.
    """
    critic, each = cast(MLPCriticState, agent.critic), agent.temperature * volume
    later, unit = agent.discount / (1 - agent.discount) * each, critic.value_units
    if critic.v is not None:
        critic = eqx.tree_at(
            lambda tree: tree.v.layers[-1].bias, critic, replace_fn=lambda bias: bias + each / unit.scale
        )
    return dataclasses.replace(
        agent, critic=dataclasses.replace(critic, value_units=Moments(unit.mean + later, unit.scale))
    )


@jax.jit
def _play(env: FunctionalEnv, sizes: Float[Array, " d"]) -> tuple[Float[Array, "t e n"], Float[Array, "t e"]]:
    """Return the states and rewards of episodes with normal actions of these sizes."""
    keys = jax.random.split(jax.random.key(0), 1 + env.time_limit)

    def one(states: EnvState, key: PRNGKeyArray) -> tuple[EnvState, tuple[Array, Array]]:
        action_key, step_key = jax.random.split(key)
        actions = sizes[None] * jax.random.normal(action_key, (EPISODES, *sizes.shape), jnp.float32)
        following, seen = jax.vmap(step, in_axes=(None, 0, 0, 0))(env, _split(step_key), states, actions)
        return following, (seen.next_obs, seen.reward)

    states = jax.vmap(reset, in_axes=(None, 0))(env, _split(keys[0]))
    return jax.lax.scan(one, states, keys[1:])[1]


@jax.jit
def _costs(env: FunctionalEnv, discount: Float[Array, ""], sizes: Float[Array, " k"]) -> Float[Array, "k d"]:
    """Return what one action of ± each size costs on average, against none on the same noise."""
    keys = jax.random.split(jax.random.key(1), 2 + env.obs_size)
    states = jax.vmap(reset, in_axes=(None, 0))(env, _split(keys[0]))
    later = jnp.zeros((env.obs_size, env.action_low.shape[0]), jnp.float32)

    def returns(action: Float[Array, " d"]) -> Float[Array, " e"]:
        def one(states: EnvState, inputs: tuple[PRNGKeyArray, Array]) -> tuple[EnvState, Array]:
            key, action = inputs
            following, seen = jax.vmap(advance, in_axes=(None, 0, 0, None))(env, _split(key), states, action)
            return following, seen.reward

        rewards = jax.lax.scan(one, states, (keys[1:], jnp.concatenate([action[None], later])))[1]
        return discount ** jnp.arange(len(rewards), dtype=rewards.dtype) @ rewards

    idle = returns(0 * later[0])
    cost = lambda action: jnp.mean(idle - (returns(action) + returns(-action)) / 2)  # noqa: E731
    return jax.lax.map(jax.vmap(cost), sizes[:, None, None] * jnp.eye(later.shape[1], dtype=jnp.float32)[None])


def _split(key: PRNGKeyArray) -> Key[Array, " e"]:
    return jax.random.split(key, EPISODES)


def _times(moments: Moments, unit: Float[Array, "*d"]) -> Moments:
    return Moments(moments.mean * unit, moments.scale * unit, moments.limit)
