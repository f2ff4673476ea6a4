"""Environments: the functional interface, LQR, and their registration with Gymnasium.

`import entroflow.envs` registers `entroflow/LQR-v0`; `gymnasium.make("entroflow.envs:entroflow/LQR-v0")` does both.
"""

import gymnasium

from entroflow.envs.functional import EnvState, FunctionalEnv, advance, reset, step
from entroflow.envs.gym_adapter import GymAdapter, make_lqr
from entroflow.envs.lqr import LQREnv

__all__ = ["EnvState", "FunctionalEnv", "GymAdapter", "LQREnv", "advance", "make_lqr", "reset", "step"]

if "entroflow/LQR-v0" not in gymnasium.registry:
    gymnasium.register("entroflow/LQR-v0", entry_point="entroflow.envs.gym_adapter:make_lqr")
