"""The multi-goal world: a point in the plane that can go to any of four goals.

s ∈ [−7, 7]²,  a ∈ [−1, 1]²,  s' = clip(s + a),  goals (±5, 0) and (0, ±5),  s_0 ~ N(0, 0.1² I),
reward = scale · ( −30 ‖a‖² − min_g ‖s' − g‖² + 10 if min_g ‖s' − g‖ < 1, which ends the episode ).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

GOALS = np.array([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])


@dataclass(frozen=True)
class MultiGoal:
    """The numbers that define the world.

    Attributes:
        size: half-width of the square of states.
        goal_radius: distance from a goal at which the episode ends.
        goal_reward: reward for that, before scaling.
        action_cost: cost of ‖a‖², before scaling.
        reward_scale: factor of all rewards.
        initial_std: standard deviation of s_0 per coordinate.
        discount: γ.
        time_limit: steps after which an episode is truncated, which does not end the return.
    """

    size: float = 7.0
    goal_radius: float = 1.0
    goal_reward: float = 10.0
    action_cost: float = 30.0
    reward_scale: float = 0.1
    initial_std: float = 0.1
    discount: float = 0.99
    time_limit: int = 30

    def squared_distance(self, states: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
        """Squared distance from the nearest goal."""
        return np.min(np.sum((states[..., None, :] - GOALS) ** 2, axis=-1), axis=-1)

    def reached(self, states: Float[np.ndarray, "*batch 2"]) -> Bool[np.ndarray, "*batch"]:
        """Whether a goal is reached, which ends the episode."""
        return self.squared_distance(states) < self.goal_radius**2

    def effort(self, actions: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
        """The cost of an action, scaled."""
        return self.reward_scale * self.action_cost * np.sum(actions**2, axis=-1)
