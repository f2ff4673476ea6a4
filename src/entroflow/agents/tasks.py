"""Tasks of Gymnasium and in JAX: which can be trained on, environments of them, and what a file may say of one."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from .. import checks, envs, later
from ..envs import episodes
from ..names import COMPILED
from . import refusals, specification

if TYPE_CHECKING:
    from .. import flow

    Env = str | gymnasium.Env | envs.FunctionalEnv | Callable[[], gymnasium.Env]
else:
    flow, Env = later.Module("entroflow.flow"), Any


class Task(NamedTuple):
    """A task that an agent can be trained on.

    Attributes:
        make: makes one environment with flat observations.
        data: id, arguments, time limit and wrappers, from which `rebuilt` makes the task again; None if they do not
            tell all. Of a task in JAX, its id.
        instance: the user's own environment, with flat observations, which is used itself where one is enough.
        functional: the environment in JAX, if it is one: training on it is compiled as a whole.
    """

    name: str
    make: Callable[[], gymnasium.Env]
    observation_space: spaces.Space
    action_space: spaces.Box
    data: dict[str, Any] | str | None = None
    instance: gymnasium.Env | None = None
    functional: envs.FunctionalEnv | None = None

    @property
    def spec(self) -> dict[str, Any] | str | None:
        """`data`, if the user has not changed by hand what it tells of the environment."""
        return self.data if self.instance is None or self.data is None or specification.as_made(self.instance) else None

    @property
    def obs_size(self) -> int:
        """Number of components n of an observation, flattened."""
        return spaces.flatdim(self.observation_space)

    @property
    def action_size(self) -> int:
        """Number of components d of an action."""
        return int(np.prod(self.action_space.shape))

    def flatten(self, observation: Any) -> tuple[Float[np.ndarray, "b n"], tuple[int, ...]]:
        """Bring one observation or a batch, in the form of the task's space or flattened, into the shape (b, n).

        With that come its leading axes. A `ValueError` refuses another form, or numbers that are not finite.
        """
        if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
            if not isinstance(self.observation_space, spaces.Tuple):
                given, remedy = "what env.reset() returns, (observation, info)", "write observation, _ = env.reset()"
                raise checks.error("observation", given, "the observation alone", remedy)
        space, array, flat = self.observation_space, _numbers(observation), (self.obs_size,)
        if not isinstance(space, spaces.Box) and (array is None or array.shape[-1:] != flat):
            return self._flatten_structured(observation)
        shapes = [flat] if space.shape is None else [space.shape, flat]
        return _batch("observation", observation, shapes, "pass what the task returned")

    def _flatten_structured(self, observation: Any) -> tuple[Float[np.ndarray, "b n"], tuple[int, ...]]:
        """Flatten one observation of a Dict, a Tuple or a discrete space, or a batch of them, by the space itself."""
        space = self.observation_space
        try:
            lead = _leading(space, observation)
            rows = np.asarray([spaces.flatten(space, _one(space, observation, i)) for i in np.ndindex(lead)])
        except (TypeError, ValueError, KeyError, AttributeError, IndexError):
            given, remedy = f"{observation!r}", "pass what the task returned"
            raise checks.error("observation", given, f"one of {space}, or a batch of them", remedy) from None
        return _finite("observation", rows.reshape(-1, self.obs_size)), lead

    def flatten_action(self, action: Any) -> tuple[Float[np.ndarray, "b d"], tuple[int, ...]]:
        """Bring one action, or a batch of any leading axes, into the policy's form, shape (b, d); see `flatten`."""
        rows, lead = _batch("action", action, [self.action_space.shape], "pass one action or several")
        # A bound of double precision may round to a number outside of the space: it is the one next to it.
        for given, bound in zip(
            (self.action_space.low, self.action_space.high), inner_bounds(self.action_space), strict=True
        ):
            rows = np.where(rows == given.astype(np.float32).reshape(-1), bound.reshape(-1), rows)
        return rows, lead

    def policy_space(self) -> flow.ActionSpace:
        """Return the map from latents to actions, and back."""
        low, high = (bound.reshape(-1) for bound in inner_bounds(self.action_space))
        finite = np.isfinite(width(self.action_space))
        if finite.any() and not finite.all():
            given = f"{self.action_space}, of which some are too far apart"
            raise checks.error(
                f"actions of {self.name}", given, "bounds of all components, or of none", refusals.REBOUND
            )
        return flow.Box(low, high) if finite.all() else flow.Unbounded(self.action_size)

    def target_entropy(self) -> float | None:
        """Return minus one for every action component in units of half its range; None if they have none."""
        half = width(self.action_space) / 2.0
        return float(np.sum(np.log(half))) - self.action_size if np.isfinite(half).all() else None

    def environments(self, count: int) -> list[gymnasium.Env]:
        """Return environments, the user's own instance if one is enough."""
        if self.instance is not None and count == 1:
            return [self.instance]
        made = [self.make() for _ in range(count)]
        if len({id(env.unwrapped) for env in made}) < count:
            given = f"{self.name}, which returns the same environment again"
            raise checks.error("env", given, "a function that makes a new one", "make it inside of the function")
        return made

    def close(self, envs: Sequence[gymnasium.Env]) -> None:
        """Close environments, but not the user's own instance."""
        for env in envs:
            with contextlib.suppress(Exception):  # one that is broken need not hide what went wrong before
                if env is not self.instance:
                    env.close()

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


