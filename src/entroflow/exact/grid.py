"""A continuous decision problem as a table: states on a grid, actions at the nodes of a quadrature, noise likewise.

V is linear between the points of the grid (multilinear, nearest outside of it), ∫ da is Gauss–Legendre in the box of
actions, and E_w is Gauss–Hermite in the noise, if the environment tells how its next state depends on a standard normal
one: by `move(state, action, noise)` and `noise_size`, or by `drift(state, action)` and `noise_root`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from scipy import sparse

from entroflow import checks, memory
from entroflow.envs import FunctionalEnv
from entroflow.exact.tabular import Table

Move = Callable[[Array, Array, Array], Array]
MOST_STATES, MOST_ACTIONS = 3, 2  # dimensions
PROBES = 64  # states and actions at which it is asked whether a transition is random


class Axis(NamedTuple):
    """One coordinate of the grid of states.

    A state beyond it counts as the nearest one on it, unless the axis is periodic, when its ends are one point.
    """

    low: float
    """The first point."""
    high: float
    """The last point."""
    points: int
    """Number of points, both ends included."""
    periodic: bool = False
    """Whether the coordinate goes on at the other end, as an angle does."""

    @property
    def step(self) -> float:
        """Distance of two points."""
        return (self.high - self.low) / (self.points - 1)

    def coarser(self) -> "Axis":
        """Every other point; at an even number, about as many."""
        return self._replace(points=(self.points + 1) // 2)


class Nodes(NamedTuple):
    """Points and logarithms of the weights of a quadrature."""

    points: Any
    """(m, d)."""
    log_weights: Any
    """log w, (m,)."""


def checked_axes(env: FunctionalEnv, grid: Sequence[Any]) -> tuple[Axis, ...]:
    """The grid, if it is one for this environment."""
    shape = getattr(jax.eval_shape(env.initial, jax.random.key(0)), "shape", None)
    if shape is None or len(shape) != 1 or shape[0] > MOST_STATES:
        given = "a state that is no vector" if shape is None or len(shape) != 1 else f"{shape[0]} state dimensions"
        raise checks.error("env", given, f"at most {MOST_STATES}", "solve a smaller problem: grids grow too fast")
    if not np.isfinite(np.asarray(env.action_high) - np.asarray(env.action_low)).all():
        given, remedy = "actions without bounds", "bound them; a linear plant is solved by entroflow.lqr"
        raise checks.error("env", given, "a bounded box", remedy)
    if len(env.action_low) > MOST_ACTIONS:
        given = f"{len(env.action_low)} action dimensions"
        raise checks.error("env", given, f"at most {MOST_ACTIONS}", "solve a smaller problem")
    if len(grid) != shape[0]:
        raise checks.error(
            "grid", f"{len(grid)} axes", f"{shape[0]}, one for every state", "pass Axis(low, high, points)"
        )
    axes = tuple(Axis(*axis) for axis in grid)
    for axis in axes:
        checks.positive_int("points", axis.points)
        if axis.points < 3 or not -math.inf < axis.low < axis.high < math.inf:
            expected = "finite low below high, and at least 3 points"
            raise checks.error("grid", str(tuple(axis)), expected, "pass for example Axis(-1.0, 1.0, 41)")
    return axes


def action_nodes(env: FunctionalEnv, count: int) -> Nodes:
    """Gauss–Legendre nodes in the box of actions, whose weights sum to its volume."""
    points, weights = leggauss(count)
    low, high = np.asarray(env.action_low, float), np.asarray(env.action_high, float)
    logs = product([np.log(weights)] * len(low)).sum(axis=1) + np.sum(np.log((high - low) / 2))
    return Nodes((low + high) / 2 + (high - low) / 2 * product([points] * len(low)), logs)


def mover(env: FunctionalEnv) -> Move:
    """How the environment moves for a given noise, (s, a, w) ↦ s'."""
    given: Any = env
    if hasattr(given, "move"):
        return given.move
    if hasattr(given, "drift"):
        return lambda state, action, noise: given.drift(state, action) + given.noise_root @ noise
    return lambda state, action, _: env.transition(jax.random.key(0), state, action)


