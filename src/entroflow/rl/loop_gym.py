"""Training on Gymnasium environments: the compiled parts, for several runs of one task side by side.

Every array has a leading axis of runs, which differ in their seeds. The environments are stepped by the caller, between
`act` and `learn`; replay, batches and updates stay on the device.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key, PRNGKeyArray

from ..compiling import RUN_OFTEN, RUN_ONCE, jit
from ..flow import Box
from ..types import Transition
from . import buffer, sac
from .finite import watch

T = TypeVar("T")

Metrics = dict[str, Float[Array, " runs"]]


class Loop(eqx.Module):
    """What learning reads and writes; leaves have a leading axis of runs, except for `count`.

    Attributes:
        agent: states of soft actor-critic.
        replay: transitions, (runs, capacity, ...).
        key: one random key per run.
        count: number of transitions that each run has seen.
        fault: what was the first to be not finite in each run (see `guard`); zero if all is well.
    """

    agent: sac.State
    replay: Transition
    key: Key[Array, " runs"]
    count: Int[Array, ""]
    fault: Int[Array, " runs"]


@jit(RUN_ONCE, static_argnames=("obs_size", "action_size", "capacity"))
def start(agents: sac.State, key: Key[Array, " runs"], *, obs_size: int, action_size: int, capacity: int) -> Loop:
    """Return runs that have made no step.

    Args:
        agents: states of soft actor-critic, leaves of shape (runs, ...).
        key: random keys, shape (runs,).
        obs_size: number of components n of an observation.
        action_size: number of components d of an action.
        capacity: number of transitions that each run keeps, a multiple of its number of environments.

    Returns:
        Where the runs stand.
    """
    number, flag = jnp.zeros(()), jnp.zeros((), bool)
    example = Transition(jnp.zeros(obs_size), jnp.zeros(action_size), number, jnp.zeros(obs_size), flag, flag)
    replay = jax.vmap(lambda _: buffer.empty(example, capacity))(key)
    return Loop(agents, replay, key, jnp.int32(0), jnp.zeros(key.shape, jnp.int32))


@jit(RUN_OFTEN, static_argnames=("config", "explore"))
def act(
    config: sac.Config,
    agent: sac.State,
    obs: Float[Array, "runs e n"],
    key: Key[Array, " runs"],
    step: Int[ArrayLike, ""],
    *,
    explore: bool,
) -> Float[Array, "runs e d"]:
    """Draw an action for every environment.

    Args:
        config: settings.
        agent: states of soft actor-critic.
        obs: observations, shape (runs, environments, n).
        key: random keys, shape (runs,); each step uses keys of its own derived from them.
        step: number of the step.
        explore: whether to draw uniformly from the box of actions, if there is one, instead of from the policy.

    Returns:
        Actions, shape (runs, environments, d).
    """

    def one(agent: sac.State, obs: Float[Array, "e n"], key: PRNGKeyArray) -> Float[Array, "e d"]:
        space, keys = agent.action_space, jax.random.split(jax.random.fold_in(key, step), obs.shape[0])
        if explore and isinstance(space, Box):
            shares = jax.vmap(lambda key: jax.random.uniform(key, (space.size,)))(keys)
            return jax.vmap(lambda share: space.low + share * (space.high - space.low))(shares)
        return jax.vmap(sac.policy(config, agent).sample)(keys, obs)

    return _for_every_run(one)(agent, obs, key)


@jit(RUN_OFTEN, static_argnames=("config", "candidates"))
def act_well(
    config: sac.Config,
    agent: sac.State,
    obs: Float[Array, "runs e n"],
    key: Key[Array, " runs"],
    step: Int[ArrayLike, ""],
    *,
    candidates: int,
) -> Float[Array, "runs e d"]:
    """Choose the best by Q of a number of actions of the averaged policy for every environment, as `act` otherwise."""

    def one(agent: sac.State, obs: Float[Array, "e n"], key: PRNGKeyArray) -> Float[Array, "e d"]:
        keys = jax.random.split(jax.random.fold_in(key, step), obs.shape[0])
        return jax.vmap(lambda key, obs: sac.best_of(config, agent, key, obs, candidates))(keys, obs)

    return _for_every_run(one)(agent, obs, key)


@jit(RUN_OFTEN, donate_argnames=("loop",))
def remember(loop: Loop, transitions: Transition) -> Loop:
    """Add one transition of every environment, leaves of shape (runs, environments, ...), and learn nothing."""
    return _add(loop, transitions)


@jit(RUN_OFTEN, static_argnames=("config", "improve"), donate_argnames=("loop",))
def learn(config: sac.Config, loop: Loop, transitions: Transition | None, *, improve: bool) -> tuple[Loop, Metrics]:
    """Add one transition of every environment, then make one update of every run.

    Args:
        config: settings.
        loop: where the runs stand; its memory is used again.
        transitions: leaves of shape (runs, environments, ...); None to make a further update on what is known.
        improve: whether the update improves the policy, too.

    Returns:
        Where the runs stand afterwards, and the metrics, of shape (runs,).
    """
    if transitions is not None:
        loop = _add(loop, transitions)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(loop.key)

    def one(agent: sac.State, replay: Transition, keys: Key[Array, " 3"], fault: Int[Array, ""]):
        batch = buffer.sample(replay, keys[1], loop.count, config.batch_size, recent=config.recent)
        agent, metrics = sac.update(config, agent, batch, keys[2], improve=improve)
        return agent, watch(agent, metrics, fault), metrics

    agent, fault, metrics = _for_every_run(one)(loop.agent, loop.replay, keys, loop.fault)
    return Loop(agent, loop.replay, keys[:, 0], loop.count, fault), metrics


def _for_every_run(function: Callable[..., T]) -> Callable[..., T]:
    """Map a function over the runs. One run alone is not batched: its program is up to twice as fast."""

    def mapped(*arguments: Any) -> T:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function)(*arguments)
        return jax.tree.map(
            lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[1:]), arguments))
        )

    return mapped


def _add(loop: Loop, transitions: Transition) -> Loop:
    replay = jax.vmap(buffer.add, in_axes=(0, 0, None))(loop.replay, transitions, loop.count)
    return Loop(loop.agent, replay, loop.key, loop.count + transitions.reward.shape[1], loop.fault)
