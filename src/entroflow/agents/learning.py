"""Training with all that a user sees of it: a bar, and records, checkpoints and a learning curve in a folder.

From Python (`SAC.learn`) as from the command line (`entroflow train`). What a folder holds is in docs/run-folder.md. A
run that is stopped or killed, and resumed, gives the numbers of the run that was not, bit for bit on the same machine.
"""

import itertools
import operator
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from .. import checks
from ..stopping import Stop
from ..storage import checkpoint, records
from ..storage.checkpoint import CHECKPOINTS
from ..storage.folder import lock
from ..storage.places import BEST, LAST
from ..storage.tables import read_table
from . import saved
from .progress import TrainingProgress
from .settings import Settings, to_json
from .tasks import Task
from .training import Row, Training

LOG_INTERVAL = 1000  # environment steps
Tell = Callable[[Row], Any]  # is given the first run's row at every interval; False ends training
Kept = Callable[[int], Any]  # is given the step of every checkpoint after an evaluation, once both are on disk


def learn(
    training: Training, plan: Mapping[str, int], console: Console, tell: Tell, log: str | Path | None, *, resume: bool
) -> None:
    """Make steps, show them, and record them in a folder if one is given; see `SAC.learn`.

    Ctrl-C and SIGTERM wait for the step that is being made, and for a checkpoint if there is a folder, before they do
    what they would have done: a compiled update owns the agent's memory until it has returned.
    """
    steps, every, *evaluation = (checks.positive_int(*part) for part in plan.items())
    planned, before, target = training.config.updates, updates(training), training.step + steps
    if planned is not None and before >= planned:
        given, remedy = f"{steps} after {before:.0f} updates", "train a new agent"
        raise checks.error("total_timesteps", given, f"a training of {planned} updates, as planned", remedy)
    if log is not None:
        folder, plans = Path(log), {"every": evaluation[0], "episodes": evaluation[1]}
        config = describe(training.task, training.settings, training.seeds, target, plans)
        known = records.begun(folder, config, resume, ("log", "resume", "settings"), "resume=True")
        with Stop() as stop:
            Run(training, folder, known or config, target, stop, console, every, tell).record(new=known is None)
    else:
        with Stop() as stop, display(training, target, console) as live:
            halt = lambda: live.tick(training.step) or stop()  # noqa: E731
            while training.step < target and (rows := training.advance(min(every, target - training.step), halt)):
                live.update(training.step, rows)
                if tell(rows[0]) is False:
                    break
    if stop.signal:
        signal.raise_signal(stop.signal)
    if log is None and (told := nothing_learned(training, before)):
        warnings.warn(told, stacklevel=3)


def numbered(folder: Path, name: str) -> Path:
    """Return a new folder in a folder, as Stable-Baselines3 counts them: NAME_1, NAME_2, …; it is not made.

    A `ValueError` says that nothing is installed that writes TensorBoard's files.
    """
    if find_spec("tensorboardX") is None:
        remedy = f"{checks.install('tensorboard')}, or go without: learn(…, log=FOLDER)"
        raise checks.error(
            "tensorboard_log", f"{str(folder)!r} without the package tensorboardX", "the package", remedy
        )
    return next(path for i in itertools.count(1) if not (path := folder / f"{name}_{i}").exists())


def describe(
    task: Task, settings: Settings, seeds: list[int], steps: int, evaluation: Mapping[str, int], *, wandb: bool = False
) -> dict[str, Any]:
    """Return the configuration of a new run, see `entroflow.storage.records`."""
    config = {"algorithm": settings.algorithm, "env": task.name, "spec": task.spec, "seeds": seeds, "steps": steps}
    return config | {"settings": to_json(settings), "evaluation": dict(evaluation), "wandb": wandb}


def display(training: Training, steps: int, console: Console) -> TrainingProgress:
    """Return what shows a training on its way to a number of steps in all."""
    start, settings = training.step, training.settings
    # The second step after learning begins is the first that does not wait for a compiler.
    begins = max(start, settings.learning_starts) + 2 * settings.num_envs
    title = f"{settings.algorithm} on {training.task.name}"
    return TrainingProgress(title, steps, start=start, begins=begins, console=console)


