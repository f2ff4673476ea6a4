"""Environments that were captured and restored: they go on as the ones they were captured from, bit for bit."""

import json

import gymnasium
import numpy as np
import pytest

from entroflow.agents.tasks import task
from entroflow.rl.loop_gym import Rollout
from entroflow.storage import environment_state
from entroflow.storage.environment_state import NotCaptured

OWN = ["entroflow/LQR-v0", "entroflow/MultiGoal-v0"]
CONTROL = ["Pendulum-v1", "MountainCarContinuous-v0"]
# Those that read positions from before the step, that end early, and those with the largest states.
MUJOCO = [
    "HalfCheetah-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Humanoid-v5",
    "Swimmer-v5",
    "Reacher-v5",
    "Pusher-v5",
]
MUJOCO += ["InvertedPendulum-v5", "InvertedDoublePendulum-v5", "HumanoidStandup-v5"]


def rolling(env, *seeds):
    """A roll-out in environments of a task, one for each seed."""
    made = Rollout(task(env).environments(len(seeds)), 1)
    made.begin(seeds)
    return made


def follow(rollout, rng, steps):
    """What a number of random steps gives."""
    shape, found = rollout.envs[0].action_space.shape, []
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (1, len(rollout.envs), *shape)).astype(np.float32)
        found.append((*rollout.step(actions), rollout.obs))
    return found


@pytest.mark.parametrize("name", OWN + CONTROL + MUJOCO)
def test_restored_environments_go_on_as_the_captured_ones(name):
    """Observations, rewards and ends of episodes are the same, over resets and what is random in them."""
    made = gymnasium.make(name, max_episode_steps=30) if name not in OWN else name
    first, second = rolling(made, 1, 2), rolling(made, 3, 4)
    follow(first, np.random.default_rng(0), 20)
    follow(second, np.random.default_rng(1), 3)
    document, arrays = environment_state.capture(first.envs)
    environment_state.restore(second.envs, json.loads(json.dumps(document, allow_nan=False)), arrays)
    second.obs = first.obs
    steps = 90 if name in OWN else 50
    for was, now in zip(*(follow(envs, np.random.default_rng(2), steps) for envs in (first, second)), strict=True):
        assert all(map(np.array_equal, was, now))


class Foreign(gymnasium.Env):
    """An environment that nothing is known of."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}


def test_unknown_environments_are_not_captured():
    """Neither environments of others nor attributes that cannot be written are passed over."""
    envs = task(Foreign).environments(1)
    with pytest.raises(NotCaptured, match="Foreign is not among the environments whose state is known"):
        environment_state.capture(envs)
    known = rolling("Pendulum-v1", 0).envs
    known[0].unwrapped.memory = object()
    with pytest.raises(NotCaptured, match="its attribute memory is a object"):
        environment_state.capture(known)


@pytest.mark.parametrize("change", ["model", "version"])
def test_another_mujoco_is_not_taken_for_the_same(change, monkeypatch):
    """A changed model, or another version of MuJoCo, would go on differently."""
    import mujoco

    first, second = (rolling("InvertedPendulum-v5", 0).envs for _ in range(2))
    captured = environment_state.capture(first)
    if change == "model":
        second[0].unwrapped.model.body_mass[1] *= 2
    else:
        monkeypatch.setattr(mujoco, "__version__", "2.0")
    with pytest.raises(NotCaptured, match="another one|MuJoCo 3"):
        environment_state.restore(second, *captured)
