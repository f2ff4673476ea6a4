"""MJX's tasks against Gymnasium's: what they say of given states, where they start, and one step of the simulators."""

import importlib.metadata
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from scipy import stats

from entroflow.envs import make_compiled
from entroflow.names import COMPILED
from experiments.mjx import run as experiment


@pytest.mark.parametrize("name", experiment.TASKS)
def test_given_states_they_say_what_gymnasium_says(name):
    """Rewards, terminations and observations, of bodies that walk, lie and fly; starts are drawn alike."""
    env = make_compiled(name)
    found = experiment.reference(COMPILED[name], 100, lifted=False)
    found += experiment.reference(COMPILED[name], 5, lifted=True)
    parts = [experiment.stacked(found, part) for part in ("before", "action", "after")]
    same = jax.jit(experiment.judged)(env, *parts)
    rewards, ends, obs = (np.array([step[part] for step in found]) for part in ("reward", "terminated", "obs"))
    np.testing.assert_allclose(same["reward"], rewards, atol=1e-4, rtol=1e-5)
    np.testing.assert_array_equal(same["terminated"], ends)
    np.testing.assert_allclose(same["obs"], obs, atol=1e-4, rtol=1e-5)
    assert ends.any() == (name != "mjx/HalfCheetah") and not ends.all()


@pytest.mark.parametrize("name", [*experiment.TASKS[:-1], pytest.param(experiment.TASKS[-1], marks=pytest.mark.slow)])
def test_they_start_where_gymnasium_does(name):
    """What is seen of a start is what Gymnasium sees there; by two-sample Kolmogorov–Smirnov, they are drawn alike."""
    env, other, count = make_compiled(name), gymnasium.make(COMPILED[name]).unwrapped, 100
    begin = jax.jit(lambda env, keys: jax.vmap(lambda key: (state := env.initial(key), env.observation(state)))(keys))
    states, obs = jax.tree.map(np.asarray, begin(env, jax.random.split(jax.random.key(0), count)))
    drawn: dict[str, list[Any]] = {"qpos": [], "qvel": []}
    for i in range(count):
        other.reset(seed=i)
        for part, values in drawn.items():
            values.append(getattr(other.data, part) - getattr(other, f"init_{part}"))
    for part, values in drawn.items():
        found = getattr(states, part) - np.asarray(getattr(env, part))
        assert stats.ks_2samp(found.ravel(), np.ravel(values)).pvalue > 1e-3
        assert np.all(np.abs(np.corrcoef(found.T) - np.eye(found.shape[1])) < 5 / np.sqrt(count))
    other.reset(seed=0)
    other.set_state(states.qpos[0].astype(float), states.qvel[0].astype(float))
    np.testing.assert_allclose(obs[0], other._get_obs(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(states.place[0], experiment._state(other).place, atol=1e-6)
    fast = jax.tree.map(lambda leaf: leaf[0], states)
    fast = fast._replace(qvel=fast.qvel + np.float32(15.0))
    other.set_state(fast.qpos.astype(float), fast.qvel.astype(float))
    size = fast.qpos.size - env.rules.hidden + fast.qvel.size
    np.testing.assert_allclose(env.observation(fast)[:size], other._get_obs()[:size], rtol=1e-5, atol=1e-5)


def check_limits(rows):
    """Within single precision wherever nothing touches, and of all tasks but Ant where something does."""
    for row in rows:
        agrees = row["where"] == "air" or row["task"] != "mjx/Ant"
        for part, limit in {"position": 1e-5, "velocity": 1e-3, "reward": 1e-4}.items():
            assert float(row[part]) < (limit if agrees else 2.0), row
        assert float(row["reward_of_the_same"]) < 1e-4
        assert row["terminated"] == row["terminated_in_mjx"] == row["terminated_of_the_same"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", experiment.TASKS)
def test_one_step_is_mujoco_s(name):
    """Of all five simulators, from states on the ground and in the air."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check_limits(experiment.compare(name, 10))


def test_the_committed_steps_were_mujoco_s():
    """A hundred states of either kind of all five tasks."""
    rows = experiment.read(Path(experiment.__file__).parent)
    assert len(rows) == 200 * len(experiment.TASKS)
    check_limits(rows)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (
            {"mujoco": "3.17.0"},
            "Hopper-v5 in MJX, without the package mujoco-mjx, expected a package that is installed",
        ),
        (
            {"mujoco": "3.17.0", "mujoco-mjx": "3.3.1"},
            "mujoco 3.17.0 and mujoco-mjx 3.3.1, expected one version of both",
        ),
    ],
)
def test_missing_and_different_versions_are_told(monkeypatch, versions, message):
    """In one sentence that names what to install."""

    def version(package):
        if package not in versions:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr("entroflow.envs.mjx.version", version)
    with pytest.raises(
        ValueError, match=rf'^env: got {message}.*; run: pip install "gymnasium\[mujoco\]>=1\.4" "mujoco-mjx=='
    ):
        make_compiled("mjx/Hopper")
