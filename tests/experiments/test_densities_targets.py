"""Target densities: normalising constants, modes and catalogue, against quadrature and published numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.densities.targets import double_well, gaussian, get, gmm40, many_well, names

PLANE = [name for name in names() if get(name).size == 2]


@pytest.mark.parametrize("name", PLANE)
def test_log_z_is_the_integral(name):
    """log Z of every target in the plane agrees with a sum over a grid that resolves and contains it."""
    target = get(name)
    reach = 7 * target.scale if name != "gmm40" else 60.0
    axis = np.linspace(-reach, reach, 901)
    points = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1), jnp.float32)
    values = np.asarray(jax.jit(lambda x: jax.lax.map(jax.vmap(target.log_density), x))(points), np.float64)
    integral = math.log(np.exp(values).sum() * (axis[1] - axis[0]) ** 2)
    assert integral == pytest.approx(target.log_z, abs=2e-5)


def test_gaussians_log_z_is_that_of_its_precision():
    """A Gaussian of eight dimensions: log Z = ½ log det(2π Σ), Σ from the curvature of the log-density."""
    target = gaussian(8)
    precision = -np.asarray(jax.hessian(target.log_density)(jnp.zeros(8)), np.float64)
    assert target.log_z == pytest.approx(-0.5 * np.linalg.slogdet(precision / (2 * np.pi))[1], abs=1e-4)
    assert target.modes is not None
    np.testing.assert_allclose(jax.grad(target.log_density)(jnp.asarray(target.modes[0], jnp.float32)), 0, atol=1e-4)


def test_many_wells_are_a_product_of_wells():
    """Eight dimensions are four double wells on pairs of coordinates, and so are log Z and the weights of 16 modes."""
    wells, well = many_well(8), double_well()
    x = jnp.linspace(-1.5, 1.9, 8)
    parts = jax.vmap(well.log_density)(x.reshape(4, 2))
    assert float(wells.log_density(x)) == pytest.approx(float(jnp.sum(parts)), abs=1e-5)
    assert wells.log_z == pytest.approx(4 * well.log_z)
    assert well.mode_weights is not None and wells.mode_weights is not None
    assert wells.mode_weights.max() == pytest.approx(well.mode_weights.max() ** 4)


def test_many_well_has_the_published_constant():
    """log Z in 32 dimensions is 16 (log 11784.50927 + ½ log 2π), the value that the FAB code base gives."""
    assert get("many_well_32").log_z == pytest.approx(16 * (math.log(11784.50927) + 0.5 * math.log(2 * math.pi)))


def test_gmm40_has_the_published_means():
    """The means are uniform numbers of PyTorch's generator with seed zero, in [−40, 40]."""
    means = gmm40().modes
    assert means is not None and means.shape == (40, 2)
    np.testing.assert_allclose(
        means[:3].ravel() / 80 + 0.5, [0.4963, 0.7682, 0.0885, 0.1320, 0.3074, 0.6341], atol=5e-5
    )


@pytest.mark.parametrize("name", [name for name in names() if get(name).modes is not None])
def test_modes_are_maxima_and_have_all_the_mass(name):
    """The density falls in all directions from every mode that no other one overlaps; the modes' weights sum to one."""
    target = get(name)
    assert target.modes is not None and target.mode_weights is not None
    assert target.mode_weights.sum() == pytest.approx(1.0)
    gaps = np.linalg.norm(target.modes[:, None] - target.modes, axis=2) + 99 * np.eye(len(target.modes))
    alone = target.modes[gaps.min(axis=1) > 5 * (name == "gmm40")]
    assert len(alone) > 10 or len(alone) == len(target.modes)
    steps = 0.2 * np.vstack([np.zeros(target.size), np.eye(target.size), -np.eye(target.size)])
    values = jax.vmap(jax.vmap(target.log_density))(jnp.asarray(alone[:, None] + steps, jnp.float32))
    assert np.all(values[:, :1] > values[:, 1:])


@pytest.mark.parametrize("name", names())
def test_every_name_builds_its_target(name):
    """A target carries the name it was asked for, and its samples have its size and the scale it states."""
    target = get(name)
    assert target.name == name
    samples = target.sample(np.random.default_rng(0), 4000)
    assert samples.shape == (4000, target.size)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(target.scale, rel=0.05)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grid8", "did you mean 'grid9'"),
        ("many_well_7", "got many_well_7, expected an even dimension from 2 to 256"),
        ("gaussian_900", "got gaussian_900, expected a whole dimension from 1 to 256"),
        ("gaussian_0", "expected one of gaussian_2"),
    ],
)
def test_unknown_targets_are_refused(name, message):
    """A misspelt name gets a suggestion, an impossible dimension the possible ones."""
    with pytest.raises(ValueError, match=message):
        get(name)
