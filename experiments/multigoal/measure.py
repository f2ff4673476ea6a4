"""Trained policies of the multi-goal world against the exact one: every algorithm by the same means.

From actions that a policy draws: a histogram at every state, its entropy, mode weights at the origin, episodes. From
log π, where there is one: the density on a grid of actions, and the soft return without a histogram's bias.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from entroflow.envs import MultiGoalEnv
from entroflow.flow import FlowPolicy, RungeKutta
from entroflow.rl import sac

from .. import frame
from .distance import (
    CELLS,
    Trajectories,
    averaged,
    discounted_visits,
    entropy,
    exact_densities,
    histogram,
    mode_weights,
    roll_out,
    soft_return_gap,
    total_variation,
)
from .exact import Solution

STATES = 24  # visited by the optimal policy, at which policies are compared
POINTS = 48  # of the grid of actions on which densities are compared, in each direction; a multiple of CELLS
SAMPLES = 8192  # of a histogram
EPISODES, HORIZON = 512, 100  # of the soft return; no time limit
ENTROPY_STATES = 12  # visited by the policy itself, at which histograms estimate its entropy
ACTING_SOLVER = RungeKutta("rk4", 4)


class Reference(NamedTuple):
    """What policies are compared with.

    Attributes:
        solution: the optimum.
        starts: initial states of all episodes, (EPISODES, 2).
        episodes: episodes of the optimal policy.
        states: states that it visits before the time limit, (STATES, 2), and the origin as the last one.
        densities: its density there on a grid of actions, (STATES + 1, POINTS, POINTS).
    """

    solution: Solution
    starts: Float[np.ndarray, "e 2"]
    episodes: Trajectories
    states: Float[np.ndarray, "m 2"]
    densities: Float[np.ndarray, "m k k"]


class Measured(NamedTuple):
    """What a policy shows.

    Attributes:
        episodes: its episodes.
        histograms: its actions' density averaged over cells, at the reference's states.
        entropies: entropies of histograms at states that it visits itself.
        actions: actions drawn at the origin.
        densities: its density on the reference's grid, absent where there is no log π.
    """

    episodes: Trajectories
    histograms: Float[np.ndarray, "m c c"]
    entropies: Float[np.ndarray, " v"]
    actions: Float[np.ndarray, "n 2"]
    densities: Float[np.ndarray, "m k k"] | None


def reference(solution: Solution) -> Reference:
    """Follow the optimal policy, and look at it where it goes."""
    rng, world = np.random.default_rng(0), solution.world
    starts = world.initial_std * rng.standard_normal((EPISODES, 2))
    episodes = roll_out(solution, rng, starts[: min(EPISODES, 128)], HORIZON, POINTS)
    visited = episodes.states[: world.time_limit][episodes.going[: world.time_limit]]
    chosen = visited[rng.choice(len(visited), STATES, replace=len(visited) < STATES)]
    states = np.concatenate([chosen, np.zeros((1, 2))])
    return Reference(solution, starts, episodes, states, exact_densities(solution, states, POINTS))


def exact(against: Reference) -> Measured:
    """Measure the optimal policy itself by the same means: what a perfect policy would score."""
    rng, solution = np.random.default_rng(1), against.solution

    def counted(densities: Float[np.ndarray, "m k k"]) -> Float[np.ndarray, "m c c"]:
        masses = averaged(densities, CELLS).reshape(len(densities), -1)
        shares = rng.multinomial(SAMPLES, masses / masses.sum(axis=1, keepdims=True)) / SAMPLES
        return shares.reshape(-1, CELLS, CELLS) * CELLS**2 / 4

    visits = discounted_visits(rng, against.episodes, solution.world.discount, ENTROPY_STATES)
    entropies = entropy(counted(exact_densities(solution, visits, POINTS)))
    first = against.episodes.actions[0]
    return Measured(against.episodes, counted(against.densities), entropies, first, against.densities)


def measure(against: Reference, config: sac.Config, agents: sac.State, seeds: list[int]) -> list[Measured]:
    """Measure the trained policies of one algorithm.

    Args:
        against: the optimum.
        config: settings.
        agents: agents of all seeds, leaves of shape (runs, ...).
        seeds: their seeds.

    Returns:
        What each of them shows.
    """
    env, runs = MultiGoalEnv(against.solution.world), len(seeds)
    grid = jnp.asarray(against.solution.action_density(np.zeros(2), POINTS)[0].reshape(-1, 2), jnp.float32)
    starts, states = jnp.asarray(against.starts, jnp.float32), jnp.asarray(against.states, jnp.float32)

    def acting(agent: sac.State) -> Any:
        policy = sac.policy(config, agent, average=True)
        return policy.with_solver(ACTING_SOLVER) if isinstance(policy, FlowPolicy) else policy

    def follow(agent: sac.State, key: PRNGKeyArray) -> tuple[Array, ...]:
        policy = acting(agent)

        def step(carry: tuple[Array, Array], key: PRNGKeyArray) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
            states, going = carry
            keys = jax.random.split(key, len(starts))
            if config.actor.has_density:
                actions, log_probs = jax.vmap(policy.sample_and_log_prob)(keys, states)
            else:  # entropies come from histograms
                actions, log_probs = jax.vmap(policy.sample)(keys, states), jnp.zeros(len(starts))
            following = jax.vmap(functools.partial(env.transition, key))(states, actions)
            still = going & ~jax.vmap(env.terminal)(following)
            following = jnp.where(going[:, None], following, states)
            return (following, still), (states, actions, log_probs, going)

        begin = starts, jnp.ones(len(starts), bool)
        return jax.lax.scan(step, begin, jax.random.split(key, HORIZON))[1]

    def draw(agent: sac.State, key: PRNGKeyArray, states: Float[Array, "m 2"]) -> Float[Array, "m n 2"]:
        policy = acting(agent)
        keys = jax.random.split(key, SAMPLES)
        return jax.lax.map(lambda state: jax.vmap(policy.sample, in_axes=(0, None))(keys, state), states)

    def look(agent: sac.State) -> Float[Array, "m k"]:
        policy = acting(agent)
        return jax.lax.map(lambda state: jax.vmap(policy.log_prob, in_axes=(None, 0))(state, grid), states)

    # Other keys than those of training, which begins with `key(seed)`.
    keys = jax.vmap(jax.random.split)(jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds]))
    arrays = jax.tree.map(np.asarray, frame.over_runs(follow, runs)(agents, keys[:, 0]))
    arrays = jax.tree.map(lambda leaf: leaf.astype(float) if leaf.dtype != bool else leaf, arrays)
    episodes = [Trajectories(*(leaf[i] for leaf in arrays)) for i in range(runs)]
    rng, discount = np.random.default_rng(0), against.solution.world.discount
    visits = [discounted_visits(rng, part, discount, ENTROPY_STATES) for part in episodes]
    where = jnp.asarray(np.stack([np.concatenate([against.states, part]) for part in visits]), jnp.float32)
    actions = np.asarray(frame.over_runs(draw, runs)(agents, keys[:, 1], where), float)
    count = len(against.states)
    densities = [None] * runs
    if config.actor.has_density:
        densities = np.exp(np.asarray(frame.over_runs(look, runs)(agents), float)).reshape(runs, count, POINTS, POINTS)
    found = zip(episodes, actions, densities, strict=True)
    return [
        Measured(part, histogram(drawn[:count]), entropy(histogram(drawn[count:])), drawn[count - 1], density)
        for part, drawn, density in found
    ]


def compare(against: Reference, measured: Measured) -> dict[str, Any]:
    """Compare a policy with the optimum.

    Args:
        against: the optimum.
        measured: what the policy shows.

    Returns:
        By name: `total_variation`, average over the states visited by the optimal policy, from the density if there is
        one and from histograms otherwise; the same from histograms in any case, and at the origin; `mode_weights` at
        the origin; `soft_return_gap` with standard error, relative to |V*| as `_relative`, likewise from the density
        or from histograms; entropy at the origin; share of episodes that reach a goal within the time limit.
    """
    solution, (*others, origin) = against.solution, range(len(against.states))
    by_cells = total_variation(measured.histograms, averaged(against.densities, CELLS))
    by_density = by_cells if measured.densities is None else total_variation(measured.densities, against.densities)
    told = soft_return_gap(solution, measured.episodes, measured.entropies)
    gap = told if measured.densities is None else soft_return_gap(solution, measured.episodes)
    weights = mode_weights(measured.actions)
    limit = solution.world.time_limit
    ended = ~measured.episodes.going[min(limit, len(measured.episodes.going) - 1)]
    return {
        "total_variation": float(by_density[others].mean()),
        "total_variation_worst": float(by_density[others].max()),
        "total_variation_histogram": float(by_cells[others].mean()),
        "total_variation_origin": float(by_density[origin]),
        "mass": math.nan if measured.densities is None else float(measured.densities[others].mean() * 4),
        "mode_weights": weights.tolist(),
        "mode_weight_error": float(np.abs(weights - 0.25).max()),
        "soft_return_gap": gap.gap,
        "soft_return_gap_error": gap.error,
        "soft_return_gap_relative": gap.gap / abs(gap.value),
        "soft_return_gap_relative_error": gap.error / abs(gap.value),
        "soft_return_gap_histogram_relative": told.gap / abs(told.value),
        "optimal_soft_return": gap.value,
        "unfinished": gap.unfinished,
        "entropy_origin": float(entropy(measured.histograms[origin])),
        "within_time_limit": float(ended.mean()),
    }
