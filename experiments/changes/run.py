"""What single changes to SAC-ISFM are worth at the beginning of training: one change, one task, one seed a cell.

python -m experiments.changes.run
"""

import dataclasses
import functools
import sys
import time
from typing import Any

import numpy as np
from rich.markdown import Markdown

from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import NotFinite, Training

from .. import frame
from . import report
from .critics import Variant

HOPPER, CHEETAH = "Hopper-v5", "HalfCheetah-v5"
EVERY, EPISODES, SAVE_EVERY = 5000, 5, 1000
NARROW, WIDE = (-100.0, 500.0), (-200.0, 800.0)  # of Q, which is at most a hundred times the mean reward
LEARNED = "entropy", "temperature", "ess", "beta", "critic_error", "q"

CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "paper": {"target": "pair", "ess_floor": 0.0, "pathwise": 0.0},
    "pathwise 0.1": {"pathwise": 0.1},
    "pathwise 1": {"pathwise": 1.0},
    "HL-Gauss, units that follow": {"critic": Variant()},
    "HL-Gauss": {"critic": Variant(support=NARROW)},
    "HL-Gauss, steady": {"critic": Variant(support=NARROW, steady=True)},
    "C51": {"critic": Variant(projection="distribution", support=WIDE)},
    "batch norm": {"critic": Variant(atoms=1, norm="batch", rate=1e-3, momentum=0.5)},
    "batch norm, C51, target networks": {
        "critic": Variant(projection="distribution", support=WIDE, norm="batch", targets=True)
    },
    "batch norm, C51": {"critic": Variant(projection="distribution", support=WIDE, norm="batch")},
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training."""

    change: str
    task: str
    seed: int = 0
    steps: int = 20_000

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.change}, {self.task}, seed {self.seed}, {self.steps} steps"


PLAN = [
    Cell("paper", CHEETAH),
    Cell("HL-Gauss, units that follow", CHEETAH),
    Cell("batch norm, C51", CHEETAH),
    Cell("batch norm", CHEETAH, steps=5000),
    Cell("HL-Gauss", CHEETAH, steps=15_000),
    Cell("HL-Gauss", HOPPER),
    Cell("batch norm, C51", HOPPER, steps=15_000),
    Cell("pathwise 0.1", CHEETAH, steps=15_000),
    Cell("batch norm, C51, target networks", CHEETAH),
    Cell("batch norm, C51, target networks", HOPPER, steps=30_000),
    Cell("HL-Gauss, steady", CHEETAH, steps=15_000),
    Cell("HL-Gauss", CHEETAH, 1, 15_000),
    Cell("paper", HOPPER, steps=15_000),
    Cell("pathwise 0.1", HOPPER),
    Cell("pathwise 1", HOPPER),
    Cell("batch norm", HOPPER),
    Cell("C51", CHEETAH),
    Cell("C51", HOPPER),
]


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Train all cells of the plan, in its order."""
    rows, job.cells = [], len(PLAN)
    for cell in PLAN:
        rows += job.cell(cell.name, functools.partial(train, job, cell))
        job.rows("results.csv", rows)
        report.write(job.out, rows)
    return {"settings": {"episodes": EPISODES, "every": EVERY}}, [Markdown(report.table(rows))]


def train(job: frame.Job, cell: Cell) -> list[frame.Row]:
    """Train a cell, from its last checkpoint if there is one; return a row for every evaluation.

    A training that breaks down ends with a row without a return.
    """
    settings = change(of_algorithm("sac_isfm"), CHANGES[cell.change])
    training = Training(task(cell.task), settings, [cell.seed], cell.steps)
    label = dataclasses.asdict(cell) | {"settings": repr(CHANGES[cell.change])}
    state = job.found.pop("cell", None)
    begun, rows = time.perf_counter(), []
    if state is not None and state["name"] == cell.name:
        training.restore(state["numbers"], job.kept("training"))
        begun, rows = begun - state["seconds"], state["rows"]
    try:
        while training.step < cell.steps:
            learned = training.advance(SAVE_EVERY)[0]
            if training.step % EVERY == 0:
                returns = {
                    name: np.mean([row["return"] for row in training.evaluate(EPISODES, deterministic=best)])
                    for name, best in (("best of 16", True), ("drawn", False))
                }
                found = returns | {name: learned.get(name, np.nan) for name in LEARNED}
                seconds = round(time.perf_counter() - begun, 1)
                rows.append(label | {"step": training.step, "seconds": seconds} | plain(found))
            job.show(training.step / cell.steps)
            numbers, job.trees["training"] = training.state()
            job.found["cell"] = {"name": cell.name, "numbers": numbers, "rows": rows}
            job.found["cell"]["seconds"] = time.perf_counter() - begun
            job.keep()
    except NotFinite as problem:
        print(problem)
        nothing = dict.fromkeys(("best of 16", "drawn", *LEARNED), np.nan)
        rows.append(label | {"step": training.step, "seconds": round(time.perf_counter() - begun, 1)} | nothing)
    finally:
        training.close()
    job.trees.pop("training", None)
    job.found.pop("cell", None)
    return rows


def plain(numbers: frame.Row) -> frame.Row:
    """Return numbers with five digits."""
    return {name: float(f"{value:.5g}") for name, value in numbers.items()}


main = frame.command("changes", lambda _: run)

if __name__ == "__main__":
    sys.exit(main())
