"""Soft optima on grids and tables, against closed forms, other discretisations, other solvers and simulation."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.special import erf, logsumexp

from entroflow import memory
from entroflow.envs import DeadBand, DoubleWell, FunctionalEnv, LQREnv, MultiGoalEnv, SwingUp
from entroflow.exact import Axis, Table, grid, iterate, linearly_solvable, solve
from entroflow.lqr import LQR, design, finite_horizon
from experiments.multigoal.exact import World
from experiments.multigoal.exact import solve as optimum_of_goals

ALPHA, DISCOUNT = 0.2, 0.7
WELL = [Axis(-2.0, 2.0, 161)]


@jax.jit
def values(found, states):
    """V at several states."""
    return jax.vmap(found.v)(states)


@jax.jit
def density(found, state, actions):
    """π(a|s) of several actions."""
    return jnp.exp(jax.vmap(found.policy().log_prob, (None, 0))(state, actions))


def single(numbers):
    """An array in single precision, a column for every coordinate."""
    return jnp.asarray(np.reshape(numbers, (len(numbers), -1)), jnp.float32)


def a_table(seed, states=7, actions=3, stays=1.0):
    """A random problem, with the weights of a quadrature; the return ends with probability 1 − stays."""
    rng = np.random.default_rng(seed)
    transition = stays * rng.dirichlet(np.ones(states), states * actions)
    weights = np.log(rng.uniform(0.1, 1.0, (1, actions)))
    return Table(rng.standard_normal((states, actions)), sparse.csr_array(transition), weights)


@pytest.mark.parametrize(("discount", "stays"), [(0.0, 1.0), (0.9, 1.0), (0.999, 1.0), (0.9, 0.8), (1.0, 0.8)])
def test_value_iteration_is_policy_iteration(discount, stays):
    """The soft policy's own value by a linear system, improved until it stays: the same within the stated bound."""
    table = a_table(0, stays=stays)
    P = table.transition.toarray().reshape(7, 3, 7)
    value = np.zeros(7)
    for _ in range(60):
        q = table.reward + discount * P @ value
        log_policy = q / ALPHA - logsumexp(q / ALPHA + table.log_weights, axis=1, keepdims=True)  # a density
        policy = np.exp(log_policy + table.log_weights)
        gain = np.sum(policy * (table.reward - ALPHA * log_policy), axis=1)
        value = np.linalg.solve(np.eye(7) - discount * np.einsum("sa,sat->st", policy, P), gain)
    found = iterate(table, temperature=ALPHA, discount=discount, tolerance=1e-9)
    assert found.bound <= 1e-9
    np.testing.assert_allclose(found.values[0], value, atol=1e-7)
    if discount > 0.9 and stays == 1:  # the bounds close in as fast as states are mixed
        iterate(table, temperature=ALPHA, discount=discount, tolerance=1e-9, max_iterations=60)


def test_the_bound_holds_and_failure_is_told():
    """A loose tolerance ends within it; an iteration that may not go on says so."""
    table = a_table(1, stays=0.9)
    right = iterate(table, temperature=ALPHA, discount=0.95, tolerance=1e-10).values
    loose = iterate(table, temperature=ALPHA, discount=0.95, tolerance=0.5)
    assert 0 < np.abs(loose.values - right).max() <= loose.bound <= 0.5
    with pytest.raises(RuntimeError, match="not converged in 3 steps"):
        iterate(table, temperature=ALPHA, discount=0.95, tolerance=1e-10, max_iterations=3)


