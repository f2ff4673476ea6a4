"""The state of Gymnasium environments as plain data, so that a resumed run goes on inside of its episodes, bit for bit.

An environment is what its attributes are, wrapper by wrapper: numbers, arrays, random generators, and MuJoCo's data.
That is known to be all for Gymnasium's MuJoCo and classic-control tasks and for our own; others, which may keep state
in a library or a process of theirs, are not captured.
"""

import hashlib
import math
import types
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import gymnasium
import jax
import numpy as np

from ..envs import episodes
from . import checkpoint

KNOWN = ("gymnasium.envs.mujoco.", "gymnasium.envs.classic_control.", "gymnasium.wrappers.", "entroflow.")
# What never changes, or has nothing to do with the numbers; no known task draws from its spaces.
CONSTANT = {"env", "spec", "fullpath", "metadata", "mujoco_renderer", "_metadata", "_saved_kwargs", "_cached_spec"}
CONSTANT |= {"_ezpickle_args", "_ezpickle_kwargs"}
FIXED = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type, gymnasium.Space)
SCALARS = (bool, int, str, type(None))


class NotCaptured(Exception):
    """Says what the state of an environment cannot be captured or restored for."""


def capture(envs: Sequence[gymnasium.Env]) -> tuple[list[Any], checkpoint.Arrays]:
    """Return the state of all environments: a JSON-ready document, and the arrays that it names; or `NotCaptured`."""
    arrays: checkpoint.Arrays = {}
    document = [
        [
            {key: _encode(value, f"envs.{i}.{depth}.{key}", arrays) for key, value in _attributes(layer).items()}
            for depth, layer in enumerate(_layers(env))
        ]
        for i, env in enumerate(envs)
    ]
    return document, arrays


def restore(envs: Sequence[gymnasium.Env], document: list[Any], arrays: checkpoint.Arrays) -> None:
    """Bring environments, which have been reset, into a captured state, see `capture`; or `NotCaptured`."""
    for env, layers in zip(envs, document, strict=True):
        for layer, values in zip(_layers(env), layers, strict=True):
            for key, value in values.items():
                if key in CONSTANT or callable(getattr(layer, key, None)):
                    raise NotCaptured(f"its attribute {key} is none that changes")
                vars(layer)[key] = _decode(value, arrays, vars(layer).get(key))


def _layers(env: gymnasium.Env) -> list[gymnasium.Env]:
    """Return the wrappers, outermost first, and the environment itself."""
    layers = episodes.layers(env)
    for layer in layers:
        if not type(layer).__module__.startswith(KNOWN):
            raise NotCaptured(f"{type(layer).__name__} is not among the environments whose state is known")
    checker = gymnasium.wrappers.PassiveEnvChecker  # it only warns
    return [layer for layer in layers if not isinstance(layer, checker)]


def _attributes(layer: gymnasium.Env) -> dict[str, Any]:
    return {key: value for key, value in vars(layer).items() if key not in CONSTANT and not isinstance(value, FIXED)}


def _encode(value: Any, name: str, arrays: checkpoint.Arrays) -> Any:
    """Return a value as JSON; what JSON has no form for is an object with one entry, which tells the kind."""
    if type(value) in SCALARS or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, float | np.generic | np.ndarray) and np.asarray(value).dtype.kind in "biuf":
        arrays[name] = np.asarray(value)
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return {type(value).__name__: [_encode(part, f"{name}.{i}", arrays) for i, part in enumerate(value)]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encode(part, f"{name}.{key}", arrays) for key, part in value.items()}}
    if isinstance(value, np.random.Generator):
        if not isinstance(value.bit_generator, np.random.PCG64):  # Gymnasium's own
            raise NotCaptured(f"it draws from {type(value.bit_generator).__name__} instead of PCG64")
        return {"generator": dict(value.bit_generator.state)}
    if type(value).__module__ == "mujoco._structs":
        return _encode_mujoco(value, name, arrays)
    if (leaves := jax.tree.leaves(value)) and all(isinstance(leaf, jax.Array) for leaf in leaves):
        arrays |= checkpoint.flatten(name, value)
        return {"tree": name}
    raise NotCaptured(f"its attribute {name.split('.')[3]} is a {type(value).__name__}, which cannot be written")


def _decode(value: Any, arrays: checkpoint.Arrays, present: Any) -> Any:
    """Return what `_encode` was given; `present` is what a fresh environment has in its place."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "array" | "scalar":
            return arrays[content].copy() if kind == "array" else arrays[content][()]
        case "list" | "tuple":
            return {"list": list, "tuple": tuple}[kind](_decode(part, arrays, None) for part in content)
        case "dict":
            return {key: _decode(part, arrays, None) for key, part in content.items()}
        case "generator":
            present.bit_generator.state = content
        case "tree":
            return checkpoint.unflatten(content, present, arrays)
        case _:
            _decode_mujoco(kind, content, arrays, present)
    return present


def _encode_mujoco(value: Any, name: str, arrays: checkpoint.Arrays) -> Any:
    """Return MuJoCo's data, or what tells one model from another.

    MuJoCo's own state vector is not enough: positions of bodies, which several tasks read before they step, are those
    of the last substep's beginning, and no function computes them again. So all arrays of fixed size are kept, too.
    """
    mujoco: Any = import_module("mujoco")
    if isinstance(value, mujoco.MjModel):
        return {"model": _digest(value)}
    if not isinstance(value, mujoco.MjData):
        raise NotCaptured(f"its attribute {name.split('.')[3]} is a {type(value).__name__}")
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    arrays[f"{name}.state"] = np.empty(mujoco.mj_stateSize(value.model, signature))
    mujoco.mj_getState(value.model, value, arrays[f"{name}.state"], signature)
    arrays[f"{name}.derived"] = np.frombuffer(b"".join(part.tobytes() for part in _derived(value)), np.uint8)
    return {"data": {"name": name, "mujoco": mujoco.__version__}}


def _decode_mujoco(kind: str, content: Any, arrays: checkpoint.Arrays, present: Any) -> None:
    mujoco: Any = import_module("mujoco")
    if kind == "model":
        if content != _digest(present):
            raise NotCaptured("its MuJoCo model is another one")
        return
    name, derived, at = content["name"], _derived(present), 0
    packed = arrays[f"{name}.derived"].tobytes()
    if content["mujoco"] != mujoco.__version__ or len(packed) != sum(part.nbytes for part in derived):
        raise NotCaptured(f"it was run by MuJoCo {content['mujoco']}, and here is {mujoco.__version__}")
    mujoco.mj_setState(present.model, present, arrays[f"{name}.state"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for part in derived:
        part[...] = np.frombuffer(packed, part.dtype, part.size, at).reshape(part.shape)
        at += part.nbytes


def _derived(data: Any) -> list[np.ndarray]:
    """Return the arrays of MuJoCo's data whose sizes do not depend on the contacts of the moment."""
    fresh = import_module("mujoco").MjData(data.model)
    names = [name for name in dir(fresh) if not name.startswith("_")]
    fixed = [name for name in names if isinstance(part := getattr(fresh, name), np.ndarray) and part.size]
    return [getattr(data, name) for name in fixed]


def _digest(model: Any) -> str:
    mujoco: Any = import_module("mujoco")
    content = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return hashlib.sha256(content.tobytes()).hexdigest()
