"""Training on environments in pure JAX: rollout, replay and updates compiled together, many runs in one program."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..envs.functional import EnvState, FunctionalEnv, reset, step
from ..types import Transition
from . import buffer, sac_isfm


class Loop(eqx.Module):
    """Everything that continuing needs; leaves have a leading axis of runs, except for `count`.

    Attributes:
        agent: states of SAC-ISFM.
        envs: states of the environments, (runs, environments, ...).
        replay: transitions, (runs, capacity, ...).
        key: one random key per run.
        count: number of transitions that each run has seen.
    """

    agent: sac_isfm.State
    envs: EnvState
    replay: Transition
    key: PRNGKeyArray
    count: Int[Array, ""]


def start(
    config: sac_isfm.Config,
    env: FunctionalEnv,
    agents: sac_isfm.State,
    key: PRNGKeyArray,
    *,
    environments: int,
    capacity: int,
) -> Loop:
    """Prepare the runs: environments at random points of their episodes, an empty buffer."""
    runs = key.shape[0]

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
    replay = jax.tree.map(lambda leaf: jnp.zeros((runs, capacity, *leaf.shape), leaf.dtype), example)
    return Loop(agents, envs, replay, keys[:, 1], jnp.int32(0))


def advance(
    config: sac_isfm.Config, env: FunctionalEnv, loop: Loop, noise_scales: Float[Array, " e"], iterations: int
) -> tuple[Loop, dict[str, Float[Array, " runs"]]]:
    """Make a number of iterations: one step of every environment, one update of every agent.

    Args:
        config: settings.
        env: the environment.
        loop: where the runs stand.
        noise_scales: noise scale of the policy that acts in each environment; above one explores more widely than
            the policy, which the critic, trained off-policy, may learn from.
        iterations: number of iterations.

    Returns:
        Where the runs stand afterwards, and the metrics averaged over the iterations.
    """

    def act(agent: sac_isfm.State, envs: EnvState, key: PRNGKeyArray) -> tuple[EnvState, Transition]:
        pi = sac_isfm.policy(config, agent)

        def one(key: PRNGKeyArray, state: EnvState, noise_scale: Float[Array, ""]) -> tuple[EnvState, Transition]:
            action_key, step_key = jax.random.split(key)
            action = pi.sample(action_key, env.observation(state.state), noise_scale)
            return step(env, step_key, state, action)

        return jax.vmap(one)(jax.random.split(key, noise_scales.shape[0]), envs, noise_scales)

    def learn(agent: sac_isfm.State, replay: Transition, key: PRNGKeyArray, count: Int[Array, ""]):
        batch_key, update_key = jax.random.split(key)
        batch = buffer.sample(replay, batch_key, count, config.batch_size, recent=config.recent)
        return sac_isfm.update(config, agent, batch, update_key)

    def iteration(loop: Loop, _: None) -> tuple[Loop, dict[str, Array]]:
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(loop.key)
        envs, transitions = jax.vmap(act)(loop.agent, loop.envs, keys[:, 0])
        replay = jax.vmap(buffer.add, in_axes=(0, 0, None))(loop.replay, transitions, loop.count)
        count = loop.count + noise_scales.shape[0]
        agent, metrics = jax.vmap(learn, in_axes=(0, 0, 0, None))(loop.agent, replay, keys[:, 1], count)
        return Loop(agent, envs, replay, keys[:, 2], count), metrics

    loop, metrics = jax.lax.scan(iteration, loop, length=iterations)
    return loop, jax.tree.map(lambda values: jnp.mean(values, axis=0), metrics)
