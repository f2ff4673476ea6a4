"""The commands train and resume: agents on Gymnasium tasks, with their records and checkpoints in a folder.

What a folder holds is in docs/run-folder.md. A run that is stopped or killed, and resumed, gives the numbers of the run
that was not, bit for bit on the same machine.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from .. import checks
from ..agents import saved
from ..agents.load import BEST, CHECKPOINTS, LAST
from ..agents.settings import Settings, change, from_json, level_of, of_algorithm, to_json
from ..agents.tasks import Task, rebuilt, task
from ..agents.training import NotFinite, Row, Training
from ..options import ResumeOptions, TrainOptions
from ..stopping import Stop
from ..storage import checkpoint, legacy, records
from ..storage.folder import cache_compilations, lock
from .compare import draw_learning_curve
from .progress import TrainingProgress

LOG_INTERVAL = 1000  # environment steps
MADE_OF = ("algorithm", "env", "seeds", "settings")  # what a run is; its checkpoints say the same


def train(command: TrainOptions) -> int:
    """Train; return the exit code. Bad input is a `ValueError` before anything is written."""
    steps = checks.positive_int("--steps", command.steps)
    every = checks.positive_int("--evaluate-every", command.evaluate_every)
    episodes = checks.positive_int("--evaluation-episodes", command.evaluation_episodes)
    seeds = checks.seeds(command.seed, command.seeds)
    found = task(command.env)
    settings = change(of_algorithm(command.algorithm), _changes(command.set, of_algorithm(command.algorithm)))
    out = command.out or Path("out") / f"{found.name.replace('/', '_')}-{command.algorithm}"
    config = {"algorithm": command.algorithm, "env": found.name, "seeds": seeds, "steps": steps}
    config["settings"] = to_json(settings)
    if not (command.resume == "auto" and (out / records.CONFIG).exists()):
        config |= {"evaluation": {"every": every, "episodes": episodes}, "wandb": command.wandb}
        return _train(out, found, config, settings, steps, new=True)
    known = records.read_config(out)
    for name in MADE_OF[:3]:
        if known[name] != config[name]:
            given = f"{name} {config[name]!r}, where the run in {out} has {known[name]!r}"
            raise checks.error("--resume", given, "the same run", "pass what it was started with, or another --out")
    if command.set and legacy.settings(known["settings"]) != config["settings"]:
        given = f"--set {' '.join(command.set)}, where the run in {out} has other settings"
        raise checks.error("--resume", given, "the same settings", "leave --set out, or pass another --out")
    return _train(out, found, known, _settings(known), steps, new=False)


def resume(command: ResumeOptions) -> int:
    """Go on with the run in a folder; return the exit code."""
    config = records.read_config(command.folder)
    steps = config["steps"] if command.steps is None else checks.positive_int("--steps", command.steps)
    return _train(command.folder, rebuilt(config["env"]), config, _settings(config), steps, new=False)


def _settings(config: dict[str, Any]) -> Settings:
    return from_json(legacy.settings(config["settings"]))


def _train(out: Path, found: Task, config: dict[str, Any], settings: Settings, steps: int, *, new: bool) -> int:
    """Begin a run or go on with it; return the exit code."""
    if not config.get("evaluation"):
        given = f"{str(out / records.CONFIG)!r}, which does not say when to evaluate"
        raise checks.error("--resume", given, "a run of this version", "begin anew in another folder")
    console = Console()
    cache_compilations()
    training = Training(found, settings, config["seeds"], max(steps, config["steps"]))
    with lock(out), Stop() as stop:
        try:
            run = _Run(training, out, config, steps, stop, console)
            writer = run.begin() if new else run.restore()
            title = f"{config['algorithm']} on {found.name}"
            with writer, TrainingProgress(title, steps, start=training.step, console=console) as live:
                finished = run.train(writer, live)
        except NotFinite as problem:
            return _failed(console, out, f"{problem}: training cannot go on")
        except OSError as problem:
            return _failed(console, out, f"cannot write to {out} ({problem}): training stops")
        finally:
            training.close()
    if not finished:
        told = f"stopped at step {training.step}; to go on: entroflow resume {out}"
        console.print(told, soft_wrap=True, markup=False)
        return stop.exit_code
    draw_learning_curve(out)
    console.print(f"learning_curve.png, evaluations.csv, metrics.csv and agents are in {out}", soft_wrap=True)
    return 0


def _failed(console: Console, out: Path, what: str) -> int:
    """Say why a run ended, and what is left of it; return the exit code."""
    steps = list(checkpoint.folders(out / CHECKPOINTS))
    kept = f"the last checkpoint is that of step {steps[-1]} in {out / CHECKPOINTS}" if steps else "no checkpoint yet"
    console.print(f"{what}; {kept}", style="red", markup=False, soft_wrap=True)
    return 1


class _Run:
    """A training with its records and checkpoints."""

    def __init__(
        self, training: Training, out: Path, config: dict[str, Any], steps: int, stop: Stop, console: Console
    ) -> None:
        self.training, self.out, self.config, self.steps = training, out, config, steps
        self.stop, self.console = stop, console
        self.best: dict[int, float] = {}
        self.evaluated: int | None = None  # the step of the last evaluation
        self.begun = time.perf_counter()
        self.told = False

    def begin(self) -> records.Writer:
        """Open the records of a new run."""
        return records.create(self.out, **self.config)

    def restore(self) -> records.Writer:
        """Bring everything to where the last checkpoint is, or to the beginning if the run never came to one."""
        training = self.training
        header, arrays, problems = checkpoint.latest(self.out / CHECKPOINTS, self._made_of())
        for problem in problems:
            self._warn(f"{problem} Going on from an older checkpoint.")
        if header is None:
            self.console.print("no checkpoint yet: training begins anew")
            return records.resume(self.out, -1, steps=self.steps)
        numbers = header["numbers"]
        training.restore(numbers["training"], arrays)
        self._tell_obstacle("was not restored")
        self.evaluated, self.best = numbers["evaluated"], {int(seed): best for seed, best in numbers["best"].items()}
        evaluated = -1 if self.evaluated is None else self.evaluated
        writer = records.resume(self.out, training.step, evaluated=evaluated, steps=self.steps)
        past = records.read(self.out).metrics["seconds"]
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
        root, step = self.out / CHECKPOINTS, self.training.step
        size = checkpoint.save(root, step, self._made_of(), numbers, arrays)
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
        training = self.training
        agents = jax.tree.map(lambda leaf: np.asarray(leaf)[i : i + 1], training.agents)
        folder = self.out / where / f"seed={training.seeds[i]}"
        header = saved.Header.of(training.task, training.settings, training.seeds[i], training.step)
        saved.write(folder, header, agents)

    def _made_of(self) -> dict[str, Any]:
        return {name: self.config[name] for name in MADE_OF}

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
        except json.JSONDecodeError:
            changes[name] = {"None": None, "True": True, "False": False}.get(value, value)
    return changes
