"""Tasks without bounds on actions: what counts as one is measured, so that learning does not depend on units."""

import equinox as eqx
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from entroflow import GaussianSAC
from entroflow.agents import units
from entroflow.agents.settings import change
from entroflow.lqr import LQR, systems

SMALL = {"width": 4, "depth": 1, "critic_width": 4, "batch_size": 8, "buffer_size": 64, "learning_starts": 16}
UNITS = np.array([2.0**-9, 2.0**-8]), np.array([2.0**13, 2.0**-14]), 2.0**-6  # of states, actions and rewards


class Plant(gymnasium.Env):
    """A linear system in units of its own; an action of `breaks` or more it does not take."""

    def __init__(self, lqr, breaks=np.inf, bound=np.inf):
        self.lqr, self.breaks = lqr, breaks
        n, d = lqr.B.shape
        self.observation_space = spaces.Box(-np.inf, np.inf, (n,))
        self.action_space = spaces.Box(-bound, bound, (d,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.state = 0, self._normal(self.lqr.initial_cov)
        return self.state, {}

    def step(self, action):
        assert np.abs(action).max() < self.breaks
        self.time, state, action = self.time + 1, self.state, action.astype(float)
        self.state = self.lqr.A @ state + self.lqr.B @ action + self._normal(self.lqr.noise_cov)
        return self.state, -(state @ self.lqr.Q @ state + action @ self.lqr.R @ action), False, self.time == 20, {}

    def _normal(self, covariance):
        return np.linalg.cholesky(covariance) @ self.np_random.normal(size=len(covariance))


def other(lqr):
    """The system in other units."""
    return lqr.in_units(*UNITS)


@pytest.mark.parametrize("counted", [lambda lqr: lqr, other])
def test_sizes_of_actions_are_those_of_the_closed_form(counted):
    """Within n + 1 rewards component i costs a² e_iᵀ(R + Σ_t γ^(t+1) (AᵗB)ᵀQ AᵗB)e_i, t = 0, …, n − 1."""
    lqr, cost = counted(systems.get("coupled")), 0.3 * (1 if counted is not other else 1 / UNITS[-1])
    reached = [np.linalg.matrix_power(lqr.A, t) @ lqr.B for t in range(len(lqr.A))]
    weight = lqr.R + sum(0.9 ** (t + 1) * there.T @ lqr.Q @ there for t, there in enumerate(reached))
    expected = 2 ** np.floor(np.log2(np.sqrt(cost / np.diag(weight))))
    np.testing.assert_array_equal(units.action_sizes(Plant(lqr), 0.9, cost), expected)


def test_sizes_of_actions_end_where_the_task_does_and_are_one_where_nothing_costs():
    """An action that the task does not take counts as dear; one that nobody feels has no size."""
    lqr = systems.get("double_integrator")
    free = lqr.in_units(np.ones(2), np.array([2.0**-80]))
    assert units.action_sizes(Plant(lqr, breaks=2.0**-5), 0.9, 0.3) == 2.0**-6
    assert units.action_sizes(Plant(free), 0.9, 0.3) == 1.0


def learned(lqr, reward=1.0, steps=40):
    """An agent after a few updates."""
    return GaussianSAC(lambda: Plant(lqr), seed=0, temperature=0.5 / reward, **SMALL).learn(steps)


def test_the_same_is_learned_in_other_units():
    """Up to rounding: actions, densities and α, with states, actions and rewards each in units of their own."""
    lqr, (x, u, reward) = systems.get("coupled"), UNITS
    obs = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    own, there = learned(lqr), learned(other(lqr), reward)
    actions, log_probs = own.sample_and_log_prob(obs)
    found, densities = there.sample_and_log_prob(obs / np.float32(x))
    np.testing.assert_allclose(found * u, actions, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(densities - np.log(u).sum(), log_probs, atol=1e-3)
    before = GaussianSAC(lambda: Plant(lqr), seed=0, **SMALL)
    moved = [np.abs(each.sample(obs, 8, seed=1)).mean() for each in (own, before)]
    assert moved[0] != pytest.approx(moved[1], rel=1e-2)  # something was learned
    assert own.config.target_entropy is None and float(own.state.temperature) == pytest.approx(0.5)


def test_units_are_those_of_the_task():
    """Of states without memory and of variance 12, whose squares are the rewards; found twice they are the same."""
    one, variance = np.ones((1, 1)), 12.0 * np.ones((1, 1))
    lqr = LQR(0 * one, one, one, 0.5 * one, variance, variance, 0.9)
    agent = GaussianSAC(lambda: Plant(lqr), temperature=0.5, discount=0.9, **SMALL)
    fresh, begin = agent._training.agents, lambda agents: units.begin(agents, Plant(lqr), agent.settings)
    begun = begin(fresh)
    jax.tree.map(np.testing.assert_array_equal, begin(begun), begun)
    # An action costs (0.5 + 0.9) a², at most α/2; in its units entropy is larger by −log a at every step to come.
    found = [begun.action_space.scale, begun.critic.action_units.scale, begun.obs_units.scale]
    found += [begun.critic.obs_units.scale, begun.critic.value_units.scale, begun.critic.value_units.mean]
    expected = [0.25, 0.25, 2.0, 2.0, 8.0, 0.9 / 0.1 * 0.5 * np.log(0.25)]
    np.testing.assert_allclose(np.concatenate([np.ravel(part) for part in found]), expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, (begun.actor, begun.critic.q), (fresh.actor, fresh.critic.q))


def test_rewards_count_as_they_are_learned():
    """`reward_scale` 64 finds the units of the system whose rewards are 64 times as large."""
    lqr = systems.get("double_integrator")
    larger = LQR(lqr.A, lqr.B, 64 * lqr.Q, 64 * lqr.R, lqr.noise_cov, lqr.initial_cov, lqr.discount)
    found = []
    for plant, scale in ((lqr, 64.0), (larger, 1.0)):
        agent = GaussianSAC(lambda plant=plant: Plant(plant), reward_scale=scale, temperature=0.5, **SMALL)
        begun = units.begin(agent._training.agents, Plant(plant), agent.settings)
        found.append((begun.action_space.scale, begun.obs_units.scale, begun.critic.value_units))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_what_is_not_to_be_counted_is_left_alone():
    """Bounded actions, observations that are not to be normalised, a critic of one's own, a policy without entropy."""
    lqr = systems.get("double_integrator")
    agent = GaussianSAC(lambda: Plant(lqr), **SMALL)
    fresh, env, settings = agent._training.agents, Plant(lqr), change(agent.settings, {"normalise_obs": False})
    begun = units.begin(fresh, env, change(settings, {"entropy_in_target": False}))
    for part in (begun, begun.critic):
        np.testing.assert_array_equal(part.obs_units.scale, np.ones((1, 2)))
    assert float(begun.critic.value_units.mean[0]) == 0.0
    own = eqx.tree_at(lambda agents: agents.critic, fresh, np.zeros(1))
    assert units.begin(own, env, settings).critic is own.critic
    bounded = GaussianSAC(lambda: Plant(lqr, bound=1.0), **SMALL)._training.agents
    assert units.begin(bounded, env, settings) is bounded
