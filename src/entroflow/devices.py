"""Independent runs divided among the cores or GPUs."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P


def use_all_cores() -> None:
    """Make every core a device, which runs can be divided among; without effect where JAX has already started."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def mesh_of(runs: int) -> jax.sharding.Mesh:
    """Return the mesh, axis "runs", of as many devices as divide the number of runs evenly."""
    most = max(k for k in range(1, len(jax.devices()) + 1) if runs % k == 0)
    return jax.make_mesh((most,), ("runs",), (AxisType.Auto,), devices=jax.devices()[:most])


def over_runs(function: Callable[..., Any], runs: int) -> Any:
    """Map a function of one run over the leading axis of all its arguments, compiled, every device doing its share.

    Args:
        function: function of one run, pure JAX.
        runs: number of runs. As many devices take part as divide it evenly.

    Returns:
        The function of all runs, as `jax.jit` returns it.
    """
    mapped = jax.vmap(function)
    return jax.jit(jax.shard_map(mapped, mesh=mesh_of(runs), in_specs=P("runs"), out_specs=P("runs"), check_vma=False))
