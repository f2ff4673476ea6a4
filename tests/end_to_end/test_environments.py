"""Environments as people have them: instances of their own, old interfaces, failures, numbers too large."""

import threading
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import entroflow
from entroflow.agents import Broken, NotFinite, training
from entroflow.agents.tasks import task
from entroflow.rl import loop_gym

from .reach import Reach

# No test here learns: what is looked at comes before.
SMALL = {"learning_starts": 1000, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}


def agent(env, **changes):
    """An agent with small networks."""
    return entroflow.GaussianSAC(env, **SMALL | changes)


class Generous(gymnasium.Wrapper):
    """A wrapper of one's own, which Gymnasium cannot make again."""

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, float(reward) + 100.0, terminated, truncated, info


class Single(Reach):
    """A simulator of which there may be one, and which cannot be copied."""

    there = 0

    def __init__(self):
        if Single.there:
            raise RuntimeError("a second simulator")
        super().__init__()
        Single.there, self.lock = 1, threading.Lock()

    def close(self):
        Single.there = 0


@pytest.fixture(autouse=True)
def none_is_there(monkeypatch):
    """Simulators of other tests are gone."""
    monkeypatch.setattr(Single, "there", 0)


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: gymnasium.wrappers.TimeLimit(env, 2), Generous])
def test_an_instance_is_used_itself(wrap):
    """For one environment and one seed; evaluations and several environments step copies, with all that is in it."""
    env = wrap(Reach())
    env.unwrapped.terminates = True
    made = agent(env).learn(6)
    assert env.unwrapped.total == 6
    found = made.evaluate(2)
    agent(env, num_envs=4).learn(8)
    assert env.unwrapped.total == 6 and made.num_timesteps == 6
    assert (found.mean > 200) == isinstance(env, Generous)
    assert found.lengths.tolist() == ([2, 2] if isinstance(env, gymnasium.wrappers.TimeLimit) else [3, 3])
    copies = [layer.unwrapped for layer in made.task.environments(2)]
    assert copies[0] is not copies[1] is not env.unwrapped and all(copy.terminates for copy in copies)


def test_structured_instances_are_flattened_and_used_themselves():
    """A wrapper around it makes the observations flat."""

    class Structured(Reach):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Dict({"a": spaces.Box(-9, 9, (2,)), "b": spaces.Discrete(3)})

        def _observe(self):
            return {"a": np.float32([0.5, self.time]), "b": 1}

    env = Structured()
    made = agent(env).learn(3)
    assert env.total == 3 and made.evaluate(1).lengths == [3]
    np.testing.assert_array_equal(made._training.loop.replay.obs[0, 1], [0.5, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Pendulum-v1", lambda env: setattr(env.unwrapped, "g", 1.0)),
        ("InvertedPendulum-v5", lambda env: env.unwrapped.model.body_mass.__imul__(2)),
        ("Reach-v0", lambda env: setattr(env.unwrapped, "terminates", True)),
        ("Locked-v0", lambda env: setattr(env.unwrapped, "terminates", True)),
    ],
)
def test_what_is_changed_by_hand_is_not_lost(name, change):
    """Copies have it, and a file that would not tell it asks for the environment; without a change it does not."""
    untouched, env = gymnasium.make(name), gymnasium.make(name)
    change(env)
    spec = task(untouched).spec
    assert spec and spec["id"] == name and task(env).spec is None
    told = lambda env: getattr(env.unwrapped, "g", getattr(env.unwrapped, "terminates", None))  # noqa: E731
    for copy in task(env).environments(2):
        assert told(copy) == told(env) and copy.unwrapped is not env.unwrapped
        if name.startswith("Inverted"):
            np.testing.assert_array_equal(copy.unwrapped.model.body_mass, env.unwrapped.model.body_mass)


