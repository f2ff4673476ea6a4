"""What every distance owes, on random Gaussians and samples."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entroflow.lqr.matrices import gaussian_entropy
from experiments.distances import gaussian_renyi, sample_w2

seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(1, 5)


def random_gaussian(generator, d):
    """A mean and a well-conditioned covariance."""
    factor = generator.normal(size=(d, d))
    return generator.normal(size=d), factor @ factor.T + 0.3 * np.eye(d)


@given(seeds, dimensions)
def test_renyi_grows_with_its_order_from_zero(seed, d):
    """D_a is nonnegative and nondecreasing in a."""
    generator = np.random.default_rng(seed)
    gaussians = *random_gaussian(generator, d), *random_gaussian(generator, d)
    values = [gaussian_renyi(order, *gaussians) for order in [0, 0.2, 0.8, 1, 1.1, 2, 4, math.inf]]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(values))


@given(seeds, dimensions, st.floats(0.05, 0.95))
def test_renyi_below_one_is_skew_symmetric(seed, d, order):
    """(1 − a) D_a(p‖q) = a D_{1−a}(q‖p), which fixes the roles of p, q and a."""
    generator = np.random.default_rng(seed)
    p, q = random_gaussian(generator, d), random_gaussian(generator, d)
    forward, backward = gaussian_renyi(order, *p, *q), gaussian_renyi(1 - order, *q, *p)
    assert (1 - order) * forward == pytest.approx(order * backward, rel=1e-8, abs=1e-12)


@given(seeds, dimensions)
def test_divergences_do_not_depend_on_coordinates(seed, d):
    """An affine map changes no divergence and adds log |det| to the entropy."""
    generator = np.random.default_rng(seed)
    p, q = random_gaussian(generator, d), random_gaussian(generator, d)
    matrix, offset = random_gaussian(generator, d)[1] * generator.choice([-1, 1]), generator.normal(size=d)
    image_p, image_q = ((matrix @ mean + offset, matrix @ covariance @ matrix.T) for mean, covariance in (p, q))
    assert gaussian_renyi(1.0, *image_p, *image_q) == pytest.approx(gaussian_renyi(1.0, *p, *q), rel=1e-6, abs=1e-9)
    log_det = np.linalg.slogdet(matrix)[1]
    assert gaussian_entropy(image_p[1]) == pytest.approx(gaussian_entropy(p[1]) + log_det, rel=1e-8, abs=1e-8)


@given(seeds, dimensions, st.integers(1, 30))
def test_sample_w2_measures_a_shift(seed, d, n):
    """Moving every point by c costs exactly ‖c‖, whatever the order of the points."""
    generator = np.random.default_rng(seed)
    points, shift = generator.normal(size=(n, d)), generator.normal(size=d)
    assert sample_w2(points, generator.permutation(points) + shift) == pytest.approx(np.linalg.norm(shift), rel=1e-9)


@given(seeds, st.integers(1, 20), st.integers(1, 20))
def test_sample_w2_on_a_line_counts_points_and_not_copies(seed, n, copies):
    """Repeating every point is the same distribution: sizes need not agree on a line."""
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(n, 1)), generator.normal(size=(n, 1))
    assert sample_w2(np.repeat(x, copies, axis=0), y) == pytest.approx(sample_w2(x, y), rel=1e-9)
    assert sample_w2(np.hstack([x, 0 * x]), np.hstack([y, 0 * y])) == pytest.approx(sample_w2(x, y), rel=1e-9)
