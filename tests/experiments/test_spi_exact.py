"""Soft policy iteration where every step is exact: Algorithm 1 itself, its quadratic Q, and the finite world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal, norm

from entroflow.flow import Box, FlowPolicy, RungeKutta, Unbounded
from entroflow.lqr import systems
from entroflow.moments import Moments
from entroflow.rl.spi import soft_policy_iteration
from experiments.spi.lqr_problem import LQRProblem, fit_linear, gaussian_q, quadratic_q
from experiments.spi.rooms import Rooms, Weighted
from experiments.spi.rooms_problem import Pushed, RoomsProblem, push_all

ROOMS, ALPHA = Rooms(), 0.2


class LinearField:
    """v(x, τ, s) = M x + G s: its flow is exactly linear and Gaussian."""

    obs_size, action_size = 2, 2
    M, G = np.array([[0.3, 0.2], [-0.1, -0.4]]), np.array([[1.0, -0.5], [0.2, 0.8]])

    def condition(self, obs):
        return jnp.float32(self.G) @ obs

    def __call__(self, x, time, context):
        return jnp.float32(self.M) @ x + context


def complete_the_square(matrix, alpha, d):
    """The policy exp(Q/α)/Z of Q = −[s; a]ᵀ matrix [s; a]."""
    inverse = np.linalg.inv(matrix[-d:, -d:])
    return inverse @ matrix[-d:, :-d], alpha / 2 * inverse


@pytest.mark.parametrize("name", systems.CATALOGUE)
def test_algorithm_1_reaches_the_riccati_equation(name):
    """Lemma 1 and completing the square lead from the timid start to Theorem 3's optimum."""
    lqr, d = systems.get(name), systems.get(name).B.shape[1]
    start = LQRProblem(lqr).start(ALPHA)
    steps = soft_policy_iteration(
        (start.K, start.covariance),
        lambda policy: lqr.soft_q(*policy, ALPHA).matrix,
        lambda policy, matrix, k: complete_the_square(matrix, ALPHA, d),
        8,
    )
    policies = [policy for policy, _ in steps]
    assert len(policies) == 9
    optimum = lqr.optimal(ALPHA)
    for given, best in zip(policies[0], (optimum.K, optimum.covariance), strict=True):
        assert np.linalg.norm(given - best) > 0.4 * np.linalg.norm(best), "the start is far away"
    np.testing.assert_allclose(policies[-1][0], optimum.K, atol=1e-8 * np.abs(optimum.K).max())
    np.testing.assert_allclose(policies[-1][1], optimum.covariance, atol=1e-8)
    exact = LQRProblem(lqr).exact(ALPHA, 8)
    for found, other in zip(policies, exact, strict=True):
        np.testing.assert_allclose(found[0], other.K, atol=1e-9 * np.abs(optimum.K).max())
        np.testing.assert_allclose(found[1], other.covariance, atol=1e-9)


def test_the_quadratic_of_a_gaussian_is_its_log_density():
    """exp(Q/α)/Z is N(−K s, Σ): differences of Q/α are differences of its log-density."""
    K, covariance = np.array([[1.0, -0.5], [0.3, 2.0]]), np.array([[0.5, 0.2], [0.2, 0.4]])
    matrix, obs = jnp.float32(gaussian_q(K, covariance, ALPHA)), jnp.float32([0.7, -1.2])
    actions = jnp.float32([[0.0, 0.0], [1.0, -0.5], [-0.3, 2.0]])
    q = jax.vmap(quadratic_q, in_axes=(None, None, 0))(matrix, obs, actions)
    log_prob = multivariate_normal(-K @ np.asarray(obs), covariance).logpdf(actions)
    np.testing.assert_allclose(np.diff(q / ALPHA), np.diff(log_prob), rtol=1e-5)


