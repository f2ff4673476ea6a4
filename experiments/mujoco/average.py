"""What acts, one actor or the average of the last ones? A finished run learns on, and both are evaluated as it does.

python -m experiments.mujoco.average OUT.csv STEPS EVERY EPISODES WINDOWS FOLDER...

WINDOWS are the updates over which averages reach back, as in 1,500,2000,5000; one is the actor itself. They begin at
what acts after the run, and so reach back over no more updates than REACH and those made since.
"""

import csv
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp

from entroflow import optimise
from entroflow.agents.compiled import training_of
from entroflow.agents.settings import from_json
from entroflow.agents.tasks import task
from entroflow.storage import checkpoint, records
from entroflow.storage.folder import cache_compilations

from .. import frame

REACH = 5000  # updates over which the preset's own average reaches back in the end
BETWEEN = 20  # steps between two actors that are averaged
FIRST_EPISODE = 5000  # resets that no evaluation during training has seen
FIELDS = "task", "seed", "step", "window", "return"


def measure(folder: Path, steps: int, every: int, episodes: int, windows: Sequence[int]) -> Iterator[frame.Row]:
    """Yield the mean returns of every average, the best by Q of 16 draws, as the run of a folder learns on."""
    config = records.read_config(folder)
    parts = task(config["env"]), from_json(config["settings"]), config["seeds"], config["steps"] + steps
    training, judge = training_of(*parts), training_of(*parts)
    header, arrays, _ = checkpoint.latest(folder / checkpoint.CHECKPOINTS, records.made_of(config))
    assert header is not None
    training.restore(header["numbers"]["training"], arrays)
    copy = functools.partial(jax.tree.map, jnp.copy)  # the training's own are overwritten
    averages = {window: copy(training.agents.actor_average) for window in windows}
    for step in range(BETWEEN, steps + 1, BETWEEN):
        training.advance(BETWEEN)
        actor = copy(training.agents.actor)
        rates = {window: jnp.float32(1 - (1 - 1 / min(window, REACH + step)) ** BETWEEN) for window in windows}
        averages = {window: optimise.follow(averages[window], actor, rates[window]) for window in windows}
        for window in windows if step % every == 0 else ():
            judge.agents = eqx.tree_at(lambda agents: agents.actor_average, training.agents, averages[window])
            found = judge.evaluate(episodes, seed=FIRST_EPISODE + step)
            for seed in config["seeds"]:
                mean = sum(row["return"] for row in found if row["seed"] == seed) / episodes
                told = {"task": config["env"], "seed": seed, "step": config["steps"] + step}
                yield told | {"window": window, "return": round(mean)}
    for each in (training, judge):
        each.close()


def table(rows: Sequence[frame.Row]) -> str:
    """Return in Markdown the mean return of every average [lowest, highest evaluation], and that it is of one run."""
    lines, windows = [], list(dict.fromkeys(int(row["window"]) for row in rows))
    for name, seed in dict.fromkeys((row["task"], row["seed"]) for row in rows):
        told = [row for row in rows if (row["task"], row["seed"]) == (name, seed)]
        cells = [
            frame.told((float(row["return"]) for row in told if int(row["window"]) == window), "{:.0f}")
            for window in windows
        ]
        lines.append([name, str(seed), str(len(told) // len(windows)), *cells])
    names = ["the actor", *(f"its average over {window:,} updates" for window in windows[1:])]
    return frame.markdown(["task", "seed", "evaluations", *names], lines)


if __name__ == "__main__":
    cache_compilations()
    out, steps, every, episodes, chosen, *folders = sys.argv[1:]
    plan = int(steps), int(every), int(episodes), [int(window) for window in chosen.split(",")]
    with Path(out).open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for folder in folders:
            for row in measure(Path(folder), *plan):
                writer.writerow(row)
                file.flush()
