"""What the job lqr judges policies by, against NumPy: returns on given noise, moments of actions, the dashed line."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from entroflow.commands.lqr.evaluate import evaluate, normal_points
from entroflow.commands.lqr.plan import ENVIRONMENTS, HORIZON, exploration, marks, noise, plan
from entroflow.envs import LQREnv
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded
from entroflow.lqr import sample_noise, systems
from entroflow.lqr.matrices import matrix_root
from entroflow.options import LQROptions
from experiments.plants.horizon import finite_horizon_return

LQR, ALPHA = systems.get("coupled"), 0.5
STEPS, COUNT, SCALE = 5, 3, np.array([0.7, 1.6])
GAIN = 0.8 * LQR.optimal(ALPHA).K + 0.1


class Shift(eqx.Module):
    """v(x, τ, s) = −G s: the policy is N(−G s, 1) in the latent, its integration exact."""

    gain: jax.Array
    obs_size: int = eqx.field(static=True, default=2)
    action_size: int = eqx.field(static=True, default=2)

    def condition(self, obs):
        return -self.gain @ obs

    def __call__(self, x, time, context):
        return context

    def with_divergence(self, x, time, context):
        return context, jnp.zeros(())


def returns_by_hand(given, actions_at):
    """Discounted returns of the trajectories on given noise, and the states that they visit, step by step."""
    states, total, visited = given.initial_states, 0.0, []
    for t, (process, draws) in enumerate(zip(given.process, given.action, strict=True)):
        actions = actions_at(states, draws)
        costs = [s @ LQR.Q @ s + a @ LQR.R @ a for s, a in zip(states, actions, strict=True)]
        total = total - LQR.discount**t * np.array(costs)
        visited.append(states)
        states = states @ LQR.A.T + actions @ LQR.B.T + process
    return total, np.concatenate(visited)


@pytest.fixture(scope="module")
def measured():
    """The evaluation of a linear Gaussian policy, with what it was made from."""
    given = sample_noise(LQR, np.random.default_rng(1), COUNT, STEPS)
    given = type(given)(*[part.astype(np.float32) for part in given])
    space = Unbounded(2, scale=jnp.asarray(SCALE, jnp.float32))
    field = Shift(jnp.asarray(GAIN / SCALE[:, None], jnp.float32))
    policy = FlowPolicy(field, space, solver=RungeKutta("euler", 1))
    points, visits = jnp.asarray(normal_points(64, 2)), np.array([0, 4, STEPS * COUNT - 1])
    run = jax.jit(lambda discount: evaluate(LQREnv(LQR), policy, discount, given, jnp.asarray(visits), points))
    return run(jnp.float32(LQR.discount)), given, points, visits


def test_return_is_the_discounted_one_of_the_given_noise(measured):
    """Averaged over the trajectories, no entropy in it; each step counts γ times as much as the one before."""
    found, given, _, visits = measured
    returns, states = returns_by_hand(given, lambda states, draws: -states @ GAIN.T + draws * SCALE)
    np.testing.assert_allclose(found.standard_return, returns.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.states, states[visits], rtol=1e-4, atol=1e-5)


def test_moments_are_those_of_the_actions_at_the_visited_states(measured):
    """Mean, covariance over all points, and entropy, from the points themselves."""
    found, _, points, _ = measured
    actions = np.asarray(points) * SCALE
    mean, covariance = actions.mean(axis=0), np.cov(actions.T, bias=True)
    np.testing.assert_allclose(found.mean, mean - np.asarray(found.states) @ GAIN.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.covariance, np.broadcast_to(covariance, (3, 2, 2)), rtol=1e-4, atol=1e-5)
    entropy = -multivariate_normal(np.zeros(2), np.diag(SCALE**2)).logpdf(actions).mean()
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-4)


def test_the_dashed_line_is_the_optimal_policy_s_return_on_the_same_noise():
    """It acts with its covariance: the same return step by step, and as the closed form has it, unlike the mean's."""
    run, *_ = plan(LQROptions(temperature=(ALPHA,), seeds=1), LQR)
    root = matrix_root(run.covariance)
    given = noise(LQR)
    returns, _ = returns_by_hand(given, lambda states, draws: -states @ run.K.T + draws @ root)
    assert run.best_return == pytest.approx(returns.mean(), rel=1e-9)
    exact = [finite_horizon_return(LQR, run.K, c, ALPHA, HORIZON) for c in (run.covariance, 1e-9 * run.covariance)]
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    assert abs(run.best_return - exact[0].standard_return) < 4 * error
    assert abs(exact[0].standard_return - exact[1].standard_return) > 8 * error


def test_evaluations_begin_after_ten_thousand_transitions():
    """Densely at first, for logarithmic axes, then evenly; short trainings have fewer."""
    found = marks(3000)
    assert found[:7] == [0, 5, 10, 20, 50, 150, 300] and found[-1] == 3000 and len(found) == 25
    assert ENVIRONMENTS * found[1] == 10_240
    assert marks(100) == [0, *range(5, 101, 5)] and marks(3) == [0, 1, 2, 3] and marks(1) == [0, 1]


@pytest.mark.parametrize(("temperature", "scale"), [(0.005, 10), (0.02, 5), (0.5 / 9, 3), (0.1, 3), (100, 3)])
def test_the_boldest_environment_acts_as_the_optimum_at_half_a_reward(temperature, scale):
    """The optimum's deviations grow with the root of the temperature; three times the policy's are the least."""
    assert exploration(LQROptions(), temperature) == pytest.approx(scale)
    assert exploration(LQROptions(preset="paper"), temperature) == 1
    assert exploration(LQROptions(initial_gain="gain.json"), temperature) == 1
