"""Critics: what learns Q(s, a) in soft actor-critic, and how. All else is shared, see `rl/sac.py`."""

from .mlp import MLP, MLPCritic, MLPCriticState
from .protocol import Critic, Experience, VCritic

CRITICS = {"mlp": MLPCritic()}

__all__ = ["CRITICS", "MLP", "Critic", "Experience", "MLPCritic", "MLPCriticState", "VCritic"]
