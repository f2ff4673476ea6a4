"""A tiny task for the tests of agents and of the commands that train them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Reach(gymnasium.Env):
    """Episodes of three steps toward a number; `terminates` tells how they end. The observation counts the steps."""

    def __init__(self, *, terminates=False, low=(-2.0, 0.0), high=(2.0, 1.0), bad_step=None):
        self.action_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.terminates, self.bad_step, self.total = terminates, bad_step, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start, self.time = self.np_random.normal(), 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, np.float32))
        self.time += 1
        self.total += 1
        reward = float("nan") if self.total == self.bad_step else -float(np.sum(np.square(action - 0.5)))
        ended = self.time == 3
        return self._observe(), reward, ended and self.terminates, ended and not self.terminates, {}

    def _observe(self) -> Any:
        return np.array([self.start, self.time], np.float32)


gymnasium.register("Reach-v0", Reach)
