"""A training's schedule: which updates belong to a step, who acts in an evaluation, and what the temperature seeks."""

import dataclasses
import math
from fractions import Fraction
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from entroflow.agents import Settings
from entroflow.agents.settings import change
from entroflow.agents.tasks import task
from entroflow.agents.training import NotFinite, Training
from entroflow.commands.train import _changes
from entroflow.rl import Config, Gaussian, MLPCritic, loop_gym

SETTINGS = Settings(
    Config(Gaussian(width=2, depth=1), MLPCritic(width=2, depth=1), batch_size=2),
    num_envs=2,
    learning_starts=4,
    buffer_size=40,
    action_candidates=7,
)


class Corridor(gymnasium.Env):
    """Two steps; the reward is what was done."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Box(np.float32([-3.0, 0.0]), np.float32([3.0, 0.5]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), float(action.sum()), False, self.time == 2, {}


def train(settings, task_of=Corridor):
    """A training that has made no step."""
    return Training(task(task_of), settings, [0])


@pytest.fixture
def calls(monkeypatch):
    """Every call of the learner and of whoever acts in an evaluation, in whose place nothing is computed."""
    made = SimpleNamespace(learned=[], stored=[], candidates=[])

    def learn(config, loop, transitions, *, update_policy):
        made.learned.append(update_policy)
        made.stored.append(transitions is not None)
        if transitions is None:
            return loop, {}
        count = loop.count + transitions.reward.shape[1]
        return loop_gym.Loop(loop.agent, loop.replay, loop.key, count, loop.fault), {}

    def act_well(config, agent, obs, key, step, *, candidates):
        made.candidates.append(candidates)
        return jnp.zeros((*obs.shape[:2], 2))

    monkeypatch.setattr(loop_gym, "act", lambda config, agent, obs, *_, explore: jnp.zeros((*obs.shape[:2], 2)))
    monkeypatch.setattr(loop_gym, "learn", learn)
    monkeypatch.setattr(loop_gym, "act_well", act_well)
    return made


@pytest.mark.parametrize("updates", [1, 3])
def test_updates_belong_to_the_step_of_every_environment(calls, updates):
    """Each step of each environment is followed by `updates_per_step` updates; its transition is stored once.

    Learning begins after `learning_starts` steps, and the last step's updates wait for the next action.
    """
    training = train(dataclasses.replace(SETTINGS, updates_per_step=updates))
    training.advance(14)
    training.close()
    rounds = (14 - SETTINGS.learning_starts) // SETTINGS.num_envs - 1
    assert len(calls.learned) == rounds * SETTINGS.num_envs * updates
    per_round = SETTINGS.num_envs * updates
    assert calls.stored == rounds * [True, *[False] * (per_round - 1)]


@pytest.mark.parametrize(("ratio", "num_envs"), [(0.2, 5), (0.3, 1), (0.1, 3), (1.5, 2), (2.0, 2), (1 / 3, 4)])
def test_no_fraction_of_an_update_is_lost(calls, ratio, num_envs):
    """After n steps that count there were floor(ratio n) updates, whatever the calls; all transitions are stored."""
    settings = dataclasses.replace(SETTINGS, updates_per_step=ratio, num_envs=num_envs, buffer_size=200)
    training, due = train(settings), []
    for rounds in (1, 2, 10, 27):
        training.advance(rounds * num_envs)
        n = max(0, training.step - num_envs - 4 // num_envs * num_envs)  # the last transition waits
        due.append(len(calls.learned) == math.floor(n * Fraction(str(ratio))))
    training.close()
    assert all(due) and len(calls.learned) > 3
    assert int(training.loop.count) == training.step - num_envs


def test_one_update_a_vector_step(calls):
    """A fifth of an update for each of five environments is one for all of them, each with what they just saw."""
    settings = change(dataclasses.replace(SETTINGS, num_envs=5), _changes(("updates_per_step=0.2",), SETTINGS))
    training = train(settings)
    training.advance(40)
    training.close()
    assert calls.stored == 7 * [True]


def test_a_fraction_goes_on_where_it_was(calls):
    """A training restored between two updates makes the next one when the uninterrupted one would."""
    settings = dataclasses.replace(SETTINGS, updates_per_step=0.3, num_envs=1, learning_starts=1)
    first, again = train(settings), train(settings)
    first.advance(8)
    for _ in range(6):
        numbers, arrays = first.state()
        again.restore(numbers, arrays)
        made = []
        for training in (first, again):
            before = len(calls.learned)
            training.advance(1)
            made.append(len(calls.learned) - before)
        assert made[0] == made[1]
    first.close()
    again.close()


@pytest.mark.parametrize("delay", [1, 3])
def test_the_policy_waits_for_its_turn(calls, delay):
    """Of `policy_delay` updates the first improves the policy, the others the critic alone, counted from the start."""
    training = train(dataclasses.replace(SETTINGS, policy_delay=delay))
    training.advance(6)
    training.advance(14)
    training.close()
    assert len(calls.learned) > 2 * delay
    assert calls.learned == [i % delay == 0 for i in range(len(calls.learned))]


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluations_take_the_best_of_several_actions_or_draw_one(calls, deterministic):
    """Deterministic evaluation chooses among `action_candidates` by Q; otherwise the policy's single draw is taken."""
    training = train(SETTINGS)
    rows = training.evaluate(3, deterministic=deterministic)
    assert calls.candidates == 2 * [7 if deterministic else 1]
    assert [(row["length"], row["return"]) for row in rows] == 3 * [(2, 0.0)]


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", -2 + np.log(3.0) + np.log(0.25)), (-1.5, -1.5), (2, 2.0), (None, None)]
)
def test_the_automatic_target_entropy_is_in_units_of_the_box(given, expected):
    """−1 for each component of an action in units of half its range, which is log of that range's half in nats."""
    found = train(dataclasses.replace(SETTINGS, target_entropy=given)).config.target_entropy
    assert found == (expected if expected is None else pytest.approx(expected, abs=1e-6))


