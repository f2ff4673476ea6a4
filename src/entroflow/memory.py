"""Whether a plan fits into the memory of this machine: asked before anything is made.

Plans are bytes by the name of the option that asks for them.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from . import checks

ENVIRONMENT = 8192  # bytes of the smallest one, with its share of a vector environment
CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may have


def check(parts: Mapping[str, float]) -> None:
    """Refuse a plan that does not fit."""
    needed, there = sum(parts.values()), available()
    if needed > there:
        most = max(parts, key=lambda name: parts[name])
        given = f"a plan of at least {needed / 2**30:,.1f} GiB, most of it through {most}"
        expected = f"at most the {there / 2**30:,.1f} GiB of this machine"
        raise checks.error("memory", given, expected, f"lower {most}")


def available() -> int:
    """Return the bytes of memory of the devices that compute, used or not."""
    if limit := sum((device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.devices()):
        return limit
    if not hasattr(os, "sysconf"):  # Windows does not tell
        return sys.maxsize
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        return min(there, int(CGROUP.read_text()))
    return there


def size(tree: Any) -> int:
    """Return the bytes of all arrays of a tree, or of their shapes and types."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def of_training(training: Any, agents: Any, capacity: int) -> dict[str, float]:
    """Return what a training needs at least."""
    task, settings, runs = training.task, training.settings, len(training.seeds)
    transition = 4 * (2 * task.obs_size + task.action_size + 1) + 2
    actor = settings.config.actor
    layer = 4 * getattr(actor, "width", 1)  # of one action, as it passes through the network
    return {
        "width, networks or seeds": size(agents),
        "buffer_size": runs * capacity * transition,
        "num_envs": runs * settings.num_envs * ENVIRONMENT,
        "batch_size": runs * settings.config.batch_size * transition,
        "states or candidates": runs * getattr(actor, "states", 1) * getattr(actor, "candidates", 1) * layer,
        "action_candidates": runs * settings.action_candidates * layer,
    }