def test_gain_and_covariance_of_a_linear_flow():
    """The fit finds the exact gain and covariance of a flow that is linear, in any units, and no residual."""
    space = Unbounded(2, scale=jnp.float32([0.5, 3.0]))
    policy = FlowPolicy(
        LinearField(), space, solver=RungeKutta("rk4", 8), obs_units=Moments(jnp.zeros(2), jnp.float32([2.0, 0.1]))
    )
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 2))
    points = (points - points.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T, bias=True))).T
    fit = fit_linear(policy, jnp.float32(rng.normal(size=(20, 2))), jnp.float32(points))
    unit, flow = np.diag([0.5, 3.0]), expm(LinearField.M)
    gain = -unit @ np.linalg.solve(LinearField.M, flow - np.eye(2)) @ LinearField.G @ np.diag([0.5, 10.0])
    np.testing.assert_allclose(fit.K, gain, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit.covariance, unit @ flow @ flow.T @ unit, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit.mean_residual, 0.0, atol=1e-6)


# --- the finite world -------------------------------------------------------------------------------------------------


def transitions(actions):
    """P(s'|s, a) as matrices, (k, S) → (k, S, S), written out room by room."""
    right, left = ROOMS.moves(actions)
    matrices = np.zeros((*actions.shape, ROOMS.size))
    for room in range(ROOMS.size):
        matrices[:, room, (room + 1) % ROOMS.size] = right[:, room]
        matrices[:, room, (room - 1) % ROOMS.size] = left[:, room]
        matrices[:, room, room] = 1 - right[:, room] - left[:, room]
    return matrices


def test_moves_are_probabilities_that_the_action_decides():
    """No probability is below zero; pushing right goes right, pushing left goes left, not pushing stays."""
    matrices = transitions(np.linspace(-1, 1, 201)[:, None].repeat(5, axis=1))
    assert matrices.min() >= 0
    np.testing.assert_allclose(matrices.sum(axis=-1), 1.0)
    assert matrices[-1, 0, 1] > 0.99 and matrices[0, 0, 4] > 0.99 and matrices[100, 0, 0] > 0.99


def test_soft_evaluation_solves_the_linear_system():
    """Equation (1) iterated to its fixed point is V = (I − γ P)⁻¹ (r + α H), matrices written out."""
    policy = ROOMS.improved(np.array([1.0, -1.0, 0.5, 0.0, 2.0]), ALPHA)
    rewards = np.array(ROOMS.comfort) - ROOMS.effort * np.sum(policy.weights * policy.actions**2, axis=0)
    entropies = -np.sum(policy.weights * policy.log_probs, axis=0)
    mean = np.einsum("ks,kst->st", policy.weights, transitions(policy.actions))
    values = np.linalg.solve(np.eye(5) - ROOMS.discount * mean, rewards + ALPHA * entropies)
    np.testing.assert_allclose(ROOMS.evaluate(policy, ALPHA), values, atol=1e-10)


def test_improved_policies_are_densities():
    """exp(Q/α)/Z integrates to one, and its log-density away from the grid is that on the grid."""
    values = np.array([1.0, -1.0, 0.5, 0.0, 2.0])
    policy = ROOMS.improved(values, ALPHA)
    np.testing.assert_allclose(policy.weights.sum(axis=0), 1.0, atol=1e-12)
    np.testing.assert_allclose(ROOMS.log_prob(values, ALPHA, policy.actions), policy.log_probs, atol=1e-12)


def test_soft_policy_iteration_improves_every_room_and_ends_at_soft_value_iteration():
    """Values never fall and end at those of soft value iteration; the optimum does not depend on the grid."""
    problem = RoomsProblem(ROOMS)
    values = np.array([iterate.values for iterate in problem.exact(ALPHA, 8)])
    assert (np.diff(values, axis=0) > -1e-10).all()
    optimum = ROOMS.optimal(ALPHA)
    assert np.abs(values[0] - optimum).max() > np.ptp(optimum), "the start is far away"
    np.testing.assert_allclose(values[-1], optimum, atol=1e-9)
    np.testing.assert_allclose(ROOMS.optimal(ALPHA, grid=500), optimum, atol=1e-5)


def test_the_optimum_has_several_modes():
    """In a room between comfortable ones the soft-optimal density has three peaks, in others one."""
    density = np.exp(ROOMS.improved(ROOMS.optimal(0.1), 0.1).log_probs)
    peaks = np.sum((density[1:-1] > density[:-2]) & (density[1:-1] > density[2:]), axis=0)
    assert peaks[4] == 3 and peaks.min() == 1


