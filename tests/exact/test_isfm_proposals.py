"""Proposals in closed form, the documented example as it stands, and what happens with bad input."""

import inspect
import textwrap
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from entroflow.flow import Box, FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import (
    BroadenedPolicy,
    CurrentPolicy,
    FitConfig,
    GaussianProposal,
    MixtureProposal,
    Proposal,
    UniformProposal,
    check_faults,
    defensive,
    draw_candidates,
    improve,
)

OBS = jnp.array([0.5, -1.0])
BOX = Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, 3.0]))
COVARIANCE = np.array([[0.8, 0.3], [0.3, 0.5]])
LATENTS = np.array([[0.3, -1.2], [2.0, 0.1], [-0.4, 0.6]])


class ShiftField(eqx.Module):
    """v(x, τ, s) = s + θ: with θ = 0 the policy is N(s, I) in the latent, its integration exact."""

    shift: jax.Array
    obs_size: int = eqx.field(static=True, default=2)
    action_size: int = eqx.field(static=True, default=2)

    def condition(self, obs):
        return obs + self.shift

    def __call__(self, x, time, context):
        return context

    def with_divergence(self, x, time, context):
        return context, jnp.zeros(())


def shift_policy(space=None):
    return FlowPolicy(ShiftField(jnp.zeros(2)), Unbounded(2) if space is None else space, solver=RungeKutta("euler", 1))


def q_function(obs, action):
    return jnp.sum(jnp.sin(2 * action)) - 0.5 * jnp.sum((action - 0.3 * obs) ** 2)


def log_probs(proposal, latents):
    return jax.jit(jax.vmap(proposal.log_prob, in_axes=(None, 0)))(OBS, jnp.asarray(latents, jnp.float32))


def draw(proposal, key, n):
    return jax.jit(lambda: proposal.sample_and_log_prob(key, OBS, n))()


@pytest.mark.parametrize(
    ("given", "matrix"),
    [(2.0, 2 * np.eye(2)), ([0.5, 3.0], np.diag([0.5, 3.0])), (COVARIANCE, COVARIANCE)],
    ids=["one variance", "variances", "a matrix"],
)
def test_gaussian_density_in_closed_form(given, matrix):
    """However the covariance is given, the density is SciPy's."""
    expected = multivariate_normal([0.2, -0.1], matrix).logpdf(LATENTS)
    given = jnp.asarray(given) if isinstance(given, np.ndarray) else given
    np.testing.assert_allclose(log_probs(GaussianProposal([0.2, -0.1], given), LATENTS), expected, rtol=1e-5)


def test_uniform_densities_in_closed_form():
    """The density of the action is one over the volume inside of the bounds, and zero outside; latents add tanh'."""
    whole, part = UniformProposal(BOX), UniformProposal(BOX, [-0.5, 0.0], [0.5, 2.0])
    volume_density = -np.log(6.0) + np.sum(np.log([1.0, 1.5] / np.cosh(LATENTS) ** 2), axis=1)
    np.testing.assert_allclose(log_probs(whole, LATENTS), volume_density, rtol=1e-5)
    middle = np.array([[0.1, -0.2], [0.1, 2.0], [0.7, -0.2]])  # within, above in the second, above in the first
    expected = -np.log(1.0 * 2.0) + np.sum(np.log([1.0, 1.5] / np.cosh(middle[0]) ** 2))
    np.testing.assert_allclose(log_probs(part, middle), [expected, -np.inf, -np.inf], rtol=1e-5)
    plain = UniformProposal(Unbounded(2, scale=2.0), -4.0, [2.0, 6.0])
    np.testing.assert_allclose(log_probs(plain, LATENTS[:1]), [np.log(4 / 60)], rtol=1e-5)


@pytest.mark.parametrize("space", [Box(jnp.array([-1.0]), jnp.array([2.0])), Unbounded(1, scale=3.0)])
def test_densities_over_one_component_integrate_to_one(space):
    """By quadrature over the latent, for all that is not made of the policy."""
    for proposal in (
        UniformProposal(space, -0.5, 1.5),
        GaussianProposal([1.0], 0.4),
        MixtureProposal([UniformProposal(space, -1.0, 2.0), GaussianProposal([0.5], 0.3)], [0.3, 0.7]),
    ):
        grid = jnp.linspace(-9, 9, 20_001)
        density = np.exp(np.asarray(log_probs(proposal, grid[:, None]), np.float64))
        np.testing.assert_allclose(np.trapezoid(density, np.asarray(grid, np.float64)), 1.0, atol=2e-3)


