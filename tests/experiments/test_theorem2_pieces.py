"""The pieces of the experiment on Theorem 2 against closed forms: distances, divergences, weights and fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from entroflow.isfm import diagnose
from experiments.distances import gaussian_renyi
from experiments.theorem2 import fits
from experiments.theorem2 import run as study
from experiments.theorem2 import weights as weighing
from experiments.theorem2.data import (
    Mixture,
    Resampled,
    box,
    exact_set,
    flow_w2_squared,
    noise_points,
    normal,
    resampled,
    set_w2_squared,
    slope,
)
from experiments.theorem2.report import verdict

NORMAL = Mixture(1, (1.0,), (0.0,), (1.0,))
GAUSSIAN = study.SHIFTED  # N(1, 0.5²)

# The weights' closed forms: target N(1, 0.5²), proposal N(0, 1). π_new²/μ is exp(D_2) times this Gaussian.
REPEATS = 60_000
VARIANCE = 1 / (2 / weighing.SD**2 - 1)
MEAN = VARIANCE * 2 * weighing.MEAN / weighing.SD**2
EXP_D2 = np.exp(gaussian_renyi(2, [weighing.MEAN], [[weighing.SD**2]], [0.0], [[1.0]]))


# Targets and distances


def test_targets_have_the_quantiles_of_their_density():
    """Shares of equal probability carry the mass that the density has between their quantiles."""
    target = study.TARGETS[2]
    x = target.quantile(np.array([[0.2, 0.9], [0.35, 0.5]]))
    grid = np.linspace(-6, 6, 200_001)
    line = Mixture(1, *target[1:])
    mass = np.cumsum(np.exp(line.log_prob(grid[:, None]))) * (grid[1] - grid[0])
    np.testing.assert_allclose(np.interp(x, grid, mass), [[0.2, 0.9], [0.35, 0.5]], atol=1e-4)
    np.testing.assert_allclose(target.log_prob(x), line.log_prob(x[:, :1]) + line.log_prob(x[:, 1:]), rtol=1e-12)


def test_distance_of_a_flow_is_zero_for_the_exact_map_and_grows_with_a_shift():
    """W_2² of the target's own map is zero; moved by δ it is ‖δ‖², in one and in two dimensions."""
    for d, target in study.TARGETS.items():
        noise = noise_points(256, d)
        exact = target.quantile(stats.norm.cdf(noise))
        assert flow_w2_squared(exact, noise, target) < 1e-20
        shift = np.linspace(0.5, -0.7, d)
        np.testing.assert_allclose(flow_w2_squared(exact + shift, noise, target), shift @ shift, rtol=1e-6)


def test_distance_of_a_weighted_set_by_hand():
    """Two points at ±1 with probabilities p and 1 − p against N(0, 1): W_2² = 2 − 4 φ(Φ⁻¹(p))."""
    for p in (0.5, 0.2):
        points, log_weights = np.array([1.0, -1.0]), 3.0 + np.log([1 - p, p])
        expected = 2 - 4 * stats.norm.pdf(stats.norm.ppf(p))
        np.testing.assert_allclose(set_w2_squared(points, log_weights, NORMAL), expected, rtol=1e-3)


def test_quadrature_gives_renyi_divergences_of_gaussians():
    """D_2 and D_4 by quadrature agree with the closed form; components of a product add up."""
    for center, width in ((1.0, 0.5), (0.4, 0.7), (0.0, 2.0)):
        proposal = normal(center, width)
        for order in (2, 4):
            closed = gaussian_renyi(order, [1.0], [[0.25]], [center], [[width**2]])
            np.testing.assert_allclose(GAUSSIAN.renyi(order, proposal), closed, atol=1e-6)
            np.testing.assert_allclose(GAUSSIAN._replace(size=3).renyi(order, proposal), 3 * closed, atol=1e-6)
    wide = box(-4.0, 4.0)
    roomy = GAUSSIAN.renyi(4, wide)
    np.testing.assert_allclose(
        roomy, np.log(8 * (2 * np.pi * 0.25) ** -0.5 * 4 ** (-1 / 6)), atol=1e-5, err_msg="∫ π⁴ by hand"
    )


def test_proposals_move_away_as_told():
    """The sweep's Gaussians have the divergences that label them; those of narrow ones are infinite."""
    proposals = study.divergent_proposals()
    told = {family: [d4 for name, _, _, d4 in proposals if name == family] for family, *_ in proposals}
    np.testing.assert_allclose(told["target"], [0.0], atol=1e-12)
    np.testing.assert_allclose(told["shifted"], study.DIVERGENCES, rtol=1e-9)
    np.testing.assert_allclose(told["widened"], study.DIVERGENCES, rtol=1e-9)
    assert told["narrowed"] == [np.inf, np.inf]
    for _, proposal, d2, d4 in proposals:
        assert d2 <= d4
        if np.isfinite(d4):
            np.testing.assert_allclose(GAUSSIAN.renyi(4, proposal), d4, atol=1e-5)


