"""A functional environment as a Gymnasium environment: one definition of the dynamics serves both.

Args:
    seed: seed of `np_random`; None: as it is.
    options: not used.
    system: a name of the catalogue, a JSON file, an `LQR`, or what its `to_dict` returns.
    time_limit: length of an episode.

Returns:
    The environment; of a reset the observation, (n,), and an empty dictionary.
"""

from os import PathLike
from typing import Any

import gymnasium
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.envs.functional import EnvState, FunctionalEnv, advance, reset
from entroflow.envs.lqr import LQREnv
from entroflow.envs.multigoal import MultiGoalEnv
from entroflow.lqr import LQR, systems
from entroflow.types import Transition

_reset = jax.jit(reset)


@jax.jit
def _advance(
    env: FunctionalEnv, key: PRNGKeyArray, current: EnvState, action: Float[Array, "d"]
) -> tuple[EnvState, Transition]:
    """One step with a key of its own, derived from the episode's key."""
    return advance(env, jax.random.fold_in(key, current.time), current, action)


class GymAdapter(gymnasium.Env[np.ndarray, ArrayLike]):
    """Steps a `FunctionalEnv`; time limit and truncation are its own, so no `TimeLimit` wrapper is needed.

    Actions outside a bounded box are the functional environment's business; observations are unbounded float32.

    Args:
        env: the environment to step.
    """

    metadata = {"render_modes": []}  # noqa: RUF012, the base class's own way

    def __init__(self, env: FunctionalEnv):
        self.env = env
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (env.obs_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(np.asarray(env.action_low), np.asarray(env.action_high))
        self._max_episode_steps = env.time_limit  # as Gymnasium's TimeLimit tells it
        self._current: EnvState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "n"], dict[str, Any]]:
        """Start an episode; all its randomness comes from one draw of `np_random`."""
        super().reset(seed=seed)
        key_initial, self._key = jax.random.split(jax.random.key(self.np_random.integers(2**32, dtype=np.uint32)))
        self._current = start = _reset(self.env, key_initial)
        return np.asarray(self.env.observation(start.state)), {}

    def step(self, action: ArrayLike) -> tuple[Float[np.ndarray, "n"], float, bool, bool, dict[str, Any]]:
        """Take one step."""
        if self._current is None:
            raise checks.error("step", "no episode to continue", "a call of reset first", "call env.reset()")
        action = np.asarray(action, np.float32)
        if action.shape != self.action_space.shape:
            raise checks.error("action", f"shape {action.shape}", f"{self.action_space.shape}", "pass one action")
        self._current, transition = _advance(self.env, self._key, self._current, action)
        ended = bool(transition.terminated), bool(transition.truncated)
        return np.asarray(transition.next_obs), float(transition.reward), *ended, {}


def make_lqr(system: str | PathLike[str] | LQR | dict[str, Any] = "coupled", time_limit: int = 100) -> GymAdapter:
    """Build `entroflow/LQR-v0`.

    Example:
        >>> env = gymnasium.make("entroflow.envs:entroflow/LQR-v0", system="cartpole")
        >>> env.observation_space.shape, env.action_space.shape
        ((4,), (1,))
    """
    lqr = LQR.from_dict(system) if isinstance(system, dict) else systems.load(system)
    return GymAdapter(LQREnv(lqr, time_limit))


def make_multigoal() -> GymAdapter:
    """Build `entroflow/MultiGoal-v0`."""
    return GymAdapter(MultiGoalEnv())
