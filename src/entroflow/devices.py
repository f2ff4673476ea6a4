"""The cores and GPUs of this machine, which independent runs are divided among."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from . import later

if TYPE_CHECKING:
    import jax
else:
    jax = later.Module("jax")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores() -> None:
    """Make every core a device, which runs can be divided among; without effect where JAX has already started."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores())


def mesh_of(runs: int) -> jax.sharding.Mesh:
    """Return the mesh, axis "runs", of as many devices as divide the number of runs evenly."""
    most = max(k for k in range(1, len(jax.devices()) + 1) if runs % k == 0)
    kind = jax.sharding.AxisType.Auto
    return jax.make_mesh((most,), ("runs",), (kind,), devices=jax.devices()[:most])
