"""Exact samples of target densities: they follow the stated density, the modes' weights included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.densities.targets import get, names

SAMPLES = 40_000
PLANE = [name for name in names() if get(name).size == 2]


@pytest.mark.parametrize("name", PLANE)
def test_samples_follow_the_density(name):
    """Counts in 20 × 20 cells against the density's integrals: χ² is within 4.5 of its standard deviations."""
    target = get(name)
    samples = target.sample(np.random.default_rng(1), SAMPLES)
    reach = 1.02 * np.abs(samples).max(axis=0)
    cells, fine = 20, 25
    axes = [np.linspace(-r, r, cells * fine, endpoint=False) + r / (cells * fine) for r in reach]
    points = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), jnp.float32)
    density = np.exp(np.asarray(jax.jit(jax.vmap(jax.vmap(target.log_density)))(points), np.float64) - target.log_z)
    area = np.prod(2 * reach / (cells * fine))
    expected = SAMPLES * area * density.reshape(cells, fine, cells, fine).sum(axis=(1, 3))
    counts, *_ = np.histogram2d(*samples.T, bins=cells, range=[[-r, r] for r in reach])
    # Cells with few samples are merged into one.
    often = expected > 10
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(expected[often], SAMPLES - expected[often].sum())
    statistic, freedom = np.sum((observed - expected) ** 2 / expected), len(expected) - 1
    assert abs(statistic - freedom) < 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("name", ["gaussian_8", "many_well_8", "many_well_32"])
def test_samples_obey_steins_identity(name):
    """E[∂_i log p] = 0 and E[x_j ∂_i log p] = −1 where i = j, 0 elsewhere, within 5 standard errors."""
    target = get(name)
    samples = target.sample(np.random.default_rng(2), SAMPLES)
    scores = np.asarray(jax.jit(jax.vmap(jax.grad(target.log_density)))(jnp.asarray(samples, jnp.float32)), np.float64)
    for values, expected in [(scores, 0.0), (samples[:, :, None] * scores[:, None], -np.eye(target.size))]:
        error = np.abs(values.mean(axis=0) - expected)
        assert np.all(error < 5 * values.std(axis=0) / np.sqrt(SAMPLES))


@pytest.mark.parametrize("name", [name for name in names() if get(name).modes is not None])
def test_samples_visit_modes_by_their_weights(name):
    """The share of samples nearest to a mode is the mode's weight, within 4.5 standard errors."""
    target = get(name)
    assert target.modes is not None and target.mode_weights is not None
    samples = target.sample(np.random.default_rng(3), SAMPLES)
    nearest = np.argmin(((samples[:, None] - target.modes) ** 2).sum(axis=2), axis=1)
    shares = np.bincount(nearest, minlength=len(target.modes)) / SAMPLES
    errors = np.sqrt(target.mode_weights * (1 - target.mode_weights) / SAMPLES)
    assert np.all(np.abs(shares - target.mode_weights) <= 4.5 * errors)
