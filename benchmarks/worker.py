"""The process of one algorithm. It makes measurements that it is asked for in lines of JSON.

Run as a script by the Python of the environment that the algorithm is installed in, which need not have this library.
Requests name calls of the algorithm: {"calls": ["update"], "blocks": 5} answers with seconds per unit for each block.
"""

import json
import math
import os
import resource
import runpy
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

LEAST_BLOCK = 0.003  # seconds: shorter calls are timed several at once


class Call(NamedTuple):
    """Something to time: a function that returns when all is done, and how many units of work it does."""

    run: Callable[[], Any]
    units: int = 1


class Block(NamedTuple):
    """What one unit of work took: seconds of the clock, seconds of the processor (of these in the system), page faults.

    Seconds of the processor are those of all threads of the process. They do not count what other processes take.
    """

    wall: float
    cpu: float
    system: float
    faults: float


def repetitions(call: Call) -> int:
    """Return how many calls make a block that is long enough to be timed, after calls that compile and warm up."""
    call.run()
    return max(1, math.ceil(LEAST_BLOCK / max(time_block(call, 1).cpu * call.units, 1e-6)))


def time_block(call: Call, repeat: int) -> Block:
    """Time some calls, one after the other; return the means over their units.

    A call of one unit is made once before, untimed: what ran last, which may be large, has emptied the caches.
    """
    if call.units == 1:
        call.run()
    before, cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.process_time(), time.perf_counter()
    for _ in range(repeat):
        call.run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after, units = resource.getrusage(resource.RUSAGE_SELF), repeat * call.units
    return Block(
        wall / units,
        cpu / units,
        (after.ru_stime - before.ru_stime) / units,
        (after.ru_minflt - before.ru_minflt) / units,
    )


def main() -> None:
    """Make the algorithm, then answer requests until there are none."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    algorithm, task = sys.argv[1:]
    # Ours through the library, the others without it.
    begun = time.perf_counter()
    peers = runpy.run_path(str(Path(__file__).with_name("peers.py")))
    if algorithm in peers["LIBRARIES"]:
        import_module(peers["LIBRARIES"][algorithm])
        make = peers["make"]
    else:
        sys.path[0] = str(Path(__file__).parents[1])
        make = import_module("benchmarks.ours").make
    imports = time.perf_counter() - begun
    made, versions = make(algorithm, task)
    calls = {name: Call(run, units) for name, (run, units) in made.items()}
    answers.write(json.dumps({"versions": versions, "imports": imports}) + "\n")
    repeat: dict[str, int] = {}
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        for name in request["calls"]:
            if request["blocks"] == 0:  # just do it
                calls[name].run()
                continue
            if name not in repeat:
                repeat[name] = repetitions(calls[name])
            answer[name] = [time_block(calls[name], repeat[name]) for _ in range(request["blocks"])]
        unit = 1 if sys.platform == "darwin" else 1024  # of the peak memory
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        answers.write(json.dumps({"blocks": answer, "cpu": time.process_time(), "peak": peak}) + "\n")


if __name__ == "__main__":
    main()
