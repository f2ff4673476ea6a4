"""Policies and critics against the exact soft optimum, all by the same means; functions of one run, in JAX.

Along a policy's own trajectories V*(s_0) − V^π(s_0) = E Σ_h γ^h [ V*(s_h) − Q*(s_h, a_h) + α log π(a_h|s_h) ]: every
term is α KL(π‖π*) on average, so that short averages tell what is lost.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from entroflow.envs import ControlEnv
from entroflow.exact import Solution

from .systems import System

STATES = 64  # visited by the optimal policy, at which policies are compared
POINTS = 400  # middles of the actions' box at which densities are
EPISODES, HORIZON = 1024, 150  # no time limit; γ^150 is a hundredth at most
DISTURBANCES = 0.0, 0.1, 0.2, 0.3, 0.4  # constant, in units of the largest action
ACROSS = 41  # points of a picture of the value, in each direction
PATHS = 12  # trajectories of a picture

Critic = Callable[[Array, Array], Array]


class Rollout(NamedTuple):
    """Trajectories: leaves of shape (H, episodes, ...)."""

    states: Float[Array, "H e n"]
    actions: Float[Array, "H e d"]
    log_probs: Float[Array, "H e"]
    rewards: Float[Array, "H e"]


class Seen(NamedTuple):
    """What a policy and its critic show; the exact ones are measured by the same means."""

    density: Float[Array, "m k"]
    """At the compared states, those of pictures last."""
    wanted: Float[Array, "m k"]
    """exp(Q/α)/Z of the critic: what the policy is to become."""
    value: Float[Array, " m"]
    """α log ∫ exp(Q/α) da of the critic, at the same states."""
    gaps: Float[Array, " e"]
    """Σ γ^h [V* − Q* + α log π] of every episode."""
    returns: Float[Array, "D e"]
    """Standard returns under every disturbance."""
    field: Float[Array, " f"]
    """The value on a coarse grid of states."""
    paths: Float[Array, "H p n"]
    """Trajectories from the first state of the pictures."""


def middles(env: ControlEnv) -> Float[Array, "k 1"]:
    """Actions at the middles of equal cells."""
    shares = (jnp.arange(float(POINTS))[:, None] + 0.5) / POINTS
    return env.action_low[None] + (env.action_high - env.action_low)[None] * shares


def roll_out(env: ControlEnv, policy: Any, starts: Float[Array, "e n"], key: PRNGKeyArray) -> Rollout:
    """Follow a policy from given states, on noise that depends on the key alone."""

    def one(state: Array, key: PRNGKeyArray) -> tuple[Array, tuple[Array, ...]]:
        keys = jax.random.split(key)
        action, log_prob = policy.sample_and_log_prob(keys[0], env.observation(state))
        following = env.transition(keys[1], state, action)
        return following, (state, action, log_prob, env.reward(state, action, following))

    def step(states: Array, key: PRNGKeyArray) -> tuple[Array, tuple[Array, ...]]:
        return jax.vmap(one)(states, jax.random.split(key, len(starts)))

    return Rollout(*jax.lax.scan(step, starts, jax.random.split(key, HORIZON))[1])


def visited(solution: Solution, key: PRNGKeyArray) -> tuple[Float[Array, "e n"], Float[Array, "m n"]]:
    """Starts, and states that the optimal policy visits from there, drawn at their discounted frequency."""
    keys = jax.random.split(key, 3)
    starts = jax.vmap(solution.env.initial)(jax.random.split(keys[0], EPISODES))
    states = roll_out(solution.env, solution.policy(), starts, keys[1]).states
    weights = jnp.broadcast_to(solution.discount ** jnp.arange(float(HORIZON))[:, None], states.shape[:2]).ravel()
    picks = jax.random.choice(keys[2], weights.size, (STATES,), replace=False, p=weights / weights.sum())
    return starts, states.reshape(-1, states.shape[-1])[picks]


def field_states(system: System) -> Float[np.ndarray, "f n"]:
    """The coarse grid of a picture of the value."""
    axes = [np.linspace(axis.low, axis.high, ACROSS) for axis in system.grid]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)).astype(np.float32)


def look(
    solution: Solution,
    system: System,
    policy: Any,
    critic: Critic,
    starts: Float[Array, "e n"],
    states: Float[Array, "m n"],
    key: PRNGKeyArray,
) -> Seen:
    """Look at a policy and at Q; both see observations."""
    env, alpha, actions = solution.env, solution.temperature, middles(solution.env)
    width = (env.action_high - env.action_low)[0]

    def density(state: Float[Array, " n"]) -> Float[Array, " k"]:
        return jnp.exp(jax.vmap(policy.log_prob, (None, 0))(env.observation(state), actions))

    def improved(state: Float[Array, " n"]) -> tuple[Float[Array, " k"], Float[Array, ""]]:
        q = jax.vmap(critic, (None, 0))(env.observation(state), actions) / alpha
        log_z = jax.nn.logsumexp(q) + jnp.log(width / POINTS)
        return jnp.exp(q - log_z), alpha * log_z

    def disturbed(level: Float[Array, ""]) -> Rollout:
        pushed = eqx.tree_at(lambda env: env.disturbance, env, level * env.action_high)
        return roll_out(pushed, policy, starts, key)

    def lost(state: Array, action: Array, log_prob: Array) -> Float[Array, ""]:
        return solution.soft_maximum(state) - solution.q(state, action) + alpha * log_prob

    factors = solution.discount ** jnp.arange(float(HORIZON))
    rollouts = jax.lax.map(disturbed, jnp.asarray(DISTURBANCES))
    calm = jax.tree.map(lambda leaf: leaf[0], rollouts)
    losses = jax.lax.map(lambda step: jax.vmap(lost)(*step), calm[:3])
    first = jnp.broadcast_to(jnp.asarray(system.states[0], jnp.float32), (PATHS, starts.shape[1]))
    everywhere = jnp.concatenate([states, jnp.asarray(system.states, jnp.float32)])
    wanted, value = jax.lax.map(improved, everywhere)
    return Seen(
        jax.lax.map(density, everywhere),
        wanted,
        value,
        factors @ losses,
        jnp.einsum("h,dhe->de", factors, rollouts.rewards),
        jax.lax.map(lambda state: improved(state)[1], jnp.asarray(field_states(system))),
        roll_out(env, policy, first, key).states[: env.time_limit],
    )


def compare(system: System, exact: Seen, seen: Seen, values: Float[np.ndarray, " m"], start_value: float) -> Mapping:
    """Compare a policy and its critic with the optimum.

    Args:
        system: the problem.
        exact: what the optimum shows.
        seen: what the policy shows.
        values: V* at the compared states.
        start_value: V*(s_0), averaged over the starts.

    Returns:
        By name: `total_variation`, on average and at worst over the visited states, at the first state, and of the
        critic's exp(Q/α)/Z instead of the policy; W₂ of actions at the visited states; the mode's
        weight at the first state; RMS error of the critic's soft value there, relative to the standard deviation of V*;
        what the soft return lacks with its standard error, relative to V*(s_0); the standard return, what it lacks
        beside the exact policy's on the same starts with the standard error of the difference, relative too; the
        returns under disturbances.
    """
    env = system.make()
    low, high = float(env.action_low[0]), float(env.action_high[0])
    cell, actions = (high - low) / POINTS, low + (high - low) * (np.arange(POINTS) + 0.5) / POINTS
    p, q = np.asarray(seen.density, float), np.asarray(exact.density, float)
    # Half of ∫ |p − q|, but blind to peaks of p between the points.
    apart, critic_apart = [cell * np.maximum(q - part, 0).sum(axis=1) for part in (p, np.asarray(seen.wanted, float))]
    w2 = np.array([wasserstein(actions, one, other) for one, other in zip(p[:STATES], q[:STATES], strict=True)])
    within = (actions >= system.mode[0]) & (actions < system.mode[1])
    returns, best = np.asarray(seen.returns, float), np.asarray(exact.returns, float)
    short, gaps = best[0] - returns[0], np.asarray(seen.gaps, float)
    error = lambda part: float(part.std(ddof=1) / np.sqrt(len(part)))  # noqa: E731
    wrong = np.asarray(seen.value, float)[:STATES] - values
    return {
        "total_variation": float(apart[:STATES].mean()),
        "total_variation_worst": float(apart[:STATES].max()),
        "total_variation_first": float(apart[STATES]),
        "total_variation_critic": float(critic_apart[:STATES].mean()),
        "w2": float(w2.mean()),
        "mass": float(cell * p[:STATES].sum(axis=1).mean()),
        "mode_weight": float(p[STATES][within].sum() / p[STATES].sum()),
        "mode_weight_exact": float(q[STATES][within].sum() / q[STATES].sum()),
        "value_error": float(np.sqrt((wrong**2).mean()) / values.std()),
        "soft_return_gap": gaps.mean() / abs(start_value),
        "soft_return_gap_error": error(gaps) / abs(start_value),
        "soft_return_exact": start_value,
        "return": float(returns[0].mean()),
        "return_exact": float(best[0].mean()),
        "return_gap": float(short.mean() / abs(best[0].mean())),
        "return_gap_error": error(short) / abs(best[0].mean()),
        "disturbed": returns.mean(axis=1).tolist(),
        "disturbed_error": [error(row) for row in returns],
    }


def wasserstein(actions: Float[np.ndarray, " k"], p: Float[np.ndarray, " k"], q: Float[np.ndarray, " k"]) -> float:
    """W₂ between two densities on the same equal cells: the distance of their quantiles, from 0 to 1.

    Example:
        >>> round(wasserstein(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])), 2)
        2.0
    """
    cell, levels = actions[1] - actions[0], (np.arange(2000) + 0.5) / 2000
    ends = np.append(actions - cell / 2, actions[-1] + cell / 2)
    quantiles = [np.interp(levels, np.append(0.0, np.cumsum(part)) / part.sum(), ends) for part in (p, q)]
    return float(np.sqrt(np.mean((quantiles[0] - quantiles[1]) ** 2)))
