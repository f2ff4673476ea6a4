"""Changes side by side, one training each for as long as there is time, on a CPU or a GPU, with any JAX that works.

python -m experiments.changes.screen OUT.csv "CrossQ" HalfCheetah-v5 --seeds 4 --seconds 540
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import NotFinite, Training
from entroflow.flow import RungeKutta
from entroflow.rl import CrossQ

from .critics import Variant
from .run import LEARNED

EVERY, EPISODES, LONGEST = 5000, 3, 200_000
UNIT_ROWS = {"atoms": 1, "norm": "batch", "rate": 1e-3, "momentum": 0.5}  # as "batch norm" of `run.CHANGES`
FLOW, GAUSSIAN = "sac_isfm", "gaussian_sac"
PRESET = {"critic": CrossQ(), "pathwise": 1.0}


def nothing(log_weights: Float[Array, " N"]) -> Float[Array, " N"]:
    """Weigh no candidate: the actor learns by the pathwise term alone."""
    return jnp.zeros_like(log_weights)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": (FLOW, {}),
    "critic's rate 1e-3": (FLOW, {"critic_rate": 1e-3}),
    "no units of observations": (FLOW, {"normalise_obs": False}),
    "Gaussian, both rates 1e-3": (GAUSSIAN, {"rate": 1e-3, "critic_rate": 1e-3}),
    "Gaussian, both rates 1e-3, 32 states": (GAUSSIAN, {"rate": 1e-3, "critic_rate": 1e-3, "states": 32}),
    "unit rows": (FLOW, {"critic": Variant(**UNIT_ROWS), "policy_delay": 3}),
    "unit rows, 1024 wide, 256 states": (
        FLOW,
        {"critic": Variant(width=1024, **UNIT_ROWS), "policy_delay": 3, "states": 256},
    ),
    "Gaussian, unit rows, 1024 wide": (
        GAUSSIAN,
        {"critic": Variant(width=1024, **UNIT_ROWS), "policy_delay": 3, "rate": 1e-3},
    ),
    "Gaussian, batch norm before SiLU": (
        GAUSSIAN,
        {"critic": Variant(unit_rows=False, **UNIT_ROWS), "policy_delay": 3, "rate": 1e-3},
    ),
    "Gaussian, CrossQ": (GAUSSIAN, {"critic": CrossQ(), "policy_delay": 3, "rate": 1e-3}),
    "CrossQ": (FLOW, {"critic": CrossQ(), "policy_delay": 3}),
    "CrossQ, policy every step": (FLOW, {"critic": CrossQ()}),
    "CrossQ, policy every step, pathwise 1": (FLOW, PRESET),
    "the preset, pathwise term alone": (FLOW, PRESET | {"normalise": nothing}),
    "the preset, 96 states at every third step": (FLOW, PRESET | {"states": 96, "policy_delay": 3}),
    "the preset, half the target entropy": (FLOW, PRESET | {"target_entropy": -3.0}),
    "the preset, mean of the critics": (FLOW, {"critic": CrossQ(ensemble="mean"), "pathwise": 1.0}),
    "the preset, graded steps": (FLOW, PRESET | {"solver": RungeKutta("midpoint", 4, grading=1.5)}),
    "the preset, pathwise 3": (FLOW, PRESET | {"pathwise": 3.0}),
    "CrossQ, pathwise 3": (FLOW, {"critic": CrossQ(), "policy_delay": 3, "pathwise": 3.0}),
}
FIELDS = ["change", "task", "seed", "settings", "device", "step", "seconds", "best of 16", "drawn", *LEARNED]


def screen(path: Path, name: str, environment: str, seeds: list[int], seconds: float) -> None:
    """Train until the time is up; append a row for every seed and evaluation.

    Args:
        path: the CSV file.
        name: one of `CHANGES`.
        environment: the task's id.
        seeds: one for each run; they learn in one program.
        seconds: how long.
    """
    algorithm, changes = CHANGES[name]
    training = Training(task(environment), change(of_algorithm(algorithm), changes), seeds, LONGEST)
    device, begun = f"{jax.devices()[0].device_kind}, JAX {jax.__version__}", time.perf_counter()
    late = lambda: time.perf_counter() - begun > seconds  # noqa: E731
    told = repr({name: getattr(value, "__name__", value) for name, value in changes.items()})
    label = {"change": name, "task": environment, "settings": told, "device": device}
    with path.open("a", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, FIELDS)
        if not path.stat().st_size:
            writer.writeheader()
        try:
            while not late() and (learned := training.advance(EVERY, late)):
                best, drawn = (training.evaluate(EPISODES, deterministic=choose) for choose in (True, False))
                for row in learned:
                    of = {
                        kind: np.mean([each["return"] for each in found if each["seed"] == row["seed"]])
                        for kind, found in (("best of 16", best), ("drawn", drawn))
                    }
                    numbers = {key: f"{value:.5g}" for key, value in (row | of).items() if key in (*of, *LEARNED)}
                    at = {"seed": row["seed"], "step": row["step"], "seconds": round(time.perf_counter() - begun, 1)}
                    writer.writerow(label | at | numbers)
        except NotFinite as problem:
            print(problem)
        finally:
            training.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("change", choices=CHANGES)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=540)
    given = parser.parse_args()
    wanted = [given.first + i for i in range(given.seeds)]
    screen(given.path, given.change, given.task, wanted, given.seconds)