def test_estimated_divergence_is_the_closed_form():
    """D_4 from a widened proposal's log-weights is within 4 standard errors (delta method) of its closed form."""
    proposal, d4 = next((q, d4) for name, q, _, d4 in study.divergent_proposals() if name == "widened")
    x = proposal.rvs((200_000, 1), random_state=np.random.default_rng(0))
    log_weights = GAUSSIAN.log_prob(x) - proposal.logpdf(x)[:, 0]
    found = float(diagnose(jnp.asarray(log_weights, jnp.float32)).renyi_4)
    ratio = np.exp(log_weights)
    influence = ratio**4 / np.mean(ratio**4) - 4 * ratio / np.mean(ratio)
    assert abs(found - d4) < 4 * np.std(influence) / np.sqrt(len(x)) / 3


# Weighted sets


def test_candidates_have_the_weights_of_their_densities():
    """In two dimensions: log π_new − log μ of the whole point, of a box and of a Gaussian; every seed has its own."""
    made, target = study.Study.__new__(study.Study), study.TARGETS[2]
    made.seeds = [0, 1]
    round_one = stats.multivariate_normal(np.zeros(2), 1.5**2)
    for proposal, density in ((box(-4.0, 4.0), lambda x: 1 / 64), (study.BROAD, round_one.pdf)):
        latents, log_weights, _ = made._draw(target, proposal, 50)
        np.testing.assert_allclose(log_weights, target.log_prob(latents) - np.log(density(latents)))
        assert latents.shape == (2, 50, 2) and not np.isin(latents[0], latents[1]).any()


def test_members_are_drawn_by_their_weights():
    """Frequencies are the self-normalised weights within 4.5 standard errors; padding is never drawn."""
    log_weights = 7.0 + np.log([[0.5, 0.1, 0.3, 0.1]])
    data = resampled(np.arange(4.0)[None, :, None], log_weights, 9)
    one = Resampled(data.latents[0], data.cumulative[0])
    drawn, log_prob = one.sample_and_log_prob(jax.random.key(0), jnp.zeros(1), 100_000)
    shares = np.bincount(np.asarray(drawn[:, 0]).astype(int), minlength=4) / 100_000
    expected = np.array([0.5, 0.1, 0.3, 0.1])
    assert np.all(np.abs(shares - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 100_000))
    assert not np.any(log_prob)


def test_more_weighted_candidates_are_closer():
    """W_2² of the set itself falls at least like N^(-1/2): by 4 and more from 64 candidates to 1024, on average."""
    generator, proposal = np.random.default_rng(0), study.BROAD

    def distances(n):
        sets = proposal.rvs((50, n, 1), random_state=generator)
        log_weights = GAUSSIAN.log_prob(sets) - proposal.logpdf(sets)[..., 0]
        return np.array([set_w2_squared(x[:, 0], w, GAUSSIAN, 4096) for x, w in zip(sets, log_weights, strict=True)])

    few, many = distances(64), distances(1024)
    error = np.hypot(few.std(), 4 * many.std()) / np.sqrt(50)
    assert few.mean() - 4 * many.mean() > -4 * error
    assert few.mean() / many.mean() > 4


def test_fits_follow_the_weights_and_more_candidates_help():
    """Flows fitted to candidates of N(0, 1.5²): the mean is the weighted one, and W_2² falls from N = 16 to 1024."""
    target, seeds = study.TARGETS[1], 4
    generator = np.random.default_rng(0)
    latents, log_weights = np.zeros((2 * seeds, 1024, 1)), np.full((2 * seeds, 1024), -np.inf)
    for run in range(2 * seeds):
        n = 16 if run < seeds else 1024
        latents[run, :n] = study.BROAD.rvs((n, 1), random_state=generator)
        log_weights[run, :n] = target.log_prob(latents[run, :n]) - study.BROAD.logpdf(latents[run, :n])[:, 0]
    keys = jax.random.split(jax.random.key(0), 2 * seeds)
    policies = jax.jit(jax.vmap(lambda key, data: fits.learn(200, key, data)))(
        keys, resampled(latents, log_weights, 1024)
    )
    noise = noise_points(128, 1)
    push = jax.jit(jax.vmap(fits.push, in_axes=(0, None)))
    pushed = np.asarray(push(policies, jnp.asarray(noise, jnp.float32)), np.float64)
    distances = np.array([flow_w2_squared(points, noise, target) for points in pushed])
    assert np.log(distances[:seeds]).mean() - np.log(distances[seeds:]).mean() > np.log(4)
    weights = np.exp(log_weights)
    weighted = (weights * latents[..., 0]).sum(axis=1) / weights.sum(axis=1)
    # 200 noisy steps leave an error of about 0.1 standard deviations of the target; unweighted means are 0.8 away.
    assert np.abs(pushed.mean(axis=(1, 2)) - weighted)[seeds:].max() < 0.2


