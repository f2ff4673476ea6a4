"""What is timed of this library's algorithms, at the defaults of `entroflow train`."""

import dataclasses
import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Array

from entroflow.agents.agent import BY_NAME, SAC
from entroflow.agents.settings import of_algorithm
from entroflow.agents.tasks import task as find
from entroflow.agents.training import Training
from entroflow.rl import loop_gym, sac
from entroflow.storage.folder import cache_compilations
from entroflow.types import Transition

from .peers import BATCH, REPLAY, UNITS

PACKAGES = ("entroflow", "jax", "gymnasium")


def make(algorithm: str, task: str) -> tuple[dict[str, tuple[Callable[[], Any], int]], dict[str, str]]:
    """Return what can be timed, by name, and versions.

    Args:
        algorithm: "sac_isfm" or "gaussian_sac".
        task: id of a Gymnasium environment, whose shapes the synthetic replay has.

    Returns:
        Functions with the number of units of work that they do, and the versions of the packages.
    """
    cache_compilations()
    settings = dataclasses.replace(of_algorithm(algorithm), learning_starts=1, buffer_size=REPLAY)
    training = Training(find(task), settings, [0])
    filled = noise(training.loop.replay, training.task.action_space)
    full = eqx.tree_at(lambda loop: (loop.replay, loop.count), training.loop, (filled, jnp.int32(REPLAY)))
    training._learner = full
    obs, actions = (np.asarray(leaf)[0, :BATCH] for leaf in (filled.obs, filled.action))
    one = obs[0]

    def update() -> None:
        training._learner, metrics = loop_gym.learn(training.config, training.loop, None, update_policy=True)
        jax.block_until_ready((training.loop, metrics))

    @functools.cache  # made where it is first used, so that the time to the first update does not hold it
    def agent(draws: int = settings.action_candidates) -> SAC:
        small = dataclasses.replace(settings, buffer_size=BATCH, action_candidates=draws)
        return BY_NAME[algorithm](task, settings=small)

    @functools.cache
    def density() -> Callable[[], Array]:
        policy = sac.policy(training.config, agent().state, average=True)  # as `agent.log_prob` tells it
        program = jax.jit(lambda policy, obs, actions: jax.vmap(policy.log_prob)(obs, actions))
        given = jnp.asarray(obs), jnp.asarray(actions)
        return lambda: program(policy, *given)

    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "update": (update, 1),
        "act_1": (lambda: agent().predict(one), 1),
        "act_256": (lambda: agent().predict(obs), 1),
        "best_1": (lambda: agent().predict(one, deterministic=True), 1),
        "best_of_4": (lambda: agent(4).predict(one, deterministic=True), 1),
        "density": (lambda: density()().block_until_ready(), 1),
        "steps": (lambda: training.advance(UNITS), UNITS),
    }
    return calls, {name: version(name) for name in PACKAGES}


def noise(replay: Transition, space: Box) -> Transition:
    """Return a replay of the same shape filled with noise: actions inside of their box, no episode that ends."""
    random = np.random.default_rng(0)

    def normal(leaf: Array) -> Array:
        return jnp.asarray(random.standard_normal(leaf.shape, np.float32))

    shares = random.uniform(0.05, 0.95, replay.action.shape).astype(np.float32)
    return replay._replace(
        obs=normal(replay.obs),
        action=jnp.asarray(space.low + shares * (space.high - space.low)),
        reward=normal(replay.reward),
        next_obs=normal(replay.next_obs),
    )
