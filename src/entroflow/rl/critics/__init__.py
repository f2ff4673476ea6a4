"""Critics: what learns Q(s, a) in soft actor-critic, and how. All else is shared, see `rl/sac.py`."""

from .crossq import BatchNormMLP, CrossQ, CrossQState
from .mlp import MLP, MLPCritic, MLPCriticState
from .protocol import Critic, Experience, VCritic

CRITICS: dict[str, Critic] = {"mlp": MLPCritic(), "crossq": CrossQ()}

__all__ = [
    "CRITICS",
    "MLP",
    "BatchNormMLP",
    "Critic",
    "CrossQ",
    "CrossQState",
    "Experience",
    "MLPCritic",
    "MLPCriticState",
    "VCritic",
]
