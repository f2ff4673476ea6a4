"""Environments of one's own: a class of Gymnasium's, and pure functions in JAX. Here both are a walk to zero.

python examples/own_environment.py
"""

import equinox as eqx
import jax
import numpy as np
from gymnasium import Env, spaces

from entroflow import SAC, SACISFM
from entroflow.envs import FunctionalEnv, GymAdapter


class Walk(Env):
    """Episodes of 20 steps on a line. An end by time is a truncation, for the return would go on."""

    observation_space, action_space = spaces.Box(-9, 9, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Start somewhere."""
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=1).astype(np.float32), 0
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go."""
        self.place, self.time = self.place + 0.3 * action, self.time + 1
        return self.place, -float(self.place @ self.place), False, self.time == 20, {}


class PureWalk(FunctionalEnv):
    """The same; `time_limit` truncates, and `terminal` would terminate."""

    action_low: jax.Array
    action_high: jax.Array
    time_limit: int = eqx.field(static=True, default=20)
    obs_size: int = eqx.field(static=True, default=1)

    def initial(self, key: jax.Array) -> jax.Array:
        """Start somewhere."""
        return jax.random.normal(key, (1,))

    def transition(self, key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        """Go."""
        return state + 0.3 * action

    def reward(self, state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        """Be near zero."""
        return -next_state @ next_state


def main(steps: int = 1000, kind: type[SAC] = SACISFM) -> list[float]:
    """Return mean returns of 20 episodes after training, of both; standing still gives −20."""
    makers = Walk, lambda: GymAdapter(PureWalk(action_low=-jax.numpy.ones(1), action_high=jax.numpy.ones(1)))
    return [kind(make, learning_starts=steps // 8).learn(steps).evaluate(20).mean for make in makers]


if __name__ == "__main__":
    print(main())
