"""Replay: which transitions are kept, and which are drawn."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.rl import buffer
from entroflow.types import Transition

CAPACITY, BATCH, DRAWS = 12, 4, 2000


def numbered(start, size=BATCH):
    """Transitions that carry their own number, in leaves of two shapes and types."""
    numbers = jnp.arange(start, start + size)
    return {"number": numbers, "vector": jnp.stack([numbers, -numbers], axis=1).astype(jnp.float32)}


def filled(batches):
    """A buffer to which that many batches were added, and how many transitions that is."""
    ring = buffer.empty(jax.tree.map(lambda leaf: leaf[0], numbered(0)), CAPACITY)
    for i in range(batches):
        ring = buffer.add(ring, numbered(i * BATCH), jnp.int32(i * BATCH))
    return ring, jnp.int32(batches * BATCH)


def test_empty_buffer_has_the_shapes_and_types_of_the_example():
    """An example transition fixes every leaf's shape and type."""
    ring, _ = filled(0)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in ring.items()} == {
        "number": ((CAPACITY,), jnp.int32),
        "vector": ((CAPACITY, 2), jnp.float32),
    }


@pytest.mark.parametrize("batches", [1, 3, 4, 8])
def test_newest_transitions_replace_the_oldest(batches):
    """The buffer holds the newest transitions, as many as fit, before and after wrapping around."""
    ring, count = filled(batches)
    kept = min(int(count), CAPACITY)
    assert set(np.asarray(ring["number"])) == set(range(int(count) - kept, int(count))) | (
        {0} if batches < 3 else set()
    )
    np.testing.assert_array_equal(ring["vector"], np.stack([ring["number"], -ring["number"]], axis=1))


@pytest.mark.parametrize(
    ("batches", "recent"), [(1, 1.0), (2, 1.0), (8, 1.0), (2, 0.5), (4, 0.5), (5, 0.25), (8, 0.25)]
)
def test_samples_cover_exactly_the_newest_part(batches, recent):
    """Samples are the newest `recent` of all that was ever added, as far as it is kept: all of it, nothing else."""
    ring, count = filled(batches)
    drawn = buffer.sample(ring, jax.random.key(batches), count, DRAWS, recent=recent)
    window = min(int(int(count) * recent), CAPACITY)
    numbers, frequency = np.unique(drawn["number"], return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(int(count) - window, int(count)))
    # Uniform: each count is binomial, five standard deviations wide.
    p = 1 / window
    np.testing.assert_allclose(frequency, DRAWS * p, atol=5 * np.sqrt(DRAWS * p * (1 - p)) + 1e-9)
    np.testing.assert_array_equal(drawn["vector"][:, 1], -drawn["number"])


def test_a_small_fraction_of_little_data_still_draws_the_newest():
    """Where `recent` of the transitions is less than one, the newest one is drawn."""
    ring = buffer.add(buffer.empty(jnp.float32(0.0), 4), jnp.float32([7.0]), jnp.int32(0))
    np.testing.assert_array_equal(buffer.sample(ring, jax.random.key(0), jnp.int32(1), 5, recent=0.1), np.full(5, 7.0))


def test_runs_share_one_count():
    """Compiled and mapped over runs with one count, adding and sampling are what they are run by run."""

    @jax.jit
    def together(rings, batches, keys, count):
        rings = jax.vmap(buffer.add, in_axes=(0, 0, None))(rings, batches, count)
        sample = lambda ring, key, count: buffer.sample(ring, key, count, 6, recent=0.5)  # noqa: E731
        return rings, jax.vmap(sample, in_axes=(0, 0, None))(rings, keys, count + BATCH)

    (first, count), keys = filled(4), jax.random.split(jax.random.key(3), 2)
    second = jax.tree.map(lambda leaf: 100 + leaf, first)
    rings = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, 100 + leaf]), numbered(16))
    rings, drawn = together(rings, batches, keys, count)
    for run, ring in enumerate([first, second]):
        batch, kept, samples = (jax.tree.map(lambda leaf, run=run: leaf[run], tree) for tree in (batches, rings, drawn))
        alone = buffer.add(ring, batch, count)
        jax.tree.map(np.testing.assert_array_equal, kept, alone)
        expected = buffer.sample(alone, keys[run], count + BATCH, 6, recent=0.5)
        jax.tree.map(np.testing.assert_array_equal, samples, expected)


@pytest.mark.parametrize(("batches", "recent"), [(1, 1.0), (8, 1.0), (4, 0.5)])
def test_blocks_are_drawn_whole(batches, recent):
    """Neighbours that were added together come together, and blocks cover the newest part evenly."""
    ring, count = filled(batches)
    drawn = buffer.sample(ring, jax.random.key(batches), count, DRAWS, recent=recent, block=2)
    pairs = np.asarray(drawn["number"]).reshape(-1, 2)
    assert (pairs[:, 0] % 2 == 0).all() and (pairs[:, 1] == pairs[:, 0] + 1).all()
    np.testing.assert_array_equal(drawn["vector"][:, 0], drawn["number"])
    window = int(min(int(count) // 2 * recent, CAPACITY // 2))
    numbers, frequency = np.unique(pairs[:, 0], return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(int(count) - 2 * window, int(count), 2))
    p, draws = 1 / window, len(pairs)
    np.testing.assert_allclose(frequency, draws * p, atol=5 * np.sqrt(draws * p * (1 - p)) + 1e-9)


def halfcheetah():
    """One transition of HalfCheetah's shapes: 17 observations, 6 actions."""
    number, flag = jnp.zeros(()), jnp.zeros((), bool)
    return Transition(jnp.zeros(17), jnp.zeros(6), number, jnp.zeros(17), flag, flag)


HALFCHEETAH_BYTES = 1_000_000 * (4 * (17 + 6 + 1 + 17) + 2)


def test_a_million_transitions_are_as_large_as_arithmetic_says():
    """166 MB: four bytes for every number, one for each flag, and nothing else."""
    shapes = jax.eval_shape(lambda: buffer.empty(halfcheetah(), 1_000_000))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)) == HALFCHEETAH_BYTES == 166_000_000


@pytest.mark.slow
def test_a_million_transitions_take_the_memory_that_arithmetic_says():
    """What the process holds in memory (Linux tells) grows by the same within a tenth, also after adding to it."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    add = jax.jit(buffer.add, donate_argnums=0)
    batch = jax.tree.map(lambda leaf: jnp.ones((4, *leaf.shape), leaf.dtype), halfcheetah())
    jax.block_until_ready(add(buffer.empty(halfcheetah(), 1_000_000), batch, jnp.int32(0)))
    before = resident()
    ring = jax.block_until_ready(buffer.empty(halfcheetah(), 1_000_000))
    for count in range(0, 4000, 4):
        ring = jax.block_until_ready(add(ring, batch, jnp.int32(count)))
    assert 0.9 * HALFCHEETAH_BYTES < resident() - before < 1.1 * HALFCHEETAH_BYTES
    assert ring.obs.shape == (1_000_000, 17)