def updates(training: Training) -> float:
    """Return how many updates were made."""
    return float(training.agents.step[0])


def nothing_learned(training: Training, before: float) -> str | None:
    """Return a warning if there is no update more than before."""
    if updates(training) > before:
        return None
    first = training.settings.learning_starts
    return f"no update was made: learning begins after {first:,} steps (learning_starts); {training.step:,} were made"


@dataclass
class Run:
    """A training with its records and checkpoints.

    Attributes:
        config: the run's configuration, see `entroflow.storage.records`.
        steps: steps that every run is to have made in the end.
        stop: asked before every step whether to leave it at that.
        every: environment steps between rows.
        best: by seed, the score of its best agent.
        evaluated: the step of the last evaluation.
        told: whether the first checkpoint was told of.
    """

    training: Training
    out: Path
    config: dict[str, Any]
    steps: int
    stop: Stop
    console: Console
    every: int = field(default_factory=lambda: LOG_INTERVAL)
    tell: Tell = bool
    kept: Kept = bool
    best: dict[int, float] = field(default_factory=dict)
    evaluated: int | None = None
    begun: float = field(default_factory=time.perf_counter)
    told: bool = False

    def record(self, *, new: bool) -> bool:
        """Begin the run in its folder, or go on with it; return whether it came to its end.

        `NotFinite`, `Broken` or an `OSError` says that training cannot go on, a `ValueError` that another process works
        there or the checkpoints do not fit.
        """
        with lock(self.out):
            for kind in ("png", "pdf"):  # of a run that is made longer: a study knows by it what came to its end
                (self.out / f"learning_curve.{kind}").unlink(missing_ok=True)
            writer = records.create(self.out, **self.config) if new else self.restore()
            with writer, display(self.training, self.steps, self.console) as live:
                finished = self.train(writer, live)
        if finished:
            from ..storage.curves import draw_learning_curve  # brings Matplotlib

            draw_learning_curve(self.out)
        return finished

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
        writer = records.resume(self.out, training.step, evaluated=evaluated, steps=max(self.steps, training.step))
        past = read_table(self.out / "metrics.csv", records.METRICS)["seconds"]
        self.begun = time.perf_counter() - (float(past.max()) if past.size else 0.0)
        return writer

    def train(self, writer: records.Writer, live: TrainingProgress) -> bool:
        """Train with an evaluation and a checkpoint at every interval; return whether that came to its end."""
        training, interval = self.training, self.config["evaluation"]["every"]
        before, start, stop = updates(training), training.step, lambda: live.tick(training.step) or self.stop()
        due = lambda step: step >= self.steps or step % interval < training.settings.num_envs  # noqa: E731
        while True:
            step = training.step
            if due(step) and self.evaluated != step:
                finished = self._evaluate(writer, live)
                self._save()
                if not finished:
                    return False
                self.kept(step)
            if step >= self.steps:
                done = f"nothing to do: all of the run's {step:,} steps are made; ask for more of them"
                if told := nothing_learned(training, before) if step > start else done:
                    self._warn(told)
                return True
            mark = min(self.steps, *((step // each + 1) * each for each in (interval, self.every)))
            if rows := self._timed(training.advance(mark - step, stop)):
                # Rows from before the first update have none of the columns that later ones have.
                writer.metrics(rows if updates(training) else [])
                live.update(training.step, rows, evaluated=due(training.step))
                if self.tell(rows[0]) is False:
                    self.steps = training.step
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
        if self.console.quiet:
            return warnings.warn(text, stacklevel=2)
        self.console.print(text, style="yellow", markup=False, soft_wrap=True)

    def _save_agent(self, i: int, where: Path) -> None:
        training, seed = self.training, self.training.seeds[i]
        agents = jax.tree.map(lambda leaf: np.asarray(leaf)[i : i + 1], training.agents)
        folder = self.out / where / f"seed={seed}"
        saved.write(folder, training.task, training.settings, seed, training.step, agents)

    def _timed(self, rows: list[Row]) -> list[Row]:
        seconds = round(time.perf_counter() - self.begun, 2)
        return [{"seed": row["seed"], "step": row["step"], "seconds": seconds} | row for row in rows]
