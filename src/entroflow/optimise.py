"""Gradient steps: what policies and critics share."""

from typing import TypeVar, cast

import jax
import optax
import optax.contrib
from jaxtyping import ArrayLike, Float

M = TypeVar("M")


def planned(rate: float, warmup: float, steps: int) -> optax.GradientTransformation:
    """Return Muon with warm-up and cosine decay: steps of equal size in every direction of a weight matrix.

    Small regression errors need that; with Adam they are several times larger at equal cost.

    Args:
        rate: peak learning rate.
        warmup: fraction of the steps over which the rate rises to its peak.
        steps: number of steps, after which the rate is zero.

    Returns:
        The optimiser.
    """
    return optax.contrib.muon(optax.warmup_cosine_decay_schedule(0.0, rate, int(warmup * steps), steps))


def optimiser(rate: float, warmup: float, steps: int | None) -> optax.GradientTransformation:
    """Return the optimiser of a training, Adam at a constant rate where it has no planned end, else see `planned`."""
    return optax.adam(rate) if steps is None else planned(rate, warmup, steps)


def descend(
    optimiser: optax.GradientTransformation, gradient: M, model: M, state: optax.OptState
) -> tuple[M, optax.OptState]:
    """Make one gradient step.

    Args:
        optimiser: the optimiser.
        gradient: gradient of the loss, a model in structure.
        model: the parameters.
        state: the optimiser's state.

    Returns:
        The parameters and the optimiser's state after the step.
    """
    parameters = cast(optax.Params, model)
    with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to the power of integers
        updates, state = optimiser.update(cast(optax.Updates, gradient), state, parameters)
    return cast(M, optax.apply_updates(parameters, updates)), state


def follow(average: M, value: M, rate: Float[ArrayLike, ""]) -> M:
    """Move a running average toward a value.

    Args:
        average: a tree of arrays.
        value: a tree of the same structure.
        rate: share of the way, in [0, 1].

    Returns:
        average + rate (value − average), leaf by leaf.
    """
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, value)
