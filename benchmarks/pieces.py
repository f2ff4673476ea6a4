"""Where the time of one update of SAC-ISFM goes: its pieces, each compiled alone.

Compiled together pieces share work and save passes over memory, so that they need not add up.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from entroflow import optimise
from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task as find
from entroflow.agents.training import Training
from entroflow.flow import FlowPolicy
from entroflow.isfm import Candidates, draw_candidates, isfm_loss, stratified_times
from entroflow.rl import buffer, sac
from entroflow.rl.soft_bellman import pathwise_values

from .measure import Row, in_turns
from .ours import noise
from .peers import REPLAY

INDENT = "  "  # of a piece below the whole that it is part of


def measure(task: str, rounds: int) -> dict[str, Row]:
    """Time an update at the default settings and its pieces.

    Args:
        task: id of a Gymnasium environment, whose shapes the data have.
        rounds: number of rounds.

    Returns:
        The times by name, in the order of a table; pieces are indented below the whole.
    """
    training = Training(find(task), of_algorithm("sac_isfm"), [0], REPLAY)
    config: Any = training.config
    actor = config.actor
    agent = jax.tree.map(lambda leaf: leaf[0], training.agents)
    without = Training(find(task), change(of_algorithm("sac_isfm"), {"critic_layer_norm": False}), [0], REPLAY)
    plain = jax.tree.map(lambda leaf: leaf[0], without.agents)
    replay = jax.tree.map(lambda leaf: leaf[0], noise(training.loop.replay, training.task.action_space))
    key, count = jax.random.key(0), jnp.int32(REPLAY)
    take = jax.jit(lambda replay, key, count: buffer.sample(replay, key, count, config.batch_size))
    batch = take(replay, key, count)
    obs = batch.obs[: actor.states]

    def policy(agent: sac.State) -> FlowPolicy:
        return sac.policy(config, agent)

    def q(agent: sac.State) -> Any:
        return functools.partial(config.critic.policy_q, agent.critic)

    @jax.jit
    def sample(agent, obs, key):
        keys = jax.vmap(lambda key: jax.random.split(key, actor.candidates))(jax.random.split(key, len(obs)))
        return jax.vmap(jax.vmap(policy(agent).sample_latent, (0, None)))(keys, obs)

    @jax.jit
    def sample_with_density(agent, obs, key):
        keys = jax.vmap(lambda key: jax.random.split(key, actor.candidates))(jax.random.split(key, len(obs)))
        return jax.vmap(jax.vmap(policy(agent).sample_latent_and_log_prob, (0, None)))(keys, obs)

    @jax.jit
    def values(agent, obs, latents):
        to_action = policy(agent).action_space.to_action
        at = jax.vmap(lambda obs, latent: q(agent)(obs, to_action(latent)), (None, 0))
        return jax.vmap(at)(obs, latents)

    @jax.jit
    def draw(agent, obs, key) -> Candidates:
        sizes = {"n": actor.candidates, "ess_floor": actor.ess_floor}
        one = lambda key, obs: draw_candidates(key, policy(agent), obs, q(agent), agent.temperature, **sizes)  # noqa: E731
        return jax.vmap(one)(jax.random.split(key, len(obs)), obs)

    @jax.jit
    def regress(agent, obs, drawn, key):
        times = stratified_times(key, actor.candidates, actor.pairs)

        def loss(network):
            trained = eqx.tree_at(lambda policy: policy.velocity, policy(agent), network)
            one = lambda key, obs, x, w: isfm_loss(trained, key, obs, x, w, times, target=actor.target)  # noqa: E731
            return jnp.mean(jax.vmap(one)(jax.random.split(key, len(obs)), obs, drawn.latents, drawn.weights))

        return jax.value_and_grad(loss)(agent.actor)

    @jax.jit
    def pathwise(agent, obs, key):
        def loss(network):
            draw = dataclasses.replace(policy(agent), velocity=network).sample_and_solver_log_prob
            return -jnp.mean(pathwise_values(draw, key, obs, q(agent), agent.temperature))

        return jax.value_and_grad(loss)(agent.actor)

    @jax.jit
    def actor_step(agent, gradient):
        return optimise.descend(optimise.optimiser(actor.rate, 0, None), gradient, agent.actor, agent.actor_optimiser)

    @jax.jit
    def next_actions(agent, obs, key):
        return jax.vmap(policy(agent).sample_and_log_prob)(jax.random.split(key, len(obs)), obs)

    next_values = jax.jit(
        lambda agent, obs, actions: jax.vmap(functools.partial(sac.q_value, config, agent))(obs, actions)
    )

    @jax.jit
    def critic_gradient(agent, batch):
        state, normal = agent.critic, lambda units, values: jax.vmap(units.normalise)(values)
        parts = normal(state.obs_units, batch.obs), normal(state.action_units, batch.action)
        inputs = jnp.concatenate(parts, axis=1)
        loss = lambda network: jnp.mean((jax.vmap(network)(inputs) - batch.reward) ** 2)  # noqa: E731
        return jax.vmap(jax.value_and_grad(loss))(state.q)

    @jax.jit
    def critic_step(agent, gradient):
        state, adam = agent.critic, optimise.optimiser(config.critic.rate, 0, None)
        networks, optimiser = jax.vmap(functools.partial(optimise.descend, adam))(gradient, state.q, state.q_optimiser)
        return optimiser, networks, optimise.follow(state.q_target, networks, config.critic.target_rate)

    drawn, latents = draw(agent, obs, key), sample(agent, obs, key)
    actor_gradient, q_gradient = regress(agent, obs, drawn, key)[1], critic_gradient(agent, batch)[1]
    actions, _ = next_actions(agent, batch.next_obs, key)
    whole = jax.jit(functools.partial(sac.update, config))
    improve = jax.jit(functools.partial(sac.improve_policy, config))
    evaluate = jax.jit(functools.partial(sac.evaluate_policy, config))
    b, n = actor.states, actor.candidates
    return in_turns(
        {
            "update": lambda: whole(agent, batch, key),
            f"{INDENT}improvement": lambda: improve(agent, obs, key),
            f"{2 * INDENT}candidates, weighted ({b} × {n})": lambda: draw(agent, obs, key),
            f"{3 * INDENT}sampling and log-density": lambda: sample_with_density(agent, obs, key),
            f"{3 * INDENT}sampling alone": lambda: sample(agent, obs, key),
            f"{3 * INDENT}Q of the candidates": lambda: values(agent, obs, latents),
            f"{2 * INDENT}gradient of the regression": lambda: regress(agent, obs, drawn, key),
            f"{2 * INDENT}gradient of the pathwise term": lambda: pathwise(agent, obs, key),
            f"{2 * INDENT}Adam of the actor": lambda: actor_step(agent, actor_gradient),
            f"{INDENT}evaluation": lambda: evaluate(agent, batch, key),
            f"{2 * INDENT}next actions and log-density ({config.batch_size})": lambda: next_actions(
                agent, batch.next_obs, key
            ),
            f"{2 * INDENT}Q of the next actions": lambda: next_values(agent, batch.next_obs, actions),
            f"{2 * INDENT}gradient of the critics": lambda: critic_gradient(agent, batch),
            f"{3 * INDENT}without layer norm": lambda: critic_gradient(plain, batch),
            f"{2 * INDENT}Adam and average of the critics": lambda: critic_step(agent, q_gradient),
            "batch from the replay": lambda: take(replay, key, count),
        },
        rounds,
    )