def test_linearly_solvable_problems_are_soft_ones():
    """Todorov's linear equation, and value iteration over a choice of the next state that costs α KL."""
    rng, states = np.random.default_rng(2), 40
    passive = np.where(rng.uniform(size=(states, states)) < 0.2, rng.uniform(size=(states, states)), 0.0)
    passive += 0.1 * np.eye(states, k=1) + 0.1 * np.eye(states, k=1 - states)
    passive /= passive.sum(axis=1, keepdims=True)
    reward, ends = -rng.uniform(0.1, 1.0, states), np.arange(states) >= states - 3
    found = linearly_solvable(sparse.csr_array(passive), reward, ALPHA, ends)
    np.testing.assert_allclose(found[ends], reward[ends])
    # Where the return ends, what follows is worth nothing and everything is free.
    choice = np.where(ends[:, None, None], 0.0, np.eye(states)[None]).reshape(-1, states)
    with np.errstate(divide="ignore"):
        log_weights = np.where(ends[:, None], -np.log(states), np.log(passive))
    table = Table(np.tile(reward[:, None], states), sparse.csr_array(choice), log_weights)
    value = iterate(table, temperature=ALPHA, discount=1.0, tolerance=1e-12).values[0]
    np.testing.assert_allclose(found, value, atol=1e-9)
    higher = linearly_solvable(passive, reward + 500.0 * ends, ALPHA, ends)
    np.testing.assert_allclose(higher, found + 500, rtol=1e-12)
    with pytest.raises(ValueError, match="temperature: got exp"):
        linearly_solvable(passive, np.where(ends, 0.0, -1e4), ALPHA, ends)


def well_backup(value, x, steps=401):
    """TV of the double well, written anew: a cubic spline, trapezoids in the action, 9 nodes of noise."""
    actions, (nodes, weights) = np.linspace(-2, 2, steps), hermegauss(9)
    following = x[:, None, None] + 0.1 * (x - x**3)[:, None, None] + actions[:, None] / 2 + 0.1 * nodes
    later = value(np.clip(following, -2, 2)) @ (weights / weights.sum())
    q = -((x**2 - 1) ** 2)[:, None] - actions**2 / 2 + DISCOUNT * later
    rule = np.full(steps, 4 / (steps - 1))
    rule[[0, -1]] /= 2
    return q, ALPHA * logsumexp(q / ALPHA + np.log(rule), axis=1)


@pytest.fixture(scope="module")
def well():
    return solve(DoubleWell(), WELL, temperature=ALPHA, discount=DISCOUNT)


def test_another_discretisation_agrees_within_the_stated_error(well):
    """Value and density by splines and trapezoids; the wells alike, left and right."""
    x = np.linspace(-2, 2, 81)
    value = CubicSpline(x, np.zeros(81))
    for _ in range(40):
        value = CubicSpline(x, well_backup(value, x)[1])
    where = np.linspace(-1.95, 1.95, 40)
    found = np.asarray(values(well, single(where)), float)
    apart = np.abs(found - value(where))
    assert 1e-5 < apart.max() < well.error + well.residual < 0.01 and well.bound < 1e-5
    np.testing.assert_allclose(found, found[::-1], atol=1e-5)
    # On the points of the grid what the extrapolation took away was most of the error.
    on_grid = np.abs(np.asarray(values(well, single(x[2:-2]))) - value(x[2:-2]))
    assert on_grid.max() < 0.2 * well.error
    q, soft = well_backup(value, np.array([0.1]))
    actions = np.linspace(-2, 2, 401)
    ours, exact = density(well, jnp.array([0.1]), single(actions)), np.exp((q[0] - soft[0]) / ALPHA)
    assert np.trapezoid(exact, actions) == pytest.approx(1)
    assert 0.5 * np.trapezoid(np.abs(ours - exact), actions) < 1e-3


