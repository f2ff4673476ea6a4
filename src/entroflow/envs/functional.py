"""Stateless environments in pure JAX, and the step with autoreset that keeps the true final observation.

Everything is written for one environment; a batch is `jax.vmap(step, in_axes=(None, 0, 0, 0))`, and since an
environment is itself a PyTree of arrays, environments can be vmapped too. What the functions have in common:

Args:
    env: the environment.
    key: random key of this step.
    current: state and time.
    action: (d,) action.

Returns:
    The state and time to go on from; after a step, the transition too.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from entroflow import checks
from entroflow.types import Transition


class FunctionalEnv(eqx.Module):
    """The interface: what a Markov decision process is, without any stored state."""

    time_limit: eqx.AbstractVar[int]
    """Number of steps after which an episode is truncated."""
    action_low: eqx.AbstractVar[Float[Array, "d"]]
    """Lower bounds of the action, −∞ where there is none."""
    action_high: eqx.AbstractVar[Float[Array, "d"]]
    """Upper bounds of the action, ∞ where there is none."""
    obs_size: eqx.AbstractVar[int]
    """n, the length of an observation."""

    @abstractmethod
    def initial(self, key: PRNGKeyArray) -> Any:
        """Draw an initial state."""

    def observation(self, state: Any) -> Float[Array, "n"]:
        """What the agent sees of a state: all of it, unless an environment says otherwise."""
        return state

    @abstractmethod
    def transition(self, key: PRNGKeyArray, state: Any, action: Float[Array, "d"]) -> Any:
        """Draw the next state s'.

        Args:
            key: random key.
            state: the state s.
            action: the action a, (d,).

        Returns:
            The state s'.
        """

    @abstractmethod
    def reward(self, state: Any, action: Float[Array, "d"], next_state: Any) -> Float[Array, ""]:
        """The reward of a transition.

        Args:
            state: the state s.
            action: the action a, (d,).
            next_state: the state s'.

        Returns:
            The reward, shape ().
        """

    def terminal(self, state: Any) -> Bool[Array, ""]:
        """Whether the return ends here, for no reward follows: never, unless an environment says otherwise."""
        return jnp.bool_(False)

    def out_of_region(self, state: Any) -> Bool[Array, ""]:
        """Whether recording stops here, beside the time limit, although the return would go on: never, likewise."""
        return jnp.bool_(False)


def check(env: FunctionalEnv) -> None:
    """Refuse with a `ValueError` an environment that cannot be traced, or whose shapes are not those that it tells."""
    name, key = type(env).__name__, jax.random.key(0)
    for part in ("action_low", "action_high"):
        bound = getattr(env, part)
        if not (np.ndim(bound) == 1 and hasattr(bound, "dtype") and jnp.issubdtype(bound.dtype, jnp.floating)):
            given, expected = f"{name}.{part} = {bound!r}", "real numbers, an array of shape (d,)"
            raise checks.error("env", given, expected, "write for example jnp.array([1.0])")
    checks.positive_int(f"{name}.time_limit", env.time_limit)
    action = jnp.zeros(env.action_low.shape, env.action_low.dtype)
    try:
        state = jax.eval_shape(env.initial, key)
        following = jax.eval_shape(env.transition, key, state, action)
        made = {"observation": jax.eval_shape(env.observation, state)}
        made |= {"reward": jax.eval_shape(env.reward, state, action, following)}
        made |= {part: jax.eval_shape(getattr(env, part), following) for part in ("terminal", "out_of_region")}
    except Exception as problem:
        said = " ".join(f"{type(problem).__name__}: {problem}".split())[:400]
        given, remedy = f"{name}, which JAX cannot trace ({said})", "write it with jax.numpy, for any state and action"
        raise checks.error("env", given, "pure functions", remedy) from problem
    shape = lambda tree: jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)  # noqa: E731
    if shape(state) != shape(following):
        given = f"{name}.transition, which makes {shape(following)} of {shape(state)}"
        raise checks.error("env", given, "a state of the same shapes and types", "return one like that of `initial`")
    for part, array in made.items():
        expected = (env.obs_size,) if part == "observation" else ()
        if getattr(array, "shape", None) != expected:
            given = f"{name}.{part}, which returns {shape(array)}"
            raise checks.error("env", given, f"an array of shape {expected}", "see entroflow.envs.FunctionalEnv")
        if part in ("terminal", "out_of_region") and array.dtype != bool:
            given = f"{name}.{part}, which returns {shape(array)}"
            raise checks.error("env", given, "True or False", "write for example jnp.abs(state[0]) > 1")


class EnvState(NamedTuple):
    """A state within its episode."""

    state: PyTree
    """The environment's state."""
    time: Int[Array, "*batch"]
    """Steps taken since the start of the episode."""


def reset(env: FunctionalEnv, key: PRNGKeyArray) -> EnvState:
    """Start an episode at time zero."""
    return EnvState(env.initial(key), jnp.int32(0))


def advance(
    env: FunctionalEnv, key: PRNGKeyArray, current: EnvState, action: Float[Array, "d"]
) -> tuple[EnvState, Transition]:
    """Take one step and do not start a new episode."""
    next_state = env.transition(key, current.state, action)
    time = current.time + 1
    terminated = env.terminal(next_state)
    truncated = ~terminated & ((time >= env.time_limit) | env.out_of_region(next_state))
    transition = Transition(
        obs=env.observation(current.state),
        action=action,
        reward=env.reward(current.state, action, next_state).astype(action.dtype),  # it may count in whole numbers
        next_obs=env.observation(next_state),
        terminated=terminated,
        truncated=truncated,
    )
    return EnvState(next_state, time), transition


def step(
    env: FunctionalEnv, key: PRNGKeyArray, current: EnvState, action: Float[Array, "d"]
) -> tuple[EnvState, Transition]:
    """Take one step; where the episode ends, go on from a fresh initial state.

    The transition's `next_obs` belongs to the episode that ended.

    Example:
        >>> from entroflow.envs import MultiGoalEnv
        >>> env, key = MultiGoalEnv(), jax.random.key(0)
        >>> state, transition = jax.jit(step)(env, key, jax.jit(reset)(env, key), jnp.ones(2))
        >>> int(state.time), bool(transition.terminated)
        (1, False)
    """
    action = action.astype(env.action_high.dtype)  # of an agent in double precision
    key_step, key_reset = jax.random.split(key)
    following, transition = advance(env, key_step, current, action)
    ended = transition.terminated | transition.truncated
    fresh = reset(env, key_reset)
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, following), transition
