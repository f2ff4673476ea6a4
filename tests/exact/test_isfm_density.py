"""ISFM in one line: the flow's samples and density against a normal distribution, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from entroflow import isfm

TRUE = stats.norm(0.5, 0.4)


@pytest.fixture(scope="module")
def found():
    """A flow fitted to a normal distribution: exp(q/α) with α = 2 is N(½, 0.4²)."""
    return isfm.fit(lambda x: -((x[0] - 0.5) ** 2) / 0.16, 1, temperature=2.0, steps=200, seed=1)


def test_it_is_the_distribution_that_was_asked_for(found):
    """Its density to 0.1 nats within two deviations, its samples by mean and deviation."""
    points = np.linspace(-0.3, 1.3, 9)
    np.testing.assert_allclose(found.log_prob(points[:, None]), TRUE.logpdf(points), atol=0.1)
    drawn = found.sample(4000, seed=2)
    assert drawn.shape == (4000, 1)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0.5, 0.4], atol=0.04)
    np.testing.assert_array_equal(drawn[:5], found.sample(4000, seed=2)[:5])


def test_the_density_is_that_of_the_samples(found):
    """It has mass one, and the share of samples on the left is its mass there."""
    ticks = np.linspace(-2, 3, 501)
    density = np.exp(found.log_prob(ticks[:, None]))
    assert np.trapezoid(density, ticks) == pytest.approx(1, abs=1e-3)
    left = np.mean(found.sample(4000, seed=2) < 0.5)
    assert left == pytest.approx(np.trapezoid(density[ticks <= 0.5], ticks[ticks <= 0.5]), abs=4 * 0.5 / 4000**0.5)


def test_it_draws_and_says_what_it_is(found):
    """The target's curve has its height; paths end where samples are."""
    figure = found.plot(200)
    target, learned = figure.axes[0].lines
    assert target.get_ydata().max() == pytest.approx(TRUE.pdf(0.5), rel=0.02)
    assert learned.get_ydata().max() == pytest.approx(TRUE.pdf(0.5), rel=0.1)
    ends = sorted(line.get_ydata()[-1] for line in figure.axes[1].lines)
    np.testing.assert_allclose(ends, np.sort(found.sample(200)[:60, 0]), rtol=1e-5)
    assert repr(found).startswith("<Fitted(dim=1): 200 steps, ESS/N 0.9")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda _: isfm.fit(lambda x: x, 2),
            r"^q: got values of shape \(2,\) at a point of shape \(2,\), expected one",
        ),
        (lambda _: isfm.fit(lambda x: jnp.ones(3) @ x, 2), r"^q: got what fails .* at a point of shape \(2,\)"),
        (
            lambda _: isfm.fit(lambda x: x[0] if x[0] > 0 else -x[0], 1),
            "^q: got what needs .*jnp.where in the place of",
        ),
        (lambda _: isfm.fit(lambda x: np.exp(x[0]), 1), "^q: got what needs the numbers .*write it with jax.numpy"),
        (lambda _: isfm.fit(jnp.sum, 0), "^dim: got 0"),
        (lambda _: isfm.fit(jnp.sum, 2, scale=-1.0), "^scale: got -1.0"),
        (lambda found: found.log_prob(np.zeros(2)), r"^points: got shape \(2,\), expected numbers of shape \(…, 1\)"),
        (lambda found: found.sample(0), "^n: got 0"),
    ],
)
def test_wrong_shapes_are_one_sentence(found, call, message):
    """Before anything is compiled."""
    with pytest.raises(ValueError, match=message) as refusal:
        call(found)
    assert "\n" not in str(refusal.value)


def test_a_fit_that_failed_says_so():
    """With the sign turned around exp(q) has no finite integral, and no flow is near it."""
    with pytest.warns(UserWarning, match="ESS/N is 0.0.*: look whether q has the right sign"):
        isfm.fit(lambda x: 20 * jnp.sum(x**2), 2, steps=5)
