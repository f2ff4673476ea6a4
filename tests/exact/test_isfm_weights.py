"""Weights: normalisations, diagnostics and tempering against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from entroflow.isfm import NORMALISATIONS, diagnose, log_mean_exp, raw, self_normalised, state_normalised, temper

LOG_WEIGHTS = jnp.log(jnp.array([1.0, 1.0, 2.0, 4.0]))


def test_diagnostics_of_four_weights():
    """Every diagnostic of the weights 1, 1, 2, 4, by hand, at any scale."""
    for shift in (0.0, 500.0, -500.0):  # exp would overflow or vanish
        found = diagnose(LOG_WEIGHTS + shift)
        np.testing.assert_allclose(found.ess, 8**2 / (4 * 22), rtol=1e-4)
        np.testing.assert_allclose(found.renyi_2, np.log(22 / 4 / 2**2), rtol=1e-3)
        np.testing.assert_allclose(found.renyi_4, np.log(274 / 4 / 2**4) / 3, rtol=1e-3)
        np.testing.assert_allclose(found.log_z, np.log(2) + shift, rtol=1e-6)
        np.testing.assert_allclose(found.max_weight, 0.5, rtol=1e-4)
        np.testing.assert_allclose(found.kl, np.log(2) - np.log(2 * 4) / 4, atol=1e-4)


def test_diagnostics_at_the_extremes():
    """Equal weights are perfect; one weight of N is the worst case of every diagnostic."""
    equal = diagnose(jnp.full((8,), 3.0))
    np.testing.assert_allclose(equal, [1.0, 0.0, 0.0, 3.0, 1 / 8, 0.0], atol=1e-5)
    single = diagnose(jnp.array([100.0] + [0.0] * 7))
    np.testing.assert_allclose(single[:3], [1 / 8, np.log(8), np.log(8)], rtol=1e-5)
    np.testing.assert_allclose(single.max_weight, 1.0, rtol=1e-5)


def test_renyi_divergences_of_two_gaussians():
    """At the quantiles of the proposal, D_2, D_4, KL and log Z are the closed forms of two normal distributions."""
    mean, sd, log_z = 0.4, 0.7, 1.3
    candidates = norm.ppf((np.arange(20_000) + 0.5) / 20_000)  # of the proposal N(0, 1)
    log_weights = log_z + norm(mean, sd).logpdf(candidates) - norm.logpdf(candidates)
    found = diagnose(jnp.asarray(log_weights, jnp.float32))

    def renyi(order):
        variance = order + (1 - order) * sd**2
        return order * mean**2 / (2 * variance) + np.log(variance / sd ** (2 * (1 - order))) / (2 * (1 - order))

    np.testing.assert_allclose([found.renyi_2, found.renyi_4], [renyi(2), renyi(4)], rtol=1e-3)
    np.testing.assert_allclose(found.log_z, log_z, atol=1e-3)
    np.testing.assert_allclose(found.ess, np.exp(-renyi(2)), rtol=1e-3)
    np.testing.assert_allclose(found.kl, np.log(sd) + (1 + mean**2) / (2 * sd**2) - 0.5, rtol=1e-3)


def test_normalisations():
    """`self` divides by the sum, `raw` by N and the constant, `state` each half by the other half's mean."""
    weights = np.array([1.0, 1.0, 2.0, 4.0])
    np.testing.assert_allclose(self_normalised(LOG_WEIGHTS), weights / 8, rtol=1e-6)
    np.testing.assert_allclose(raw(LOG_WEIGHTS), weights / 4, rtol=1e-6)
    np.testing.assert_allclose(raw(LOG_WEIGHTS, jnp.log(3.0)), weights / 12, rtol=1e-6)
    np.testing.assert_allclose(state_normalised(LOG_WEIGHTS), weights / np.array([3, 3, 1, 1]) / 4, rtol=1e-6)
    assert set(NORMALISATIONS) == {"self", "state", "raw"}
    with pytest.raises(ValueError, match="even"):
        state_normalised(LOG_WEIGHTS[:3])


def test_self_and_state_normalisation_do_not_overflow():
    """Log-weights of any size give finite weights."""
    for shift in (1e4, -1e4):
        for normalise in (self_normalised, state_normalised):
            np.testing.assert_allclose(normalise(LOG_WEIGHTS + shift), normalise(LOG_WEIGHTS), rtol=2e-3)


@pytest.mark.parametrize("normalise", [*NORMALISATIONS.values(), lambda w: temper(w, 0 * w, 0.9)[0]])
def test_weights_carry_no_gradient(normalise):
    """No gradient passes through a weight."""
    jacobian = jax.jacrev(normalise)(LOG_WEIGHTS)
    np.testing.assert_array_equal(jacobian, 0.0)


def test_tempering_reaches_its_floor():
    """β is the largest step that keeps the floor: on it where the floor binds, one where it does not."""
    log_weights = 3.0 * jax.random.normal(jax.random.key(0), (64,))
    step = jax.jit(temper)
    zero = jnp.zeros((64,))
    full = float(diagnose(log_weights).ess)
    for floor in (full + 0.05, 0.5, 0.9):
        tempered, beta = step(log_weights, zero, floor)
        np.testing.assert_allclose(diagnose(tempered).ess, floor, atol=1e-4)
        np.testing.assert_allclose(tempered, beta * log_weights, rtol=1e-6)
        assert 0 < float(beta) < 1
    for floor in (full - 0.01, 0.0):
        tempered, beta = step(log_weights, zero, floor)
        assert float(beta) == 1.0
        np.testing.assert_array_equal(tempered, log_weights)


def test_tempering_of_another_proposal():
    """For μ ≠ π_k the log-weights are (1−β) log π_k + β Q/α − log μ, and the floor is relative to β = 0."""
    target, policy, proposal = jax.random.normal(jax.random.key(1), (3, 64)) * jnp.array([[4.0], [0.5], [0.5]])
    tempered, beta = temper(target - policy, policy - proposal, 0.4)
    start = float(diagnose(policy - proposal).ess)
    assert start < 0.9
    np.testing.assert_allclose(diagnose(tempered).ess, 0.4 * start, atol=1e-4)
    np.testing.assert_allclose(tempered, (1 - beta) * policy + beta * target - proposal, atol=1e-4)


def test_log_mean_exp():
    """The mean is taken before the logarithm."""
    np.testing.assert_allclose(log_mean_exp(LOG_WEIGHTS), np.log(2.0), rtol=1e-6)
