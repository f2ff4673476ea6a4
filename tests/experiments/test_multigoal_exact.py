"""The grid solution of the multi-goal world, against brute force, another resolution and its own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.envs import MultiGoalEnv, reset, step
from entroflow.envs.multigoal import GOALS
from experiments.multigoal.exact import World, solve

WORLD, ALPHA = World(), 0.5
ORIGIN = np.zeros(2)


@pytest.fixture(scope="module")
def solution():
    return solve(WORLD, ALPHA, steps_per_unit=10)


def test_value_is_the_soft_maximum_of_q(solution):
    """V(s) = α log ∫ exp(Q(s, a)/α) da, with Q by its definition and the integral by brute force."""
    states = np.array([[0.0, 0.0], [2.3, 1.1], [-4.0, 3.0], [6.6, 6.6], [3.2, 0.4]])
    edges = np.linspace(-1, 1, 401)
    middles = (edges[1:] + edges[:-1]) / 2
    actions = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    for state in states:
        arrival = np.clip(state + actions, -7, 7)
        near = np.min(np.sum((arrival[:, None] - GOALS) ** 2, axis=2), axis=1)
        reward = 0.1 * (-30 * np.sum(actions**2, axis=1) - near + 10 * (near < 1))
        q = reward + 0.99 * np.where(near < 1, 0.0, solution.v(arrival))
        np.testing.assert_allclose(solution.q(np.tile(state, (len(actions), 1)), actions), q, atol=1e-12)
        value = ALPHA * np.log(np.mean(np.exp(q / ALPHA)) * 4)
        np.testing.assert_allclose(solution.v(state), value, atol=0.02)


def test_error_falls_with_the_square_of_the_resolution(solution):
    """Where a second resolution is twice as fine, the error is about four times smaller."""
    coarse, fine = [solve(WORLD, ALPHA, steps_per_unit=k).value for k in (5, 20)]
    errors = [np.abs(value - fine[::4, ::4]).max() for value in (coarse, solution.value[::2, ::2])]
    assert errors[1] < 0.05
    assert 0.1 < errors[1] / errors[0] < 0.4


def test_symmetry(solution):
    """The world maps onto itself by quarter turns and mirrors; so do value and policy."""
    for turned in (solution.value.T, solution.value[::-1], solution.value[:, ::-1]):
        np.testing.assert_allclose(solution.value, turned, atol=1e-9)
    np.testing.assert_allclose(solution.mode_weights(ORIGIN), 0.25, atol=1e-9)
    weights = solution.mode_weights(np.array([2.0, 0.0]))
    assert weights[0] > 0.85 and weights[1] == pytest.approx(weights[3])


def test_density_is_normalised_and_follows_q(solution):
    """The density integrates to one over the box and equals exp((Q − V)/α)."""
    state = np.array([1.0, 2.0])
    actions, density = solution.action_density(state, 100)
    assert density.mean() * 4 == pytest.approx(1)
    exact = np.exp((solution.q(np.broadcast_to(state, actions.shape), actions) - solution.v(state)) / ALPHA)
    np.testing.assert_allclose(density, exact, rtol=0.03)


def test_return_of_the_optimal_policy_is_its_value(solution):
    """Rewards and entropies collected by acting with the policy add up to V(s_0), from the environment's own steps.

    The time limit is far beyond what the policy needs, so the return is not cut.
    """
    env = MultiGoalEnv(World(time_limit=400))
    rng, episodes = np.random.default_rng(0), 128
    start = np.array([2.0, 1.0])
    states, going = np.tile(start, (episodes, 1)), np.ones(episodes, bool)
    returns, factor = np.zeros(episodes), 1.0
    advance = jax.jit(jax.vmap(lambda s, a: (env.transition(jax.random.key(0), s, a), s, a)))
    settle = jax.jit(jax.vmap(lambda s, a, t: (env.reward(s, a, t), env.terminal(t))))
    for _ in range(120):
        actions = np.zeros((episodes, 2))
        log_probs = np.zeros(episodes)
        for i in np.flatnonzero(going):
            grid, density = solution.action_density(states[i], 40)
            pick = rng.choice(density.size, p=(density / density.sum()).ravel())
            # Uniform within its cell, so that the density at hand is that of the action.
            actions[i] = grid.reshape(-1, 2)[pick] + rng.uniform(-0.025, 0.025, 2)
            log_probs[i] = np.log(density.ravel()[pick])
        following = np.asarray(advance(jnp.float32(states), jnp.float32(actions))[0])
        rewards, ended = settle(jnp.float32(states), jnp.float32(actions), jnp.float32(following))
        returns += going * factor * (np.asarray(rewards) - ALPHA * log_probs)
        going &= ~np.asarray(ended)
        states, factor = following.astype(float), factor * WORLD.discount
        if not going.any():
            break
    assert not going.any()
    error = returns.std(ddof=1) / np.sqrt(episodes)
    assert error < 0.25
    # 0.02 for the cells of the actions' grid and of the solution's.
    assert abs(returns.mean() - float(solution.v(start))) < 4 * error + 0.02


def test_environment_is_the_world():
    """Walls, goals, rewards and bounds of the action in JAX agree with NumPy's definition."""
    env = MultiGoalEnv()
    rng = np.random.default_rng(1)
    states, actions = rng.uniform(-7, 7, (200, 2)), rng.uniform(-1.5, 1.5, (200, 2))

    def one(state, action):
        following = env.transition(jax.random.key(0), state, action)
        return following, env.reward(state, action, following), env.terminal(following)

    following, rewards, ended = jax.vmap(one)(jnp.float32(states), jnp.float32(actions))
    clipped = np.clip(actions, -1, 1)
    np.testing.assert_allclose(following, np.clip(states + clipped, -7, 7), atol=1e-5)
    exact = np.asarray(following, float)
    near = WORLD.squared_distance(exact)
    np.testing.assert_array_equal(ended, WORLD.reached(exact))
    assert 0 < np.sum(np.asarray(ended)) < 200
    expected = 0.1 * (-30 * np.sum(clipped**2, axis=1) - near + 10 * (near < 1))
    np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-4)


def test_episodes_start_near_the_origin_and_time_out():
    """s_0 has standard deviation 0.1; a point that stays is truncated after 30 steps, not terminated."""
    env = MultiGoalEnv()
    keys = jax.random.split(jax.random.key(0), 4000)
    starts = jax.vmap(env.initial)(keys)
    np.testing.assert_allclose(np.std(starts, axis=0), 0.1, rtol=0.05)
    current = reset(env, keys[0])
    advance = jax.jit(step)
    for h in range(30):
        current, transition = advance(env, keys[h], current, jnp.zeros(2))
        assert not transition.terminated
        assert bool(transition.truncated) == (h == 29)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": 0.01}, "at least about"),
        ({"temperature": 1.0, "steps_per_unit": 0}, "steps_per_unit"),
        ({"temperature": 1.0, "world": World(size=5.05)}, "a whole number of steps across the world"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    """A temperature or a resolution that makes no sense is named, and steps that do not fit the world."""
    with pytest.raises(ValueError, match=message):
        solve(**{"world": WORLD, "steps_per_unit": 5, **arguments})
