"""A tiny environment in JAX for the tests of what trains on them: it counts its steps, and ends in both ways."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from entroflow.envs import FunctionalEnv

LIMIT, GOAL = 5, 1.0
BAD = "", "reward", "observation", "learner"


class Course(FunctionalEnv):
    """A place on a line and the number of steps; an episode terminates beyond `GOAL`, and is truncated at `LIMIT`."""

    action_low: jax.Array
    action_high: jax.Array
    bad: jax.Array  # the place of what is not finite in `BAD`, an array, so that one program serves all
    time_limit: int = eqx.field(static=True, default=LIMIT)
    obs_size: int = eqx.field(static=True, default=2)

    def initial(self, key):
        return jnp.stack([jax.random.uniform(key, minval=-0.5, maxval=0.5), jnp.zeros(())])

    def transition(self, key, state, action) -> Any:
        following = state + jnp.stack([action[0] * 0.4, jnp.ones(())])
        return jnp.where((self.bad == 2) & self.terminal(following), jnp.inf, following)

    def reward(self, state, action, next_state) -> Any:
        value = 10 * state[0] + jnp.where(self.bad == 2, 0.0, next_state[0]) - action[0] ** 2
        wrong = jnp.array([value, jnp.nan, value, 1e38])[self.bad]
        return jnp.where(self.terminal(next_state), wrong, value)

    def terminal(self, state) -> Any:
        return state[0] > GOAL


def course(bad=""):
    """Make it, with one of `BAD`, a number that is not finite or makes the learner's so, where episodes terminate."""
    return Course(action_low=jnp.full(1, -1.0), action_high=jnp.full(1, 3.0), bad=jnp.int32(BAD.index(bad)))
