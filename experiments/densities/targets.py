"""Densities known up to a constant, with exact samples and exact log Z: targets with one state for ISFM.

A target is exp(Q/α)/Z with a single state: `log_density` is Q/α.
"""

import itertools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import integrate, special
from scipy.spatial import KDTree

from entroflow import checks

GRID = 20_001  # points of tabulated distribution functions
CELLS = 128  # along each axis, of the mode weights of mixtures
MOST_MODES = 64  # a target with more does not list them
LARGEST_SIZE = 256


class Density(NamedTuple):
    """A density exp(log_density(x)) / Z on R^d."""

    name: str
    """What tables and figures call it."""
    size: int
    """Dimension d."""
    log_density: Callable[[Array], Array]
    """x ↦ Q/α, in JAX, shapes (d,) and ()."""
    log_z: float
    """log ∫ exp(log_density), exact."""
    sample: Callable[[np.random.Generator, int], Float[np.ndarray, "n d"]]
    """Exact samples, (generator, n) ↦ (n, d) in float64."""
    scale: float
    """Typical distance of samples from the origin per component, the unit of the flow's latent."""
    modes: Float[np.ndarray, "k d"] | None = None
    """Centres of the modes; None where there are too many or no clear ones."""
    mode_weights: Float[np.ndarray, " k"] | None = None
    """Their exact probabilities; a sample belongs to the nearest mode."""


def names() -> list[str]:
    """Return the names of the catalogue; `get` knows gaussian_d and many_well_d of other dimensions, too."""
    fixed = "ring4", "grid9", "gmm40", "two_moons", "double_well"
    return ["gaussian_2", "gaussian_8", *fixed, "many_well_8", "many_well_32"]


def get(name: str) -> Density:
    """The named target: one of `names()`, or gaussian_d or many_well_d with another dimension d (even for many_well).

    A `ValueError` lists the names if there is none.

    Example:
        >>> target = get("ring4")
        >>> target.size, target.modes.shape, target.mode_weights.round(2)
        (2, (4, 2), array([0.4, 0.3, 0.2, 0.1]))
    """
    fixed = {"ring4": ring4, "grid9": grid9, "gmm40": gmm40, "two_moons": two_moons, "double_well": double_well}
    if name in fixed:
        return fixed[name]()
    if (match := re.fullmatch(r"(gaussian|many_well)_([1-9]\d{0,5})", name)) is None:
        checks.choice("target", name, names())
        raise AssertionError("a name of the catalogue that nothing builds")
    return {"gaussian": gaussian, "many_well": many_well}[match[1]](int(match[2]))


def gaussian(size: int) -> Density:
    """A Gaussian of random mean and axes, standard deviations 0.3 to 1.5 spaced evenly in logarithm; not normalised."""
    _size("gaussian", size, 1)
    random = np.random.default_rng(0)
    mean = random.standard_normal(size)
    axes, _ = np.linalg.qr(random.standard_normal((size, size)))
    deviations = np.geomspace(0.3, 1.5, size) if size > 1 else np.array([0.6])
    factor, whiten = axes * deviations, jnp.asarray(axes / deviations, jnp.float32)
    center = jnp.asarray(mean, jnp.float32)
    return Density(
        f"gaussian_{size}",
        size,
        lambda x: -0.5 * jnp.sum(((x - center) @ whiten) ** 2),
        float(np.sum(np.log(deviations)) + 0.5 * size * math.log(2 * math.pi)),
        lambda generator, n: mean + generator.standard_normal((n, size)) @ factor.T,
        float(np.sqrt(np.mean(mean**2) + np.mean(deviations**2))),
        mean[None],
        np.ones(1),
    )


def ring4() -> Density:
    """Four Gaussians of standard deviation 0.5 on a ring of radius 4, of weights 0.4, 0.3, 0.2 and 0.1."""
    means = 4.0 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    return _mixture("ring4", means, 0.5, np.array([0.4, 0.3, 0.2, 0.1]))


def grid9() -> Density:
    """Nine equal Gaussians of variance 0.3, means in {−5, 0, 5}² (Zhang and Chen 2022, Path Integral Sampler)."""
    return _mixture("grid9", np.array(list(itertools.product([-5.0, 0.0, 5.0], repeat=2))), math.sqrt(0.3))


def gmm40() -> Density:
    """Forty equal Gaussians of standard deviation log(1 + e), means strewn over [−40, 40]².

    Those of Midgley et al. (2023, Flow Annealed Importance Sampling), whose means come from PyTorch's generator with
    seed zero: the lower 24 bits of the Mersenne Twister.
    """
    twister = np.random.RandomState(0)
    bits = twister.randint(0, 2**32, size=80, dtype=np.uint32) & (2**24 - 1)
    return _mixture("gmm40", 80.0 * (bits.reshape(40, 2) / 2**24 - 0.5), math.log1p(math.e))


