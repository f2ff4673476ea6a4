"""A trained policy for use outside of JAX: NumPy in, NumPy out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .. import checks
from ..flow import FlowPolicy

BLOCK = 16384  # actions computed at once; bounds the memory of large requests


class Agent:
    """A flow policy with its density.

    The same arguments, seed included, give the same numbers. `sample` and `sample_and_log_prob` draw the same actions.

    Attributes:
        policy: the policy in JAX.
        info: what its files say of it, for example the temperature and the seed that it was trained with.
    """

    def __init__(self, policy: FlowPolicy, info: dict[str, Any]):
        self.policy = policy
        self.info = info

    def sample(self, obs: ArrayLike, n: int = 1, seed: int = 0) -> Float[np.ndarray, "*batch n d"]:
        """Draw n actions at every observation.

        Args:
            obs: observations, shape (..., obs_size).
            n: number of actions.
            seed: seed of the random numbers.

        Returns:
            Actions, shape (..., n, d).

        Raises:
            ValueError: for observations of another size or not finite, n below one or a seed that is not whole.
        """
        flat, batch = self._observations(obs)
        actions = _sample(self.policy, jnp.asarray(flat), _key(seed), checks.positive_int("n", n))
        return np.asarray(actions).reshape(*batch, *actions.shape[1:])

    def sample_and_log_prob(
        self, obs: ArrayLike, n: int = 1, seed: int = 0
    ) -> tuple[Float[np.ndarray, "*batch n d"], Float[np.ndarray, "*batch n"]]:
        """Draw n actions at every observation, with their log-densities.

        Args:
            obs: observations, shape (..., obs_size).
            n: number of actions.
            seed: seed of the random numbers.

        Returns:
            Actions, shape (..., n, d), and log π(a|s), shape (..., n).

        Raises:
            ValueError: as for `sample`.
        """
        flat, batch = self._observations(obs)
        key, n = _key(seed), checks.positive_int("n", n)
        actions, log_probs = _sample_and_log_prob(self.policy, jnp.asarray(flat), key, n)
        return np.asarray(actions).reshape(*batch, *actions.shape[1:]), np.asarray(log_probs).reshape(*batch, n)

    def log_prob(self, obs: ArrayLike, action: ArrayLike) -> Float[np.ndarray, "*batch"]:
        """Return log π(a|s) of given actions.

        Args:
            obs: observations, shape (..., obs_size).
            action: actions, shape (..., d); leading axes broadcast against those of `obs`.

        Returns:
            Log-densities, of the common leading shape.

        Raises:
            ValueError: for sizes that do not fit, or numbers that are not finite.
        """
        observations = _vectors("obs", obs, self.policy.obs_mean.shape[0])
        actions = _vectors("action", action, self.policy.action_space.size)
        try:
            batch = np.broadcast_shapes(observations.shape[:-1], actions.shape[:-1])
        except ValueError:
            given = f"leading shapes {observations.shape[:-1]} of obs and {actions.shape[:-1]} of action"
            raise checks.error("obs and action", given, "shapes that broadcast", "use obs[..., None, :]") from None
        count = math.prod(batch)
        flat = [np.broadcast_to(x, (*batch, x.shape[-1])).reshape(count, x.shape[-1]) for x in (observations, actions)]
        return np.asarray(_log_prob(self.policy, jnp.asarray(flat[0]), jnp.asarray(flat[1]))).reshape(batch)

    def export(self, path: str | Path) -> None:
        """Write the policy as one file that runs without this library: observations and noise to actions and log π.

        Args:
            path: the file, .stablehlo or .onnx; see docs/export.md.

        Raises:
            ValueError: for another ending, or where a package is missing.
        """
        from ..export.programs import sampling, write

        write(path, sampling(self.policy))

    def _observations(self, obs: ArrayLike) -> tuple[Float[np.ndarray, "b n"], tuple[int, ...]]:
        """Check observations; return them as a list, with their leading shape."""
        observations = _vectors("obs", obs, self.policy.obs_mean.shape[0])
        batch = observations.shape[:-1]
        return observations.reshape(math.prod(batch), observations.shape[-1]), batch


# The policy is an argument, so that all policies of one shape share their compiled programs.


@eqx.filter_jit
def _sample(policy: FlowPolicy, obs: Float[Array, "b i"], key: PRNGKeyArray, n: int) -> Float[Array, "b n d"]:
    return _at_each(policy.sample, obs, key, n)


@eqx.filter_jit
def _sample_and_log_prob(
    policy: FlowPolicy, obs: Float[Array, "b i"], key: PRNGKeyArray, n: int
) -> tuple[Float[Array, "b n d"], Float[Array, "b n"]]:
    return _at_each(policy.sample_and_log_prob, obs, key, n)


@eqx.filter_jit
def _log_prob(policy: FlowPolicy, obs: Float[Array, "b i"], action: Float[Array, "b d"]) -> Float[Array, " b"]:
    return jax.lax.map(lambda pair: policy.log_prob(*pair), (obs, action), batch_size=BLOCK)


def _at_each(method: Callable[..., Any], obs: Float[Array, "b i"], key: PRNGKeyArray, n: int) -> Any:
    """Call a policy's method for n draws at each observation, in blocks of bounded size."""
    one = lambda pair: jax.vmap(method, in_axes=(0, None))(jax.random.split(pair[0], n), pair[1])  # noqa: E731
    return jax.lax.map(one, (jax.random.split(key, obs.shape[0]), obs), batch_size=max(1, BLOCK // n))


def _vectors(name: str, value: ArrayLike, size: int) -> Float[np.ndarray, "*batch i"]:
    """Return finite float32 vectors of a given size."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim == 0 or array.shape[-1] != size:
        given = f"shape {array.shape} of type {array.dtype}"
        raise checks.error(
            name, given, f"numbers of shape (..., {size})", "give the last axis one number per component"
        )
    if not np.isfinite(array).all():
        raise checks.error(name, "NaN or infinity", "finite numbers", "look where they come from")
    return array.astype(np.float32)


def _key(seed: int) -> PRNGKeyArray:
    """Return the random key of a seed."""
    return jax.random.key(checks.seed("seed", seed))
