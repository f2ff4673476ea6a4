"""The command train: agents on a Gymnasium task, with their records and checkpoints in a folder.

What a folder holds is in docs/run-folder.md. A run that is stopped or killed, and resumed, gives the numbers of the run
that was not, bit for bit on the same machine.
"""

import json
import operator
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from .. import checks, memory
from ..agents import Broken, saved
from ..agents.load import BEST, CHECKPOINTS, LAST
from ..agents.settings import Settings, change, from_json, level_of, of_algorithm, to_json
from ..agents.tasks import Task, rebuilt, task
from ..agents.training import NotFinite, Row, Training
from ..options import TrainOptions
from ..stopping import Stop
from ..storage import checkpoint, legacy, records
from ..storage.folder import cache_compilations, lock
from ..storage.tables import read_table
from .compare import draw_learning_curve
from .progress import TrainingProgress

LOG_INTERVAL = 1000  # environment steps


def train(command: TrainOptions) -> int:
    """Train; return the exit code. Bad input is a `ValueError` before anything is written."""
    seeds = checks.seeds(command.seed, command.seeds)
    found = task(command.env)
    settings = change(of_algorithm(command.algorithm), _changes(command.set, of_algorithm(command.algorithm)))
    out = command.out or Path("out") / f"{found.name.replace('/', '_')}-{command.algorithm}"
    config = {"algorithm": command.algorithm, "env": found.name, "seeds": seeds, "steps": command.steps}
    config["settings"] = to_json(settings)
    if out.is_file():
        raise checks.error("--out", f"the file {str(out)!r}", "a folder", "pass another name")
    if not (out / records.CONFIG).exists():
        evaluation = {"every": command.evaluate_every, "episodes": command.evaluation_episodes}
        config |= {"evaluation": evaluation, "wandb": command.wandb}
        return _train(out, found, config, settings, command.steps, new=True)
    if command.resume != "auto":
        remedy = f"pass another one, or go on with: entroflow resume {out}"
        raise checks.error("--out", f"{str(out)!r}, which already holds a run", "a new folder", remedy)
    known = records.read_config(out)
    for name in ("algorithm", "env", "seeds"):
        if known[name] != config[name]:
            given = f"{name} {config[name]!r}, where the run in {out} has {known[name]!r}"
            raise checks.error("--resume", given, "the same run", "pass what it was started with, or another --out")
    if command.set and legacy.settings(known["settings"]) != config["settings"]:
        given = f"--set {' '.join(command.set)}, where the run in {out} has other settings"
        raise checks.error("--resume", given, "the same settings", "leave --set out, or pass another --out")
    return go_on(out, known, command.steps, found)


def go_on(out: Path, config: dict[str, Any], steps: int | None = None, found: Task | None = None) -> int:
    """Go on with the run in a folder; return the exit code."""
    settings = from_json(legacy.settings(config["settings"]))
    return _train(out, found or rebuilt(config["env"]), config, settings, steps or config["steps"], new=False)


def _train(out: Path, found: Task, config: dict[str, Any], settings: Settings, steps: int, *, new: bool) -> int:
    """Begin a run or go on with it; return the exit code."""
    plan = config.get("evaluation")
    if not isinstance(plan, dict):
        given, remedy = "no plan of evaluations", "begin anew in another folder"
        raise checks.error(str(out / records.CONFIG), given, "a run of this version", remedy)
    episodes, _ = (checks.positive_int(f"evaluation: {part}", plan.get(part)) for part in ("episodes", "every"))
    memory.check({"evaluation episodes": len(config["seeds"]) * episodes * memory.ENVIRONMENT})
    console = Console()
    cache_compilations()
    training = Training(found, settings, config["seeds"], max(steps, config["steps"]))
    with lock(out), Stop() as stop:
        try:
            run = _Run(training, out, config, steps, stop, console)
            writer = records.create(out, **config) if new else run.restore()
            title = f"{config['algorithm']} on {found.name}"
            with writer, TrainingProgress(title, steps, start=training.step, console=console) as live:
                finished = run.train(writer, live)
        except (Broken, NotFinite, OSError) as problem:
            end = f"cannot write to {out} ({problem})" if isinstance(problem, OSError) else f"{problem}"
            kept = list(checkpoint.folders(out / CHECKPOINTS))
            left = (
                f"the last checkpoint is that of step {kept[-1]} in {out / CHECKPOINTS}"
                if kept
                else "no checkpoint yet"
            )
            console.print(f"{end}: training cannot go on; {left}", style="red", markup=False, soft_wrap=True)
            return 1
        finally:
            training.close()
    told = f"stopped at step {training.step}; to go on: entroflow resume {out}"
    if finished:
        draw_learning_curve(out)
        told = f"learning_curve.png, evaluations.csv, metrics.csv and agents are in {out}"
    console.print(told, soft_wrap=True, markup=False)
    return 0 if finished else stop.exit_code


