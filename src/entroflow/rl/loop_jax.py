"""Training on environments in pure JAX: rollout, replay and updates compiled together, many runs in one program."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from ..envs.functional import EnvState, FunctionalEnv, reset, step
from ..types import Transition
from . import buffer, sac

BLOCK = 16  # transitions of different environments that are drawn from the replay together

Metrics = dict[str, Float[Array, " runs"]]


class Loop(eqx.Module):
    """Everything that continuing needs; leaves have a leading axis of runs, except for the transitions' number."""

    agent: sac.State
    envs: EnvState
    replay: Transition
    key: Key[Array, " runs"]
    count: Int[Array, ""]


def start(
    env: FunctionalEnv,
    agents: sac.State,
    key: Key[Array, " runs"],
    *,
    environments: int,
    capacity: int,
) -> Loop:
    """Prepare runs that have made no step: environments at random points of their episodes, empty buffers."""

    def one(key: PRNGKeyArray) -> EnvState:
        state_key, time_key = jax.random.split(key)
        states = jax.vmap(reset, in_axes=(None, 0))(env, jax.random.split(state_key, environments))
        # Episodes end at different times, so that every batch holds all their phases.
        return EnvState(states.state, jax.random.randint(time_key, (environments,), 0, env.time_limit, jnp.int32))

    keys = jax.vmap(jax.random.split)(key)
    envs = jax.vmap(one)(keys[:, 0])
    example = jax.eval_shape(
        step, env, keys[0, 0], jax.tree.map(lambda leaf: leaf[0, 0], envs), jnp.zeros(env.action_low.shape)
    )[1]
    replay = jax.vmap(lambda _: buffer.empty(example, capacity))(key)
    return Loop(agents, envs, replay, keys[:, 1], jnp.int32(0))


def advance(
    config: sac.Config,
    env: FunctionalEnv,
    loop: Loop,
    noise_scales: Float[Array, "*runs e"],
    iterations: Int[Array, ""],
) -> tuple[Loop, Metrics]:
    """Make a number of iterations, at least one: one step of every environment, one update of every agent.

    Args:
        config: settings.
        env: the environment.
        loop: where the runs stand.
        noise_scales: noise scale of the policy that acts in each environment, of each run or of all; above one explores
            more widely than the policy, which the critic, trained off-policy, may learn from.
        iterations: their number, as an array, so that one program serves every number.

    Returns:
        Where the runs stand, and the metrics averaged over the iterations, of shape (runs,); of a run whose loss was
        not finite, those up to the first such iteration, whose number from 0 "broke" is (−1: none).
    """
    environments = noise_scales.shape[-1]
    block = math.gcd(BLOCK, environments, config.batch_size)

    def act(
        agent: sac.State, envs: EnvState, key: PRNGKeyArray, noise_scales: Float[Array, " e"]
    ) -> tuple[EnvState, Transition]:
        pi = sac.policy(config, agent)

        def one(key: PRNGKeyArray, state: EnvState, noise_scale: Float[Array, ""]) -> tuple[EnvState, Transition]:
            action_key, step_key = jax.random.split(key)
            action = pi.sample(action_key, env.observation(state.state), noise_scale)
            return step(env, step_key, state, action)

        return jax.vmap(one)(jax.random.split(key, environments), envs, noise_scales)

    def learn(agent: sac.State, replay: Transition, key: PRNGKeyArray, count: Int[Array, ""]):
        batch_key, update_key = jax.random.split(key)
        batch = buffer.sample(replay, batch_key, count, config.batch_size, recent=config.recent, block=block)
        return sac.update(config, agent, batch, update_key)

    def iteration(loop: Loop) -> tuple[Loop, Metrics]:
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(loop.key)
        acting = jax.vmap(act, in_axes=(0, 0, 0, None if noise_scales.ndim == 1 else 0))
        envs, transitions = acting(loop.agent, loop.envs, keys[:, 0], noise_scales)
        replay = jax.vmap(buffer.add, in_axes=(0, 0, None))(loop.replay, transitions, loop.count)
        count = loop.count + environments
        agent, metrics = jax.vmap(learn, in_axes=(0, 0, 0, None))(loop.agent, replay, keys[:, 1], count)
        return Loop(agent, envs, replay, keys[:, 2], count), metrics

    _, shapes = jax.eval_shape(iteration, loop)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def accumulate(number: Array, carry: tuple[Loop, Metrics, Array]) -> tuple[Loop, Metrics, Array]:
        loop, totals, broke = carry
        loop, metrics = iteration(loop)
        # What follows from the first fault would hide what it was.
        totals = jax.tree.map(lambda total, new: jnp.where(broke < 0, total + new, total), totals, metrics)
        sound = jnp.isfinite(metrics["policy_loss"] + metrics.get("critic_error", 0.0))
        return loop, totals, jnp.where((broke < 0) & ~sound, number.astype(broke.dtype), broke)

    none = jnp.full(loop.key.shape, -1.0)
    loop, totals, broke = jax.lax.fori_loop(0, iterations, accumulate, (loop, zeros, none))
    counted = jnp.where(broke < 0, iterations.astype(broke.dtype), broke + 1)
    return loop, jax.tree.map(lambda total: total / counted, totals) | {"broke": broke}
