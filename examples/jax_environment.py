"""An environment in JAX: 256 boats cross a river side by side, and boats and learner are one compiled program.

python examples/jax_environment.py
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from equinox import field

from entroflow import SAC, SACISFM
from entroflow.envs import FunctionalEnv


class Boat(NamedTuple):
    """A state is any tree of arrays: here place and speed, along and across the river."""

    place: jax.Array
    speed: jax.Array


class River(FunctionalEnv):
    """Cross against a current, strongest in the middle, and land at x = 0; after `time_limit` steps it is cut off."""

    action_low: jax.Array = field(default_factory=lambda: -jnp.ones(2))
    action_high: jax.Array = field(default_factory=lambda: jnp.ones(2))
    time_limit: int = field(default=60, static=True)
    obs_size: int = field(default=4, static=True)

    def initial(self, key: jax.Array) -> Boat:
        """Start somewhere on this shore."""
        return Boat(jnp.array([jax.random.uniform(key, minval=-1.0, maxval=1.0), 0.0]), jnp.zeros(2))

    def observation(self, state: Boat) -> jax.Array:
        """See everything."""
        return jnp.concatenate(state)

    def transition(self, key: jax.Array, state: Boat, action: jax.Array) -> Boat:
        """Push, and drift."""
        speed = 0.8 * state.speed + 0.2 * action + 0.02 * jax.random.normal(key, (2,))
        current = 2 * state.place[1] * (1 - state.place[1])
        return Boat(state.place + 0.1 * speed.at[0].add(current), speed)

    def reward(self, state: Boat, action: jax.Array, next_state: Boat) -> jax.Array:
        """Be near the landing place at (0, 1), and miss it by little."""
        x, y = next_state.place
        return -0.5 * jnp.hypot(x, 1 - y) - jnp.where(y >= 1, 4 * jnp.abs(x), 0.0)

    def terminal(self, state: Boat) -> jax.Array:
        """End on the other shore: nothing follows."""
        return state.place[1] >= 1


def main(steps: int = 64_000, kind: type[SAC] = SACISFM, num_envs: int = 256) -> float:
    """Return the mean return of 100 episodes after training; boats that only cross get −8."""
    agent = kind(River(), num_envs=num_envs, updates_per_step=1 / 32, learning_starts=4 * num_envs)
    return agent.learn(steps).evaluate(100).mean


if __name__ == "__main__":
    print(f"return {main():.2f}")
