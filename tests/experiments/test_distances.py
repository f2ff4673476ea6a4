"""Distances against quadrature, SciPy and POT, with means, variances and correlations that all differ."""

import math

import numpy as np
import ot
import pytest
from scipy import integrate, stats

from entroflow.lqr.matrices import gaussian_entropy
from experiments.distances import gaussian_renyi, sample_w2

ORDERS = [0.3, 0.9, 1.0, 1 + 1e-9, 2.0, 4.0]
LINE = ([0.7], [[0.5]], [-0.4], [[1.3]])
# The covariances do not commute, so that no order of factors is right by accident.
PLANE = ([0.3, -0.2], [[0.5, 0.2], [0.2, 0.9]], [-0.1, 0.4], [[1.5, -0.3], [-0.3, 1.2]])


def on_grid(mean_p, covariance_p, mean_q, covariance_q):
    """log p, log q and the cell's volume on a grid that holds all their mass: a plain sum is then exact to rounding."""
    d = len(mean_p)
    axis, step = np.linspace(-12, 12, 481, retstep=True)
    points = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), axis=-1)
    log_p = stats.multivariate_normal(mean_p, covariance_p).logpdf(points)
    log_q = stats.multivariate_normal(mean_q, covariance_q).logpdf(points)
    return log_p, log_q, step**d


@pytest.mark.parametrize("gaussians", [LINE, PLANE], ids=["1-D", "2-D"])
def test_entropy_is_the_integral_of_minus_p_log_p(gaussians):
    """The entropy has the right sign and constant."""
    log_p, _, cell = on_grid(*gaussians)
    assert gaussian_entropy(np.array(gaussians[1])) == pytest.approx(-np.sum(np.exp(log_p) * log_p) * cell, rel=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gaussians", [LINE, PLANE], ids=["1-D", "2-D"])
def test_renyi_is_the_integral_of_its_definition(gaussians, order):
    """The closed form equals quadrature of the definition, p first and q second, through order one."""
    log_p, log_q, cell = on_grid(*gaussians)
    if abs(order - 1) < 1e-6:
        expected = np.sum(np.exp(log_p) * (log_p - log_q)) * cell
    else:
        expected = math.log(np.sum(np.exp(order * log_p + (1 - order) * log_q)) * cell) / (order - 1)
    assert gaussian_renyi(order, *gaussians) == pytest.approx(expected, rel=1e-7)


def test_kl_is_not_symmetric():
    """KL(p‖q) takes the expectation under its first argument."""
    p, q = LINE[:2], LINE[2:]
    density_p, density_q = stats.norm(0.7, math.sqrt(0.5)), stats.norm(-0.4, math.sqrt(1.3))
    for first, second, arguments in [(density_p, density_q, p + q), (density_q, density_p, q + p)]:
        expected, _ = integrate.quad(lambda x, f=first, g=second: f.pdf(x) * (f.logpdf(x) - g.logpdf(x)), -12, 12)
        assert gaussian_renyi(1.0, *arguments) == pytest.approx(expected, rel=1e-8)


def test_renyi_of_order_infinity_is_the_largest_log_ratio():
    """Order infinity is the supremum of log p − log q, the bound on an importance weight."""
    log_p, log_q, _ = on_grid(*PLANE)
    assert gaussian_renyi(math.inf, *PLANE) == pytest.approx((log_p - log_q).max(), abs=1e-3)
    assert gaussian_renyi(1e9, *PLANE) == pytest.approx(gaussian_renyi(math.inf, *PLANE), rel=1e-7)


def test_renyi_is_infinite_where_the_integral_diverges():
    """A proposal with too light tails is reported as infinity: order a needs a Σ_q − (a − 1) Σ_p positive definite."""
    p_and_q = ([0.0], [[2.0]], [0.0], [[1.0]])
    assert math.isfinite(gaussian_renyi(1.99, *p_and_q))
    assert gaussian_renyi(2.0, *p_and_q) == math.inf
    assert gaussian_renyi(math.inf, *p_and_q) == math.inf
    assert gaussian_renyi(math.inf, [1.0], [[1.0]], [0.0], [[1.0]]) == math.inf


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 3.0, math.inf])
def test_renyi_of_equal_gaussians_is_zero(order):
    """A distribution does not diverge from itself, rounding in the whitening notwithstanding."""
    mean, covariance = PLANE[:2]
    assert gaussian_renyi(order, mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("n", "m", "d"), [(7, 7, 1), (6, 9, 1), (5, 12, 1), (40, 40, 2), (40, 40, 5)])
def test_sample_w2_agrees_with_pot(n, m, d):
    """W₂ between samples is the optimal-transport cost, for unequal sizes on a line too."""
    generator = np.random.default_rng(n + m + d)
    x, y = generator.normal(size=(n, d)), generator.normal(0.5, 2.0, size=(m, d))
    assert sample_w2(x, y) == pytest.approx(math.sqrt(ot.emd2(ot.unif(n), ot.unif(m), ot.dist(x, y))), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_renyi(1.0, [0.0], [[0.0]], [0.0], [[1.0]]), "covariance_p.*positive definite"),
        (lambda: gaussian_renyi(1.0, [0.0], [[1.0]], [0.0], [[0.0]]), "covariance_q.*positive definite"),
        (lambda: gaussian_renyi(1.0, [0.0], [[1.0]], [0.0, 0.0], [[1.0]]), "same dimension"),
        (lambda: gaussian_renyi(1.0, [0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], [0.0, 0.0], np.eye(2)), "symmetric"),
        (lambda: gaussian_renyi(-1.0, *LINE), "from 0 to infinity"),
        (lambda: gaussian_renyi(math.nan, *LINE), "finite number"),
        (lambda: sample_w2(np.zeros((3, 2)), np.zeros((4, 2))), "4 points"),
        (lambda: sample_w2(np.zeros((3, 2)), np.zeros((3, 1))), "as many columns as x"),
        (lambda: sample_w2([[math.nan]], [[0.0]]), "finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    """Bad input gives one sentence that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        call()
