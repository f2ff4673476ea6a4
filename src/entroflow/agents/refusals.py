"""Tasks that cannot be trained on: one sentence, a `ValueError`, for each reason."""

import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .. import checks

PACKAGE = re.compile(r"pip install [\"'`]*([^\s\"'`]+)|supported on `([^`]+)`|Farama-Foundation/(gymnasium-robotics)")
EXTRAS = {"mujoco": "mujoco", "pygame": "classic", "box2d": "box2d"}  # by the words of Gymnasium's message
# `RescaleAction` refuses bounds that are infinite, and stretches actions to those that nearly are.
REBOUND = (
    "give every component bounds, as gymnasium.wrappers.TransformAction(env, lambda action: action, Box(low, high))"
)
REGISTER = "check the spelling, and name the module that registers it, as in 'module:Id-v0'"


def refusal(name: str, problem: Exception) -> ValueError:
    """Return the sentence about an environment that could not be made."""
    said = " ".join(str(problem).split()).rstrip(".")[:400]
    if isinstance(problem, ImportError | gymnasium.error.DependencyNotInstalled):
        given = f"{name}, which needs what is missing ({said})"
        module, sign, _ = name.partition(":")
        if sign and f"'{module.split('.')[0]}'" in said:  # it is the name's own that Python does not find
            expected, remedy = "a module that Python finds", "install it, or set PYTHONPATH to the folder where it lies"
            return checks.error("env", given, expected, remedy)
        return checks.error("env", given, "a package that is installed", install(problem))
    if isinstance(problem, gymnasium.error.Error):
        return checks.error("env", f"{name!r} ({said})", "the id of a registered environment", REGISTER)
    given = f"{name!r}, which cannot be made ({type(problem).__name__}: {said})"
    return checks.error("env", given, "an environment", "see why it fails")


def check_registered(name: str) -> None:
    """Refuse 'module:Class' of a class of Gymnasium's, which makes environments by their ids alone."""
    module, _, attribute = name.partition(":")
    if attribute not in gymnasium.registry:
        given = f"{name!r}, which is a class"
        remedy = (
            f'write gymnasium.register("{attribute}-v0", {attribute}) in {module}, and name it {module}:{attribute}-v0'
        )
        raise checks.error("env", given, "the id of a registered environment", remedy)


def install(problem: Exception) -> str:
    """Return the command that installs what a task lacks, by an extra of this package where one brings it."""
    said, missing = str(problem), isinstance(problem, gymnasium.error.DependencyNotInstalled)
    extras = [extra for word, extra in EXTRAS.items() if missing and word in said.lower()]
    if extras:
        return f"run: {checks.install(extras[0])}"
    named = [next(filter(None, groups)) for groups in reversed(PACKAGE.findall(said))]
    packages = [*named, *filter(None, [getattr(problem, "name", None)])]
    return f'run: pip install "{packages[0]}"' if packages else "install it"


def check_actions(name: str, space: Any) -> None:
    """Check the space of actions."""
    given, remedy = f"{space}", "choose a task with continuous actions"
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = np.isfinite(space.low), np.isfinite(space.high)
        if not space.low.size:
            given = f"{space}, which has no component"
        elif ((low & high).all() and (space.low < space.high).all()) or not (low | high).any():
            return
        elif (low & high).all():
            given, remedy = f"{space}, which leaves no room between its bounds", "drop constant components"
        else:
            given, remedy = f"{space}, bounded in part", REBOUND
    expected = "a Box of actions with finite bounds, or with none"
    raise checks.error(f"actions of {name}", given, expected, remedy)


def check_observations(name: str, space: Any) -> None:
    """Check the space of observations."""
    expected, remedy = "vectors, or a Dict of them", "return a vector of what the policy is to see"
    if not isinstance(space, spaces.Space):
        remedy = "give the environment an observation_space, such as a Box"
        raise checks.error(f"observations of {name}", f"{space}", expected, remedy)
    if space.is_np_flattenable and spaces.flatdim(space) == 0:  # of which Gymnasium makes no flat space
        given, remedy = f"{space}, which has no component", "return at least one, such as a constant"
        raise checks.error(f"observations of {name}", given, expected, remedy)
    parts = spaces.flatten_space(space) if space.is_np_flattenable else None
    leaves = list(space.spaces.values()) if isinstance(space, spaces.Dict) else [space]
    images = [leaf for leaf in leaves if isinstance(leaf, spaces.Box) and len(leaf.shape) > 2]
    if not isinstance(parts, spaces.Box) or images:
        kind = "images" if images else "observations of variable size"
        remedy = "there are no convolutional networks here: wrap the task so that it returns features"
        raise checks.error(f"observations of {name}", f"{kind}, {space}", expected, remedy)
