"""The soft optimum of an environment of few states, solved on a grid to a stated error, and its policy.

    Q(s, a) = E[ r + γ V(s') ],   V(s) = α log ∫ exp(Q(s, a)/α) da,   π(a|s) = exp((Q(s, a) − V(s))/α),

so that Q, and with it the policy, is one exact step beyond the grid: V alone is interpolated. What the functions of one
state and one action have in common:

Args:
    state: s, (n,).
    action: a, (d,).
    time: the time, where the horizon is finite; no matter otherwise.
    key: random key.
    obs: observation, (m,).
    noise_scale: no matter: a density that is no map of noise has none.

Returns:
    The value, log-density or action.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray
from scipy import ndimage

from entroflow import checks
from entroflow.envs import FunctionalEnv
from entroflow.exact import grid as grids
from entroflow.exact.grid import Axis, Nodes
from entroflow.exact.tabular import iterate

CELLS = {1: 256, 2: 64}  # in each direction of the actions, by which they are drawn
PROBES = 2048  # points between those of the grid at which the residual is taken


class Solution(eqx.Module):
    """The soft-optimal value; functions are of one state and one action, `vmap` outside.

    Attributes:
        env: the environment.
        axes: the grid.
        values: V on it, (stages, points of the axes): one stage for all times, or those of times 0, …, H.
        temperature: α.
        discount: γ.
        actions: nodes of the actions.
        noise: nodes of the noise.
        error: the largest correction by Richardson's extrapolation from a grid half as fine, which V includes.
        residual: largest |V − TV| between the points of the grid, at time 0.
        bound: how near value iteration came to the table's own fixed point.
    """

    env: FunctionalEnv
    axes: tuple[Axis, ...] = eqx.field(static=True)
    values: Float[Array, "stages ..."]
    temperature: float
    discount: float
    actions: Nodes
    noise: Nodes
    error: float
    residual: float
    bound: float

    def v(self, state: Float[Array, " n"], time: Int[ArrayLike, ""] = 0) -> Float[Array, ""]:
        """Soft value V(s), linear between the points of the grid."""
        stage = jnp.minimum(jnp.asarray(time), len(self.values) - 1)
        return map_coordinates(self.values[stage], list(grids.places(self.axes, state)), order=1, mode="nearest")

    def q(
        self, state: Float[Array, " n"], action: Float[Array, " d"], time: Int[ArrayLike, ""] = 0
    ) -> Float[Array, ""]:
        """Soft action value Q(s, a)."""
        move = grids.mover(self.env)

        def one(noise: Float[Array, " w"]) -> Float[Array, ""]:
            following = move(state, action, noise)
            later = jnp.where(self.env.terminal(following), 0.0, self.v(following, jnp.asarray(time) + 1))
            return self.env.reward(state, action, following) + self.discount * later

        return jnp.exp(self.noise.log_weights) @ jax.vmap(one)(self.noise.points)

    def soft_maximum(self, state: Float[Array, " n"], time: Int[ArrayLike, ""] = 0) -> Float[Array, ""]:
        """α log ∫ exp(Q(s, a)/α) da: V(s) without interpolation there."""
        q = jax.vmap(lambda action: self.q(state, action, time))(self.actions.points)
        return self.temperature * jax.nn.logsumexp(q / self.temperature + self.actions.log_weights)

    def policy(self, time: Int[ArrayLike, ""] = 0) -> "ExactPolicy":
        """The soft-optimal policy at a time; any time, unless the horizon is finite."""
        return ExactPolicy(self, jnp.asarray(time))


class ExactPolicy(eqx.Module):
    """π(a|s) = exp((Q(s, a) − V(s))/α), with the methods of the other policies; it sees observations.

    Actions are drawn from the density as it is at the middles of small cells of the box, evenly within the cell.

    Attributes:
        solution: the optimum.
        time: the time.
    """

    solution: Solution
    time: Int[Array, ""]

    def sample(
        self, key: PRNGKeyArray, obs: Float[Array, " m"], noise_scale: Float[ArrayLike, ""] = 1.0
    ) -> Float[Array, " d"]:
        """Draw an action."""
        del noise_scale
        state, env = self._state(obs), self.solution.env
        middles, size = cells(env)
        q = jax.vmap(lambda action: self.solution.q(state, action, self.time))(middles)
        keys = jax.random.split(key)
        cell = jax.random.categorical(keys[0], q / self.solution.temperature)
        return middles[cell] + size * (jax.random.uniform(keys[1], size.shape) - 0.5)

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " m"]) -> tuple[Array, Array]:
        """Draw an action with its log-density, see `sample`."""
        action = self.sample(key, obs)
        return action, self.log_prob(obs, action)

    def log_prob(self, obs: Float[Array, " m"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Log π(a|s); −∞ outside of the box."""
        state, env, found = self._state(obs), self.solution.env, self.solution
        density = (found.q(state, action, self.time) - found.soft_maximum(state, self.time)) / found.temperature
        return jnp.where(jnp.all((action >= env.action_low) & (action <= env.action_high)), density, -jnp.inf)

    def _state(self, obs: Float[Array, " m"]) -> Float[Array, " n"]:
        return getattr(self.solution.env, "state_of", lambda obs: obs)(obs)


