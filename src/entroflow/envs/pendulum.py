"""Gymnasium's Pendulum-v1 as pure functions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from entroflow.envs.functional import FunctionalEnv

GRAVITY, STEP, MAX_SPEED, MAX_TORQUE = 10.0, 0.05, 8.0, 2.0  # of a rod of length and mass one


class PendulumEnv(FunctionalEnv):
    """Swing a rod up and keep it there: the state is its angle from above and its speed, (2,); nothing terminates."""

    action_low: Float[Array, "1"]
    action_high: Float[Array, "1"]
    time_limit: int = eqx.field(static=True, default=200)
    obs_size: int = eqx.field(static=True, default=3)

    def __init__(self):
        self.action_high = jnp.full(1, MAX_TORQUE, jnp.float32)
        self.action_low = -self.action_high

    def initial(self, key: PRNGKeyArray) -> Float[Array, "2"]:
        """Anywhere, with a speed of at most one."""
        return jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0) * jnp.array([jnp.pi, 1.0], jnp.float32)

    def observation(self, state: Float[Array, "2"]) -> Float[Array, "3"]:
        """Cosine and sine of the angle, and the speed."""
        return jnp.array([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    def transition(self, key: PRNGKeyArray, state: Float[Array, "2"], action: Float[Array, "1"]) -> Float[Array, "2"]:
        """The next state, see `FunctionalEnv.transition`."""
        angle, speed = state
        speed = speed + (1.5 * GRAVITY * jnp.sin(angle) + 3.0 * self._torque(action)) * STEP
        speed = jnp.clip(speed, -MAX_SPEED, MAX_SPEED)
        return jnp.array([angle + speed * STEP, speed])

    def reward(
        self, state: Float[Array, "2"], action: Float[Array, "1"], next_state: Float[Array, "2"]
    ) -> Float[Array, ""]:
        """The reward, whatever the next state, see `FunctionalEnv.reward`."""
        angle = (state[0] + jnp.pi) % (2 * jnp.pi) - jnp.pi
        return -(angle**2 + 0.1 * state[1] ** 2 + 0.001 * self._torque(action) ** 2)

    def _torque(self, action: Float[Array, "1"]) -> Float[Array, ""]:
        return jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
