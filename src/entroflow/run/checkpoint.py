"""Checkpoints: the whole state of a training in one folder, written atomically by Orbax. Nothing is pickled."""

from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from .. import checks

T = TypeVar("T")


def save(path: Path, tree: Any) -> None:
    """Write a tree of arrays, random keys included; what was there before is replaced only when all is written.

    Args:
        path: folder of the checkpoint.
        tree: the arrays.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree, force=True)


def restore(path: Path, like: T) -> T:
    """Read a checkpoint.

    Args:
        path: folder of the checkpoint.
        like: a tree of the same structure, or of its shapes and types alone.

    Returns:
        The tree.

    Raises:
        ValueError: if there is no checkpoint, or it is damaged or of another structure.
    """
    if not path.is_dir():
        raise checks.error("checkpoint", f"{str(path)!r}, where none is", "a folder that entroflow wrote", "check it")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(path.absolute(), jax.eval_shape(lambda: like))
        return jax.tree.map(_uncommitted, found)
    except Exception as problem:  # what damage does to Orbax, it does not promise
        given = f"{str(path)!r}, which cannot be read ({' '.join(str(problem).split())[:200]})"
        remedy = "it is damaged, or belongs to other settings: use another checkpoint"
        raise checks.error("checkpoint", given, "a checkpoint of these settings", remedy) from problem


def _uncommitted(leaf: Any) -> Any:
    """Return an array that is not bound to a device, as new arrays are: programs compiled for those serve it, too."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(np.asarray(jax.random.key_data(leaf))))
    return jnp.asarray(np.asarray(leaf))
