"""Environments: the functional interface, LQR, the multi-goal world, and their registration with Gymnasium.

`import entroflow.envs` registers `entroflow/LQR-v0` and `entroflow/MultiGoal-v0`;
`gymnasium.make("entroflow.envs:entroflow/LQR-v0")` does both.
"""

import gymnasium

from entroflow.envs.control import ControlEnv, DeadBand, DoubleWell, SwingUp
from entroflow.envs.functional import EnvState, FunctionalEnv, advance, reset, step
from entroflow.envs.gym_adapter import GymAdapter, make_lqr, make_multigoal
from entroflow.envs.lqr import LQREnv
from entroflow.envs.multigoal import MultiGoalEnv

__all__ = [
    "ControlEnv",
    "DeadBand",
    "DoubleWell",
    "EnvState",
    "FunctionalEnv",
    "GymAdapter",
    "LQREnv",
    "MultiGoalEnv",
    "SwingUp",
    "advance",
    "make_lqr",
    "make_multigoal",
    "reset",
    "step",
]

for _name, _maker in {"entroflow/LQR-v0": "make_lqr", "entroflow/MultiGoal-v0": "make_multigoal"}.items():
    if _name not in gymnasium.registry:
        gymnasium.register(_name, entry_point=f"entroflow.envs.gym_adapter:{_maker}")