def test_q_is_the_same_in_jax():
    """What flow policies are trained on is what the grid is solved with."""
    values, actions = np.array([1.0, -1.0, 0.5, 0.0, 2.0]), np.linspace(-0.9, 0.9, 7)[:, None]
    problem = RoomsProblem(ROOMS)
    q = jax.vmap(jax.vmap(problem.q, in_axes=(None, 0, None)), in_axes=(None, None, 0))
    found = q(jnp.float32(values), jnp.eye(5), jnp.float32(actions))
    np.testing.assert_allclose(found, ROOMS.q(values, actions), rtol=1e-5, atol=1e-5)


def quantiles(values, alpha, count=4096):
    """Actions of the exact policy at equal shares of its mass, by inverting its distribution function, (count, S)."""
    policy, edges = ROOMS.improved(values, alpha, grid=20_000), np.linspace(-1, 1, 20_001)
    shares = (np.arange(count) + 0.5) / count
    cdf = np.vstack([np.zeros(5), np.cumsum(policy.weights, axis=0)])
    return np.stack([np.interp(shares, cdf[:, room], edges) for room in range(5)], axis=1)


def test_comparison_of_a_perfect_and_of_another_policy():
    """The exact policy is at no distance from itself; another one at the distance that the grid gives."""
    problem = RoomsProblem(ROOMS)
    first, second = problem.exact(ALPHA, 1)
    actions = quantiles(first.parameters, ALPHA)
    pushed = Pushed(actions, ROOMS.log_prob(first.parameters, ALPHA, actions))
    numbers, _ = problem.compare(ALPHA, pushed, first, None)
    for name in ("total_variation", "kl", "value_error", "step_total_variation"):
        assert abs(numbers[name]) < 2e-3, name
    numbers, kept = problem.compare(ALPHA, pushed, second, pushed)
    log_probs = [ROOMS.improved(iterate.parameters, ALPHA).log_probs for iterate in (first, second)]
    np.testing.assert_allclose(
        kept["total_variation_by_room"], np.abs(np.subtract(*np.exp(log_probs))).mean(axis=0), atol=5e-3
    )
    divergences = np.mean(np.exp(log_probs[0]) * np.subtract(*log_probs), axis=0) * 2
    np.testing.assert_allclose(numbers["kl"], divergences.max(), rtol=5e-3)


def test_pushed_noise_is_a_quadrature_of_the_policy():
    """Means over pushed quantiles of the noise are means over the policy: moments and entropy of a tanh-normal."""

    class Still(LinearField):
        """v = 0: the latent is the noise."""

        obs_size = action_size = 1
        M, G = np.zeros((1, 1)), np.zeros((1, 1))

        def with_divergence(self, x, time, context):
            return self(x, time, context), jnp.float32(0.0)

    policy = FlowPolicy(Still(), Box(-jnp.ones(1), jnp.ones(1)))
    points = norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None]
    actions, log_probs = push_all(policy, jnp.zeros((3, 1)), jnp.float32(points))
    u = np.linspace(-9, 9, 20_001)
    density = norm.pdf(u) * (u[1] - u[0])
    entropy = density @ (np.log(1 - np.tanh(u) ** 2) - norm.logpdf(u))
    assert actions.shape == (2000, 3, 1)
    np.testing.assert_allclose(np.mean(np.asarray(actions) ** 2, axis=(0, 2)), density @ np.tanh(u) ** 2, atol=1e-3)
    np.testing.assert_allclose(-np.mean(np.asarray(log_probs), axis=0), entropy, atol=5e-3)


def test_values_of_weighted_actions_do_not_depend_on_their_order():
    """A policy is a set of weighted actions: permuting them changes nothing."""
    policy = ROOMS.improved(np.zeros(5), ALPHA, grid=50)
    turned = Weighted(*[part[::-1] for part in policy])
    np.testing.assert_allclose(ROOMS.evaluate(turned, ALPHA), ROOMS.evaluate(policy, ALPHA), atol=1e-10)
