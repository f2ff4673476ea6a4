"""Time to a return: ours, Stable-Baselines3's and SBX's soft actor-critic trained one after the other on one core.

A training that was cut short is begun again: the peers cannot go on with one.
"""

import csv
import functools
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from entroflow import checks
from entroflow.agents.tasks import task as find
from entroflow.plotting import STYLE, legend_below, looks, new_figure, save
from entroflow.storage.folder import lock
from entroflow.storage.tables import replace
from experiments import frame

from .learner import FIELDS

HERE = Path(__file__).parent
FILE = "learning.csv"
EVERY, EPISODES = 5000, 5
AVERAGED = 3  # evaluations
NAMES = {
    "sac_isfm:crossq": "SAC-ISFM, critic of CrossQ",
    "gaussian_sac:crossq": "Gaussian SAC, critic of CrossQ",
    "sac_isfm": "SAC-ISFM",
    "gaussian_sac": "Gaussian SAC",
    "sbx": "SBX SAC",
    "sb3": "SB3 SAC",
}
PEERS = ("sbx", "sb3")
Row = dict[str, str]


@dataclass(frozen=True)
class Options:
    """What can be chosen."""

    algorithm: tuple[str, ...] = ("sac_isfm:crossq", "gaussian_sac:crossq", "sbx", "sb3")
    """Of sac_isfm and gaussian_sac (with the preset after a colon), sbx and sb3."""
    task: tuple[str, ...] = ("HalfCheetah-v5", "Hopper-v5")
    """Gymnasium tasks."""
    seed: tuple[int, ...] = (0,)
    """Seeds."""
    steps: int = 100_000
    """Steps of every training."""
    peers: Path | None = None
    """The Python of an environment with Stable-Baselines3 and SBX (`make peers`)."""
    out: Path = Path("out/learning")
    """Output folder. What it holds is not trained again."""


def run(options: Options) -> int:
    """Train what the folder lacks; write the table and the figures of all that it has.

    Raises:
        ValueError: for bad input, before anything is trained.
    """
    for name in options.algorithm:
        checks.choice("--algorithm", name, NAMES)
        if name in PEERS and options.peers is None:
            raise checks.error("--peers", "none", f"the Python that {NAMES[name]} is in", "make one with: make peers")
    tasks, steps = [find(task).name for task in options.task], checks.positive_int("--steps", options.steps)
    path = options.out / FILE
    with lock(options.out):
        for seed, name, task in itertools.product(options.seed, options.algorithm, tasks):
            rows = read(path)
            others = [row for row in rows if (row["algorithm"], row["task"], row["seed"]) != (name, task, str(seed))]
            if len(rows) - len(others) < steps // EVERY:
                replace(path, written(others))
                train(options.peers if name in PEERS else Path(sys.executable), name, task, seed, steps, path)
        report(options.out)
    print(f"{FILE}, learning.md and figures are in {options.out}")
    return 0


def train(python: Path | None, algorithm: str, task: str, seed: int, steps: int, path: Path) -> None:
    """Train in a process of one thread, which adds its rows to the file as they come."""
    settled = {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    numbers = [str(number) for number in (seed, steps, EVERY, EPISODES)]
    learner = [str(python), str(HERE / "learner.py"), algorithm, task, *numbers, str(path.absolute())]
    subprocess.run(learner, env=os.environ | settled, check=True)


def read(path: Path) -> list[Row]:
    """Return the rows of a file, none if there is no file."""
    return list(frame.read_rows(path)) if path.exists() else []


def written(rows: Sequence[Row]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list[str](FIELDS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def report(out: Path) -> None:
    """Write the table and a figure for every task, of all rows in a folder."""
    rows = read(out / FILE)
    replace(out / "learning.md", table(rows))
    for task in dict.fromkeys(row["task"] for row in rows):
        with mpl.rc_context(STYLE):
            save(out, f"learning-{task}", figure([row for row in rows if row["task"] == task]))


def curves(rows: Sequence[Row]) -> Iterator[tuple[Any, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Return steps, minutes of the processor and returns of every training, by task, algorithm and seed."""
    key = itemgetter("task", "algorithm", "seed")
    for name, of in itertools.groupby(sorted(rows, key=key), key):  # a stable sort: steps stay in order
        numbers = [[float(row[column]) for column in ("step", "seconds", "return")] for row in of]
        steps, seconds, returns = np.array(numbers).T
        yield name, (steps, seconds / 60, returns)


def running(returns: np.ndarray) -> np.ndarray:
    """Return the mean of every evaluation and up to two before it."""
    return np.array([np.mean(returns[max(0, i + 1 - AVERAGED) : i + 1]) for i in range(len(returns))])


def table(rows: Sequence[Row]) -> str:
    """Return in Markdown when every training first has, on average over three evaluations, a peer's last return."""
    found, lines = dict(curves(rows)), []
    aims = {
        (task, peer): np.mean(
            [running(returns)[-1] for (at, name, _), (*_, returns) in found.items() if (at, name) == (task, peer)]
        )
        for task, peer, _ in found
        if peer in PEERS
    }
    for (task, name, seed), (steps, minutes, returns) in found.items():
        line = [task, NAMES[name], seed, f"{minutes[-1]:.0f}", f"{int(steps[-1]):,}", f"{running(returns)[-1]:.0f}"]
        for peer in PEERS:
            first = np.flatnonzero(running(returns) >= aims.get((task, peer), np.inf))
            line.append(f"{minutes[first[0]]:.1f} ({int(steps[first[0]]):,})" if len(first) else "–")
        lines.append(line)
    aimed = [f"minutes (steps) to {NAMES[peer]}'s" for peer in PEERS]
    return frame.markdown(["task", "algorithm", "seed", "minutes", "steps", "return", *aimed], lines)


def figure(rows: Sequence[Row]) -> Figure:
    """Draw the returns on one task against minutes of the processor, a line for every training."""
    drawn = new_figure(5.0, 3.4, "Return against minutes of one core")
    ax = drawn.subplots()
    styles = dict(zip(NAMES, looks(len(NAMES)), strict=True))
    told = set()
    for (_, name, _), (_, minutes, returns) in curves(rows):
        ax.plot(minutes, returns, label=None if name in told else NAMES[name], **styles[name])
        told.add(name)
    ax.set(title=rows[0]["task"], xlabel="minutes of the processor, training alone", ylabel="return")
    legend_below(drawn, "", 2)
    return drawn


main = functools.partial(frame.read, "benchmarks.learning", run, Options)

if __name__ == "__main__":
    sys.exit(main())
