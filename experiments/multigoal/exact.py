"""The soft-optimal policy of the multi-goal world, solved on a grid.

The future depends on the next state s' = clip(s + a) only, so that the soft Bellman equation is a convolution:

    U(s') = reward of arriving at s' + γ V(s') unless a goal is reached,
    V(s)  = α log ∫ exp( (U(clip(s + a)) − c ‖a‖²) / α ) da,     c the scaled action cost,

that is, exp(U/α), continued past the walls by its values there, is convolved with a Gaussian kernel cut off at the box
of actions: one coordinate at a time. Iterated to its fixed point. NumPy in float64.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import convolve1d

from entroflow import checks
from entroflow.envs.multigoal import GOALS, MultiGoal

LARGEST_SPAN = 600.0  # of U/α, beyond which exp underflows in float64
SUBCELLS = 8  # per direction


class World(MultiGoal):
    """The world with its rewards in NumPy."""

    def squared_distance(self, states: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
        """Squared distance from the nearest goal."""
        return np.min(np.sum((states[..., None, :] - GOALS) ** 2, axis=-1), axis=-1)

    def reached(self, states: Float[np.ndarray, "*batch 2"]) -> Bool[np.ndarray, "*batch"]:
        """Whether a goal is reached, which ends the episode."""
        return self.squared_distance(states) < self.goal_radius**2

    def effort(self, actions: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
        """The cost of an action, scaled."""
        return self.reward_scale * self.action_cost * np.sum(actions**2, axis=-1)


@dataclass(frozen=True)
class Solution:
    """The soft-optimal value and policy."""

    world: World
    """The world solved."""
    temperature: float
    """Entropy weight α."""
    axis: Float[np.ndarray, " m"]
    """Coordinates of the grid, the same in both directions."""
    value: Float[np.ndarray, "m m"]
    """Soft value V(s) on the grid."""

    def v(self, states: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
        """Soft value V(s), linear between the grid's points."""
        return RegularGridInterpolator((self.axis, self.axis), self.value)(states).reshape(states.shape[:-1])

    def q(
        self, states: Float[np.ndarray, "*batch 2"], actions: Float[np.ndarray, "*batch 2"]
    ) -> Float[np.ndarray, "*batch"]:
        """Soft action value Q(s, a).

        Args:
            states: s, (..., 2).
            actions: a, (..., 2).

        Returns:
            The values, (...).
        """
        world = self.world
        arrival = np.clip(states + actions, -world.size, world.size)
        return _arrival_value(world, arrival, self.v(arrival), world.reached(arrival)) - world.effort(actions)

    def action_density(
        self, state: Float[np.ndarray, "2"], points: int = 200
    ) -> tuple[Float[np.ndarray, "k k 2"], Float[np.ndarray, "k k"]]:
        """The policy's density at a state, on the midpoints of a grid of actions.

        Args:
            state: the state.
            points: number k of midpoints in each direction.

        Returns:
            The actions and the density at them, whose mean is 1/4.
        """
        edges = np.linspace(-1, 1, points + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        actions = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1)
        log_density = self.q(np.broadcast_to(state, actions.shape), actions) / self.temperature
        density = np.exp(log_density - log_density.max())
        return actions, density / density.mean() / 4

    def mode_weights(self, state: Float[np.ndarray, "2"], points: int = 200) -> Float[np.ndarray, "4"]:
        """Probability that the action points to each goal, in the order of `GOALS`; see `Solution.action_density`."""
        actions, density = self.action_density(state, points)
        # Midpoints on a diagonal belong to both of its sides.
        along = actions @ GOALS.T
        shares = np.isclose(along, along.max(axis=-1, keepdims=True))
        return np.einsum("ij,ijg->g", density / density.sum(), shares / shares.sum(axis=-1, keepdims=True))


def solve(
    world: World,
    temperature: float,
    *,
    steps_per_unit: int = 20,
    tolerance: float = 1e-9,
    max_iterations: int = 5000,
) -> Solution:
    """Iterate the soft Bellman equation on a grid to its fixed point.

    Args:
        world: the world.
        temperature: entropy weight α > 0.
        steps_per_unit: grid points per unit of length; two resolutions tell how accurate a solution is.
        tolerance: the iteration stops when V changes by less.
        max_iterations: it stops with an error when it has not by then.

    Returns:
        The solution.

    Raises:
        ValueError: if the temperature or the resolution is not positive, if no whole number of steps spans the world,
            or if the temperature is so low that float64 underflows.
        RuntimeError: if the iteration does not converge.

    Example:
        >>> solution = solve(World(), 0.5, steps_per_unit=4, tolerance=1e-4)
        >>> solution.mode_weights(np.zeros(2)).round(2)
        array([0.25, 0.25, 0.25, 0.25])
    """
    alpha = checks.positive_number("temperature", temperature)
    count = checks.positive_int("steps_per_unit", steps_per_unit)
    cells = round(2 * world.size * count)
    if not math.isclose(cells, 2 * world.size * count, rel_tol=1e-6):
        given = f"{count} in a world from −{world.size:g} to {world.size:g}"
        raise checks.error("steps_per_unit", given, "a whole number of steps across the world", "use another of both")
    axis = np.linspace(-world.size, world.size, cells + 1)
    states = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    offsets = np.arange(-count, count + 1) / count
    kernel = np.exp(-world.reward_scale * world.action_cost * offsets**2 / alpha) / count
    kernel[[0, -1]] /= 2  # trapezoidal rule
    # Rewards jump at a goal's edge: of a cell that lies across it, each part counts by its area.
    within = (np.arange(SUBCELLS) + 0.5) / SUBCELLS - 0.5
    parts = states[:, :, None, None] + np.stack(np.meshgrid(within, within), axis=-1) / count
    share = world.reached(parts).mean(axis=(2, 3))
    value = np.zeros(states.shape[:2])
    for _ in range(max_iterations):
        reached, on = [_arrival_value(world, states, value, inside) / alpha for inside in (True, False)]
        largest = max(reached.max(), on.max())
        span = largest - np.minimum(reached, on).min()
        if span > LARGEST_SPAN:
            least = alpha * span / LARGEST_SPAN
            raise checks.error("temperature", f"{alpha:g}", f"at least about {least:.2g} here", "raise it")
        density = share * np.exp(reached - largest) + (1 - share) * np.exp(on - largest)
        for direction in (0, 1):
            density = convolve1d(density, kernel, axis=direction, mode="nearest")
        previous, value = value, alpha * (np.log(density) + largest)
        if np.abs(value - previous).max() < tolerance:
            return Solution(world, alpha, axis, value)
    raise RuntimeError(f"the soft Bellman iteration has not converged in {max_iterations} steps")


def _arrival_value(
    world: World,
    arrival: Float[np.ndarray, "*batch 2"],
    value: Float[np.ndarray, "*batch"],
    reached: Bool[np.ndarray, "*batch"] | bool,
) -> Float[np.ndarray, "*batch"]:
    """U(s'): the reward of arriving, and the discounted value where no goal is reached."""
    reward = world.goal_reward * np.asarray(reached) - world.squared_distance(arrival)
    return world.reward_scale * reward + world.discount * np.where(reached, 0.0, value)
