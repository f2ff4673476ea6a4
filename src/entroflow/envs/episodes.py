"""Gymnasium's environments as they are in use: resets and steps that say what went wrong, and copies of an instance.

Observations are in single precision, beyond whose range numbers are infinite.
"""

import contextlib
import copy
import traceback
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import EzPickle
from jaxtyping import Float

PLAIN = (bool, int, float, str, type(None), np.generic, np.ndarray)


class Broken(ValueError):
    """An environment raised, or did not return what Gymnasium's environments do; the message says which and what."""


class NotCopied(Exception):
    """Says which environment cannot be copied, and why."""


def reset(env: gymnasium.Env, seed: int | None = None) -> Float[np.ndarray, " n"]:
    """Begin an episode."""
    with watching(env, "reset"):
        obs, _ = _parts(env.reset() if seed is None else env.reset(seed=seed), "observation, info")
        return _single(env, obs)


def step(env: gymnasium.Env, action: Float[np.ndarray, "..."]) -> tuple[Float[np.ndarray, " n"], float, bool, bool]:
    """Take one step."""
    with watching(env, "step"):
        given = env.step(action.copy())
        obs, reward, *ends, _ = _parts(given, "observation, reward, terminated, truncated, info")
        if np.ndim(reward) or np.asarray(reward).dtype.kind not in "biuf":
            raise TypeError(f"the reward {reward!r} is no number: return float(reward)")
        return _single(env, obs), float(reward), bool(ends[0]), bool(ends[1])


def layers(env: gymnasium.Env) -> list[gymnasium.Env]:
    """Return the wrappers of an environment, outermost first, and the environment itself."""
    return [env, *layers(env.env)] if isinstance(env, gymnasium.Wrapper) else [env]


def time_limit(env: gymnasium.Env) -> int:
    """Return the largest number of steps of an episode, as far as wrappers tell it; 0 if they do not."""
    return max(getattr(layer, "_max_episode_steps", 0) or 0 for layer in layers(env))


def copied(env: gymnasium.Env) -> gymnasium.Env:
    """Return another environment like one, with all that was changed by hand.

    What cannot be copied is made anew by its specification, and gets the numbers, texts and arrays of the other.
    """
    try:
        return _deepcopy(env, {})
    except Exception as problem:
        try:
            made = gymnasium.make(env.spec or "")
        except Exception:
            raise NotCopied(f"{env}, which cannot be copied ({' '.join(str(problem).split())})") from problem
    for new, old in zip(layers(made), layers(env), strict=True):
        vars(new).update({name: copy.copy(value) for name, value in vars(old).items() if isinstance(value, PLAIN)})
    return made


def _deepcopy(env: gymnasium.Env, memo: dict[int, Any]) -> gymnasium.Env:
    """Copy by attributes: as it stands, an `EzPickle` is copied by making it anew from the arguments of its maker."""
    if hasattr(env, "__deepcopy__") or not isinstance(env, gymnasium.Wrapper | EzPickle):
        return copy.deepcopy(env, memo)
    made = memo[id(env)] = object.__new__(type(env))
    for name, value in vars(env).items():
        inner = isinstance(value, gymnasium.Env)
        vars(made)[name] = _deepcopy(value, memo) if inner else copy.deepcopy(value, memo)
    return made


@contextlib.contextmanager
def watching(env: gymnasium.Env, method: str) -> Iterator[None]:
    """Say in one sentence what went wrong in an environment's method."""
    try:
        yield
    except Exception as problem:
        said = " ".join(f"{type(problem).__name__}: {problem}{_misfit(env, problem)}".split())[:400]
        told = f"{type(env.unwrapped).__name__}.{method} failed ({said})"
        raise Broken(f"{told}; what was learned is kept, and learning can go on with new episodes.") from problem


def _misfit(env: gymnasium.Env, problem: Exception) -> str:
    """Return what an observation does not fit if Gymnasium could not flatten it, as one that lacks a key of a Dict."""
    *_, (frame, _) = traceback.walk_tb(problem.__traceback__)
    flattening = isinstance(env, gymnasium.wrappers.FlattenObservation)
    if not flattening or frame.f_globals.get("__name__") != "gymnasium.spaces.utils":
        return ""
    return f", for the observation is none of {env.env.observation_space}"


def _parts(result: Any, expected: str) -> tuple[Any, ...]:
    count = len(expected.split(", "))
    if not isinstance(result, tuple | list) or len(result) != count:
        given = f"{len(result)} values" if isinstance(result, tuple | list) else f"a {type(result).__name__}"
        raise TypeError(f"it returned {given} instead of {count}: {expected}")
    return tuple(result)


def _single(env: gymnasium.Env, obs: Any) -> Float[np.ndarray, " n"]:
    with np.errstate(over="ignore"):
        single = np.array(obs, np.float32)  # a copy: some environments write into what they returned before
    if single.shape != env.observation_space.shape:
        raise TypeError(f"the observation has shape {single.shape} instead of {env.observation_space.shape}")
    return single