def two_moons() -> Density:
    """Two interleaved half rings of radius 1 and width 0.1.

    About its centre a moon has the unnormalised density exp(−(r − 1)²/(2·0.1²)) S(8 sin θ), S the sigmoid; the other
    one is turned by half a circle. As S(z) + S(−z) = 1, the angle's integral is exactly π.
    """
    width, sharpness = 0.1, 8.0
    centers = np.array([[-0.5, -0.25], [0.5, 0.25]])
    signs, moons = jnp.array([1.0, -1.0], jnp.float32), jnp.asarray(centers, jnp.float32)

    def log_density(x: Array) -> Array:
        offset = x[None] - moons
        radius = jnp.sqrt(jnp.sum(offset**2, axis=1) + 1e-12)
        angle = jax.nn.log_sigmoid(sharpness * signs * offset[:, 1] / radius)
        return jax.nn.logsumexp(angle - 0.5 * ((radius - 1) / width) ** 2)

    draw_radius = _tabulated(lambda r: np.log(r) - 0.5 * ((r - 1) / width) ** 2, 1e-3, 2.0)

    def sample(generator: np.random.Generator, n: int) -> Float[np.ndarray, "n d"]:
        radius, angle = draw_radius(generator, n), generator.uniform(0, 2 * np.pi, n)
        wrong_half = generator.uniform(size=n) > special.expit(sharpness * np.sin(angle))
        moon = generator.integers(2, size=n)
        angle = np.where(wrong_half, -angle, angle) + np.pi * moon
        return centers[moon] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    # ∫ r exp(−(r − 1)²/2w²) dr over r > 0
    radial = width**2 * math.exp(-0.5 / width**2) + width * math.sqrt(2 * math.pi) * special.ndtr(1 / width)
    return Density("two_moons", 2, log_density, math.log(2 * math.pi * radial), sample, 0.72)


def double_well() -> Density:
    """The double well exp(x₁/2 + 6x₁² − x₁⁴ − x₂²/2) in the plane (Noé et al. 2019)."""
    return many_well(2)._replace(name="double_well")


def many_well(size: int) -> Density:
    """The product of d/2 double wells (Midgley et al. 2023), d even: coordinates are (well, Gaussian, well, …)."""
    _size("many_well", size, 2)
    wells = size // 2
    well = lambda x: 0.5 * x + 6.0 * x**2 - x**4  # noqa: E731
    mass = lambda low, high: integrate.quad(lambda x: math.exp(well(x)), low, high, epsabs=0, epsrel=1e-12)[0]  # noqa: E731
    bottoms = np.sort(np.roots([-4.0, 0.0, 12.0, 0.5]).real)[[0, 2]]  # without the top of the barrier between them
    ridge = float(bottoms.mean())  # a sample belongs to the nearest mode
    masses = np.array([mass(-5.0, ridge), mass(ridge, 5.0)])
    draw_well = _tabulated(well, -5.0, 5.0)

    def log_density(x: Array) -> Array:
        return jnp.sum(well(x[::2])) - 0.5 * jnp.sum(x[1::2] ** 2)

    def sample(generator: np.random.Generator, n: int) -> Float[np.ndarray, "n d"]:
        pair = draw_well(generator, n * wells).reshape(n, wells), generator.standard_normal((n, wells))
        return np.stack(pair, axis=2).reshape(n, size)

    modes = mode_weights = None
    if 2**wells <= MOST_MODES:
        sides = np.array(list(itertools.product([0, 1], repeat=wells)))
        modes = np.zeros((len(sides), size))
        modes[:, ::2] = bottoms[sides]
        mode_weights = np.prod((masses / masses.sum())[sides], axis=1)
    log_z = wells * (math.log(masses.sum()) + 0.5 * math.log(2 * math.pi))
    return Density(f"many_well_{size}", size, log_density, log_z, sample, 1.4, modes, mode_weights)


def _mixture(
    name: str, means: Float[np.ndarray, "k d"], deviation: float, weights: Float[np.ndarray, " k"] | None = None
) -> Density:
    """A normalised mixture of round Gaussians; its modes are taken to be their means."""
    count, size = means.shape
    weights = np.full(count, 1 / count) if weights is None else weights
    log_scale = np.log(weights) - size * (math.log(deviation) + 0.5 * math.log(2 * math.pi))
    centers, offset = jnp.asarray(means, jnp.float32), jnp.asarray(log_scale, jnp.float32)

    def log_density(x: Array) -> Array:
        return jax.nn.logsumexp(offset - 0.5 * jnp.sum(((x[None] - centers) / deviation) ** 2, axis=1))

    def sample(generator: np.random.Generator, n: int) -> Float[np.ndarray, "n d"]:
        component = generator.choice(count, size=n, p=weights)
        return means[component] + deviation * generator.standard_normal((n, size))

    scale = math.sqrt(weights @ np.mean(means**2, axis=1) + deviation**2)
    # Where components overlap, the nearest mean is not always the component's own: integrate over cells of equal mass.
    quantiles = deviation * special.ndtri((np.arange(CELLS) + 0.5) / CELLS)
    spread = np.stack(np.meshgrid(*[quantiles] * size), axis=-1).reshape(-1, size)
    _, nearest = KDTree(means).query(means[:, None] + spread)
    shares = np.bincount(nearest.ravel(), np.repeat(weights, len(spread)), count) / len(spread)
    return Density(name, size, log_density, 0.0, sample, scale, means, shares)


def _tabulated(
    log_density: Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, " m"]], low: float, high: float
) -> Callable[[np.random.Generator, int], Float[np.ndarray, " n"]]:
    """Return a sampler on a line by the inverse of the distribution function, tabulated between two bounds."""
    grid = np.linspace(low, high, GRID)
    values = log_density(grid)
    cumulative = integrate.cumulative_simpson(np.exp(values - values.max()), x=grid, initial=0)
    cumulative = np.maximum.accumulate(cumulative / cumulative[-1])
    return lambda generator, n: np.interp(generator.uniform(size=n), cumulative, grid)


def _size(name: str, size: int, multiple: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE or size % multiple:
        expected = f"{'an even' if multiple == 2 else 'a whole'} dimension from {multiple} to {LARGEST_SIZE}"
        raise checks.error("target", f"{name}_{size}", expected, f"pass for example {name}_8")
