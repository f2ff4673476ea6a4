"""Gradient steps: what policies and critics share."""

from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import ArrayLike, Float

M = TypeVar("M")
LIMIT = 10.0  # of a gradient, in root mean squares of those before
SECOND = 0.999  # Adam's second momentum


def planned(rate: float, warmup: float, steps: int, rest: float = 0.0) -> optax.GradientTransformation:
    """Return Muon with warm-up and cosine decay: steps of equal size in every direction of a weight matrix.

    Small regression errors need that; with Adam they are several times larger at equal cost. The rate is zero for the
    share `rest` of the steps, and rises to its peak over the share `warmup` of those that are left.
    """
    still = int(rest * steps)
    left = max(1, steps - still)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, min(int(warmup * left), left - 1), left)
    return optax.contrib.muon(optax.join_schedules([lambda _: 0.0, schedule], [still]) if still else schedule)


def optimiser(rate: float, warmup: float, steps: int | None, rest: float = 0.0) -> optax.GradientTransformation:
    """Return the optimiser of a training, Adam at a constant rate where it has no planned end."""
    return limited(optax.adam(rate)) if steps is None else planned(rate, warmup, steps, rest)


def limited(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return Adam for gradients at most ten times as long as the root mean square of those that it remembers.

    Adam divides by that root: a single gradient 10⁸ times as long as the others stops it for 30,000 steps.

    Example:
        >>> adam, wild = limited(optax.adam(1e-3)), jnp.ones(1)
        >>> _, state = descend(adam, wild, wild, adam.init(wild))
        >>> _, (state, *_) = descend(adam, 1e8 * wild, wild, state)
        >>> f"{state.nu[0]:.3f}"  # 0.001 of 1 and of 10²
        '0.101'
    """

    def update(
        gradient: optax.Updates, state: optax.OptState, parameters: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        known = cast(tuple[optax.ScaleByAdamState, ...], state)[0]
        squares = jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, known.nu))
        most = LIMIT * jnp.sqrt(squares / (1 - SECOND ** jnp.maximum(known.count, 1).astype(squares.dtype)))
        length = optax.tree.norm(gradient)
        share = jnp.where((length > most) & (most > 0), most / length, 1.0)
        return adam.update(jax.tree.map(lambda part: share * part, gradient), state, parameters)

    return optax.GradientTransformation(adam.init, cast(optax.TransformUpdateFn, update))


def descend(
    optimiser: optax.GradientTransformation, gradient: M, model: M, state: optax.OptState
) -> tuple[M, optax.OptState]:
    """Make one gradient step."""
    parameters = cast(optax.Params, model)
    with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to the power of integers
        updates, state = optimiser.update(cast(optax.Updates, gradient), state, parameters)
    return cast(M, optax.apply_updates(parameters, updates)), state


def follow(average: M, value: M, rate: Float[ArrayLike, ""]) -> M:
    """Move a running average toward a value by a share of the way in [0, 1], leaf by leaf."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, value)
