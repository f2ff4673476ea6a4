"""The units in which learning begins where actions have no bounds, measured on the task itself as `entroflow lqr` does.

    actions         component by component, the largest size at which an action taken once at random costs at most α/2
    rewards         their average size while nothing is done
    observations    their deviations while random actions of that size are taken

The optimum spends α/2 of reward on the randomness of each action, whatever the units: E[(a−μ)ᵀM(a−μ)] = αd/2. All are
powers of two, so that the same is found in other units, too. The search goes up or down from one by twos: nothing is
tried that is larger than twice the size sought, or one.
"""

import operator
from collections.abc import Iterable

import equinox as eqx
import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import flatdim
from jaxtyping import ArrayLike, Float

from ..envs.episodes import Broken, reset, step
from ..flow import Unbounded
from ..rl import sac
from ..rl.critics import CrossQState, MLPCriticState
from .settings import Settings

EPISODES, STEPS = 8, 64  # of each measurement
LATER = 16  # steps, at most, within which an action has its effect
LARGEST = 64  # exponent of the sizes searched


def begin(agents: sac.State, env: gymnasium.Env, settings: Settings) -> sac.State:
    """Return agents that have learned nothing, in the units of a task; as they were where actions are bounded."""
    if not isinstance(agents.action_space, Unbounded):
        return agents
    times = settings.config.reward_scale
    action = action_sizes(env, settings.discount, settings.temperature / 2 / times)
    idle, obs, rewards = np.zeros((STEPS, action.size)), [], []
    for seed in range(EPISODES):
        obs += _play(env, seed, action * np.random.default_rng(seed).normal(size=idle.shape))[0]
        rewards += _play(env, seed, idle)[1]
    with np.errstate(all="ignore"):
        state, value = power_of_two(np.std(obs, axis=0)), power_of_two(times * np.mean(np.abs(rewards)))
    config, own = settings.config, not isinstance(agents.critic, MLPCriticState | CrossQState)
    found = {"action_space.scale": action, "critic.action_units.scale": action, "critic.value_units.scale": value}
    if config.normalise_obs:
        found |= {"obs_units.scale": state, "critic.obs_units.scale": state}
    if config.entropy_in_target and config.actor.has_density:
        # In other units entropy differs by a constant, whose discounted sum Q need not learn.
        horizon = settings.discount / (1 - settings.discount)
        found |= {"critic.value_units.mean": horizon * settings.temperature * np.sum(np.log(action))}
    names = [name for name in found if not (own and name.startswith("critic"))]
    leaves = lambda agents: [operator.attrgetter(name)(agents) for name in names]  # noqa: E731
    filled = [jnp.full_like(leaf, found[name]) for name, leaf in zip(names, leaves(agents), strict=True)]
    return eqx.tree_at(leaves, agents, filled)


def action_sizes(env: gymnasium.Env, discount: float, cost: float) -> Float[np.ndarray, " d"]:
    """Return for each action the largest power of two at which it costs no more than given, taken once at random.

    The cost is what n + 1 rewards lose, for within n steps an action reaches every one of n states that it moves.
    """
    size = int(np.prod(env.action_space.shape or ()))
    later = min(flatdim(env.observation_space), LATER) * [np.zeros(size)]

    def total(action: Float[np.ndarray, " d"]) -> float:
        """Return the average return of an action and none after it, the less the worse; on the same noise for all."""
        played = [_play(env, seed, [action, *later])[1] for seed in range(EPISODES)]
        return float(np.mean([discount ** np.arange(len(rewards)) @ rewards for rewards in played]))

    def cheap(action: Float[np.ndarray, " d"]) -> bool:
        try:
            return idle - (total(action) + total(-action)) / 2 <= cost
        except Broken:
            return False

    def largest(direction: Float[np.ndarray, " d"]) -> float:
        if cheap(direction):
            found = (k for k in range(LARGEST) if not cheap(2.0 ** (k + 1) * direction))
        else:
            found = (k for k in range(-1, -LARGEST, -1) if cheap(2.0**k * direction))
        return 2.0 ** next(found, 0)

    idle = total(np.zeros(size))
    return np.array([largest(direction) for direction in np.eye(size)])


def power_of_two(sizes: ArrayLike) -> Float[np.ndarray, "..."]:
    """Return the sizes rounded down, and one for those that are zero or not finite."""
    sizes = np.array(sizes, np.float64)
    known = np.isfinite(sizes) & (sizes > 0)
    return np.array(np.exp2(np.floor(np.log2(np.where(known, sizes, 1.0)))))


def _play(
    env: gymnasium.Env, seed: int, actions: Iterable[Float[np.ndarray, " d"]]
) -> tuple[list[Float[np.ndarray, " n"]], list[float]]:
    """Return the observations and rewards of an episode with given actions, as far as it goes."""
    obs, rewards = [reset(env, seed)], []
    for action in actions:
        seen, reward, *ended = step(env, action.astype(np.float32).reshape(env.action_space.shape or ()))
        obs.append(seen)
        rewards.append(reward)
        if any(ended):
            break
    return obs, rewards