# Normalisations


@pytest.fixture(scope="module")
def table():
    """The loss and its gradient, tabulated for an untrained flow."""
    return weighing.tabulate(fits.untrained(jax.random.key(0), 1))


def measured(table, name, n, repeats=REPEATS):
    return weighing.measure(table, name, n, repeats, np.random.default_rng(n))


def test_bias_of_self_normalised_weights_halves_as_candidates_double(table):
    """The bias of the mean is −exp(D_2)(m − mean)/N, m the mean of π²/μ, to first order, and halves from 32 to 64."""
    few, many = (measured(table, "self", n).mean - weighing.MEAN for n in (32, 64))
    error = np.sqrt(EXP_D2 * (VARIANCE + (MEAN - weighing.MEAN) ** 2) / REPEATS / np.array([32, 64]))  # delta method
    assert abs(2 * many - few) < 4 * np.hypot(error[0], 2 * error[1]) < 0.3 * abs(few)
    # At N = 64 the next order, 1/N relative to the first times a few, is a quarter of it at most.
    first = -EXP_D2 * (MEAN - weighing.MEAN) / 64
    assert abs(many - first) < 4 * error[1] + 0.25 * abs(first)


def test_raw_weights_are_unbiased_and_their_variance_is_the_closed_form(table):
    """Equation (7): loss, gradient and total weight agree with the exact values; Var Σw = (exp(D_2) − 1)/N."""
    found = measured(table, "raw", 64, 20_000)
    assert np.hypot(found.gradient_bias, found.noise) < 4 * found.noise
    assert abs(found.loss_bias) < 4 * found.loss_sd / np.sqrt(20_000)
    assert abs(found.total_mean - 1) < 4 * found.total_sd / np.sqrt(20_000)
    np.testing.assert_allclose(found.total_sd, np.sqrt((EXP_D2 - 1) / 64), rtol=0.05)


def test_normalising_by_the_other_half_changes_the_size_and_not_the_direction(table):
    """State weights sum to 1 + (exp(D_2) − 1)/(N/2) on average, to first order; the gradient does not turn."""
    found = measured(table, "state", 256, 20_000)
    expected = (EXP_D2 - 1) / 128
    assert abs(found.total_mean - 1 - expected) < 4 * found.total_sd / np.sqrt(20_000) + 0.1 * expected
    assert found.gradient_bias > 5 * found.noise
    assert np.hypot(found.turning_bias, found.noise) < 4 * found.noise


def test_self_normalising_trades_variance_for_bias(table):
    """At equal N: less variance than raw weights, a bias far above its noise, and a gradient that turns."""
    found, unbiased = measured(table, "self", 16, 20_000), measured(table, "raw", 16, 20_000)
    assert found.gradient_sd < 0.7 * unbiased.gradient_sd
    assert found.gradient_bias > 10 * found.noise and found.turning_bias > found.noise
    assert found.total_sd < 1e-6 and abs(found.total_mean - 1) < 1e-6


def test_log_z_is_low_by_half_the_relative_variance(table):
    """E log Ẑ = log Z − (exp(D_2) − 1)/(2N) + O(1/N²): the sign and the size of Jensen's gap."""
    found = measured(table, "raw", 128, 20_000)
    gap = -(EXP_D2 - 1) / 256
    assert abs(found.log_z_bias - gap) < 4 * found.log_z_sd / np.sqrt(20_000) + 0.1 * abs(gap)


# Slopes


def test_slopes_are_those_of_power_laws():
    """log W_2² = c − 0.5 log N per seed gives −0.5 whatever the seeds' constants are."""
    x = np.log([16.0, 64.0, 256.0])
    values = np.exp(np.array([[0.3], [1.0]]) - 0.5 * x)
    np.testing.assert_allclose(slope(x)(values), -0.5)
    np.testing.assert_allclose(slope(x)(np.stack([values, values**2])), [-0.5, -1.0])


def test_verdicts_compare_the_interval_with_the_bound():
    """A bound allows what lies below its slope."""
    assert verdict(-1.2, -0.8, -0.5) == "within the bound"
    assert verdict(-0.6, -0.4, -0.5) == "undecided"
    assert verdict(0.9, 1.1, 0.75) == "exceeds its trend"
    assert verdict(np.nan, np.nan, 0.75) == "too few points"


def test_the_exact_set_is_the_target():
    """The network's floor is fitted to points with the target's mean and variance."""
    points = exact_set(GAUSSIAN, 4096)
    np.testing.assert_allclose([points.mean(), points.var()], [1.0, 0.25], rtol=2e-3)