def test_mixture_density_is_the_weighted_sum():
    """Balance heuristic: whichever component a candidate came from, its density is Σ ω_k μ_k."""
    mixture = MixtureProposal(
        [CurrentPolicy(shift_policy()), BroadenedPolicy(shift_policy(), 3.0), GaussianProposal([1, 1], 0.2)],
        [0.5, 0.2, 0.3],
    )

    def expected(latents) -> np.ndarray:
        parts = [norm(np.asarray(OBS), sd).logpdf(latents).sum(axis=1) for sd in (1.0, 3.0)]
        parts.append(norm(1, np.sqrt(0.2)).logpdf(latents).sum(axis=1))
        return np.asarray(logsumexp(np.stack(parts), axis=0, b=np.array([[0.5], [0.2], [0.3]])))

    np.testing.assert_allclose(log_probs(mixture, LATENTS), expected(LATENTS), rtol=1e-5)
    latents, density = draw(mixture, jax.random.key(1), 12)
    np.testing.assert_allclose(density, expected(np.asarray(latents)), rtol=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_defensive_mixture_bounds_every_weight(epsilon):
    """(1 − ε) policy + ε broad: with ε = 0 the policy, with ε = 1 the broad one; no weight above exp(Q/α)/(ε broad)."""
    policy, broad = shift_policy(), UniformProposal(Unbounded(2), -6.0, 6.0)
    latents, density = draw(defensive(policy, broad, epsilon), jax.random.key(2), 40)
    at_policy, at_broad = (np.exp(log_probs(part, latents)) for part in (CurrentPolicy(policy), broad))
    np.testing.assert_allclose(np.exp(density), (1 - epsilon) * at_policy + epsilon * at_broad, rtol=1e-4)
    assert np.all(np.exp(density) >= 0.999 * epsilon * at_broad)


def documented_example() -> Any:
    """The class in the docstring of `Proposal`, as it stands there."""
    text = (inspect.getdoc(Proposal) or "").split("for example:\n\n")[1].split("\n\nto be used")[0]
    names: dict[str, Any] = {"eqx": eqx, "jax": jax, "jnp": jnp}
    exec(textwrap.dedent(text), names)
    return names["HeavyTails"]


def test_documented_example_is_a_proposal():
    """Ten lines of one's own: a density that integrates to one, drawn from, in `fit` as in the documentation."""
    heavy = documented_example()(2.0)
    line = np.linspace(-60, 60, 2001)
    density = np.exp(np.asarray(log_probs(heavy, np.stack([line, 0 * line], axis=1)), np.float64))
    np.testing.assert_allclose(np.trapezoid(density, line), 1 / 8, rtol=1e-3)  # the other component's density at zero
    latents, log_prob = draw(heavy, jax.random.key(4), 4000)
    np.testing.assert_allclose(log_prob, log_probs(heavy, latents), rtol=1e-5)
    variance = (2.0 * np.pi) ** 2 / 3
    np.testing.assert_allclose(np.var(latents, axis=0), variance, rtol=4.5 * np.sqrt((4.2 - 1) / 4000))

    config, observe = FitConfig(steps=2, candidates=8), lambda key: OBS[None]
    for propose in (lambda *_: documented_example()(2.0), lambda policy, *_: defensive(policy, heavy, 0.2)):
        _, metrics = improve(config, shift_policy(), jax.random.key(6), observe, q_function, 1.0, propose=propose)
        assert np.all(np.isfinite(metrics.loss))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BroadenedPolicy(shift_policy(), 0.0), "noise_scale: got 0.0"),
        (lambda: GaussianProposal([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "covariance: .*positive definite"),
        (lambda: GaussianProposal([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "covariance: .*symmetric"),
        (lambda: GaussianProposal([0.0, 0.0], [[1e-9, 5e-10], [-5e-10, 1e-9]]), "covariance: .*symmetric"),
        (lambda: GaussianProposal([0.0, 0.0], -1.0), "covariance: .*positive definite"),
        (lambda: GaussianProposal([0.0, 0.0], float("nan")), "covariance: .*positive definite"),
        (lambda: GaussianProposal([0.0, 0.0], [1.0, 1.0, 1.0]), "covariance: got shape"),
        (lambda: GaussianProposal([0.0, float("inf")], 1.0), "mean: .*finite"),
        (lambda: GaussianProposal(0.0, 1.0), "mean: got shape"),
        (lambda: UniformProposal(BOX, [0.5, 1.0], [-0.5, 2.0]), "bounds: .*low < high"),
        (lambda: UniformProposal(Unbounded(2)), "bounds: got low = None"),
        (lambda: UniformProposal(Unbounded(2), -1.0, float("inf")), "finite"),
        (lambda: UniformProposal(BOX, -1.0, 2.0), "bounds: .*a box inside of"),
        (lambda: defensive(shift_policy(), UniformProposal(BOX), 1.1), "epsilon: got 1.1, expected a number in"),
        (lambda: defensive(shift_policy(), UniformProposal(BOX), -0.1), "epsilon: got -0.1"),
        (lambda: defensive(shift_policy(), UniformProposal(BOX), float("nan")), "epsilon: got nan"),
        (lambda: MixtureProposal([UniformProposal(BOX)], [0.5]), "weights of the mixture: .*sum to 1"),
        (lambda: MixtureProposal([UniformProposal(BOX), UniformProposal(BOX)], [1.5, -0.5]), "weights of the mixture"),
        (lambda: MixtureProposal([UniformProposal(BOX)], [0.5, 0.5]), "mixture: got 2 weights and 1 components"),
        (lambda: MixtureProposal([], []), "mixture: got 0 weights"),
        (lambda: MixtureProposal([Wrong()], [1.0]), "component .*Wrong, which has no"),
    ],
)
def test_bad_proposals_are_refused(make, message):
    """What cannot be a proposal is refused where it is made, in one sentence."""
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_box_s_proposal_may_be_made_while_compiled():
    """As `propose` makes it, from the policy that it is given."""
    propose = lambda policy, *_: defensive(policy, UniformProposal(policy.action_space), 0.2)  # noqa: E731
    policy = FlowPolicy(VelocityNetwork(len(OBS), 2, width=4, depth=1, key=jax.random.key(0)), BOX)
    config, observe = FitConfig(steps=2, candidates=8), lambda key: OBS[None]
    _, metrics = improve(config, policy, jax.random.key(6), observe, q_function, 1.0, propose=propose)
    assert np.all(np.isfinite(metrics.loss))


class Wrong(eqx.Module):
    """A proposal that breaks its promise in one way or another."""

    log_density: float = 0.0
    extra: int = 0

    def sample_and_log_prob(self, key, obs, n):
        return jnp.ones((n + self.extra, 2)), jnp.full(n, self.log_density).at[1:].set(0.0)


def bad_q(value):
    return lambda obs, action: jnp.where(action[0] > -10, jnp.float32(value), jnp.float32(0))


@pytest.mark.parametrize(
    ("n", "proposal", "q", "message"),
    [
        (0, None, q_function, "candidates: got 0, expected a whole number above 0"),
        (-3, None, q_function, "candidates: got -3"),
        (4, Wrong(log_density=-np.inf), q_function, r"proposal: .*not finite for 0\.25 of its candidates, "),
        (4, Wrong(log_density=np.nan), q_function, r"proposal: .*not finite for 0\.25 "),
        (4, Wrong(extra=1), q_function, r"proposal: got samples of shape \(5, 2\)"),
        (4, None, bad_q(np.nan), r"q_function: .*not finite at 1 of the candidates, "),
        (4, None, bad_q(np.inf), "q_function: "),
        (4, None, bad_q(-np.inf), "q_function: .*large negative number"),
    ],
)
def test_candidates_that_cannot_be_weighed_are_refused(n, proposal, q, message):
    """Outside of compiled programs, what is not finite is named at once."""
    with pytest.raises(ValueError, match=message):
        draw_candidates(jax.random.key(7), shift_policy(), OBS, q, 1.0, n=n, proposal=proposal)


def test_compiled_programs_count_what_they_cannot_raise():
    """`fit` reports the first step and the name, by itself or, if the caller compiles it, through `check_faults`."""
    config, observe = FitConfig(steps=4, candidates=4), lambda key: OBS[None]
    refuse = lambda *_: Wrong(log_density=-jnp.inf)  # noqa: E731

    with pytest.raises(ValueError, match=r"proposal: .*0\.25 of its candidates at step 0"):
        improve(config, shift_policy(), jax.random.key(9), observe, q_function, 1.0, propose=refuse)
    run = jax.jit(
        lambda q: improve(config, shift_policy(), jax.random.key(9), observe, lambda s, a: q * a[0], 1.0)[1].faults
    )
    check_faults(run(jnp.float32(1.0)))
    with pytest.raises(ValueError, match="q_function: got values that are not finite at 1 of the candidates at step 0"):
        check_faults(run(jnp.float32(np.nan)))
