"""Speed of training on environments in JAX: steps and updates per second, by the number of environments.

    PYTHONPATH=src python benchmarks/jax_envs.py --task mjx/HalfCheetah --num-envs 256 1024 4096 --seconds 480

needs nothing but the package and, for mjx/, its extra. A line of JSON for every number of environments, as soon as it
is measured; those for which no time is left are not measured. The seconds are a goal: a program that compiles is not
interrupted. Of each the first call, which compiles, is timed by itself; then whole calls of 64 steps of all
environments are, with updates and without, for half of its share each. The rates are those of the median call.
"""

import argparse
import dataclasses
import json
import time
from typing import Any

import jax
import numpy as np

from entroflow.agents.compiled import CHUNK, training_of
from entroflow.agents.settings import Settings, change, of_algorithm
from entroflow.agents.tasks import Task, task
from entroflow.agents.training import Training
from entroflow.storage.folder import versions


def measure(made: Task, settings: Settings, seconds: float) -> dict[str, Any]:
    """Measure one number of environments.

    Args:
        made: the task.
        settings: settings of the training.
        seconds: how long it may take, compiling included.

    Returns:
        What was found.
    """
    begun = time.perf_counter()
    training, count = training_of(made, settings, [0]), CHUNK * settings.num_envs
    training.advance(count)
    compiled = time.perf_counter() - begun
    left = max(seconds - compiled, 0.0) / 2
    # The number of updates is an argument of the program: nothing is compiled anew without them.
    idle = training_of(made, dataclasses.replace(settings, updates_per_step=1e-9), [0])
    idle.advance(count)
    found = {"first_call_seconds": round(compiled, 1), "num_envs": settings.num_envs}
    before, (call, calls) = updates(training), timed(training, count, left)
    per_call = (updates(training) - before) / calls
    found |= {"calls": calls, "steps_per_second": round(count / call), "updates_per_second": round(per_call / call, 1)}
    return found | {"steps_per_second_without_updates": round(count / timed(idle, count, left)[0])}


def timed(training: Training, steps: int, seconds: float) -> tuple[float, int]:
    """Return the median time of a call, and how many there were: two, and more as long as there is time."""
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) + taken[-1] < seconds:
        begun = time.perf_counter()
        training.advance(steps)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken)), len(taken)


def updates(training: Training) -> int:
    """Return how many updates were made."""
    return int(training.agents.step[0])


def main(argv: list[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mjx/HalfCheetah")
    parser.add_argument("--algorithm", default="sac_isfm")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--updates-per-step", type=float, default=1 / 64)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--set", nargs="*", default=[], help="settings to change, such as width=64")
    options = parser.parse_args(argv)
    changes: dict[str, Any] = {
        name: json.loads(value) for name, _, value in (part.partition("=") for part in options.set)
    }
    begun, made = time.perf_counter(), task(options.task)
    head = {"task": options.task, "algorithm": options.algorithm, "updates_per_step": options.updates_per_step}
    print(json.dumps(head | {"device": jax.devices()[0].device_kind, "versions": versions()}), flush=True)
    for place, count in enumerate(options.num_envs):
        left = options.seconds - (time.perf_counter() - begun)
        if left <= 0:
            print(json.dumps({"num_envs": count, "not_measured": "no time was left"}), flush=True)
            continue
        own = {"num_envs": count, "updates_per_step": options.updates_per_step, "learning_starts": count}
        settings = change(of_algorithm(options.algorithm), own | {"buffer_size": max(1_000_000, count)} | changes)
        print(json.dumps(measure(made, settings, left / (len(options.num_envs) - place))), flush=True)


if __name__ == "__main__":
    main()
