"""Actions and densities of a policy at many observations: compiled, in blocks of bounded size."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import checks
from ..rl import Actor

BLOCK = 16384  # actions computed at once; bounds the memory of large requests
# `jax.random.fold_in` and `split` make the same keys: this one is none that training derives from its seed.
SAMPLE = 0x5A3B1E


def needs_density(method: str, actor: Actor) -> None:
    """Raise if the policies of an actor have no density, which a method asks for."""
    if not actor.has_density:
        given, remedy = f"a policy of {actor.name}, which has none", "use SACISFM or GaussianSAC"
        raise checks.error(method, given, "a policy with a density", remedy)


def paired(
    obs: Float[np.ndarray, "b n"], first: tuple[int, ...], action: Float[np.ndarray, "c d"], second: tuple[int, ...]
) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Return observations and actions in pairs, flat, and the leading shape that `first` and `second` broadcast to."""
    try:
        batch = np.broadcast_shapes(first, second)
    except ValueError:
        given = f"leading shapes {first} of the observations and {second} of the actions"
        raise checks.error("action", given, "shapes that broadcast", "use observation[..., None, :]") from None
    parts = (obs, first), (action, second)
    wide = [np.broadcast_to(part.reshape(*lead, part.shape[1]), (*batch, part.shape[1])) for part, lead in parts]
    return [part.reshape(math.prod(batch), part.shape[-1]) for part in wide], batch


@eqx.filter_jit
def draw(policy: Any, method: str, obs: Float[Array, "b n"], key: PRNGKeyArray, n: int) -> Any:
    """Call a policy's `sample` or `sample_and_log_prob` for n draws at each observation, in blocks of bounded size."""
    call = jax.vmap(getattr(policy, method), in_axes=(0, None))
    one = lambda pair: call(jax.random.split(pair[0], n), pair[1])  # noqa: E731
    return jax.lax.map(one, (jax.random.split(key, obs.shape[0]), obs), batch_size=max(1, BLOCK // n))


@eqx.filter_jit
def log_prob(policy: Any, obs: Float[Array, "b n"], action: Float[Array, "b d"]) -> Float[Array, " b"]:
    """Return log-densities of given actions."""
    return jax.lax.map(lambda pair: policy.log_prob(*pair), (obs, action), batch_size=BLOCK)


def key_of(seed: int) -> PRNGKeyArray:
    """Return the random key of a seed."""
    return jax.random.fold_in(jax.random.key(checks.seed("seed", seed)), SAMPLE)
