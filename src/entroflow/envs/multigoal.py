"""The multi-goal world of soft Q-learning (Haarnoja et al. 2017): a point in the plane that goes to any of four goals.

s ∈ [−7, 7]²,  a ∈ [−1, 1]²,  s' = clip(s + a),  goals (±5, 0) and (0, ±5),  s_0 ~ N(0, 0.1² I),
reward = scale · ( −30 ‖a‖² − min_g ‖s' − g‖² + 10 if min_g ‖s' − g‖ < 1, which ends the episode ).
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from entroflow.envs.functional import FunctionalEnv

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


class MultiGoalEnv(FunctionalEnv):
    """A point in the plane that can go to any of four goals; the state is observed, and walls keep it in its square.

    See `MultiGoal` for the numbers.

    Args:
        world: the world; the one of soft Q-learning if not given.
    """

    action_low: Float[Array, "2"]
    action_high: Float[Array, "2"]
    world: MultiGoal = eqx.field(static=True)
    time_limit: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)

    def __init__(self, world: MultiGoal | None = None):
        self.world = MultiGoal() if world is None else world
        self.time_limit, self.obs_size = self.world.time_limit, 2
        self.action_high = jnp.ones(2, jnp.float32)
        self.action_low = -self.action_high

    def initial(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        """s_0 ~ N(0, initial_std² I)."""
        return self.world.initial_std * jax.random.normal(key, (2,), jnp.float32)

    def transition(self, key: PRNGKeyArray, state: Float[Array, "2"], action: Float[Array, "2"]) -> Float[Array, "2"]:
        """The next state, for actions clipped to the box, see `FunctionalEnv.transition`."""
        action = jnp.clip(action, self.action_low, self.action_high)
        return jnp.clip(state + action, -self.world.size, self.world.size)

    def reward(
        self, state: Float[Array, "2"], action: Float[Array, "2"], next_state: Float[Array, "2"]
    ) -> Float[Array, ""]:
        """What arriving at the next state gives, less the cost of the action, see `FunctionalEnv.reward`."""
        action = jnp.clip(action, self.action_low, self.action_high)
        arrival = jnp.where(self.terminal(next_state), self.world.goal_reward, 0.0) - self._squared_distance(next_state)
        return self.world.reward_scale * (arrival - self.world.action_cost * action @ action)

    def terminal(self, state: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether a goal is reached."""
        return self._squared_distance(state) < self.world.goal_radius**2

    def _squared_distance(self, state: Float[Array, "2"]) -> Float[Array, ""]:
        """Squared distance from the nearest goal."""
        return jnp.min(jnp.sum((state[None] - jnp.asarray(GOALS, jnp.float32)) ** 2, axis=1))
