"""Closed forms and intervals against samples; tolerances are standard errors."""

import math

import numpy as np
import pytest
from scipy import stats

from entroflow.diagnostics import bootstrap_interval
from experiments.distances import gaussian_renyi, sample_w2


def test_samples_approach_the_gaussian_distance():
    """W₂ between large samples on a line is the closed form's: its error is that of a mean and a standard deviation."""
    n = 200_000
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.0, 1.0, size=(n, 1)), generator.normal(1.0, 2.0, size=(n, 1))
    exact = math.sqrt(2)  # mean and standard deviation differ by one each
    standard_error = math.sqrt((1 + 4) / n + (1 + 4) / (2 * n)) / math.sqrt(2)
    assert sample_w2(x, y) == pytest.approx(exact, abs=4 * standard_error)


def test_renyi_of_order_two_predicts_the_effective_sample_size():
    """E_q[w²] = exp(D_2(p‖q)): the share of candidates that importance weights leave effective."""
    n = 400_000
    p, q = stats.norm(0.5, 0.8), stats.norm(0.0, 1.2)
    x = q.rvs(n, random_state=np.random.default_rng(0))
    squares = np.exp(2 * (p.logpdf(x) - q.logpdf(x)))
    predicted = math.exp(gaussian_renyi(2.0, [0.5], [[0.8**2]], [0.0], [[1.2**2]]))
    assert squares.mean() == pytest.approx(predicted, abs=4 * squares.std() / math.sqrt(n))


def test_interval_agrees_with_scipy_bootstrap():
    """With one task the interval is SciPy's percentile bootstrap, up to the Monte-Carlo error of two quantiles."""
    scores = np.random.default_rng(0).exponential(size=(12, 1))
    resamples = 20_000
    ours = bootstrap_interval(
        lambda values: values.mean(axis=(-2, -1)), scores, generator=np.random.default_rng(1), resamples=resamples
    )
    theirs = stats.bootstrap(
        (scores[:, 0],), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    tail = 0.025
    spread = scores.std() / math.sqrt(len(scores))
    quantile_error = spread * math.sqrt(tail * (1 - tail) / resamples) / stats.norm.pdf(stats.norm.ppf(tail))
    assert ours == pytest.approx(theirs, abs=4 * math.sqrt(2) * quantile_error)
