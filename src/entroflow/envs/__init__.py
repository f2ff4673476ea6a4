"""Environments: the functional interface, tasks in JAX, and their registration with Gymnasium.

`import entroflow.envs` registers `entroflow/LQR-v0` and `entroflow/MultiGoal-v0`;
`gymnasium.make("entroflow.envs:entroflow/LQR-v0")` does both.
"""

from typing import TYPE_CHECKING

import gymnasium

from entroflow import checks, later
from entroflow.names import COMPILED

if TYPE_CHECKING:
    from entroflow.envs.control import ControlEnv, DeadBand, DoubleWell, SwingUp
    from entroflow.envs.functional import EnvState, FunctionalEnv, advance, reset, step
    from entroflow.envs.gym_adapter import GymAdapter, make_lqr, make_multigoal
    from entroflow.envs.lqr import LQREnv
    from entroflow.envs.multigoal import MultiGoal, MultiGoalEnv
    from entroflow.envs.pendulum import PendulumEnv

__all__ = [
    "ControlEnv",
    "DeadBand",
    "DoubleWell",
    "EnvState",
    "FunctionalEnv",
    "GymAdapter",
    "LQREnv",
    "MultiGoal",
    "MultiGoalEnv",
    "PendulumEnv",
    "SwingUp",
    "advance",
    "make_compiled",
    "make_lqr",
    "make_multigoal",
    "reset",
    "step",
]

_HOMES = {"LQREnv": ".lqr", "PendulumEnv": ".pendulum"}
_HOMES |= dict.fromkeys(("MultiGoal", "MultiGoalEnv"), ".multigoal")
_HOMES |= dict.fromkeys(("ControlEnv", "DeadBand", "DoubleWell", "SwingUp"), ".control")
_HOMES |= dict.fromkeys(("EnvState", "FunctionalEnv", "advance", "reset", "step"), ".functional")
_HOMES |= dict.fromkeys(("GymAdapter", "make_lqr", "make_multigoal"), ".gym_adapter")

__getattr__ = later.names(__name__, _HOMES)

for _name, _maker in {"entroflow/LQR-v0": "make_lqr", "entroflow/MultiGoal-v0": "make_multigoal"}.items():
    if _name not in gymnasium.registry:
        gymnasium.register(_name, entry_point=f"entroflow.envs.gym_adapter:{_maker}")


def make_compiled(name: str) -> "FunctionalEnv":
    """Make one of our tasks in JAX by its id, one of `entroflow.names.COMPILED`; a `ValueError` says what it lacks."""
    if checks.choice("env", name, COMPILED) == "jax/Pendulum":
        from entroflow.envs.pendulum import PendulumEnv

        return PendulumEnv()
    from entroflow.envs.mjx import make  # MuJoCo is an extra

    return make(COMPILED[name])
