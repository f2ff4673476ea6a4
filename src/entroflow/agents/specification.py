"""What a file may say of a Gymnasium task: its specification as data, and the task made again from that.

Data name no module: nothing that is read from a file chooses an import.
"""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np

from .. import checks
from ..envs import episodes

OWN = "entroflow.envs:"  # the one module that an id read from a file may name
# Wrappers that no file tells, or may ask for: they hold more than their arguments, show, or write files.
REFUSED = ("NormalizeObservation", "NormalizeReward", "RecordVideo", "HumanRendering", "RenderCollection")
PASS = "pass the task itself as env="
REMEDY = f"name the task by --task, or {PASS}"


def read(spec: Any) -> tuple[str, Callable[[], gymnasium.Env], dict[str, Any]]:
    """Return the name of a task, what makes it, and its data, from those or from an id; else it is a `ValueError`."""
    parts: dict[str, Any] = {"kwargs": {}, "max_episode_steps": None, "wrappers": []}
    parts |= {"id": spec} if isinstance(spec, str) else spec if isinstance(spec, dict) else {}
    kinds = {"id": str, "kwargs": dict, "max_episode_steps": int | None, "wrappers": list}
    if set(parts) != set(kinds) or not all(isinstance(parts[name], kind) for name, kind in kinds.items()):
        raise checks.error("env", repr(spec), "the specification of a task", REMEDY)
    name, limit = parts["id"], parts["max_episode_steps"]
    if ":" in name.removeprefix(OWN) or not name:
        given, remedy = f"the id {name!r} in a file", f"name the task by --task, or import its module and {PASS}"
        raise checks.error("env", given, "an id without a module", remedy)
    try:
        gymnasium.spec(name)
    except gymnasium.error.UnregisteredEnv as problem:
        told = str(problem).split("Did you mean")[0]  # the file is right: a name like it does not help
        given = f"the id {name!r} in a file ({' '.join(told.split()).rstrip('.')})"
        remedy = f"name the task by --task, as 'module:{name}' if a module of yours registers it, or {PASS}"
        raise checks.error("env", given, "the id of a registered environment", remedy) from None
    except gymnasium.error.Error:  # an id that is completed, or refused, when the task is made
        pass
    wrappers = [_wrapper(part) for part in parts["wrappers"]]
    listen_to_mujoco(name)

    def build() -> gymnasium.Env:
        env = gymnasium.make(name, **({} if limit is None else {"max_episode_steps": limit}), **parts["kwargs"])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*precision lowered")  # JSON has one kind of real numbers
            for kind, kwargs in wrappers:
                env = kind(env, **kwargs)
        return env

    return name, build, parts


def as_data(spec: Any) -> dict[str, Any] | None:
    """Return an environment's specification as JSON-ready data; None if that would not tell all."""
    if spec is None or ":" in spec.id.removeprefix(OWN):
        return None
    wrappers = spec.additional_wrappers
    ours = all(part.entry_point.startswith("gymnasium.wrappers") and part.kwargs is not None for part in wrappers)
    if not ours or any(part.name in REFUSED for part in wrappers):
        return None
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    document = {
        "id": spec.id,
        "kwargs": {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in kwargs.items()},
        "max_episode_steps": spec.max_episode_steps,
        "wrappers": [{"name": part.name, "kwargs": part.kwargs} for part in wrappers],
    }
    try:
        return json.loads(json.dumps(document, default=lambda value: value.tolist(), allow_nan=False))
    except (TypeError, ValueError, AttributeError):  # neither JSON's nor NumPy's
        return None


def _wrapper(part: Any) -> tuple[Callable[..., gymnasium.Env], dict[str, Any]]:
    """Return one of Gymnasium's own wrappers by its name, and its arguments."""
    name, kwargs = (part.get("name"), part.get("kwargs", {})) if isinstance(part, dict) else (None, None)
    allowed = name in gymnasium.wrappers.__all__ and name not in REFUSED
    kind = getattr(gymnasium.wrappers, str(name), None) if allowed else None
    if kind is None or not isinstance(kwargs, dict):
        raise checks.error("env", f"the wrapper {name!r} in a file", "one of Gymnasium's own", REMEDY)
    return kind, kwargs


def as_made(env: gymnasium.Env) -> bool:
    """Return whether an environment is what its specification makes, as far as numbers, texts and arrays tell."""
    try:
        with contextlib.closing(gymnasium.make(env.spec)) as made:  # pyright: ignore[reportArgumentType]
            copy = episodes.copied(env)  # what it shares with the user's is not to be closed
            for each in (copy, made):
                each.reset(seed=0)
            return _told(copy) == _told(made)
    except Exception:
        return False


def _told(env: gymnasium.Env) -> dict[str, bytes]:
    """Return what can be compared of an environment, MuJoCo's model included."""
    model = getattr(env.unwrapped, "model", None)
    of_model = {f"model.{name}": getattr(model, name, None) for name in dir(model) if not name.startswith("_")}
    parts = vars(env.unwrapped) | {name: value for name, value in of_model.items() if isinstance(value, np.ndarray)}
    return {name: np.asarray(value).tobytes() for name, value in parts.items() if isinstance(value, episodes.PLAIN)}


def listen_to_mujoco(env: str) -> None:
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
