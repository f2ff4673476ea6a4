"""How far a policy is from the soft-optimal one: total variation, mode weights, soft return. NumPy, no JAX.

A policy is known by its density at the middles of a grid of actions, or by actions that it drew, of which a histogram
is made. The gap of the soft return needs no long averages, since along the policy's own trajectories

    V*(s_0) − V^π(s_0) = E_π Σ_h γ^h [ V*(s_h) − Q*(s_h, a_h) + α log π(a_h|s_h) ],

where every term is α KL(π‖π*) at s_h in expectation, and zero for π = π*.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from entroflow.envs.multigoal import GOALS

from .exact import Solution

CELLS = 16  # of a histogram, in each direction


def total_variation(
    density: Float[np.ndarray, "*batch k k"], exact: Float[np.ndarray, "*batch k k"]
) -> Float[np.ndarray, "*batch"]:
    """Return ½ ∫ |p − q| over the box of actions, from densities at the middles of k × k cells, or averages over them.

    Computed as ∫ (q − p)⁺, which is the same, but does not suffer where p has peaks that the grid misses, as Gaussians
    squashed against the bounds have.

    Args:
        density: p, of any policy.
        exact: q, whose mean over the grid is 1/4.

    Returns:
        The distance, from 0 to 1.

    Example:
        >>> flat, corner = np.full((2, 2), 0.25), np.array([[1.0, 0.0], [0.0, 0.0]])
        >>> float(total_variation(corner, flat))
        0.75
    """
    return np.asarray(4 * np.mean(np.maximum(exact - density, 0), axis=(-2, -1)))


def histogram(actions: Float[np.ndarray, "*batch n 2"], cells: int = CELLS) -> Float[np.ndarray, "*batch k k"]:
    """Return the density of actions, averaged over the cells of a grid.

    Args:
        actions: actions in [−1, 1]², (..., n, 2).
        cells: number k of cells in each direction.

    Returns:
        The density, (..., k, k).
    """
    batch, count = actions.shape[:-2], actions.shape[-2]
    places = np.clip(((actions + 1) / 2 * cells).astype(int), 0, cells - 1)
    flat = (places[..., 0] * cells + places[..., 1]).reshape(-1, count)
    shares = np.stack([np.bincount(row, minlength=cells**2) for row in flat]) / count
    return shares.reshape(*batch, cells, cells) * cells**2 / 4


def averaged(density: Float[np.ndarray, "*batch n n"], cells: int = CELLS) -> Float[np.ndarray, "*batch k k"]:
    """Return a density on a grid averaged over coarser cells.

    Args:
        density: the density, (..., n, n).
        cells: number k of cells in each direction, a divisor of n.

    Returns:
        The averages, (..., k, k).
    """
    *batch, points, _ = density.shape
    inside = points // cells
    return density.reshape(*batch, cells, inside, cells, inside).mean(axis=(-3, -1))


def entropy(density: Float[np.ndarray, "*batch k k"]) -> Float[np.ndarray, "*batch"]:
    """Return −∫ p log p of a density that is constant in each cell, in nats."""
    return np.asarray(-4 * np.mean(density * np.log(np.where(density > 0, density, 1.0)), axis=(-2, -1)))


def mode_weights(actions: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "4"]:
    """Return the shares of actions that point to each goal more than to the others, in the order of `GOALS`."""
    return np.bincount(np.argmax(actions @ GOALS.T, axis=-1), minlength=len(GOALS)) / len(actions)


def draw(
    solution: Solution, rng: np.random.Generator, states: Float[np.ndarray, "m 2"], points: int = 60
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
    """Draw an action of the soft-optimal policy at each state, from its density on a grid, with its log-density.

    The density is taken as constant in each cell.

    Args:
        solution: the optimum.
        rng: source of randomness.
        states: the states, (m, 2).
        points: cells of the grid in each direction.

    Returns:
        The actions, (m, 2), and their log-densities, (m,).
    """
    densities = exact_densities(solution, states, points).reshape(len(states), -1)
    ends = np.cumsum(densities, axis=1)
    picks = np.sum(ends < rng.uniform(size=(len(states), 1)) * ends[:, -1:], axis=1)
    cells = np.stack(np.unravel_index(picks, (points, points)), axis=-1)
    actions = (cells + rng.uniform(size=cells.shape)) * 2 / points - 1
    return actions, np.log(densities[np.arange(len(states)), picks])


def exact_densities(solution: Solution, states: Float[np.ndarray, "m 2"], points: int) -> Float[np.ndarray, "m k k"]:
    """Return the soft-optimal policy's density at several states.

    Args:
        solution: the optimum.
        states: the states, (m, 2).
        points: number k of midpoints of actions in each direction.

    Returns:
        The densities at the midpoints, (m, k, k).
    """
    return np.stack([solution.action_density(state, points)[1] for state in states])


class Trajectories(NamedTuple):
    """Episodes of a policy, cut after H steps: leaves of shape (H, episodes, ...).

    Attributes:
        states: states s_h.
        actions: actions a_h.
        log_probs: log π(a_h|s_h).
        going: whether the episode had not ended before the step.
    """

    states: Float[np.ndarray, "H e 2"]
    actions: Float[np.ndarray, "H e 2"]
    log_probs: Float[np.ndarray, "H e"]
    going: Bool[np.ndarray, "H e"]


def roll_out(
    solution: Solution, rng: np.random.Generator, starts: Float[np.ndarray, "e 2"], steps: int, points: int = 60
) -> Trajectories:
    """Act with the soft-optimal policy.

    Args:
        solution: the optimum.
        rng: source of randomness.
        starts: initial states, one per episode, (e, 2).
        steps: steps after which episodes are cut.
        points: see `draw`.

    Returns:
        The episodes.
    """
    world, states, going, parts = solution.world, starts, np.ones(len(starts), bool), []
    for _ in range(steps):
        actions, log_probs = np.zeros_like(states), np.zeros(len(states))
        actions[going], log_probs[going] = draw(solution, rng, states[going], points)
        parts.append((states, actions, log_probs, going))
        states = np.where(going[:, None], np.clip(states + actions, -world.size, world.size), states)
        going = going & ~world.reached(states)
        if not going.any():
            break
    return Trajectories(*map(np.stack, zip(*parts, strict=True)))


class Gap(NamedTuple):
    """What a policy loses in soft return, V*(s_0) − V^π(s_0), averaged over episodes; errors are standard errors.

    Attributes:
        gap: the loss.
        error: its standard error.
        value: V*(s_0), averaged over the same initial states.
        unfinished: share of the episodes that had not ended when they were cut; what they lose later is missing.
    """

    gap: float
    error: float
    value: float
    unfinished: float


def soft_return_gap(
    solution: Solution, episodes: Trajectories, entropies: Float[np.ndarray, " m"] | None = None
) -> Gap:
    """Return the gap of a policy's soft return.

    Args:
        solution: the optimum.
        episodes: episodes of the policy.
        entropies: where log π is not known, estimates of the entropy at states that the policy visits, drawn by
            `discounted_visits`; log π of the episodes is then ignored.

    Returns:
        The gap.
    """
    world, alpha = solution.world, solution.temperature
    factors = world.discount ** np.arange(len(episodes.states))[:, None] * episodes.going
    lost = solution.v(episodes.states) - solution.q(episodes.states, episodes.actions)
    count = episodes.states.shape[1]
    if entropies is None:
        totals = np.sum(factors * (lost + alpha * episodes.log_probs), axis=0)
        extra = 0.0
    else:
        # The entropies' states were drawn along the discounted visits, so that one average serves all steps.
        totals = np.sum(factors * (lost - alpha * entropies.mean()), axis=0)
        extra = alpha * factors.sum() / count * entropies.std(ddof=1) / np.sqrt(len(entropies))
    error = np.hypot(totals.std(ddof=1) / np.sqrt(count), extra)
    last = episodes.states[-1] + episodes.actions[-1]
    ended = ~episodes.going[-1] | world.reached(np.clip(last, -world.size, world.size))
    value = solution.v(episodes.states[0]).mean()
    return Gap(float(totals.mean()), float(error), float(value), float(1 - ended.mean()))


def discounted_visits(
    rng: np.random.Generator, episodes: Trajectories, discount: float, count: int
) -> Float[np.ndarray, "m 2"]:
    """Draw visited states, those of step h with weight γ^h.

    Args:
        rng: source of randomness.
        episodes: episodes of a policy.
        discount: γ.
        count: number m of states.

    Returns:
        The states, (m, 2).
    """
    weights = (discount ** np.arange(len(episodes.states))[:, None] * episodes.going).ravel()
    picks = rng.choice(weights.size, count, p=weights / weights.sum())
    return episodes.states.reshape(-1, 2)[picks]
