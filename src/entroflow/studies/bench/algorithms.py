"""Algorithms beside each other, each in a process of its own: ours, Stable-Baselines3 and SBX."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ... import checks
from .measure import Row, summary
from .worker import Block

OURS, PEERS = ("sac_isfm", "gaussian_sac"), ("sb3", "sbx")
QUANTITIES = {  # what a part measures
    "update": ("update",),
    "act": ("act_1", "act_256", "best_1"),
    "density": ("density",),
    "steps": ("steps",),
}
WORKER = Path(__file__).with_name("worker.py")
UPDATES = 100  # that the process whose memory is told has made


class Worker:
    """The process of one algorithm on one task, see `worker`; a context that ends it.

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
        self._process = subprocess.Popen(
            [python, WORKER, algorithm, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | settled | given,
            text=True,
            bufsize=1,
        )
        self.versions: dict[str, str] = self._answer()["versions"]

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
        raise checks.error("bench", given, "one that answers", "see whether its packages are installed (make peers)")


def compare(names: Iterable[str], task: str, peers: Path | None, rounds: int) -> dict[str, Row]:
    """Time all algorithms in turns.

    Args:
        names: calls of the workers, see `QUANTITIES`.
        task: id of a Gymnasium environment.
        peers: Python of the environment of the peers; without, ours alone.
        rounds: number of rounds, with a block of every call of every algorithm.

    Returns:
        For every algorithm `summary` of every call, and versions.
    """
    names = list(names)
    blocks: dict[tuple[str, str], list[Block]] = {}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(algorithm, task, python)) for algorithm, python in _all(peers)]
        for _ in range(rounds):
            for name in names:
                for worker in workers:
                    found = worker.ask([name], 1)["blocks"][name]
                    blocks.setdefault((worker.algorithm, name), []).extend(Block(*block) for block in found)
    return {
        worker.algorithm: {name: summary(blocks[worker.algorithm, name]) for name in names}
        | {"versions": worker.versions}
        for worker in workers
    }


def start_up(task: str, peers: Path | None) -> dict[str, Row]:
    """Measure the way from nothing to the first action and the first update in a fresh process, and its memory.

    Args:
        task: id of a Gymnasium environment.
        peers: Python of the environment of the peers; without, ours alone.

    Returns:
        For every algorithm seconds of clock and processor without compiled programs on disk (cold) and with them
        (warm), imports and the filled replay included, and the peak memory after `UPDATES` updates, in bytes.
    """
    rows: dict[str, Row] = {}
    for algorithm, python in _all(peers):
        with tempfile.TemporaryDirectory() as cache:
            row: Row = {}
            for temperature in ("cold", "warm"):
                with Worker(algorithm, task, python, Path(cache)) as worker:
                    first = worker.ask(["act_1", "update"], 0)
                    row[temperature] = {"wall": time.perf_counter() - worker.begun, "cpu": first["cpu"]}
                    row["peak"] = worker.ask(["update"] * UPDATES, 0)["peak"]
        rows[algorithm] = row
    return rows


def _all(peers: Path | None) -> list[tuple[str, Path]]:
    """Return all algorithms with the Python that runs each."""
    ours: list[tuple[str, Any]] = [(algorithm, Path(sys.executable)) for algorithm in OURS]
    return ours if peers is None else ours + [(algorithm, peers) for algorithm in PEERS]
