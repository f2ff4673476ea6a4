"""Distances of a policy from the soft-optimal one of the multi-goal world, where the answer is known."""

import numpy as np
import pytest

from entroflow.envs.multigoal import GOALS
from experiments.multigoal import distance
from experiments.multigoal.exact import World, solve

ALPHA, POINTS = 0.5, 100


@pytest.fixture(scope="module")
def solution():
    return solve(World(), ALPHA, steps_per_unit=10)


@pytest.fixture(scope="module")
def episodes(solution):
    """Episodes of the optimal policy."""
    rng = np.random.default_rng(0)
    return distance.roll_out(solution, rng, 0.1 * rng.standard_normal((256, 2)), 60)


def test_a_policy_is_at_distance_zero_from_itself(solution):
    """Total variation of the exact density with itself is 0, and 1 to a density that it does not meet."""
    _, density = solution.action_density(np.zeros(2), POINTS)
    assert distance.total_variation(density, density) == 0
    left = np.zeros((2, POINTS, POINTS))
    left[0, : POINTS // 2], left[1, POINTS // 2 :] = 0.5, 0.5
    assert distance.total_variation(left[0], left[1]) == pytest.approx(1)


def test_a_turned_policy_has_the_total_variation_expected(solution):
    """At (2, 0) the policy goes right: turned by a half it goes left, at twice the imbalance of its two halves.

    ½ ∫ |p(x, y) − p(−x, y)| = P(x > 0) − P(x < 0) where p(x, y) ≥ p(−x, y) for x > 0. At the origin a quarter turn
    changes nothing.
    """
    _, density = solution.action_density(np.array([2.0, 0.0]), POINTS)
    mirrored = density[::-1]
    right = slice(POINTS // 2, None)
    assert (density[right] >= mirrored[right]).all()
    expected = 4 * (density[right].sum() - density[: POINTS // 2].sum()) / POINTS**2
    assert 0.5 < expected < 1
    assert distance.total_variation(density, mirrored) == pytest.approx(expected)
    _, density = solution.action_density(np.zeros(2), POINTS)
    assert distance.total_variation(density, np.rot90(density)) < 1e-8


def test_histogram_of_draws_is_the_density(solution):
    """Actions of `draw` have the exact density and mode weights within 4 standard errors of every cell's count."""
    count, rng = 4000, np.random.default_rng(1)
    states = np.array([[0.0, 0.0], [3.2, 0.4]])
    actions = np.empty((0, 2))
    for state in states:
        actions, log_probs = distance.draw(solution, rng, np.tile(state, (count, 1)), 20)
        exact = distance.exact_densities(solution, state[None], 20)[0]
        shares, expected = distance.histogram(actions, 20) * 4 / 400, exact * 4 / 400
        assert shares.sum() == pytest.approx(1)
        assert (np.abs(shares - expected) <= 5 * np.sqrt(expected / count) + 2 / count).all()
        places = np.clip(((actions + 1) * 10).astype(int), 0, 19)
        np.testing.assert_allclose(log_probs, np.log(exact[places[:, 0], places[:, 1]]))
    weights = distance.mode_weights(actions)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, solution.mode_weights(states[1]), atol=4 * 0.5 / np.sqrt(count) + 0.01)


def test_mode_weights_count_directions():
    """Every action belongs to one goal, the one that it points to."""
    np.testing.assert_array_equal(distance.mode_weights(np.array([[0.9, 0.1], [0.2, 0.3], [0.1, 1.0], [-0.1, -0.2]])),
                                  [0.25, 0.5, 0.0, 0.25])  # fmt: skip
    np.testing.assert_array_equal(distance.mode_weights(0.1 * GOALS), 0.25)


def test_entropy_and_averages(solution):
    """A uniform density has entropy log 4; averages keep the mass; a histogram's cells are where its actions are."""
    assert distance.entropy(np.full((20, 20), 0.25)) == pytest.approx(np.log(4))
    _, density = solution.action_density(np.zeros(2), POINTS)
    exact = -np.mean(density * np.log(density)) * 4
    coarse = distance.averaged(density, 20)
    assert coarse.mean() == pytest.approx(0.25)
    assert exact < distance.entropy(coarse) < exact + 0.05
    counted = distance.histogram(np.array([[[-1.0, -1.0], [1.0, 1.0], [0.9, -0.9], [1.0, 1.0]]]), 2)
    np.testing.assert_allclose(counted[0] / 4 * 4, [[0.25, 0.0], [0.25, 0.5]])


def test_the_optimal_policy_loses_nothing(solution, episodes):
    """Its gap of the soft return is zero, but for the sampling and the cells of the two grids."""
    gap = distance.soft_return_gap(solution, episodes)
    assert gap.unfinished == 0
    assert abs(gap.gap) < 4 * gap.error + 0.02
    assert gap.error < 0.1
    np.testing.assert_allclose(gap.value, solution.v(episodes.states[0]).mean())


def test_a_policy_that_is_known_loses_what_it_must(solution):
    """The uniform policy's gap is α Σ γ^h KL, with its episodes' own V* − Q* and the entropy log 4, however told."""
    rng, steps, world = np.random.default_rng(2), 400, solution.world
    states, going, parts = np.zeros((400, 2)), np.ones(400, bool), []
    returns = np.zeros(400)
    for h in range(steps):
        actions = rng.uniform(-1, 1, states.shape)
        parts.append((states, actions, np.full(400, -np.log(4)), going))
        following = np.clip(states + actions, -7, 7)
        reached = world.reached(following)
        reward = 0.1 * (10 * reached - world.squared_distance(following)) - world.effort(actions)
        returns += going * world.discount**h * (reward + ALPHA * np.log(4))
        states, going = np.where(going[:, None], following, states), going & ~reached
    episodes = distance.Trajectories(*map(np.stack, zip(*parts, strict=True)))
    gap = distance.soft_return_gap(solution, episodes)
    direct = float(solution.v(np.zeros(2))) - returns.mean()
    error = returns.std(ddof=1) / np.sqrt(400)
    # What is missing after 400 steps is below γ^400 = 2 per cent.
    assert abs(gap.gap - direct) < 4 * np.hypot(gap.error, error) + 0.02 * direct
    told = distance.soft_return_gap(solution, episodes, np.full(16, np.log(4)))
    assert told.gap == pytest.approx(gap.gap)


def test_visits_are_discounted(episodes):
    """States of step h are drawn with weight γ^h times the share of the episodes that are still going."""
    visits = distance.discounted_visits(np.random.default_rng(0), episodes, 0.5, 20_000)
    first = {tuple(state) for state in episodes.states[0]}
    share = np.mean([tuple(state) in first for state in visits])
    masses = 0.5 ** np.arange(len(episodes.going)) * episodes.going.sum(axis=1)
    assert share == pytest.approx(masses[0] / masses.sum(), abs=0.02)