@dataclass
class _Run:
    """A training with its records and checkpoints."""

    training: Training
    out: Path
    config: dict[str, Any]
    steps: int
    stop: Stop
    console: Console
    best: dict[int, float] = field(default_factory=dict)  # by seed, the score of its best agent
    evaluated: int | None = None  # the step of the last evaluation
    begun: float = field(default_factory=time.perf_counter)
    told: bool = False

    def restore(self) -> records.Writer:
        """Bring everything to where the last checkpoint is, or to the beginning if the run never came to one."""
        training = self.training
        header, arrays, notes = checkpoint.latest(self.out / CHECKPOINTS, records.made_of(self.config))
        for note in notes:
            self._warn(note)
        if header is None:
            self.console.print("no checkpoint yet: training begins anew")
            return records.resume(self.out, -1, steps=self.steps)
        numbers = header["numbers"]
        with checkpoint.fitting(path := self.out / CHECKPOINTS / f"step={header['step']}" / checkpoint.HEADER):
            training.restore(numbers["training"], arrays)
            self.evaluated = None if numbers["evaluated"] is None else operator.index(numbers["evaluated"])
            self.best = {int(seed): float(best) for seed, best in numbers["best"].items()}
        if training.step != header["step"]:
            raise checkpoint.damaged(path, f"a training at step {training.step}")
        self._tell_obstacle("was not restored")
        evaluated = -1 if self.evaluated is None else self.evaluated
        writer = records.resume(self.out, training.step, evaluated=evaluated, steps=self.steps)
        past = read_table(self.out / "metrics.csv", records.METRICS)["seconds"]
        self.begun = time.perf_counter() - (float(past.max()) if past.size else 0.0)
        return writer

    def train(self, writer: records.Writer, live: TrainingProgress) -> bool:
        """Train with an evaluation and a checkpoint at every interval; return whether that came to its end."""
        training, interval = self.training, self.config["evaluation"]["every"]
        while True:
            step = training.step
            due = step >= self.steps or step % interval < training.settings.num_envs
            if due and self.evaluated != step:
                finished = self._evaluate(writer, live)
                self._save()
                if not finished:
                    return False
            if step >= self.steps:
                return True
            mark = min(self.steps, *((step // each + 1) * each for each in (interval, LOG_INTERVAL)))
            if rows := self._timed(training.advance(mark - step, self.stop)):
                # Rows from before the first update have none of the columns that later ones have.
                writer.metrics(rows if "critic_error" in rows[0] else [])
                live.update(training.step, rows)
            if self.stop():
                self._save()
                return False

    def _evaluate(self, writer: records.Writer, live: TrainingProgress) -> bool:
        """Evaluate all runs; keep the agents that are the best so far; return whether that came to its end."""
        training = self.training
        rows = self._timed(training.evaluate(self.config["evaluation"]["episodes"], stop=self.stop))
        if not rows:
            return False
        writer.evaluations(rows)
        live.evaluated(rows)
        for i, seed in enumerate(training.seeds):
            score = float(np.mean([row["return"] for row in rows if row["seed"] == seed]))
            if training.step and score >= self.best.get(seed, -np.inf):
                self.best[seed] = score
                self._save_agent(i, BEST)
        self.evaluated = training.step
        return True

    def _save(self) -> None:
        """Write the agents as they are, then the checkpoint, which counts."""
        begun = time.perf_counter()
        state, arrays = self.training.state()
        for i in range(len(self.training.seeds)):
            self._save_agent(i, LAST)
        numbers = {"training": state, "evaluated": self.evaluated, "best": self.best}
        step = self.training.step
        size = checkpoint.save(self.out / CHECKPOINTS, step, records.made_of(self.config), numbers, arrays)
        if step and not self.told:
            self.told = True
            seconds = time.perf_counter() - begun
            self.console.print(f"checkpoint at step {step}: {size / 1e6:.2g} MB in {seconds:.1g} s", highlight=False)
            self._tell_obstacle("cannot be saved")

    def _tell_obstacle(self, what: str) -> None:
        if self.training.obstacle is not None:
            self.told = True
            rest = "a resumed run begins new episodes, so that its numbers are not those of an uninterrupted one"
            self._warn(f"the state of {self.config['env']} {what} ({self.training.obstacle}): {rest}")

    def _warn(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False, soft_wrap=True)

    def _save_agent(self, i: int, where: Path) -> None:
        training, seed = self.training, self.training.seeds[i]
        agents = jax.tree.map(lambda leaf: np.asarray(leaf)[i : i + 1], training.agents)
        folder = self.out / where / f"seed={seed}"
        saved.write(folder, training.task, training.settings, seed, training.step, agents)

    def _timed(self, rows: list[Row]) -> list[Row]:
        seconds = round(time.perf_counter() - self.begun, 2)
        return [{"seed": row["seed"], "step": row["step"], "seconds": seconds} | row for row in rows]


def _changes(assignments: tuple[str, ...], settings: Settings) -> dict[str, Any]:
    """Read settings of the form name=value."""
    changes = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign:
            raise checks.error("--set", repr(text), "name=value", "write for example --set candidates=32")
        level_of(name, settings, "--set")
        try:
            changes[name] = json.loads(value)
        except (ValueError, RecursionError):  # text, or numbers of thousands of digits
            changes[name] = {"None": None, "True": True, "False": False}.get(value, value)
    return changes