def test_a_single_step_is_an_integral_in_closed_form():
    """With one step to go V(x) = −(x² − 1)² + α log ∫ exp(−a²/2α) da, and two steps agree with splines."""
    two = solve(DoubleWell(), WELL, temperature=ALPHA, discount=DISCOUNT, horizon=2)
    assert two.values.shape == (3, 161)
    expected = ALPHA * math.log(math.sqrt(2 * math.pi * ALPHA) * erf(2 / math.sqrt(2 * ALPHA)))
    x = np.linspace(-2, 2, 161)
    np.testing.assert_allclose(two.values[1], expected - (x**2 - 1) ** 2, atol=1e-5)
    np.testing.assert_allclose(two.values[2], 0)
    once = CubicSpline(x, well_backup(lambda x: 0 * x, x)[1])
    where = np.array([-1.5, 0.0, 0.3, 1.0])
    np.testing.assert_allclose(values(two, single(where)), well_backup(once, where)[1], atol=two.error + two.residual)
    # Of two policies the one with one step to go does not look ahead.
    keys = jax.random.split(jax.random.key(0), 500)
    draw = jax.jit(lambda two, time: jax.vmap(two.policy(time).sample, (0, None))(keys, jnp.array([0.5])))
    assert abs(draw(two, 1).mean()) < 4 * math.sqrt(ALPHA / 500) < 0.2 < draw(two, 0).mean()


def test_a_long_horizon_is_an_infinite_one(well):
    """γ^40 of what is left is below the accuracy of the numbers."""
    long = solve(DoubleWell(), WELL, temperature=ALPHA, discount=DISCOUNT, horizon=40)
    np.testing.assert_allclose(long.values[0], well.values[0], atol=2e-5)
    assert np.abs(long.values[25] - well.values[0]).max() > 1e-3


def test_a_wide_box_is_lqr():
    """Where neither box nor grid is felt, value and moments are those of Theorem 3."""
    lqr = LQR([[0.9]], [[0.5]], [[1.0]], [[0.5]], [[0.04]], [[1.0]], 0.9, "scalar")
    env = eqx.tree_at(lambda env: (env.action_low, env.action_high), LQREnv(lqr), (-4 * jnp.ones(1), 4 * jnp.ones(1)))
    found = solve(env, [Axis(-4.0, 4.0, 161)], temperature=ALPHA, discount=0.9)
    optimum = lqr.optimal(ALPHA)
    value, actions = lqr.soft_value(optimum.K, optimum.covariance, ALPHA), np.linspace(-4, 4, 801)
    where = np.array([-1.0, 0.0, 0.5])
    apart = np.abs(np.asarray(values(found, single(where))) - value(where[:, None]))
    assert apart.max() < found.error + found.residual < 0.02
    for x in where:
        shown = density(found, single([x])[0], single(actions))
        mean = np.trapezoid(shown * actions, actions)
        assert mean == pytest.approx(-optimum.K[0, 0] * x, abs=2e-3)
        variance = np.trapezoid(shown * (actions - mean) ** 2, actions)
        assert variance == pytest.approx(optimum.covariance[0, 0], rel=5e-3)


def test_three_states_two_inputs_and_three_steps_without_discount():
    """The largest problem that is taken, against the schedule of `lqr.finite_horizon`, within what is stated."""
    A, B = np.array([[0.5, 0.2, 0.0], [0.0, 0.4, 0.2], [0.1, 0.0, 0.3]]), np.array([[0.5, 0.0], [0.0, 0.3], [0.2, 0.4]])
    system = LQR(A, B, np.eye(3), 0.5 * np.eye(2), np.zeros((3, 3)), np.eye(3), 0.9, "three")
    box = (-3.2 * jnp.ones(2), 3.2 * jnp.ones(2))
    env = eqx.tree_at(lambda env: (env.action_low, env.action_high), LQREnv(system), box)
    found = solve(env, [Axis(-2.0, 2.0, 13)] * 3, temperature=1.0, discount=1.0, horizon=3, nodes=16)
    plant = design(A, B, np.eye(3), 0.5 * np.eye(2), temperature=1.0).plant
    where = np.random.default_rng(0).integers(-3, 4, (20, 3)) / 3  # points of the grid
    expected = [
        -finite_horizon(dataclasses.replace(plant, initial_cov=np.outer(x, x)), 3).cost.soft_total for x in where
    ]
    apart = np.abs(np.asarray(values(found, single(where))) - expected)
    assert found.values.shape == (4, 13, 13, 13) and apart.max() < found.error + found.residual < 0.3
    assert apart.max() < 0.015 * np.ptp(expected) < 0.1
    assert np.abs(jax.vmap(lambda x: found.v(x, 2))(single(where)) - np.array(expected)).max() > 0.1  # one step to go


