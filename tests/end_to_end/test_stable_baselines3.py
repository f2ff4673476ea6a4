"""Stable-Baselines3's own tools drive our agents, where that package is installed (`make peers`; it brings PyTorch)."""

import inspect
from importlib import import_module
from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest

import entroflow
from entroflow.agents import callbacks, sb3

INSTALLED = find_spec("stable_baselines3") is not None
SMALL = {"learning_starts": 20, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}


def drive():
    """Train in its `Monitor`, evaluate by its `evaluate_policy`, step its `VecEnv`; refuse that and its callbacks."""
    common = "stable_baselines3.common."
    monitor, vectors = (import_module(common + name) for name in ("monitor", "vec_env"))
    evaluation = import_module(common + "evaluation")
    env = monitor.Monitor(gymnasium.make("Pendulum-v1"))
    agent = entroflow.GaussianSAC("MlpPolicy", env, gamma=0.9, seed=0, **SMALL).learn(24)
    assert agent.settings.discount == 0.9
    returns, lengths = evaluation.evaluate_policy(agent, env, n_eval_episodes=2, return_episode_rewards=True)
    assert lengths == [200, 200] and -2000 < min(returns) <= max(returns) < 0
    several = vectors.DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * 3)
    obs = several.reset()
    actions, _ = agent.predict(obs, deterministic=True)
    obs, rewards, *_ = several.step(actions)
    assert obs.shape == (3, 3) and np.isfinite(rewards).all()
    theirs = inspect.signature(import_module("stable_baselines3").SAC).parameters.keys()
    assert theirs <= sb3.TABLE.keys() | inspect.signature(entroflow.GaussianSAC).parameters.keys()
    their = import_module(common + "callbacks")
    with pytest.raises(ValueError, match="callback: got a StopTrainingOnMaxEpisodes, .*stop_at"):
        inspect.unwrap(callbacks.together)(their.StopTrainingOnMaxEpisodes(1))
    with pytest.raises(ValueError, match="env: got a DummyVecEnv, .*num_envs=3"):
        sb3.environment([several])


if INSTALLED:
    test_its_tools_drive_our_agents = drive
else:

    def test_the_package_is_not_needed():
        """Nothing here imports it."""
        with pytest.raises(ModuleNotFoundError, match="stable_baselines3"):
            drive()