def cells(env: FunctionalEnv) -> tuple[Float[Array, "m d"], Float[Array, " d"]]:
    """Middles of equal cells that fill the box of actions, and their size."""
    count = CELLS[len(env.action_low)]
    shares = jnp.asarray(grids.product([(np.arange(count) + 0.5) / count] * len(env.action_low)), jnp.float32)
    width = env.action_high - env.action_low
    return env.action_low[None] + width[None] * shares, width / count


def solve(
    env: FunctionalEnv,
    grid: Sequence[Any],
    *,
    temperature: float,
    discount: float,
    horizon: int | None = None,
    nodes: int = 32,
    noise_nodes: int = 5,
    tolerance: float = 1e-6,
) -> Solution:
    """Solve the soft Bellman equation of an environment on a grid of its states, twice, to tell how well.

    Args:
        env: an environment of at most three states, which are a vector, and two bounded actions; if it is random, see
            `entroflow.exact.grid`. Its observation and time limit play no role.
        grid: an `Axis` for every state, wide enough for what is beyond not to matter.
        temperature: α > 0.
        discount: γ in [0, 1); with a horizon in [0, 1].
        horizon: number of steps H after which nothing more counts; None: the return goes on.
        nodes: actions of the quadrature in each direction; many for a temperature that is small against Q.
        noise_nodes: nodes of the noise in each direction.
        tolerance: how near value iteration comes to the fixed point on its grid.

    Returns:
        The solution, extrapolated from the two; its `error` is the largest correction.

    Raises:
        ValueError: for an environment of more dimensions, without bounds, or whose noise is not told; for a grid that
            is none, or needs more memory than there is.

    Example:
        >>> from entroflow.envs import DoubleWell
        >>> solution = solve(DoubleWell(), [Axis(-2.0, 2.0, 81)], temperature=0.2, discount=0.9)
        >>> density = lambda a: jnp.exp(solution.policy().log_prob(jnp.zeros(1), jnp.array([a])))
        >>> [round(float(density(a)), 1) for a in (-0.8, 0.0, 0.8)], solution.error < 0.02
        ([0.4, 0.1, 0.4], True)
    """
    if not isinstance(env, FunctionalEnv):
        remedy = "pass for example entroflow.envs.SwingUp()"
        raise checks.error("env", repr(env), "a FunctionalEnv", remedy)
    axes = grids.checked_axes(env, grid)
    alpha = checks.positive_number("temperature", temperature)
    if horizon is None:
        checks.discount("discount", discount)
    else:
        checks.positive_int("horizon", horizon)
        checks.number("discount", discount, "a number in [0, 1]", "pass for example 1", holds=lambda x: 0 <= x <= 1)
    for name, count in (("nodes", nodes), ("noise_nodes", noise_nodes)):
        checks.positive_int(name, count, most=1024)
    solutions = []
    for axes_now, count in ((tuple(map(Axis.coarser, axes)), max(2, nodes // 2)), (axes, nodes)):
        actions = grids.action_nodes(env, count)
        noise = grids.noise_nodes(env, axes, noise_nodes)
        table = grids.tabulated(env, axes_now, actions, noise)
        found = iterate(table, temperature=alpha, discount=discount, horizon=horizon, tolerance=tolerance)
        values = found.values.reshape(-1, *[axis.points for axis in axes_now])
        single = lambda part: Nodes(*[jnp.asarray(entry, jnp.float32) for entry in part])  # noqa: E731
        parts = env, axes_now, jnp.asarray(values, jnp.float32), alpha, float(discount), single(actions), single(noise)
        solutions.append(Solution(*parts, math.nan, math.nan, found.bound))
    coarse, fine = solutions
    correction = _correction(np.asarray(coarse.values, float), np.asarray(fine.values, float))
    fine = dataclasses.replace(fine, values=fine.values + jnp.asarray(correction, jnp.float32))
    return dataclasses.replace(fine, error=float(np.abs(correction).max()), residual=_residual(fine))


def _correction(
    coarse: Float[np.ndarray, "stages ..."], fine: Float[np.ndarray, "stages ..."]
) -> Float[np.ndarray, "stages ..."]:
    """What Richardson's extrapolation adds: a third of the difference, since errors fall as the step squared."""
    on_coarse = [np.linspace(0, m - 1, n) for m, n in zip(fine.shape[1:], coarse.shape[1:], strict=True)]
    on_fine = [np.linspace(0, n - 1, m) for m, n in zip(fine.shape[1:], coarse.shape[1:], strict=True)]
    below, above = [np.stack(np.meshgrid(*axes, indexing="ij")) for axes in (on_coarse, on_fine)]
    thirds = [(ndimage.map_coordinates(f, below, order=1) - c) / 3 for c, f in zip(coarse, fine, strict=True)]
    # Smoothly in between: linear pieces would leave kinks on the finer grid, and their slopes in the policy.
    return np.stack([ndimage.map_coordinates(third, above, order=3, mode="nearest") for third in thirds])


@jax.jit
def _largest_residual(solution: Solution, states: Float[Array, "m n"]) -> Float[Array, ""]:
    return jnp.max(jnp.abs(jax.lax.map(lambda s: solution.v(s) - solution.soft_maximum(s), states, batch_size=64)))


def _residual(solution: Solution) -> float:
    """The largest |V − TV| at random points of the grid's box, where interpolation errs."""
    low, high = np.array([axis[:2] for axis in solution.axes]).T
    states = np.random.default_rng(0).uniform(low, high, (PROBES, len(low)))
    return float(_largest_residual(solution, jnp.asarray(states, jnp.float32)))