def test_the_multi_goal_world_by_its_own_solver():
    """Two actions, termination, a jump of the reward: the world's own solver on a finer grid agrees."""
    world = World(discount=0.9)
    theirs = optimum_of_goals(world, 0.5, steps_per_unit=10)
    ours = solve(MultiGoalEnv(world), [Axis(-7.0, 7.0, 43)] * 2, temperature=0.5, discount=0.9, nodes=10)
    states = np.random.default_rng(0).uniform(-6.5, 6.5, (200, 2))
    apart = np.asarray(values(ours, single(states))) - theirs.v(states)
    span = np.ptp(theirs.v(states))
    assert np.abs(apart).mean() < 0.01 * span and np.abs(apart).max() < 0.05 * span


@pytest.mark.parametrize(
    ("env", "axes"),
    [
        (SwingUp(), [Axis(-np.pi, np.pi, 65, periodic=True), Axis(-4.0, 4.0, 65)]),
        (DeadBand(), [Axis(-3.0, 3.0, 65), Axis(-3.0, 3.0, 65)]),
    ],
    ids=["swing_up", "dead_band"],
)
def test_the_policy_returns_what_its_value_says(env, axes):
    """Σ γ^h (r − α log π) over simulated episodes is V(s_0), to 4 standard errors and the stated error."""
    found, steps, count = solve(env, axes, temperature=ALPHA, discount=DISCOUNT), 50, 256

    @jax.jit
    def simulate(found, key):
        def one(state, key):
            keys = jax.random.split(key)
            action, log_prob = found.policy().sample_and_log_prob(keys[0], env.observation(state))
            following = env.transition(keys[1], state, action)
            return following, env.reward(state, action, following) - ALPHA * log_prob

        step = lambda states, key: jax.vmap(one)(states, jax.random.split(key, count))  # noqa: E731
        starts = jax.vmap(env.initial)(jax.random.split(key, count))
        gains = jax.lax.scan(step, starts, jax.random.split(key, steps))[1]
        return starts, DISCOUNT ** jnp.arange(float(steps)) @ gains

    starts, returns = simulate(found, jax.random.key(3))
    expected = values(found, starts)
    apart = np.asarray(returns - expected, float)
    assert abs(apart.mean()) < 4 * apart.std() / math.sqrt(count) + found.error < 0.15
    np.testing.assert_allclose(values(found, -starts), expected, atol=1e-3)


def test_an_angle_goes_round():
    """On a periodic axis nothing changes by a turn; on another one what is beyond counts as the end."""
    axes = [Axis(-1.0, 3.0, 5, periodic=True), Axis(0.0, 2.0, 5)]
    states = np.array([[3.5, 1.0], [-0.5, 9.0], [-5.5, -9.0]])
    np.testing.assert_allclose(grid.places(axes, states), [[0.5, 2.0], [0.5, 4.0], [3.5, 0.0]])
    np.testing.assert_allclose(grid.places(axes, jnp.asarray(states, jnp.float32)), grid.places(axes, states))