def _finite(name: str, array: np.ndarray) -> Float[np.ndarray, "..."]:
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise checks.error(name, "NaN or infinity", "finite numbers", "look where they come from")
    return single


def _batch(
    name: str, value: Any, shapes: Sequence[tuple[int, ...]], remedy: str
) -> tuple[Float[np.ndarray, "b n"], tuple[int, ...]]:
    """Return a value, or a batch of any leading axes, of the first shape that fits, flat; and its leading axes."""
    array = _numbers(value)
    given = repr(type(value).__name__) if array is None else f"shape {array.shape}"
    for shape in shapes:
        if array is not None and array.shape[array.ndim - len(shape) :] == shape:
            lead = array.shape[: array.ndim - len(shape)]
            return _finite(name, array).reshape(math.prod(lead), math.prod(shape)), lead
    raise checks.error(name, given, f"numbers of shape {shapes[0]}, or a batch of them", remedy)


def _parts(space: Any, value: Any) -> list[tuple[Any, spaces.Space, Any]]:
    """Return the parts of a structured observation by name or place, each with its space."""
    if isinstance(space, spaces.Dict):
        named = {name: (name, part, value[name]) for name, part in space.items()}
        if not isinstance(value, dict) or value.keys() != named.keys():
            raise ValueError("other names")
        return list(named.values())
    if len(value) != len(space):
        raise ValueError("another number of parts")
    return [(i, part, value[i]) for i, part in enumerate(space)]


def _leading(space: spaces.Space, value: Any) -> tuple[int, ...]:
    """Return the leading axes that an observation has beyond its space, the same ones in all of its parts."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        (lead,) = {_leading(part, each) for _, part, each in _parts(space, value)}
        return lead
    size = () if space.shape is None else space.shape
    axes = np.shape(value)
    if axes[len(axes) - len(size) :] != size:
        raise ValueError("another shape")
    return axes[: len(axes) - len(size)]


def _one(space: spaces.Space, value: Any, index: tuple[int, ...]) -> Any:
    """Return one observation of a batch."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found = {name: _one(part, each, index) for name, part, each in _parts(space, value)}
        return found if isinstance(space, spaces.Dict) else tuple(found.values())
    one = np.asarray(value)[index]
    if not isinstance(space, spaces.Box) and not space.contains(one):  # of a box its shape is enough
        raise ValueError("none of the space")
    return one


def task(env: Env) -> Task:
    """Check a task, which is a `ValueError` of one sentence if it cannot be trained on.

    An environment is used itself where one is enough; where several are needed, they are its copies. 'module:Name' is
    an environment in JAX, or its class.
    """
    found = _of_module(env) if isinstance(env, str) and ":" in env else env
    if "jax" in sys.modules and isinstance(found, envs.FunctionalEnv):
        envs.functional.check(found)
        return _in_jax(env if isinstance(env, str) else type(env).__name__, found)
    if isinstance(env, str):
        specification.listen_to_mujoco(COMPILED.get(env, env))
        if env.startswith(("jax/", "mjx/")):
            checks.choice("env", env, sorted(COMPILED))
            return _in_jax(env, envs.make_compiled(env))._replace(data=env)
        if inspect.isclass(found) and issubclass(found, gymnasium.Env):
            refusals.check_registered(env)
        return _task(env, lambda: gymnasium.make(env))
    if isinstance(env, gymnasium.Env):
        name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
        return _task(name, lambda: episodes.copied(env), env)
    if callable(env):
        return _task(getattr(env, "__name__", type(env).__name__), env)._replace(data=None)
    raise checks.error("env", repr(env), "an environment, its id, or a function that makes it", "pass 'Pendulum-v1'")


