"""Whole episodes: what they gave, and what may differ in them, as noise, other masses and friction."""

import importlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from .. import checks
from ..fields import NonNegative, Positive, check_fields
from .tasks import Task, inner_bounds, width


class Evaluation(NamedTuple):
    """What whole episodes gave.

    Attributes:
        returns: undiscounted return of every episode.
        lengths: number of steps of every episode.
    """

    returns: Float[np.ndarray, " episodes"]
    lengths: Float[np.ndarray, " episodes"]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean return; NaN for one episode."""
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns))) if len(self.returns) > 1 else math.nan


@dataclass(frozen=True)
class Perturbation:
    """What is changed; the defaults change nothing.

    Attributes:
        action_noise: standard deviation of Gaussian noise on actions, as a fraction of half their range; in their own
            unit where they have no bounds.
        observation_noise: the same on every component of the observation, in its own unit.
        mass: factor of all masses and inertias (MuJoCo tasks).
        friction: factor of all friction coefficients (MuJoCo tasks).

    Raises:
        ValueError: for noise below zero, or a factor that is not positive.
    """

    action_noise: NonNegative = 0.0
    observation_noise: NonNegative = 0.0
    mass: Positive = 1.0
    friction: Positive = 1.0

    def __post_init__(self):
        check_fields(self)


def perturb(task: Task, change: Perturbation) -> Task:
    """Return a task whose environments have changes; a `ValueError` says which it cannot have."""
    if not isinstance(change, Perturbation):
        remedy = "pass for example Perturbation(action_noise=0.1)"
        raise checks.error("perturbation", repr(change), "a Perturbation", remedy)
    if change == Perturbation():
        return task

    def make() -> gymnasium.Env:
        env = task.make()
        if (change.mass, change.friction) != (1.0, 1.0):
            _scale(env, task.name, change)
        return _Noise(env, change) if change.action_noise or change.observation_noise else env

    first, second = task.make(), task.make()
    shared = first.unwrapped is second.unwrapped
    if shared and (change.mass, change.friction) != (1.0, 1.0):
        given = f"mass {change.mass:g} and friction {change.friction:g} for {task.name}, always one environment"
        raise checks.error("perturbation", given, "environments that can be changed alone", "make a new one each time")
    if not shared:
        first.close()
        second.close()
        make().close()  # refuses now what it would refuse later
    return task._replace(make=make)


class _Noise(gymnasium.Wrapper):
    """Adds noise to observations, and to actions, which stay inside of their bounds; the reset's seed decides it."""

    def __init__(self, env: gymnasium.Env, change: Perturbation):
        super().__init__(env)
        self._change = change
        self._generator = np.random.default_rng(0)
        space = self.action_space
        assert isinstance(space, spaces.Box)
        (self._low, self._high), whole = inner_bounds(space), width(space)
        self._unit = whole / 2 if np.isfinite(whole).all() else 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._generator = np.random.default_rng([seed, 1])
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observe(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        action = np.asarray(action)
        noisy = action + self._change.action_noise * self._unit * self._generator.standard_normal(action.shape)
        action = np.clip(noisy, self._low, self._high).astype(action.dtype)
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(obs), reward, terminated, truncated, info

    def _observe(self, obs: np.ndarray) -> np.ndarray:
        noise = self._generator.standard_normal(obs.shape)
        # Whole numbers become others: rounded, noise would be lost, or a count below zero the largest of all.
        kind = obs.dtype if np.issubdtype(obs.dtype, np.floating) else np.float32
        return (obs + self._change.observation_noise * noise).astype(kind)


def _scale(env: gymnasium.Env, name: str, change: Perturbation) -> None:
    """Scale masses and friction of a MuJoCo model, and what MuJoCo derives from masses."""
    model = getattr(env.unwrapped, "model", None)
    if not hasattr(model, "body_mass"):
        given = f"mass {change.mass:g} and friction {change.friction:g} for {name}, which MuJoCo does not simulate"
        raise checks.error("perturbation", given, "a MuJoCo task", "perturb actions or observations instead")
    assert model is not None
    model.body_mass[:] *= change.mass
    model.body_inertia[:] *= change.mass
    model.geom_friction[:] *= change.friction
    if change.mass != 1.0:
        mujoco: Any = importlib.import_module("mujoco")
        mujoco.mj_setConst(model, env.unwrapped.data)  # pyright: ignore[reportAttributeAccessIssue]
