"""The multi-goal world of soft Q-learning (Haarnoja et al. 2017) and its exact soft-optimal policy, without JAX."""

from entroflow.multigoal.distance import (
    Gap,
    Trajectories,
    discounted_visits,
    roll_out,
    soft_return_gap,
    total_variation,
)
from entroflow.multigoal.exact import Solution, solve
from entroflow.multigoal.world import GOALS, MultiGoal

__all__ = [
    "GOALS",
    "Gap",
    "MultiGoal",
    "Solution",
    "Trajectories",
    "discounted_visits",
    "roll_out",
    "soft_return_gap",
    "solve",
    "total_variation",
]
