"""Units that follow the data: running moments, and how fast they forget."""

import jax
import jax.numpy as jnp
import numpy as np

from entroflow.moments import MEMORY, Moments, forgetting_rate, join, standard


def random_moments(seed, *shape):
    """Moments far from mean zero and scale one."""
    mean_key, scale_key = jax.random.split(jax.random.key(seed))
    return Moments(3.0 * jax.random.normal(mean_key, shape), jnp.exp(jax.random.normal(scale_key, shape)))


def test_moments_at_rate_one_are_those_of_the_batch():
    """A rate of one forgets everything: NumPy's mean and standard deviation, whatever came before."""
    batch = jax.random.normal(jax.random.key(0), (50, 2)) @ jnp.diag(jnp.float32([0.1, 7.0])) + 2.0
    moments = random_moments(1, 2).update(batch, jnp.float32(1.0))
    np.testing.assert_allclose(moments.mean, np.mean(batch, axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.scale, np.std(batch, axis=0), rtol=1e-5)


def test_moments_move_by_the_rate():
    """A rate of 0.25 goes a quarter of the way; a rate of zero stays."""
    old, batch = random_moments(1), jax.random.normal(jax.random.key(2), (20,))
    moved = old.update(batch, jnp.float32(0.25))
    np.testing.assert_allclose(moved.mean, 0.75 * old.mean + 0.25 * np.mean(batch), rtol=1e-5)
    np.testing.assert_allclose(moved.scale, 0.75 * old.scale + 0.25 * np.std(batch), rtol=1e-5)
    same = old.update(batch, jnp.float32(0.0))
    assert (same.mean, same.scale) == (old.mean, old.scale)


def test_a_constant_component_keeps_its_scale():
    """What never moves is normalised to zero, and its first movement is not millions of standard deviations."""
    moments = standard(1).update(jnp.full((8, 1), 0.5), jnp.float32(1.0))
    assert moments.scale == 1
    np.testing.assert_array_equal(moments.normalise(jnp.float32([0.5])), [0.0])
    moved = moments.update(jnp.zeros((8, 1)).at[0].set(8.0), jnp.float32(0.5))
    np.testing.assert_allclose(moved.scale, [(1 + 7**0.5) / 2], rtol=1e-6)
    still = moved.update(jnp.zeros((8, 1)), jnp.float32(0.5))
    np.testing.assert_array_equal(still.scale, moved.scale)
    far = standard(1).update(jnp.full((256, 1), 12345.678), jnp.float32(1.0))  # whose deviation is 0.002, by rounding
    assert far.scale == 1
    np.testing.assert_allclose(far.update(jnp.float32([[12344.0], [12346.0]]), jnp.float32(1.0)).scale, 1)


def test_a_limit_bounds_what_is_normalised():
    """A limit is kept through updates; inside of it nothing changes."""
    moments = standard(3, limit=2.0).update(jnp.float32([[-3.0, 0.0, 1.0], [3.0, 2.0, 1.0]]), jnp.float32(1.0))
    np.testing.assert_allclose(moments.normalise(jnp.float32([60.0, -9.0, 1.5])), [2.0, -2.0, 0.5])
    assert standard(1).normalise(jnp.float32([1e7])) == 1e7


def test_restore_undoes_normalise():
    """Normalising gives mean zero and variance one, restoring undoes it, and joined moments act on the parts."""
    first, second = random_moments(3, 2), random_moments(4, 1)
    x, y = first.mean + first.scale * jnp.float32([1.0, -2.0]), second.mean + second.scale * jnp.float32([0.5])
    np.testing.assert_allclose(first.normalise(x), [1.0, -2.0], rtol=1e-5)
    both = join(first, second)
    np.testing.assert_allclose(both.normalise(jnp.concatenate([x, y])), [1.0, -2.0, 0.5], rtol=1e-5)
    np.testing.assert_allclose(both.restore(jnp.float32([1.0, -2.0, 0.5])), np.concatenate([x, y]), rtol=1e-5)


def test_forgetting_rate_weighs_late_batches_more_and_then_settles():
    """The first batch counts in full, batch t with (k + 1)/(t + 1 + k), and none after the units are settled."""
    steps = jnp.arange(6, dtype=jnp.float32)
    k, t = MEMORY, np.arange(6)
    expected = np.where(t < 4, (k + 1) / (t + 1 + k), 0.0)
    np.testing.assert_allclose(jax.vmap(lambda step: forgetting_rate(step, 4.0))(steps), expected, rtol=1e-6)
    assert expected[0] == 1.0


def test_moments_average_polynomially():
    """Followed with the forgetting rate, the mean weighs batch i with the polynomial (i + 1)(i + 2)…(i + k), k = 8."""
    batches = jax.random.normal(jax.random.key(6), (30, 1))
    moments = standard()
    for step, batch in enumerate(batches):
        moments = moments.update(batch, forgetting_rate(jnp.float32(step), 100.0))
    weights = np.prod(np.arange(30)[:, None] + 1.0 + np.arange(MEMORY), axis=1)
    np.testing.assert_allclose(moments.mean, np.average(batches[:, 0], weights=weights), rtol=1e-4, atol=1e-6)
