"""Independent runs divided among the cores or GPUs."""

import contextlib
import os

import jax
from jax.sharding import AxisType


def use_all_cores() -> None:
    """Make every core a device, which runs can be divided among; without effect where JAX has already started."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def mesh_of(runs: int) -> jax.sharding.Mesh:
    """Return the mesh, axis "runs", of as many devices as divide the number of runs evenly."""
    most = max(k for k in range(1, len(jax.devices()) + 1) if runs % k == 0)
    return jax.make_mesh((most,), ("runs",), (AxisType.Auto,), devices=jax.devices()[:most])
