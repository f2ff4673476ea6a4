"""Gymnasium tasks: which can be trained on, vector environments of them, and what a file may say of one."""

import importlib
import json
import logging
import math
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space, iterate
from jaxtyping import Float

from .. import (
    checks,
    envs,  # noqa: F401  registers entroflow/LQR-v0 and entroflow/MultiGoal-v0
)
from ..flow import ActionSpace, Box, Unbounded
from ..storage.folder import plain

Env = str | gymnasium.Env | Callable[[], gymnasium.Env]
OWN = "entroflow.envs:"  # the one module that an id read from a file may name


class Task(NamedTuple):
    """A task that an agent can be trained on.

    Attributes:
        name: the environment's id, or the name of what makes it.
        make: makes one environment with flat observations.
        observation_space: the space of observations, as the task has it.
        action_space: the space of actions, of any shape.
        spec: id, arguments, time limit and wrappers, from which `rebuilt` makes the task again; None if they do not
            tell all.
    """

    name: str
    make: Callable[[], gymnasium.Env]
    observation_space: spaces.Space
    action_space: spaces.Box
    spec: dict[str, Any] | None = None

    @property
    def obs_size(self) -> int:
        """Number of components n of an observation, flattened."""
        return spaces.flatdim(self.observation_space)

    @property
    def action_size(self) -> int:
        """Number of components d of an action."""
        return int(np.prod(self.action_space.shape))

    def flatten(self, observation: Any) -> tuple[Float[np.ndarray, "b n"], tuple[int, ...]]:
        """Bring observations into the form that networks see.

        Args:
            observation: one observation, or a batch of any leading axes, in the form of the task's space; or flattened,
                shape (..., n).

        Returns:
            The observations, flat and in single precision, shape (b, n), and their leading axes.

        Raises:
            ValueError: for another form, or numbers that are not finite.
        """
        space, shape = self.observation_space, self.observation_space.shape
        array = _numbers(observation)
        if not isinstance(space, spaces.Box) and (array is None or array.shape[-1:] != (self.obs_size,)):
            return self._flatten_structured(observation)
        if array is not None and shape and array.shape[-len(shape) :] == shape:
            batch = array.shape[: array.ndim - len(shape)]
        elif array is not None and array.shape[-1:] == (self.obs_size,):
            batch = array.shape[:-1]
        else:
            given = repr(type(observation).__name__) if array is None else f"shape {np.shape(observation)}"
            expected = f"numbers of shape {shape or (self.obs_size,)}, or a batch of them"
            raise checks.error("observation", given, expected, "pass what the task returned")
        return _finite("observation", array.reshape(math.prod(batch), self.obs_size)), batch

    def _flatten_structured(self, observation: Any) -> tuple[Float[np.ndarray, "b n"], tuple[int, ...]]:
        """Flatten one observation of a Dict, a Tuple or a discrete space, or a batch of them, by the space itself."""
        space = self.observation_space
        try:
            single = space.contains(observation)
            parts = [observation] if single else iterate(batch_space(space, _length(observation)), observation)
            rows = np.asarray([spaces.flatten(space, part) for part in parts])
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):
            given, remedy = f"{observation!r}", "pass what the task returned"
            raise checks.error("observation", given, f"one of {space}, or a batch of them", remedy) from None
        return _finite("observation", rows), () if single else (len(rows),)

    def flatten_action(self, action: Any) -> tuple[Float[np.ndarray, "b d"], tuple[int, ...]]:
        """Bring actions into the form of the policy.

        Args:
            action: one action, or a batch of any leading axes, in the form of the task's space.

        Returns:
            The actions, flat and in single precision, shape (b, d), and their leading axes.

        Raises:
            ValueError: for another form, or numbers that are not finite.
        """
        shape, array = self.action_space.shape, _numbers(action)
        if array is None or array.shape[array.ndim - len(shape) :] != shape:
            expected = f"numbers of shape {shape}, or a batch of them"
            raise checks.error("action", f"shape {np.shape(action)}", expected, "pass one action or several")
        batch = array.shape[: array.ndim - len(shape)]
        return _finite("action", array.reshape(math.prod(batch), self.action_size)), batch

    def policy_space(self) -> ActionSpace:
        """Return the map from latents to actions, and back."""
        low, high = self.action_space.low.reshape(-1), self.action_space.high.reshape(-1)
        finite = np.isfinite(_width(self.action_space))
        if finite.any() and not finite.all():
            given, remedy = (
                f"{self.action_space}, of which some are too far apart",
                "use gymnasium.wrappers.RescaleAction",
            )
            raise checks.error(f"actions of {self.name}", given, "bounds of all components, or of none", remedy)
        return Box(low, high) if finite.all() else Unbounded(self.action_size)

    def entropy_of_unit(self) -> float:
        """Return Σ log half-width: what to add to an entropy that is meant for actions in [−1, 1]."""
        width = _width(self.action_space)
        return float(np.sum(np.log(width / 2.0))) if np.isfinite(width).all() else 0.0

    def vector(self, count: int) -> SyncVectorEnv:
        """Make environments that step together, and reset at once when an episode ends, its last observation kept."""
        return SyncVectorEnv([self.make] * count, autoreset_mode=AutoresetMode.SAME_STEP)

    def spaces_as_data(self) -> dict[str, Any]:
        """Return what must agree between the task that was trained on and another: shapes and bounds."""
        flat = spaces.flatten_space(self.observation_space)
        assert isinstance(flat, spaces.Box)
        parts = {"observation": flat, "action": self.action_space}
        bounds = {name: {"low": _bounds(space.low), "high": _bounds(space.high)} for name, space in parts.items()}
        return {"observation_shape": list(self.observation_space.shape or flat.shape), **bounds}


