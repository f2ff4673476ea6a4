"""Training on Gymnasium environments, several runs of one task side by side: the roll-out, and the compiled parts.

Every array has a leading axis of runs, which differ in their seeds. `Rollout` steps the environments, between `act` and
`learn`; replay, batches and updates stay on the device. Each step uses keys of its own, derived from those of the runs.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, ArrayLike, Float, Int, Key, PRNGKeyArray

from ..compiling import RUN_OFTEN, RUN_ONCE, jit
from ..devices import mesh_of
from ..envs import episodes
from ..flow import Box
from ..kept import kept
from ..staging import Ready, in_advance
from ..types import Transition
from . import buffer, sac
from .finite import watch

T = TypeVar("T")

Metrics = dict[str, Float[Array, " runs"]]


class Loop(eqx.Module):
    """What learning reads and writes; leaves have a leading axis of runs, except for the number of transitions seen.

    `fault` is what was the first to be not finite in each run (see `finite.watch`); zero if all is well.
    """

    agent: sac.State
    replay: Transition
    key: Key[Array, " runs"]
    count: Int[Array, ""]
    fault: Int[Array, " runs"]


class Rollout:
    """Environments that step together, those of every run side by side, and what is told of their episodes.

    Args:
        envs: environments of flat observations, those of the first run first.
        runs: number of runs.

    Attributes:
        running: whether all environments are inside of episodes; otherwise `begin` comes next.
        obs: what the environments show now, shape (runs, environments, n), float32.
        returns: return of every running episode so far, undiscounted, shape (runs environments,).
        lengths: its number of steps.
        ended: return and length of the episodes that have ended, for each run.
    """

    def __init__(self, envs: Sequence[gymnasium.Env], runs: int):
        self.envs, self.runs, self.running = envs, runs, False
        self.ended: list[list[tuple[float, int]]] = [[] for _ in range(runs)]

    def begin(self, seeds: Sequence[int]) -> None:
        """Begin new episodes, with a seed for every environment."""
        self.obs = self._grouped([episodes.reset(env, seed) for env, seed in zip(self.envs, seeds, strict=True)])
        self.returns, self.lengths = np.zeros(len(self.envs)), np.zeros(len(self.envs), int)
        self.running = True

    def step(self, actions: Float[np.ndarray, "runs e d"]) -> Transition:
        """Take one step in every environment; where an episode ends, the next one begins.

        The transitions have leaves of shape (runs, environments, ...), numbers as float32; `next_obs` is the last
        observation of an episode that ended.
        """
        shape = self.envs[0].action_space.shape or ()
        self.running = False  # until all have made their step
        made = list(map(episodes.step, self.envs, actions.reshape(-1, *shape)))
        obs, following = self.obs, [final for final, *_ in made]
        for i, (_, reward, terminated, truncated) in enumerate(made):
            self.returns[i] += reward
            self.lengths[i] += 1
            if terminated or truncated:
                self.ended[i * self.runs // len(made)].append((float(self.returns[i]), int(self.lengths[i])))
                self.returns[i], self.lengths[i] = 0.0, 0
                following[i] = episodes.reset(self.envs[i])
        self.obs, self.running = self._grouped(following), True
        final, reward, *flags = map(self._grouped, zip(*made, strict=True))
        with np.errstate(over="ignore"):
            parts: list[Any] = [obs, actions, reward.astype(np.float32), final, *flags]  # `learn` makes them JAX's
        return Transition(*parts)

    def _grouped(self, rows: Sequence[Any]) -> np.ndarray:
        return np.reshape(rows, (self.runs, -1, *np.shape(rows[0])))


@jit(RUN_ONCE, static_argnames=("obs_size", "action_size", "capacity"))
def start(agents: sac.State, key: Key[Array, " runs"], *, obs_size: int, action_size: int, capacity: int) -> Loop:
    """Return runs that have made no step."""
    number, flag = jnp.zeros(()), jnp.zeros((), bool)
    example = Transition(jnp.zeros(obs_size), jnp.zeros(action_size), number, jnp.zeros(obs_size), flag, flag)
    replay = for_every_run(lambda _: buffer.empty(example, capacity))(key)
    return Loop(agents, replay, key, jnp.int32(0), jnp.zeros(key.shape, jnp.int32))


def act(
    config: sac.Config,
    agent: sac.State,
    obs: Float[Array | np.ndarray, "runs e n"],
    key: Key[Array, " runs"],
    step: Int[ArrayLike, ""],
    *,
    explore: bool,
) -> Float[Array, "runs e d"]:
    """Draw an action for every environment, uniformly in the box, if there is one, to `explore`."""
    if explore and isinstance(agent.action_space, Box):
        return _explore(agent.action_space, key, step, environments=obs.shape[1])
    return _act(config, agent, obs, key, step)


@jit(RUN_OFTEN, static_argnames=("config",))
def _act(
    config: sac.Config,
    agent: sac.State,
    obs: Float[Array | np.ndarray, "runs e n"],
    key: Key[Array, " runs"],
    step: Any,
) -> Float[Array, "runs e d"]:
    def one(agent: sac.State, obs: Float[Array, "e n"], key: PRNGKeyArray) -> Float[Array, "e d"]:
        keys = jax.random.split(jax.random.fold_in(key, step), obs.shape[0])
        return jax.vmap(sac.policy(config, agent).sample)(keys, obs)

    return for_every_run(one)(agent, obs, key)


@jit(RUN_OFTEN, static_argnames=("environments",))
def _explore(space: Box, key: Key[Array, " runs"], step: Any, *, environments: int) -> Float[Array, "runs e d"]:
    """Without the agent, which takes longer to take apart than an action."""

    def one(space: Box, key: PRNGKeyArray) -> Float[Array, "e d"]:
        keys = jax.random.split(jax.random.fold_in(key, step), environments)
        return jax.vmap(functools.partial(uniform, space))(keys)

    return for_every_run(one)(space, key)


def best_of(
    config: sac.Config, state: sac.State, key: PRNGKeyArray, obs: Float[Array, " n"], candidates: int
) -> Float[Array, " d"]:
    """Return the best by Q of a number of actions that the averaged policy draws.

    Args:
        config: settings.
        state: state of one run.
        key: random key.
        obs: observation s, shape (n,).
        candidates: number M of actions to choose from; of one, it is a draw of the policy.

    Returns:
        The action, shape (d,).
    """
    pi = sac.policy(config, state, average=True)
    actions = jax.vmap(pi.sample, in_axes=(0, None))(jax.random.split(key, candidates), obs)
    if candidates == 1:
        return actions[0]
    values = jax.vmap(functools.partial(sac.q_value, config, state), in_axes=(None, 0))(obs, actions)
    return actions[jnp.argmax(values)]


def act_well(
    config: sac.Config,
    agent: sac.State,
    obs: Float[Array | np.ndarray, "runs e n"],
    key: Key[Array, " runs"],
    step: Int[ArrayLike, ""],
    *,
    candidates: int,
) -> Float[Array, "runs e d"]:
    """Choose the best by Q of a number of actions of the averaged policy for every environment.

    What the parameters alone determine is computed once for an agent, and kept as long as it is there.
    """
    asked = id(agent), config, candidates
    if asked not in _READY:
        _READY[asked] = _prepare(config, agent, key, candidates=candidates)
        weakref.finalize(agent, _READY.pop, asked, None)
    return _act_well(_READY[asked], obs, key, step)


_READY: dict[tuple[int, sac.Config, int], Ready] = {}


@jit(RUN_ONCE, static_argnames=("config", "candidates"))
def _prepare(config: sac.Config, agent: sac.State, key: Key[Array, " runs"], *, candidates: int) -> Ready:
    def one(agent: sac.State, key: PRNGKeyArray) -> Ready:
        choose = lambda agent, key, obs: best_of(config, agent, key, obs, candidates)  # noqa: E731
        return in_advance(choose, agent, key, agent.obs_units.mean)

    return for_every_run(one)(agent, key)


@jit(RUN_OFTEN, wide=True)
def _act_well(
    choose: Ready, obs: Float[Array | np.ndarray, "runs e n"], key: Key[Array, " runs"], step: Int[ArrayLike, ""]
) -> Float[Array, "runs e d"]:
    def one(choose: Ready, obs: Float[Array, "e n"], key: PRNGKeyArray) -> Float[Array, "e d"]:
        keys = jax.random.split(jax.random.fold_in(key, step), obs.shape[0])
        return jax.vmap(choose)(keys, obs)

    return for_every_run(one)(choose, obs, key)


def remember(loop: Loop, transitions: Transition) -> Loop:
    """Add one transition of every environment, and learn nothing."""
    replay, count = _remember(loop.replay, transitions, loop.count)
    return Loop(loop.agent, replay, loop.key, count, loop.fault)


@jit(RUN_OFTEN, static_argnames=("config", "update_policy"), donate_argnames=("loop",))
@kept
def learn(
    config: sac.Config, loop: Loop, transitions: Transition | None, *, update_policy: bool
) -> tuple[Loop, Metrics]:
    """Add one transition of every environment, then make one update of every run; without transitions on what is known.

    The metrics have the shape (runs,).
    """
    replay, count = loop.replay, loop.count
    if transitions is not None:
        replay, count = _add(replay, transitions, count)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(loop.key)

    def one(agent: sac.State, replay: Transition, keys: Key[Array, " 3"], fault: Int[Array, ""]):
        batch = buffer.sample(replay, keys[1], count, config.batch_size, recent=config.recent)
        agent, metrics = sac.update(config, agent, batch, keys[2], update_policy=update_policy)
        return agent, watch(agent, metrics, fault), metrics

    agent, fault, metrics = for_every_run(one)(loop.agent, replay, keys, loop.fault)
    return Loop(agent, replay, keys[:, 0], count, fault), metrics


def uniform(space: Box, key: PRNGKeyArray) -> Float[Array, " d"]:
    """Draw an action anywhere in its box."""
    return space.low + jax.random.uniform(key, (space.size,)) * (space.high - space.low)


def for_every_run(function: Callable[..., T]) -> Callable[..., T]:
    """Map a function over the leading axis, the runs, of its arguments and results, divided among the devices.

    One run alone is not batched: its program is up to twice as fast.
    """

    def mapped(*arguments: Any) -> T:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function)(*arguments)
        return jax.tree.map(
            lambda leaf: leaf[None], function(*jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[1:]), arguments))
        )

    def divided(*arguments: Any) -> T:
        mesh = mesh_of(jax.tree.leaves(arguments)[0].shape[0])
        if mesh.size == 1:
            return mapped(*arguments)
        return jax.shard_map(mapped, mesh=mesh, in_specs=P("runs"), out_specs=P("runs"), check_vma=False)(*arguments)

    return divided


def _add(replay: Transition, transitions: Transition, count: Int[Array, ""]) -> tuple[Transition, Int[Array, ""]]:
    added = jax.vmap(buffer.add, in_axes=(0, 0, None))(replay, transitions, count)
    return added, count + transitions.reward.shape[1]


_remember = jit(RUN_OFTEN, donate_argnames=("replay",))(_add)
