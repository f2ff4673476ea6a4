"""Algorithms beside each other, each in a process of its own: ours, Stable-Baselines3 and SBX."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from entroflow import checks

from .measure import Row, summary
from .peers import LIBRARIES
from .worker import Block

OURS, PEERS = ("sac_isfm", "gaussian_sac"), tuple(LIBRARIES)
QUANTITIES = {  # what a part measures
    "update": ("update",),
    "act": ("act_1", "act_256", "best_1", "best_of_4"),
    "density": ("density",),
    "steps": ("steps",),
}
WORKER = Path(__file__).with_name("worker.py")
UPDATES = 100  # that the process whose memory is told has made
STARTS = 3  # of which the fastest is told


class Worker:
    """The process of one algorithm on one task, see `worker`; a context that ends it.

    It keeps Python's bytecode, as is usual: without, imports take three times as long.

    Args:
        algorithm: one of `OURS` or `PEERS`.
        task: id of a Gymnasium environment.
        python: the Python that runs it.
        cache: folder of JAX's compiled programs; that of the user if not given.
    """

    def __init__(self, algorithm: str, task: str, python: Path, cache: Path | None = None):
        self.begun = time.perf_counter()
        self.algorithm, self._errors = algorithm, tempfile.TemporaryFile("w+")
        given = {} if cache is None else {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        settled = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5", "JAX_PLATFORMS": "cpu"}
        outer = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._process = subprocess.Popen(
            [python, WORKER, algorithm, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=outer | settled | given,
            text=True,
            bufsize=1,
        )
        made = self._answer()
        self.versions: dict[str, str] = made["versions"]
        self.imports: float = made["imports"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process: no more requests will come."""
        self._process.communicate()
        self._errors.close()

    def ask(self, calls: Sequence[str], blocks: int) -> Row:
        """Let it make calls: this many timed blocks of each, or each just once, without timing it, for zero."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"calls": list(calls), "blocks": blocks}) + "\n")
        return self._answer()

    def _answer(self) -> Row:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:] or ["no message"]
        self.close()
        given = f"a process of {self.algorithm} that ended ({last[0]})"
        raise checks.error(
            "benchmarks", given, "one that answers", "see whether its packages are installed (make peers)"
        )


def compare(parts: Sequence[str], task: str, peers: Path | None, rounds: int) -> dict[str, dict[str, Row]]:
    """Time all algorithms in turns.

    Args:
        parts: what to time, see `QUANTITIES`.
        task: id of a Gymnasium environment.
        peers: Python of the environment of the peers; without, ours alone.
        rounds: number of rounds, with a block of every call of every algorithm.

    Returns:
        For every part and every algorithm `summary` of every call, and versions.
    """
    names = [name for part in parts for name in QUANTITIES[part]]
    blocks: dict[tuple[str, str], list[Block]] = {}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(algorithm, task, python)) for algorithm, python in _all(peers)]
        for _ in range(rounds):
            for name in names:
                for worker in workers:
                    found = worker.ask([name], 1)["blocks"][name]
                    blocks.setdefault((worker.algorithm, name), []).extend(Block(*block) for block in found)
    return {
        part: {
            worker.algorithm: {name: summary(blocks[worker.algorithm, name]) for name in QUANTITIES[part]}
            | {"versions": worker.versions}
            for worker in workers
        }
        for part in parts
    }


def start_up(task: str, peers: Path | None) -> dict[str, Row]:
    """Measure the way from nothing to the first action and the first update in a fresh process, and its memory.

    Args:
        task: id of a Gymnasium environment.
        peers: Python of the environment of the peers; without, ours alone.

    Returns:
        For every algorithm the fastest of some starts without compiled programs on disk (cold) and of some with them
        (warm), the filled replay included, in seconds of clock and processor, of these in imports; and the peak memory
        after `UPDATES` updates, in bytes.
    """
    starts: dict[str, list[tuple[Row, Row]]] = {}
    peaks: dict[str, float] = {}
    for _ in range(STARTS):
        for algorithm, python in _all(peers):
            with tempfile.TemporaryDirectory() as cache:
                cold, _ = _start(algorithm, task, python, Path(cache))
                warm, peaks[algorithm] = _start(algorithm, task, python, Path(cache))
            starts.setdefault(algorithm, []).append((cold, warm))
    fastest = {
        name: [min(kind, key=itemgetter("wall")) for kind in zip(*rows, strict=True)] for name, rows in starts.items()
    }
    return {name: {"cold": cold, "warm": warm, "peak": peaks[name]} for name, (cold, warm) in fastest.items()}


def _start(algorithm: str, task: str, python: Path, cache: Path) -> tuple[Row, float]:
    """Start once; return what it took and the peak memory in the end."""
    with Worker(algorithm, task, python, cache) as worker:
        first = worker.ask(["act_1", "update"], 0)
        took = {"wall": time.perf_counter() - worker.begun, "cpu": first["cpu"], "imports": worker.imports}
        return took, worker.ask(["update"] * UPDATES, 0)["peak"]


def _all(peers: Path | None) -> list[tuple[str, Path]]:
    """Return all algorithms with the Python that runs each."""
    ours: list[tuple[str, Any]] = [(algorithm, Path(sys.executable)) for algorithm in OURS]
    return ours if peers is None else ours + [(algorithm, peers) for algorithm in PEERS]
