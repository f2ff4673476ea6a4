"""Every update of a training, one row each: how the actor's gradients and the critic's targets go.

python -m experiments.mujoco.trace Hopper-v5 6000 OUT.csv
"""

import csv
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import Training
from entroflow.rl import loop_gym

TOLD = ("policy_loss", "entropy", "critic_error", "q", "temperature", "kl")
FIELDS = ("update", *TOLD, "gradient", "remembered", "value_unit")


def trace(environment: str, steps: int, path: Path) -> None:
    """Train seed 0 with the preset crossq; write a row for every update.

    Args:
        environment: the task's id.
        steps: environment steps.
        path: the CSV file.
    """
    as_then = {"learning_starts": 1000, "temperature": 0.2, "average": 0.0}  # in the runs that broke down
    settings = change(of_algorithm("sac_isfm", "crossq"), as_then)
    training = Training(task(environment), settings, [0])
    learn, count = loop_gym.learn, 0

    def watched(config: Any, loop: Any, transitions: Any, *, update_policy: bool) -> tuple[Any, Any]:
        nonlocal count
        before = jax.tree.map(np.asarray, loop.agent.actor_optimiser[0])  # Adam's memory; the loop is donated
        loop, metrics = learn(config, loop, transitions, update_policy=update_policy)
        pairs = zip(*(jax.tree.leaves(memory.mu) for memory in (loop.agent.actor_optimiser[0], before)), strict=True)
        gradient = np.sqrt(sum(np.sum(np.square((new - 0.9 * old) / 0.1)) for new, old in pairs))  # after the limit
        remembered = np.sqrt(sum(leaf.sum() for leaf in jax.tree.leaves(before.nu)))
        told = [float(metrics[name][0]) for name in TOLD]
        unit = float(jnp.squeeze(loop.agent.critic.value_units.scale))
        writer.writerow([count, *(f"{number:.5g}" for number in (*told, gradient, remembered, unit))])
        count += 1
        return loop, metrics

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        loop_gym.learn = watched
        try:
            training.advance(steps)
        finally:
            loop_gym.learn = learn
            training.close()


if __name__ == "__main__":
    trace(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
