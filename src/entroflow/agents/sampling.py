"""Actions and densities of a policy at many observations: compiled, in blocks of bounded size."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from .. import checks

BLOCK = 16384  # actions computed at once; bounds the memory of large requests

# The policy is an argument, so that all policies of one shape share their compiled programs.


@eqx.filter_jit
def sample(policy: Any, obs: Float[Array, "b n"], key: PRNGKeyArray, n: int) -> Float[Array, "b k d"]:
    """Draw actions.

    Args:
        policy: a `Policy`.
        obs: observations, shape (b, n).
        key: random key.
        n: number N of actions at each.

    Returns:
        The actions, shape (b, N, d).
    """
    return _at_each(policy.sample, obs, key, n)


@eqx.filter_jit
def sample_and_log_prob(
    policy: Any, obs: Float[Array, "b n"], key: PRNGKeyArray, n: int
) -> tuple[Float[Array, "b k d"], Float[Array, "b k"]]:
    """Draw the actions that `sample` draws, with their log-densities.

    Args:
        policy: a `DensityPolicy`.
        obs: observations, shape (b, n).
        key: random key.
        n: number N of actions at each.

    Returns:
        The actions, shape (b, N, d), and log π(a|s), shape (b, N).
    """
    return _at_each(policy.sample_and_log_prob, obs, key, n)


@eqx.filter_jit
def log_prob(policy: Any, obs: Float[Array, "b n"], action: Float[Array, "b d"]) -> Float[Array, " b"]:
    """Return log-densities of given actions.

    Args:
        policy: a `DensityPolicy`.
        obs: observations, shape (b, n).
        action: one action at each, shape (b, d).

    Returns:
        log π(a|s), shape (b,).
    """
    return jax.lax.map(lambda pair: policy.log_prob(*pair), (obs, action), batch_size=BLOCK)


def key_of(seed: int) -> PRNGKeyArray:
    """Return the random key of a seed."""
    return jax.random.key(checks.seed("seed", seed))


def _at_each(method: Callable[..., Any], obs: Float[Array, "b n"], key: PRNGKeyArray, n: int) -> Any:
    """Call a policy's method for n draws at each observation, in blocks of bounded size."""
    one = lambda pair: jax.vmap(method, in_axes=(0, None))(jax.random.split(pair[0], n), pair[1])  # noqa: E731
    return jax.lax.map(one, (jax.random.split(key, obs.shape[0]), obs), batch_size=max(1, BLOCK // n))