def noise_nodes(env: FunctionalEnv, axes: Sequence[Axis], count: int) -> Nodes:
    """Gauss–Hermite nodes of the noise, one of them where nothing is random."""
    given: Any = env
    if hasattr(given, "move"):
        noisy = [True] * given.noise_size
    elif hasattr(given, "drift"):
        noisy = np.any(np.asarray(given.noise_root) != 0, axis=0).tolist()
    else:
        noisy, keys = [], jax.random.split(jax.random.key(0), (2, PROBES))
        states, actions = _anywhere(env, axes)
        first, second = [jax.vmap(env.transition)(some, states, actions) for some in keys]
        if not np.array_equal(first, second, equal_nan=True):
            remedy = "give it move(state, action, noise) and noise_size"
            raise checks.error("env", "a random transition", "one that tells how the noise enters", remedy)
    points, weights = hermegauss(count)
    logs = product([np.log(weights / weights.sum()) if moves else np.zeros(1) for moves in noisy])
    return Nodes(product([points if moves else np.zeros(1) for moves in noisy]), logs.sum(axis=1))


def _anywhere(env: FunctionalEnv, axes: Sequence[Axis]) -> tuple[Float[Array, "p n"], Float[Array, "p d"]]:
    """States on the grid's area and actions in the box, all over both: noise may vanish at any one of them."""
    lows, highs = ([getattr(axis, end) for axis in axes] for end in ("low", "high"))
    low = jnp.concatenate([jnp.asarray(lows, env.action_low.dtype), env.action_low])
    high = jnp.concatenate([jnp.asarray(highs, env.action_low.dtype), env.action_high])
    shares = jax.random.uniform(jax.random.key(1), (PROBES, len(low)), low.dtype)
    both = low[None] + (high - low)[None] * shares
    return both[:, : len(axes)], both[:, len(axes) :]


def product(parts: Sequence[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "m d"]:
    """All combinations of one entry from each of d lists, the last one fastest."""
    if not parts:
        return np.zeros((1, 0))
    return np.stack(np.meshgrid(*parts, indexing="ij"), axis=-1).reshape(-1, len(parts))


def points(axes: Sequence[Axis]) -> Float[np.ndarray, "S n"]:
    """The states on the grid, the last coordinate fastest."""
    return product([np.linspace(axis.low, axis.high, axis.points) for axis in axes])


def places(axes: Sequence[Axis], states: Any) -> Any:
    """Coordinates (..., n) of states, counted in steps of the grid, in NumPy or JAX as they are given."""
    numpy = jnp if isinstance(states, jax.Array) else np
    parts = []
    for i, axis in enumerate(axes):
        offset = states[..., i] - axis.low
        parts.append(offset % (axis.high - axis.low) if axis.periodic else offset.clip(0, axis.high - axis.low))
    return numpy.stack([part / axis.step for part, axis in zip(parts, axes, strict=True)], axis=-1)


def tabulated(env: FunctionalEnv, axes: Sequence[Axis], actions: Nodes, noise: Nodes) -> Table:
    """The table whose soft value iteration is that of the environment."""
    corners = product([np.array([0.0, 1.0])] * len(axes)).astype(np.int32)
    sizes = [axis.points for axis in axes]
    rows = math.prod(sizes) * len(actions.points)
    entries = rows * len(noise.points) * len(corners)
    memory.check({"the grid's points": 20.0 * entries + 16.0 * rows * len(noise.points) * (len(axes) + 2)})

    @jax.jit
    def follow(states: Array, actions: Array, noise: Array) -> tuple[Array, Array, Array]:
        def one(s: Array, a: Array, w: Array) -> tuple[Array, Array, Array]:
            following = mover(env)(s, a, w)
            return following, env.reward(s, a, following), env.terminal(following)

        over_noise = jax.vmap(one, (None, None, 0))
        return jax.vmap(jax.vmap(over_noise, (None, 0, None)), (0, None, None))(states, actions, noise)

    given = [jnp.asarray(part, jnp.float32) for part in (points(axes), actions.points, noise.points)]
    following, reward, ends = [np.asarray(part) for part in follow(*given)]
    chance = np.exp(noise.log_weights)
    position = places(axes, following.astype(float))
    cell = np.minimum(position.astype(np.int32), np.array(sizes, np.int32) - 2)
    share = (position - cell)[..., None, :]
    weights = np.prod(np.where(corners == 1, share, 1 - share), axis=-1)  # (S, A, W, 2ⁿ)
    weights *= (chance * ~ends)[..., None]
    strides = np.append(np.cumprod(sizes[:0:-1])[::-1], 1).astype(np.int32)
    columns = (cell @ strides)[..., None] + corners @ strides
    starts = np.arange(rows + 1) * (entries // rows)
    transition = sparse.csr_array((weights.ravel(), columns.ravel(), starts), (rows, math.prod(sizes)))
    transition.sum_duplicates()
    return Table(reward.astype(float) @ chance, transition, actions.log_weights[None])