def _numbers(value: Any) -> np.ndarray | None:
    """Return a value as an array of numbers; None if it is none."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "iufb" else None


def _finite(name: str, array: np.ndarray) -> Float[np.ndarray, "b n"]:
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise checks.error(name, "NaN or infinity", "finite numbers", "look where they come from")
    return single


def _length(observation: Any) -> int:
    """Return the length of the leading axis of a batch of structured observations."""
    while isinstance(observation, dict | tuple):
        observation = next(iter(observation.values())) if isinstance(observation, dict) else observation[0]
    return len(observation)


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
    return _task(name, build, told=isinstance(env, str | gymnasium.Env))


def _task(name: str, build: Callable[[], gymnasium.Env], *, told: bool) -> Task:
    """Check a task by making one of its environments, whose specification tells all of it, or does not."""
    try:
        example = build()
    except gymnasium.error.DependencyNotInstalled as problem:
        remedy = 'run: pip install "entroflow[mujoco]"' if "mujoco" in str(problem).lower() else "install it"
        raise checks.error("env", f"{name}, which needs a package that is missing", "that package", remedy) from None
    except gymnasium.error.Error as problem:
        given = f"{name!r} ({' '.join(str(problem).split())})"
        raise checks.error("env", given, "the id of a registered environment", "check the spelling") from None
    observations, actions = example.observation_space, example.action_space
    spec = _as_data(example.spec) if told else None
    example.close()
    _check_actions(name, actions)
    assert isinstance(actions, spaces.Box)
    flat = isinstance(observations, spaces.Box) and len(observations.shape or ()) == 1
    _check_observations(name, observations)
    make = build if flat else lambda: gymnasium.wrappers.FlattenObservation(build())
    return Task(name, make, observations, actions, spec)


def rebuilt(spec: Any) -> Task:
    """Make a task again from what a file says of it. It names no module: nothing that is read chooses an import.

    Args:
        spec: what `Task.spec` was, or the environment's id alone.

    Returns:
        The task.

    Raises:
        ValueError: in one sentence, if it says anything else, or there is no such task here.
    """
    parts: dict[str, Any] = {"kwargs": {}, "max_episode_steps": None, "wrappers": []}
    parts |= {"id": spec} if isinstance(spec, str) else spec if isinstance(spec, dict) else {}
    kinds = {"id": str, "kwargs": dict, "max_episode_steps": int | None, "wrappers": list}
    if set(parts) != set(kinds) or not all(isinstance(parts[name], kind) for name, kind in kinds.items()):
        raise checks.error("env", repr(spec), "the specification of a task", "pass the task itself as env=")
    name = parts["id"]
    if ":" in name.removeprefix(OWN) or not name:
        given, expected = f"the id {name!r} in a file", "an id without a module"
        raise checks.error("env", given, expected, "import the module yourself and pass the task itself as env=")
    if isinstance(spec, str):
        return task(name)
    _listen_to_mujoco(name)
    limit = {} if parts["max_episode_steps"] is None else {"max_episode_steps": parts["max_episode_steps"]}

    def build() -> gymnasium.Env:
        env = gymnasium.make(name, **limit, **parts["kwargs"])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*precision lowered")  # JSON has one kind of real numbers
            for wrapper in parts["wrappers"]:
                env = _wrapper(wrapper)(env, **wrapper.get("kwargs", {}))
        return env

    try:
        return _task(name, build, told=False)._replace(spec=parts)
    except TypeError as problem:
        given = f"arguments of {name!r} in a file that do not fit ({str(problem).splitlines()[0]})"
        raise checks.error("env", given, "those that it takes", "pass the task itself as env=") from None


def _as_data(spec: Any) -> dict[str, Any] | None:
    """Return an environment's specification as JSON-ready data; None if that would not tell all."""
    if spec is None or ":" in spec.id.removeprefix(OWN):
        return None
    wrappers = spec.additional_wrappers
    if any(not part.entry_point.startswith("gymnasium.wrappers") or part.kwargs is None for part in wrappers):
        return None
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    document = {
        "id": spec.id,
        "kwargs": {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in kwargs.items()},
        "max_episode_steps": spec.max_episode_steps,
        "wrappers": [{"name": part.name, "kwargs": part.kwargs} for part in wrappers],
    }
    try:
        return json.loads(json.dumps(document, default=_plain_array, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _plain_array(value: Any) -> Any:
    """Return NumPy's numbers and arrays as lists; refuse all else."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value)
    raise TypeError


def _wrapper(part: Any) -> Callable[..., gymnasium.Env]:
    """Return one of Gymnasium's own wrappers by its name."""
    name = part.get("name") if isinstance(part, dict) else None
    kind = getattr(gymnasium.wrappers, name, None) if name in gymnasium.wrappers.__all__ else None
    if kind is None or not isinstance(part.get("kwargs", {}), dict):
        given = f"the wrapper {name!r} in a file"
        raise checks.error("env", given, "one of Gymnasium's own", "pass the task itself as env=")
    return kind


def _bounds(values: np.ndarray) -> list[Any]:
    """Return bounds as numbers that JSON has; what is not finite as text."""
    return [float(value) if np.isfinite(value) else str(value) for value in values.reshape(-1)]


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
    mujoco: Any = importlib.import_module("mujoco")

    def log(message: str) -> None:
        logging.getLogger("mujoco").log(logging.DEBUG if "deprecated" in message else logging.WARNING, message)

    mujoco.set_mju_user_warning(log)


def _width(space: spaces.Box) -> np.ndarray:
    """Return how far the bounds are from each other; infinite where there are none that single precision can tell."""
    with np.errstate(over="ignore"):
        return space.high.astype(np.float32) - space.low.astype(np.float32)


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
