"""Gymnasium tasks: which can be trained on, and vector environments of them."""

import logging
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from .. import checks
from ..flow import ActionSpace, Box, Unbounded

Env = str | gymnasium.Env | Callable[[], gymnasium.Env]


class Task(NamedTuple):
    """A task that an agent can be trained on.

    Attributes:
        name: the environment's id, or the name of what makes it.
        make: makes one environment with flat observations.
        obs_size: number of components n of an observation, flattened.
        action_space: the space of actions, of any shape.
    """

    name: str
    make: Callable[[], gymnasium.Env]
    obs_size: int
    action_space: spaces.Box

    @property
    def action_size(self) -> int:
        """Number of components d of an action."""
        return int(np.prod(self.action_space.shape))

    def policy_space(self) -> ActionSpace:
        """Return the map from latents to actions, and back."""
        low, high = self.action_space.low.reshape(-1), self.action_space.high.reshape(-1)
        return Box(low, high) if np.isfinite(low).all() else Unbounded(self.action_size)

    def entropy_of_unit(self) -> float:
        """Return Σ log half-width: what to add to an entropy that is meant for actions in [−1, 1]."""
        if not np.isfinite(self.action_space.low).all():
            return 0.0
        return float(np.sum(np.log((self.action_space.high - self.action_space.low) / 2.0)))

    def vector(self, count: int) -> SyncVectorEnv:
        """Make environments that step together, and reset at once when an episode ends, its last observation kept."""
        return SyncVectorEnv([self.make] * count, autoreset_mode=AutoresetMode.SAME_STEP)


def task(env: Env) -> Task:
    """Check a task.

    Args:
        env: the id of a registered environment, an environment made by `gymnasium.make`, of which others like it are
            made, or a function that makes one.

    Returns:
        The task.

    Raises:
        ValueError: in one sentence, if there is no such environment, a package that it needs is missing, or its
            observations or actions are of a kind that is not supported.
    """
    name, build = _builder(env)
    try:
        example = build()
    except gymnasium.error.DependencyNotInstalled as problem:
        remedy = 'run: pip install "entroflow[mujoco]"' if "mujoco" in str(problem).lower() else "install it"
        raise checks.error("env", f"{name}, which needs a package that is missing", "that package", remedy) from None
    except gymnasium.error.Error as problem:
        given = f"{name!r} ({' '.join(str(problem).split())})"
        raise checks.error("env", given, "the id of a registered environment", "check the spelling") from None
    observations, actions = example.observation_space, example.action_space
    example.close()
    _check_actions(name, actions)
    assert isinstance(actions, spaces.Box)
    flat = isinstance(observations, spaces.Box) and len(observations.shape or ()) == 1
    _check_observations(name, observations)
    make = build if flat else lambda: gymnasium.wrappers.FlattenObservation(build())
    return Task(name, make, spaces.flatdim(observations), actions)


def _builder(env: Env) -> tuple[str, Callable[[], gymnasium.Env]]:
    """Return a name and a function that makes the environment."""
    if isinstance(env, str):
        _listen_to_mujoco(env)
        return env, lambda: gymnasium.make(env)
    if isinstance(env, gymnasium.Env):
        spec = env.spec
        if spec is None:
            given, remedy = f"an environment without a spec, {env}", "pass a function that makes it"
            raise checks.error("env", given, "an id, or an environment that gymnasium.make made", remedy)
        return spec.id, lambda: gymnasium.make(spec)
    if callable(env):
        return getattr(env, "__name__", type(env).__name__), env
    raise checks.error("env", repr(env), "an environment's id, or a function that makes it", "pass 'Pendulum-v1'")


def _listen_to_mujoco(env: str) -> None:
    """Hand MuJoCo's warnings to Python's logging, and keep its remarks on how Gymnasium's models are written to debug.

    By itself MuJoCo prints them, one for every environment, and writes them into a file in the current folder.
    """
    spec = gymnasium.registry.get(env)
    if spec is None or "mujoco" not in str(spec.entry_point) or find_spec("mujoco") is None:
        return
    mujoco: Any = import_module("mujoco")

    def log(message: str) -> None:
        logging.getLogger("mujoco").log(logging.DEBUG if "deprecated" in message else logging.WARNING, message)

    mujoco.set_mju_user_warning(log)


def _check_actions(name: str, space: Any) -> None:
    expected = "a Box of actions with finite bounds, or with none"
    if not isinstance(space, spaces.Box):
        remedy = "choose a task with continuous actions"
        raise checks.error(f"actions of {name}", f"{space}", expected, remedy)
    finite = np.isfinite(space.low) & np.isfinite(space.high)
    if not finite.all() and (np.isfinite(space.low) | np.isfinite(space.high)).any():
        remedy = "bound every component on both sides, for example with gymnasium.wrappers.RescaleAction"
        raise checks.error(f"actions of {name}", f"{space}, bounded in part", expected, remedy)
    if finite.all() and not (space.low < space.high).all():
        given = f"{space}, which leaves no room between its bounds"
        raise checks.error(f"actions of {name}", given, expected, "drop constant components")
    if not np.issubdtype(space.dtype, np.floating):
        raise checks.error(f"actions of {name}", f"{space}", expected, "choose a task with continuous actions")


def _check_observations(name: str, space: Any) -> None:
    parts = spaces.flatten_space(space) if space.is_np_flattenable else None
    leaves = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    images = [leaf for leaf in leaves if isinstance(leaf, spaces.Box) and len(leaf.shape) > 2]
    if not isinstance(parts, spaces.Box) or images:
        kind = "images" if images else "observations of variable size"
        remedy = "there are no convolutional networks here: wrap the task so that it returns features"
        raise checks.error(f"observations of {name}", f"{kind}, {space}", "vectors, or a Dict of them", remedy)