class Locked(Reach):
    """What only its specification makes again."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


gymnasium.register("Locked-v0", Locked)


def test_wrappers_with_statistics_are_asked_for():
    """Their arguments do not tell all of them; those of a limit do."""
    env = gymnasium.make("Pendulum-v1", max_episode_steps=9)
    assert task(gymnasium.wrappers.NormalizeObservation(env)).spec is None
    assert task(env).spec == {"id": "Pendulum-v1", "kwargs": {}, "max_episode_steps": 9, "wrappers": []}
    assert task(Generous(env)).spec is None


def test_an_instance_that_cannot_be_copied_is_enough_for_one():
    """Several are refused when the agent is made; an evaluation uses the one, and training goes on in new episodes."""
    env = Single()
    message = "env: got <Single instance>, which cannot be copied .*lock.*; pass num_envs=1, or as env a function"
    with pytest.raises(ValueError, match=message):
        agent(env, num_envs=2)
    made = agent(env).learn(4)
    assert made.evaluate(2).lengths.tolist() == [3, 3]
    made.learn(3)
    assert env.total == 4 + 6 + 3
    stored = made._training.loop.replay.obs[0, :6, 1]
    assert stored.tolist() == [0, 1, 2, 0, 0, 1]  # the episode that the evaluation interrupted begins again
    with pytest.raises(ValueError, match="which cannot be copied"):
        made.evaluate(1, perturbation=entroflow.agents.Perturbation(action_noise=0.1))


def test_a_function_that_can_be_called_once_is_enough_for_one():
    """Whether it raises, or returns what it returned before."""
    made = agent(Single)
    assert made.evaluate(2).lengths.tolist() == [3, 3]  # one after the other
    made.learn(4)
    assert made.evaluate(2).lengths.tolist() == [3, 3] and Single.there
    env = Reach()
    made = agent(lambda: env).learn(4)
    assert made.evaluate(2).lengths.tolist() == [3, 3] and env.total == 10
    with pytest.raises(ValueError, match="which returns the same environment again, .*; make it inside of"):
        agent(lambda: env, num_envs=2).learn(4)
    with pytest.raises(ValueError, match="which cannot be made .RuntimeError: a second simulator.*"):
        agent(Single, num_envs=2)


def test_one_and_several_environments_give_the_same_evaluation():
    """Episodes one after the other begin as those side by side."""
    lengths = []
    for env in (Reach(), Single()):
        made = agent(env)
        lengths.append(made.evaluate(3, seed=4, deterministic=False))
    assert len(set(lengths[1].returns)) == 3
    np.testing.assert_allclose(lengths[0].returns[0], lengths[1].returns[0], rtol=1e-5)


def test_loaded_agents_take_an_instance(tmp_path):
    """It is used itself."""
    agent(Reach).save(tmp_path / "agent")
    env = Reach()
    entroflow.load(tmp_path / "agent", env=env).learn(3)
    assert env.total == 3


def test_loading_makes_no_memory(tmp_path, monkeypatch):
    """It is made at the first `learn`."""

    def none(*_, **__):
        raise MemoryError

    agent("Reach-v0").save(tmp_path / "agent")
    monkeypatch.setattr(loop_gym, "start", none)
    loaded = entroflow.load(tmp_path / "agent")
    assert loaded.predict(np.zeros(2))[0].shape == (2,) and loaded.evaluate(1).lengths == [3]
    loaded.save(tmp_path / "again")
    with pytest.raises(MemoryError):
        loaded.learn(3)


class Endless(Reach):
    """Its episodes do not end by themselves."""

    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


def test_an_evaluation_of_what_never_ends_is_cut_off(monkeypatch):
    """At a limit that is said; a time limit of one's own counts, even a longer one."""
    monkeypatch.setattr(training, "LIMIT", 5)
    with pytest.warns(UserWarning, match="Endless did not end within 5 steps .*gymnasium.wrappers.TimeLimit"):
        found = agent(Endless).evaluate(2)
    assert found.lengths.tolist() == [5, 5] and np.isfinite(found.returns).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agent(lambda: gymnasium.wrappers.TimeLimit(Endless(), 7)).evaluate(1).lengths == [7]