def rebuilt(spec: Any) -> Task:
    """Make a task again from what a file says of it: what `Task.spec` was, or an id; else it is a `ValueError`."""
    if isinstance(spec, str) and spec in COMPILED:
        return task(spec)
    name, build, data = specification.read(spec)
    made = _task(name, build)
    return made if isinstance(spec, str) else made._replace(data=data)


def _of_module(name: str) -> Any:
    """Return the environment in JAX that 'module:Name' is, or whose class it is; else that is for Gymnasium to find."""
    module, _, attribute = name.partition(":")
    found: Any = None
    with contextlib.suppress(Exception):  # of which Gymnasium tells
        found = getattr(importlib.import_module(module), attribute, None)
    make: Any = found
    try:
        return make() if inspect.isclass(found) and issubclass(found, envs.FunctionalEnv) else found
    except Exception as problem:
        raise refusals.refusal(name, problem) from problem


def _in_jax(name: str, env: envs.FunctionalEnv) -> Task:
    return _task(name, lambda: envs.GymAdapter(env))._replace(data=None, functional=env)


def _task(name: str, build: Callable[[], gymnasium.Env], instance: gymnasium.Env | None = None) -> Task:
    """Check a task by its instance, or by making one of its environments."""
    flat: Callable[[Any], gymnasium.Env] = lambda env: env  # noqa: E731

    def make() -> gymnasium.Env:
        try:
            made = build()
        except episodes.NotCopied as problem:
            remedy = "pass num_envs=1, or as env a function that makes it"
            raise checks.error("env", str(problem), "a single environment to be enough", remedy) from problem
        except gymnasium.error.Error as problem:  # says all; where Gymnasium found it out is of no use
            raise refusals.refusal(name, problem) from None
        except Exception as problem:
            raise refusals.refusal(name, problem) from problem
        if isinstance(made, gymnasium.Env):
            return flat(made)
        given = f"{name}, which makes a {type(made).__name__}"
        raise checks.error("env", given, "a gymnasium.Env", "return an environment of Gymnasium")

    example = make() if instance is None else instance
    observations, actions = (getattr(example, f"{kind}_space", None) for kind in ("observation", "action"))
    refusals.check_actions(name, actions)
    refusals.check_observations(name, observations)
    assert isinstance(observations, spaces.Space) and isinstance(actions, spaces.Box)
    data = specification.as_data(example.spec)
    if instance is None:
        example.close()
    if not isinstance(observations, spaces.Box) or len(observations.shape) != 1:
        flat = gymnasium.wrappers.FlattenObservation
    return Task(name, make, observations, actions, data, None if instance is None else flat(instance))


def _bounds(values: np.ndarray) -> list[Any]:
    """Return bounds as numbers that JSON has; what is not finite as text."""
    return [float(value) if np.isfinite(value) else str(value) for value in values.reshape(-1)]


def inner_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds in single precision, none outside of the space, and infinite ones where it cannot tell them."""
    found = []
    for bound, inside in ((space.low, np.inf), (space.high, -np.inf)):
        with np.errstate(over="ignore"):
            near = bound.astype(np.float32)
        beyond = np.isfinite(near) & ((near < bound) if inside > 0 else (near > bound))
        found.append(np.where(beyond, np.nextafter(near, np.float32(inside)), near))
    return found[0], found[1]


def width(space: spaces.Box) -> np.ndarray:
    """Return how far the bounds are from each other; infinite where there are none that single precision can tell."""
    with np.errstate(over="ignore"):
        return np.asarray(space.high.astype(np.float32) - space.low.astype(np.float32))
