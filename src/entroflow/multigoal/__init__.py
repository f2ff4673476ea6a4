"""The multi-goal world of soft Q-learning (Haarnoja et al. 2017) and its exact soft-optimal policy, without JAX."""

from entroflow.multigoal.exact import Solution, solve
from entroflow.multigoal.world import GOALS, MultiGoal

__all__ = ["GOALS", "MultiGoal", "Solution", "solve"]
