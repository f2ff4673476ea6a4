"""Measuring: on one core, in turns, with the machine described."""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from entroflow.storage.folder import versions

from .worker import Block, Call, repetitions, time_block

MATRIX = 1024  # rows and columns of the matrices whose product tells the machine's speed
SINGLE = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

Row = dict[str, Any]


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process and its children to the last core that it may use, where the system can; one thread each."""
    before = {name: os.environ.get(name) for name in SINGLE}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    os.environ.update(SINGLE)
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Row]:
    """Time JAX programs in turns; return `summary` of each."""
    return {name: summary(found) for name, found in blocks_in_turns(calls, rounds).items()}


def blocks_in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Block]]:
    """Time JAX programs A B C A B C …, so that what disturbs the machine disturbs all of them.

    Args:
        calls: functions that return JAX arrays, by name.
        rounds: number of rounds.

    Returns:
        For each one block per round.
    """
    import jax

    made = {name: Call(lambda call=call: jax.block_until_ready(call())) for name, call in calls.items()}
    repeat = {name: repetitions(call) for name, call in made.items()}
    blocks: dict[str, list[Block]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, call in made.items():
            blocks[name].append(time_block(call, repeat[name]))
    return blocks


def summary(blocks: list[Block]) -> Row:
    """Return 10th percentile and median of what blocks took, in seconds, and the medians of the rest."""
    wall, cpu, system, faults = np.array(blocks).T
    return {
        "cpu": float(np.percentile(cpu, 10)),
        "cpu_median": float(np.median(cpu)),
        "wall": float(np.percentile(wall, 10)),
        "wall_median": float(np.median(wall)),
        "system_median": float(np.median(system)),
        "faults_median": float(np.median(faults)),
        "blocks": len(blocks),
    }


def matmul_rate(rounds: int) -> float:
    """Return the machine's speed at products of large matrices, in floating-point operations per second of one core."""
    import jax
    import jax.numpy as jnp

    a, b = jax.random.normal(jax.random.key(0), (2, MATRIX, MATRIX), jnp.float32)
    product = jax.jit(jnp.matmul)
    return 2 * MATRIX**3 / in_turns({"matmul": lambda: product(a, b)}, rounds)["matmul"]["cpu"]


def machine() -> Row:
    """Return what the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_at_start": load,
        "date": datetime.now(UTC).date().isoformat(),
        "system": platform.system(),
    } | versions()
