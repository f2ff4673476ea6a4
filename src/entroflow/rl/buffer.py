"""Replay: a ring of transitions in arrays of fixed size, on the device.

The buffer is a PyTree (the transitions) and a number (how many were ever added). The number is passed by hand because
many runs advance together: with one number for all of them, adding stays a copy in place under `vmap`. The capacity is
a multiple of the size of the batches that are added.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

T = TypeVar("T", bound=PyTree)


def empty(example: T, capacity: int) -> T:
    """Make an empty buffer: the example's leaves with a leading axis of length `capacity`."""
    return jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), example)


def add(buffer: T, batch: T, count: Int[Array, ""]) -> T:
    """Write a batch over the oldest transitions."""

    def write(ring: Array, rows: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, rows.astype(ring.dtype), count % ring.shape[0], axis=0)

    return jax.tree.map(write, buffer, batch)


def sample(buffer: T, key: PRNGKeyArray, count: Int[Array, ""], size: int, *, recent: float = 1.0, block: int = 1) -> T:
    """Draw transitions uniformly, with replacement, from the newest part of all that was ever added.

    Args:
        buffer: leaves of shape (capacity, ...).
        key: random key.
        count: number of transitions added before, at least one.
        size: number of transitions to draw.
        recent: fraction of the transitions added so far to draw from, in (0, 1]. Below one, what an untrained policy
            saw is left behind soon, and yet the sample grows with time.
        block: transitions drawn together, neighbours in the buffer; a divisor of all that was added at once, of the
            capacity and of `size`. Neighbours that stem from different environments are independent, and reading them
            together saves most of the time that a large buffer costs.

    Returns:
        Transitions, leaves of shape (size, ...).
    """
    blocks = jax.tree.leaves(buffer)[0].shape[0] // block
    added = count // block
    window = jnp.minimum((added.astype(jnp.float32) * recent).astype(count.dtype), blocks)
    age = jax.random.randint(key, (size // block,), 0, jnp.maximum(window, 1))
    rows = (added - 1 - age) % blocks
    return jax.tree.map(
        lambda ring: ring.reshape(blocks, block, *ring.shape[1:])[rows].reshape(size, *ring.shape[1:]), buffer
    )