def test_unbounded_actions_have_no_unit():
    """There is no automatic target; α stays as it is."""

    class Free(Corridor):
        action_space = spaces.Box(-np.inf, np.inf, (2,))

    assert train(SETTINGS, Free).config.target_entropy is None


def test_the_first_observation_of_an_episode_is_looked_at(calls):
    """Where a reset returns what is not finite the task is named, and nothing of it is remembered."""

    class Broken(Corridor):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed)
            return obs * (np.nan if seed is None else 1.0), info  # that of a seed is the first of all

    training = train(SETTINGS, Broken)
    with pytest.raises(NotFinite, match="^Broken returned an observation that is not finite at step 4"):
        training.advance(8)
    assert training._pending is not None and np.isfinite(training._pending.next_obs).all()
    training.advance(2)
    assert np.isfinite(training.loop.replay.obs).all()


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (-1e-3, 0.7), (-1.0, 1.0), (-3.3, -0.2)])
def test_bounds_in_single_precision_stay_inside(low, high):
    """Of a box of doubles, so that no action leaves it by rounding; its own bounds are actions of it still."""

    class Narrow(Corridor):
        action_space = spaces.Box(low, high, (2,), np.float64)

    made = task(Narrow)
    space = made.policy_space()
    ends = [np.asarray(space.to_action(jnp.full(2, latent)), np.float64) for latent in (-50.0, 50.0)]
    assert all(low <= end <= high for part in ends for end in part)
    np.testing.assert_allclose(ends, [[low] * 2, [high] * 2], atol=2e-7 * max(abs(low), abs(high)))
    for bound in (low, high):
        assert space.contains(jnp.asarray(made.flatten_action(np.full(2, bound))[0][0]))


def test_after_a_number_that_is_not_finite_the_agents_are_the_last_good_ones(calls, monkeypatch):
    """Those of the last rows, as copies, for the memory of what learns is used again; then learning can go on."""
    training = train(SETTINGS)
    training.advance(8)
    good = jax.tree.map(np.array, training.agents)

    def poison(config, loop, transitions, *, update_policy):
        poisoned = jax.tree.map(lambda leaf: leaf * jnp.nan if leaf.dtype.kind == "f" else leaf, loop.agent)
        return loop_gym.Loop(poisoned, loop.replay, loop.key, loop.count, jnp.full_like(loop.fault, 2)), {
            "q": np.full(1, np.nan)
        }

    learn = loop_gym.learn
    monkeypatch.setattr(loop_gym, "learn", poison)
    with pytest.raises(NotFinite, match="^actor of the agent of the run with seed 0 is not finite at step 10$"):
        training.advance(8)
    assert all(map(np.array_equal, jax.tree.leaves(training.agents), jax.tree.leaves(good)))
    assert int(training.loop.count) == 6  # what was remembered stays
    monkeypatch.setattr(loop_gym, "learn", learn)
    assert training.advance(4)[0].keys() >= {"seed", "step"} and training.step == 14