class Faulty(Reach):
    """Has a fault from its fifth step on, until it is repaired."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.observation_space = fault, spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def step(self, action):
        found = super().step(action)
        return self.fault(*found) if self.total >= 5 and self.fault else found


def failing(*_):
    raise RuntimeError("the simulator\nbroke down")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda o, r, *rest: (o, np.float32([r]), *rest), r"the reward array\(\[.*\].*\) is no number: return float"),
        (lambda o, r, *rest: (o, np.float32([r, r]), *rest), "is no number"),
        (lambda o, r, *rest: (o, None, *rest), "the reward None is no number"),
        (lambda o, r, *rest: (o, str(r), *rest), "the reward '.*' is no number"),
        (lambda o, r, te, tr, i: (o, r, te or tr, i), "it returned 4 values instead of 5: observation, reward, term"),
        (lambda o, r, *rest: (o, r), "it returned 2 values instead of 5"),
        (lambda *_: None, "it returned a NoneType instead of 5"),
        (lambda o, *rest: (o[:1], *rest), r"the observation has shape \(1,\) instead of \(2,\)"),
        (lambda o, *rest: ({"a": o}, *rest), "TypeError: float"),
        (failing, "RuntimeError: the simulator broke down"),
    ],
)
def test_an_environment_that_fails_is_told_of_in_one_sentence(fault, message):
    """What was learned is kept, and `learn` goes on with new episodes once it is repaired."""
    env = Faulty(fault)
    made = agent(env)
    with pytest.raises(Broken, match=rf"^Faulty.step failed \(.*{message}.*; what was learned is kept, .*\.$") as told:
        made.learn(9)
    assert "\n" not in str(told.value) and made.num_timesteps == 4
    with pytest.raises(Broken, match="Faulty.step failed"):
        made.evaluate(1)
    env.fault = None
    made.learn(3)
    assert made.num_timesteps == 7 and made._training.loop.count == 6
    stored = made._training.loop.replay
    assert stored.obs[0, :6, 1].tolist() == [0, 1, 2, 0, 0, 1] and np.isfinite(stored.reward).all()


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        (lambda env: (env._observe(), {}), "reset failed .*unexpected keyword argument 'seed'"),
        (lambda env, seed=None: env._observe(), "reset failed .*it returned a ndarray instead of 2: observation, info"),
        (lambda env, seed=None: failing(), "reset failed .*the simulator broke down"),
        (lambda env, seed=None: (np.zeros(3), {}), r"reset failed .*shape \(3,\) instead of \(2,\)"),
    ],
)
def test_resets_that_fail_are_told_of(monkeypatch, reset, message):
    """Whether in the first episode, or in one that follows on another."""
    first, later = Reach(), Reach()
    made = agent(later).learn(2)
    monkeypatch.setattr(Reach, "reset", reset)
    monkeypatch.setattr(Reach, "time", 0, raising=False)
    monkeypatch.setattr(Reach, "start", 0.0, raising=False)
    with pytest.raises(Broken, match=message):
        agent(first).learn(1)
    monkeypatch.undo()
    assert made.learn(2).num_timesteps == 4


def test_what_gymnasium_forgives_is_forgiven():
    """No options, no info, lists as observations; a buffer that is written into again, and actions changed in place."""

    class Old(Reach):
        buffer: Any = np.zeros(2, np.float32)
        info: Any = None

        def reset(self, seed=None):  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().reset(seed=seed)[0], self.info

        def step(self, action):
            found = super().step(action)
            action *= 0
            return *found[:4], self.info

        def _observe(self):
            self.buffer[:] = super()._observe()
            return self.buffer

    stored = agent(Old).learn(7)._training.loop.replay
    np.testing.assert_array_equal(stored.obs[0, :6, 1], [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(stored.next_obs[0, :6, 1], [1, 2, 3, 1, 2, 3])
    np.testing.assert_allclose(stored.reward[0, :6], -np.sum((stored.action[0, :6] - 0.5) ** 2, axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("fault", "quantity"),
    [
        (lambda o, r, *rest: (o, 1e300, *rest), "a reward"),
        (lambda o, r, *rest: (o, -1e39, *rest), "a reward"),
        (lambda o, r, *rest: (o, np.inf, *rest), "a reward"),
        (lambda o, *rest: (o * 1.0 + [1e300, 0], *rest), "an observation"),
        (lambda o, *rest: (o * 1.0 + [0, np.nan], *rest), "an observation"),
    ],
)
def test_numbers_beyond_single_precision_are_named_where_they_come_from(fault, quantity):
    """Environment, quantity, step and seed; none is stored, the agent stays good, and `learn` can go on."""
    env = Faulty(fault)
    made = agent(env)
    with pytest.raises(NotFinite, match=f"^Faulty returned {quantity} that is not finite at step 5, seed 0"):
        made.learn(9)
    with pytest.raises(NotFinite, match=f"^Faulty returned {quantity}"):
        made.evaluate(1)
    env.fault = None
    made.learn(2)
    stored = made._training.loop.replay
    assert made._training.loop.count == 5
    assert all(np.isfinite(part).all() for part in (stored.reward, stored.obs, stored.next_obs))
    assert np.isfinite(made.predict(np.zeros(2))[0]).all()


def test_makers_of_something_else_are_refused():
    """What raises, what is none, and what has no spaces: one sentence each."""

    def unlicensed():
        raise RuntimeError("no\nlicence")

    class Bare(gymnasium.Env):
        """Has no spaces."""

    for env, message in {
        unlicensed: "^env: got 'unlicensed', which cannot be made .RuntimeError: no licence., expected .*\\.$",
        dict: "^env: got dict, which makes a dict, expected a gymnasium.Env; .*\\.$",
        Bare: "^actions of Bare: got None, expected a Box .*\\.$",
    }.items():
        with pytest.raises(ValueError, match=message):
            entroflow.GaussianSAC(env)
