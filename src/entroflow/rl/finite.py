"""The guard against numbers that are not finite, in the compiled program.

To look at every update from outside would make the device wait for the host. So the update itself looks at what it has
learned, which costs about one hundredth of it, and leaves a number: what the first NaN or infinity was found in.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int

from . import sac

# Averages and optimisers follow from these, one update later at most.
WATCHED = ("actor", "critic", "action_space", "obs_units", "log_temperature")


def watch(agent: sac.State, metrics: sac.Metrics, fault: Int[Array, ""]) -> Int[Array, ""]:
    """Return the earlier fault, if there is one; zero if everything is finite; otherwise a number for `describe`."""
    bad = jnp.stack([~_finite(part) for part in (metrics, *(getattr(agent, name) for name in WATCHED))])
    found = jnp.where(bad.any(), jnp.argmax(bad) + 1, 0).astype(fault.dtype)
    return jnp.where(fault == 0, found, fault)


def describe(fault: int, metrics: Mapping[str, ArrayLike]) -> str:
    """Return the names of the parts that were not finite."""
    if fault > 1:
        return f"{WATCHED[fault - 2]} of the agent"
    return " and ".join(name for name, value in metrics.items() if not np.isfinite(value).all())


def _finite(tree: Any) -> Bool[Array, ""]:
    """Return whether the sum of all numbers is finite, which compiles in less than half the time of asking each."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.isfinite(sum((jnp.sum(leaf) for leaf in leaves), jnp.zeros(())))