def test_draws_have_the_density(well):
    """A histogram at a state with two modes, within 5 standard errors of every cell; nothing outside of the box."""
    state, keys = jnp.array([0.05]), jax.random.split(jax.random.key(1), 8000)
    draws = np.asarray(jax.jit(lambda well: jax.vmap(well.policy().sample, (0, None))(keys, state))(well))[:, 0]
    counts, edges = np.histogram(draws, 16, (-2, 2))
    fine = np.linspace(-2, 2, 401)
    shown = np.asarray(density(well, state, single(fine)), float)
    expected = np.add.reduceat((shown[1:] + shown[:-1]) / 200, np.arange(0, 400, 25))
    assert expected.sum() == pytest.approx(1, abs=1e-3) and len(edges) == 17
    assert (np.abs(counts / 8000 - expected) < 5 * np.sqrt(expected / 8000) + 1e-4).all()
    assert 0.05 < expected[:8].sum() < 0.45
    within = (draws + 2) * 64 % 1  # of the 256 cells from which actions are drawn
    assert within.mean() == pytest.approx(0.5, abs=0.02) and within.var() == pytest.approx(1 / 12, abs=0.005)
    assert density(well, state, jnp.full((401, 1), 2.1)).max() == 0


class Walk(FunctionalEnv):
    """A walk in as many dimensions as wanted, whose noise is told or not."""

    action_low: jax.Array
    action_high: jax.Array
    size: int = eqx.field(static=True)
    noise: float = 0.0
    of_action: float = 0.0
    of_state: float = 0.0
    time_limit: int = eqx.field(static=True, default=10)
    obs_size: int = eqx.field(static=True, default=1)

    def initial(self, key):
        return jnp.zeros(self.size)

    def transition(self, key, state, action):
        deviation = self.noise + self.of_action * action[0] + self.of_state * state
        return state / 2 + action[0] + deviation * jax.random.normal(key, (self.size,))

    def reward(self, state, action, next_state):
        return -jnp.sum(state**2)


def test_what_is_no_problem_of_this_kind_is_refused(monkeypatch):
    """Each in one sentence, with what was given."""
    one = jnp.ones(1)
    make = lambda size=1, bound=one, **noise: Walk(action_low=-bound, action_high=bound, size=size, **noise)  # noqa: E731
    axis, given = Axis(-1.0, 1.0, 5), {"temperature": 0.5, "discount": 0.9}
    for env, axes, words in (
        (make(4), [axis] * 4, "4 state dimensions, expected at most 3"),
        (make(bound=one * jnp.inf), [axis], "actions without bounds"),
        (make(bound=jnp.ones(3)), [axis], "3 action dimensions, expected at most 2"),
        (make(2), [axis], "grid: got 1 axes, expected 2"),
        (make(), [Axis(1.0, -1.0, 5)], "finite low below high"),
        (make(), [Axis(-1.0, 1.0, 2)], "at least 3 points"),
        (make(noise=0.1), [axis], "a random transition"),
        (make(of_action=0.1), [axis], "a random transition"),  # none in the middle of the box
        (make(of_state=0.1), [axis], "a random transition"),  # none at the initial state
        (LQREnv(LQR([[0.9]], [[0.5]], [[1.0]], [[0.5]], [[0.04]], [[1.0]], 0.9, "x")), [axis], "without bounds"),
    ):
        with pytest.raises(ValueError, match=words):
            solve(env, axes, **given)
    with pytest.raises(ValueError, match="discount: got 1.0"):
        solve(make(), [axis], temperature=0.5, discount=1.0)
    with pytest.raises(ValueError, match="temperature: got 0.0"):
        solve(make(), [axis], temperature=0.0, discount=0.5)
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    with pytest.raises(ValueError, match=r"a plan of at least [\d,]+\.\d GiB, most of it through the grid's points"):
        solve(make(3), [Axis(-1.0, 1.0, 201)] * 3, **given)
    solve(make(), [axis], **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"discount": 1.5}, "discount: got 1.5"),
        ({"discount": -0.9}, "discount"),
        ({"temperature": -0.5}, "temperature"),
    ],
)
def test_iteration_has_a_fixed_point(given, words):
    """Where there is none, nothing is said to have converged."""
    with pytest.raises(ValueError, match=words):
        iterate(a_table(0), **({"temperature": ALPHA, "discount": 0.9} | given))
