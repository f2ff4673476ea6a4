"""Training on environments in pure JAX with every setting of `entroflow.agents.Settings`, compiled as a whole.

The schedule of `loop_gym`: random actions at first, any number of updates a step, updates that leave the policy out.
Every array has a leading axis of runs, which differ in their seeds; where there are several devices, each has its share
of the runs.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PRNGKeyArray, UInt

from ..compiling import RUN_OFTEN, RUN_ONCE, jit
from ..envs.functional import EnvState, FunctionalEnv, reset, step
from ..envs.functional import advance as move
from ..flow import Box
from ..types import Transition
from . import buffer, sac
from .finite import watch
from .loop_gym import best_of, for_every_run, uniform

CHUNK = 64  # steps of every environment that one call of a compiled program makes, at most
REWARD, OBSERVATION = -1, -2  # faults of an environment; those of the learner are `finite.watch`'s

Sums = dict[str, Float[Array, "*runs 2"]]


class Loop(eqx.Module):
    """What continuing needs beside the agents; leaves have a leading axis of runs.

    Attributes:
        returns: return of every running episode so far, undiscounted.
        ended: of the episodes that have ended the sums of their returns and of their lengths, and their number.
        sums: of every metric the sum over the updates up to the first fault, and their number.
        fault: what was the first to be not finite, and in which step of the last call; zeros if all is well.
    """

    envs: EnvState
    replay: Transition
    key: Key[Array, "*runs"]
    returns: Float[Array, "*runs e"]
    ended: Float[Array, "*runs 3"]
    sums: Sums
    fault: Int[Array, "*runs 2"]


class Episodes(eqx.Module):
    """Episodes of an evaluation, with their returns and lengths; leaves have leading axes of runs and episodes."""

    envs: EnvState
    key: Key[Array, "*runs n"]
    totals: Float[Array, "*runs n 2"]
    alive: Bool[Array, "*runs n"]


@jit(RUN_ONCE, static_argnames=("config", "environments", "capacity"))
def start(
    config: sac.Config,
    env: FunctionalEnv,
    agents: sac.State,
    key: Key[Array, " runs"],
    step_number: Int[ArrayLike, ""],
    *,
    environments: int,
    capacity: int,
) -> Loop:
    """Begin episodes, with empty memories.

    Runs that begin again must not repeat their first episodes: the number of the step counts.
    """

    def one(agent: sac.State, key: PRNGKeyArray) -> Loop:
        key, reset_key = jax.random.split(jax.random.fold_in(key, step_number))
        envs = jax.vmap(reset, in_axes=(None, 0))(env, jax.random.split(reset_key, environments))
        first, action = jax.tree.map(lambda leaf: leaf[0], envs), jnp.zeros(env.action_low.shape, env.action_low.dtype)
        example = jax.eval_shape(step, env, key, first, action)[1]
        batch = jax.eval_shape(lambda: buffer.empty(example, config.batch_size))
        _, metrics = jax.eval_shape(lambda *parts: sac.update(config, *parts), agent, batch, key)
        sums = {name: jnp.zeros(2, metric.dtype) for name, metric in metrics.items()}
        returns, ended = jnp.zeros(environments, example.reward.dtype), jnp.zeros(3, example.reward.dtype)
        return Loop(envs, buffer.empty(example, capacity), key, returns, ended, sums, jnp.zeros(2, jnp.int32))

    return for_every_run(one)(agents, key)


@jit(RUN_OFTEN, static_argnames=("config", "delay"), donate_argnames=("loop",))
def advance(
    config: sac.Config,
    env: FunctionalEnv,
    agents: sac.State,
    loop: Loop,
    count: Int[ArrayLike, ""],
    due: Int[ArrayLike, " chunk"],
    iterations: Int[ArrayLike, ""],
    exploring: Int[ArrayLike, ""],
    made: Int[ArrayLike, ""],
    *,
    delay: int,
) -> tuple[sac.State, Loop]:
    """Make a number of iterations: one step of every environment, then the updates that are due."""
    due, made = jnp.asarray(due), jnp.asarray(made, jnp.int32)

    def update(agent: sac.State, batch: Transition, key: PRNGKeyArray, number: Array) -> tuple[sac.State, Sums]:
        def whole() -> tuple[sac.State, Sums]:
            learned, metrics = sac.update(config, agent, batch, key)
            return learned, {name: jnp.stack([value, jnp.ones_like(value)]) for name, value in metrics.items()}

        def critic_alone() -> tuple[sac.State, Sums]:
            learned, metrics = sac.update(config, agent, batch, key, update_policy=False)
            found = {name: jnp.stack([value, jnp.ones_like(value)]) for name, value in metrics.items()}
            _, shapes = jax.eval_shape(whole)
            return learned, {name: jnp.zeros(part.shape, part.dtype) for name, part in shapes.items()} | found

        return whole() if delay == 1 else jax.lax.cond(number % delay == 0, whole, critic_alone)

    def one(agent: sac.State, loop: Loop) -> tuple[sac.State, Loop]:
        environments = loop.returns.shape[0]

        def iteration(i: Array, carry: tuple[sac.State, Loop, Array]) -> tuple[sac.State, Loop, Array]:
            agent, loop, made = carry
            act_key, learn_key, key = jax.random.split(loop.key, 3)
            envs, transitions = _act(config, env, agent, loop.envs, act_key, i < exploring)
            seen = jnp.asarray(count, jnp.int32) + i * environments
            replay = buffer.add(loop.replay, transitions, seen)

            def learn(j: Array, carry: tuple[sac.State, Sums, Array, Array]) -> tuple[sac.State, Sums, Array, Array]:
                agent, sums, fault, made = carry
                batch_key, update_key = jax.random.split(jax.random.fold_in(learn_key, j))
                sampled = seen + environments, config.batch_size
                batch = buffer.sample(replay, batch_key, *sampled, recent=config.recent)
                agent, found = update(agent, batch, update_key, made)
                # What follows from the first fault would hide what it was.
                sums = {name: jnp.where(fault[0] == 0, sums[name] + found[name], sums[name]) for name in sums}
                values = {name: part[0] for name, part in found.items()}
                return agent, sums, _first(fault, watch(agent, values, jnp.int32(0)), i), made + 1

            returns, over = loop.returns + transitions.reward, transitions.terminated | transitions.truncated
            parts = returns, loop.envs.time + 1, over
            totals = jnp.where(over[None], jnp.stack([part.astype(returns.dtype) for part in parts]), 0.0)
            fault = _first(loop.fault, _fault_of(transitions), i)
            carried = agent, loop.sums, fault, made
            agent, sums, fault, made = jax.lax.fori_loop(0, due[i], learn, carried)
            returns, ended = jnp.where(over, 0.0, returns), loop.ended + jnp.sum(totals, axis=1)
            return agent, Loop(envs, replay, key, returns, ended, sums, fault), made

        return jax.lax.fori_loop(0, jnp.asarray(iterations, jnp.int32), iteration, (agent, loop, made))[:2]

    return for_every_run(one)(agents, loop)


def _act(
    config: sac.Config,
    env: FunctionalEnv,
    agent: sac.State,
    envs: EnvState,
    key: PRNGKeyArray,
    explore: Bool[Array, ""],
) -> tuple[EnvState, Transition]:
    """Take one step in every environment of a run."""
    space, pi = agent.action_space, sac.policy(config, agent)

    def one(key: PRNGKeyArray, state: EnvState) -> tuple[EnvState, Transition]:
        action_key, step_key = jax.random.split(key)
        draw = lambda: pi.sample(action_key, env.observation(state.state))  # noqa: E731
        if isinstance(space, Box):
            anywhere = lambda box=space: uniform(box, action_key).astype(jax.eval_shape(draw).dtype)  # noqa: E731
            action = jax.lax.cond(explore, anywhere, draw)
        else:
            action = draw()
        return step(env, step_key, state, action)

    return jax.vmap(one)(jax.random.split(key, envs.time.shape[0]), envs)


def _fault_of(transitions: Transition) -> Int[Array, ""]:
    """Return what of a step is not finite, zero if all is."""
    reward, obs = (jnp.isfinite(part).all() for part in (transitions.reward, transitions.next_obs))
    return jnp.where(~reward, REWARD, jnp.where(~obs, OBSERVATION, 0)).astype(jnp.int32)


def _first(fault: Int[Array, "2"], new: Int[Array, ""], step: Int[Array, ""]) -> Int[Array, "2"]:
    return jnp.where(fault[0] == 0, jnp.stack([new, step.astype(new.dtype)]), fault)


@jit(RUN_ONCE)
def begin_episodes(env: FunctionalEnv, agents: sac.State, draws: UInt[ArrayLike, " n"]) -> Episodes:
    """Begin the episodes that `GymAdapter` begins with these draws, in every run the same."""

    def one(draw: UInt[Array, ""]) -> tuple[EnvState, PRNGKeyArray]:
        initial, key = jax.random.split(jax.random.key(draw))
        return reset(env, initial), key

    def run(agent: sac.State) -> Episodes:
        envs, keys = jax.vmap(one)(jnp.asarray(draws))
        return Episodes(envs, keys, jnp.zeros((*keys.shape, 2)), jnp.ones(keys.shape, bool))

    return for_every_run(run)(agents)


@jit(RUN_OFTEN, static_argnames=("config", "candidates"))
def play(
    config: sac.Config,
    env: FunctionalEnv,
    agents: sac.State,
    episodes: Episodes,
    key: Key[Array, " runs"],
    step: Int[ArrayLike, ""],
    *,
    candidates: int,
) -> Episodes:
    """Go on with episodes for `CHUNK` steps, as far as they go.

    Of several candidates the best by Q is taken; one is a draw of the policy.
    """

    def one(agent: sac.State, episodes: Episodes, key: PRNGKeyArray) -> Episodes:
        def act(key: PRNGKeyArray, own: PRNGKeyArray, state: EnvState) -> tuple[EnvState, Transition]:
            action = best_of(config, agent, key, env.observation(state.state), candidates)
            action = action.astype(env.action_high.dtype)
            return move(env, jax.random.fold_in(own, state.time), state, action)

        def body(carry: tuple[Array, Episodes]) -> tuple[Array, Episodes]:
            i, episodes = carry
            keys = jax.random.split(jax.random.fold_in(key, step + i), episodes.alive.shape[0])
            envs, made = jax.vmap(act)(keys, episodes.key, episodes.envs)
            alive = episodes.alive
            hold = lambda new, old: jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old)  # noqa: E731
            # An observation that is not finite makes the return so.
            reward = jnp.where(jnp.isfinite(made.next_obs).all(axis=1), made.reward, jnp.nan)
            gained = jnp.stack([reward, jnp.ones_like(reward)], axis=1).astype(episodes.totals.dtype)
            return i + 1, dataclasses.replace(
                episodes,
                envs=jax.tree.map(hold, envs, episodes.envs),
                totals=episodes.totals + jnp.where(alive[:, None], gained, 0.0),
                alive=alive & ~(made.terminated | made.truncated),
            )

        going = lambda carry: (carry[0] < CHUNK) & carry[1].alive.any()  # noqa: E731
        return jax.lax.while_loop(going, body, (jnp.int32(0), episodes))[1]

    return for_every_run(one)(agents, episodes, key)
