"""The units that `entroflow lqr` learns in: found on the environment, and invisible in what is learned."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.commands.lqr import plan, units
from entroflow.envs import LQREnv
from entroflow.flow import Unbounded
from entroflow.lqr import LQR, systems
from entroflow.rl import Flow, sac

HORIZON = 20  # as long as that of the environments here


@functools.cache
def found(name: str) -> tuple[LQR, units.Units]:
    """A system of the catalogue and its units."""
    lqr = systems.get(name)
    return lqr, units.find(LQREnv(lqr, HORIZON), lqr.discount)


@pytest.mark.parametrize("name", ["double_integrator", "coupled"])
def test_other_units_leave_every_bit_of_the_learner_s_problem(name: str) -> None:
    """With states, actions and rewards in other powers of two, what is learned on is the same to the last bit."""
    lqr, own = found(name)
    random = np.random.default_rng(0)
    x, u, c = (2.0 ** random.integers(-13, 14, size) for size in (len(lqr.A), len(lqr.R), ()))
    other = lqr.in_units(x, u, float(c))
    now = units.find(LQREnv(other, HORIZON), lqr.discount)
    np.testing.assert_allclose(LQREnv(other).bound * x, LQREnv(lqr).bound, rtol=1e-6)
    for new, unit, old in zip(now, (x, u, c), own, strict=True):
        np.testing.assert_array_equal(new * unit, old)
    assert other.in_units(*now).to_dict() == lqr.in_units(*own).to_dict()
    for new, old in zip(*(jax.tree.leaves(LQREnv(s.in_units(*v))) for s, v in ((lqr, own), (other, now))), strict=True):
        np.testing.assert_array_equal(new, old)


def test_units_are_of_the_size_of_what_happens() -> None:
    """States move, actions cost and rewards are about one in them, whatever they were before."""
    lqr, own = found("coupled")
    strange = lqr.in_units([1e4, 3e-4], [2e3, 5e-4], 7e3)
    normal = strange.in_units(*units.find(LQREnv(strange, HORIZON), lqr.discount))
    there = units.find(LQREnv(normal, HORIZON), lqr.discount)
    assert all((np.asarray(part) == 1.0).all() for part in there)
    np.testing.assert_allclose(np.diag(normal.Q) * own.reward, np.diag(lqr.Q) * own.state**2, rtol=3.0)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 40.0])
def test_exploration_begins_where_it_costs_half_of_the_temperature(alpha: float) -> None:
    """The largest power of two whose random action costs at most α/2 in the rewards that it reaches, by hand."""
    lqr, _ = found("coupled")
    sizes = units.action_sizes(LQREnv(lqr, HORIZON), lqr.discount, alpha / 2)
    cost = lqr.R + sum(
        lqr.discount**k * (move := np.linalg.matrix_power(lqr.A, k - 1) @ lqr.B).T @ lqr.Q @ move for k in (1, 2)
    )
    assert np.all(sizes**2 * np.diag(cost) <= alpha / 2 * 1.001)
    assert np.all((2 * sizes) ** 2 * np.diag(cost) > alpha / 2 * 0.999)


def test_nothing_to_measure_leaves_units_of_one() -> None:
    """Without noise and costs of states nothing moves and no reward is lost: but for the action's, units are one."""
    zero = np.zeros((1, 1))
    lqr = LQR([[0.5]], [[0.0]], zero, [[1.0]], zero, zero, 0.9)
    assert units.find(LQREnv(lqr, HORIZON), 0.9) == (1.0, 1.0, 1.0)


def test_a_restored_agent_is_the_same_in_the_units_of_the_environment() -> None:
    """Its actions and values are those that it learned, counted otherwise; so is its temperature."""
    config = plan.settings(10, 8)
    config = dataclasses.replace(config, actor=Flow(width=4, depth=1, state_width=4))
    scale = jnp.array([1.0, 2.0])
    start = functools.partial(sac.init, config, obs_size=2, action_space=Unbounded(2, center=0.5, scale=scale))
    agent = jax.jit(start)(jax.random.key(0), temperature=jnp.float32(0.5), discount=jnp.float32(0.9))
    x, u, c = np.array([4.0, 0.25]), np.array([8.0, 0.5]), 16.0
    there = jax.jit(lambda agent: units.restored(agent, units.Units(x, u, c)))(agent)

    @jax.jit
    def outcome(agent: sac.State, state: jax.Array) -> list[jax.Array]:
        action = sac.policy(config, agent).sample(jax.random.key(1), state)
        values = sac.q_value(config, agent, state, action), config.critic.v(agent.critic, state), agent.temperature
        return [action, agent.action_space.log_det(action), *values]

    state = np.array([0.3, -1.0], np.float32)
    before, after = outcome(agent, state), outcome(there, x.astype(np.float32) * state)
    np.testing.assert_array_equal(after[0], u * before[0])
    np.testing.assert_allclose(after[1], before[1] + np.log(u).sum(), atol=1e-5)
    np.testing.assert_allclose(after[2:], c * np.array(before[2:]), rtol=1e-5)


def test_values_count_the_entropy_of_the_environment_s_units() -> None:
    """What satisfies the Bellman equation in learned units satisfies it in the environment's: Q = r + γ V."""
    config, volume = plan.settings(10, 8), np.log(8.0 * 0.5)
    config = dataclasses.replace(config, actor=Flow(width=4, depth=1, state_width=4))
    start = functools.partial(sac.init, config, obs_size=2, action_space=Unbounded(2))
    agent = jax.jit(start)(jax.random.key(0), temperature=jnp.float32(0.5), discount=jnp.float32(0.9))
    there = units.restored(agent, units.Units(np.array([4.0, 0.25]), np.array([8.0, 0.5]), 16.0))
    counted, alpha = units.counted(there, volume), 8.0
    state, action = jnp.array([0.3, -1.0]), jnp.array([2.0, 0.1])
    q, v = (
        float(after - before)
        for before, after in zip(
            *(
                [sac.q_value(config, one, state, action), config.critic.v(one.critic, state)]
                for one in (there, counted)
            ),
            strict=True,
        )
    )
    # log π is less by the volume: V is worth α volume more at once, and γ V more at every step before.
    np.testing.assert_allclose(v, q + alpha * volume, rtol=1e-4)
    np.testing.assert_allclose(q, 0.9 * v, rtol=1e-4)
