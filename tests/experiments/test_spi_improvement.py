"""One improvement of a flow policy by ISFM to convergence, against Lemma 1 and against a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t

from entroflow.commands.lqr.evaluate import normal_points
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import FitConfig, improve
from entroflow.lqr import systems
from experiments.spi.lqr_problem import LQRProblem, fit_linear, quadratic_q
from experiments.spi.rooms import Rooms
from experiments.spi.rooms_problem import Pushed, RoomsProblem

ALPHA, SEEDS = 0.5, 4
LQR = systems.get("coupled")
CONFIG = FitConfig(steps=300, candidates=8, pairs=2)


@pytest.fixture(scope="module")
def improved():
    """Gains and covariances of flow policies after one improvement, for several seeds: (SEEDS, 2, 2) each."""
    start = LQRProblem(LQR).start(ALPHA)
    matrix = jnp.float32(LQR.soft_q(*start, ALPHA).matrix)
    points, states = jnp.asarray(normal_points(256, 2)), jnp.asarray(normal_points(64, 2))

    def one(key):
        network_key, key = jax.random.split(key)
        velocity = VelocityNetwork(2, 2, width=16, depth=1, key=network_key)
        policy = FlowPolicy(velocity, Unbounded(2, scale=0.7), solver=RungeKutta("midpoint", 4))
        observe = lambda key: jax.random.normal(key, (32, 2))  # noqa: E731
        policy, metrics = improve(CONFIG, policy, key, observe, lambda *x: quadratic_q(matrix, *x), ALPHA)
        return fit_linear(policy, states, points), metrics.diagnostics.ess[-30:].mean()

    found, ess = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), SEEDS))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found), ess


def test_a_flow_improved_to_convergence_is_the_exact_step(improved):
    """Lemma 1: over the seeds the gain and covariance are those of the exact step, within errors of a t-test."""
    found, ess = improved
    step = LQR.policy_iteration_step(LQRProblem(LQR).start(ALPHA).K, ALPHA)
    quantile = t.ppf(1 - 1e-3 / 2, SEEDS - 1)  # each of the seven numbers errs in one of a thousand draws
    for values, exact in ((found.K, step.K), (found.covariance, step.covariance)):
        standard_error = values.std(axis=0, ddof=1) / np.sqrt(SEEDS)
        assert (np.abs(values.mean(axis=0) - exact) < quantile * standard_error + 0.01 * np.abs(exact).max()).all()
        assert standard_error.max() < 0.02 * np.abs(exact).max(), "the test has power"
    assert (ess > 0.98).all()


def test_it_has_left_the_start(improved):
    """The start is far outside of those tolerances, so that the test above cannot be passed by standing still."""
    found, _ = improved
    start = LQRProblem(LQR).start(ALPHA)
    assert np.linalg.norm(found.K - start.K, axis=(1, 2)).min() > 0.5 * np.linalg.norm(start.K)
    assert np.linalg.norm(found.covariance, axis=(1, 2)).min() > 2 * np.linalg.norm(start.covariance)


def test_values_and_distances_of_sampled_policies():
    """With actions drawn at random instead of quantiles, total variation and KL are unbiased: within 4.5 errors."""
    rooms, alpha, count = Rooms(), 0.2, 4000
    problem = RoomsProblem(rooms)
    first, second = problem.exact(alpha, 1)
    policy = rooms.improved(first.parameters, alpha)
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.choice(len(policy.actions), count, p=weights) for weights in policy.weights.T], axis=1)
    pushed = Pushed(*[np.take_along_axis(part, drawn, axis=0) for part in (policy.actions, policy.log_probs)])
    _, kept = problem.compare(alpha, pushed, second, None)
    other = rooms.improved(second.parameters, alpha)
    exact = 0.5 * np.sum(np.abs(policy.weights - other.weights), axis=0)
    shares = np.maximum(1 - np.exp(rooms.log_prob(second.parameters, alpha, pushed.actions) - pushed.log_probs), 0)
    standard_error = shares.std(axis=0) / np.sqrt(count)
    assert (np.abs(kept["total_variation_by_room"] - exact) < 4.5 * standard_error).all()
    assert (exact > 10 * standard_error).all()
