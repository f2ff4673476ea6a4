"""The commands train, eval and watch: agents on Gymnasium tasks, with their records in a folder."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from .. import checks
from . import checkpoint, records
from .cli import EvalCommand, TrainCommand, WatchCommand
from .compare_report import draw_learning_curve
from .folder import cache_compilations
from .learner import change, load_agent, save_agent
from .perturb import Perturbation
from .progress import TrainingProgress
from .settings import ALGORITHMS, Settings, from_json, of_algorithm, to_json
from .tables import replace
from .tasks import task
from .training import NotFinite, Row, Training
from .video import record

CHECKPOINTS, STATE, NUMBERS = "checkpoints", "training", "training.json"
LOG_INTERVAL = 1000  # environment steps


def train(command: TrainCommand) -> int:
    """Train; return the exit code.

    Raises:
        ValueError: for bad input, before anything is written.
    """
    steps = checks.positive_int("--steps", command.steps)
    seeds = checks.seeds(command.seed, command.seeds)
    interval = checks.positive_int("--evaluate-every", command.evaluate_every)
    episodes = checks.positive_int("--evaluation-episodes", command.evaluation_episodes)
    found = task(command.env)
    settings = change(of_algorithm(command.algorithm), _changes(command.set))
    out = command.out or Path("out") / f"{found.name.replace('/', '_')}-{command.algorithm}"
    resumed, planned = command.resume and (out / CHECKPOINTS / NUMBERS).exists(), steps
    if resumed:
        config = records.read(out).config
        wanted = {"algorithm": command.algorithm, "env": found.name, "seeds": seeds}
        for name, value in wanted.items():
            if config[name] != value:
                given = f"{name} {value!r}, where the run in {out} has {config[name]!r}"
                raise checks.error("--resume", given, "the same run", "pass what it was started with, or another --out")
        settings, planned = from_json(config["settings"]), config["steps"]
    console = Console()
    cache_compilations()
    training = Training(found, settings, seeds, planned)
    if resumed:
        writer = _resume(training, out, steps)
    else:
        writer = records.create(
            out,
            algorithm=command.algorithm,
            env=found.name,
            seeds=training.seeds,
            steps=steps,
            settings=to_json(settings),
            wandb=command.wandb,
        )
    run = _Run(training, writer, out, steps, interval, episodes, console)
    try:
        with writer, TrainingProgress(f"{command.algorithm} on {found.name}", steps, start=training.step) as live:
            run.train(live)
    except NotFinite as problem:
        kept = f"; the last checkpoint is in {out / CHECKPOINTS}" if (out / CHECKPOINTS / NUMBERS).exists() else ""
        console.print(f"{problem}: training cannot go on{kept}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f"stopped; entroflow train {command.env} --resume goes on from the last checkpoint in {out}")
        return 130
    finally:
        training.close()
    draw_learning_curve(out)
    console.print(f"learning_curve.png, evaluations.csv, metrics.csv and agents are in {out}", soft_wrap=True)
    return 0


class _Run:
    """A training with its records and checkpoints."""

    def __init__(
        self,
        training: Training,
        writer: records.Writer,
        out: Path,
        steps: int,
        interval: int,
        episodes: int,
        console: Console,
    ):
        self.training, self.writer, self.out, self.console = training, writer, out, console
        self.steps, self.interval, self.episodes = steps, interval, episodes
        self.best: dict[int, float] = {}
        past = records.read(out).metrics["seconds"] if training.step else np.zeros(0)
        self.begun = time.perf_counter() - (float(past.max()) if past.size else 0.0)

    def train(self, live: TrainingProgress) -> None:
        """Train to the last step, with an evaluation and a checkpoint at every interval."""
        training = self.training
        if training.step == 0:
            self._evaluate(live)
        while training.step < self.steps:
            left = min(self.steps, (training.step // self.interval + 1) * self.interval) - training.step
            rows = self._timed(training.advance(min(left, LOG_INTERVAL)))
            self.writer.metrics(self._complete(rows))
            live.update(training.step, rows)
            if training.step >= self.steps or training.step % self.interval < training.settings.num_envs:
                self._evaluate(live)
                self._save()

    def _evaluate(self, live: TrainingProgress) -> None:
        """Evaluate all runs; keep the agents that are the best so far."""
        training = self.training
        rows = self._timed(training.evaluate(self.episodes))
        self.writer.evaluations(rows)
        live.evaluated(rows)
        for i, seed in enumerate(training.seeds):
            score = float(np.mean([row["return"] for row in rows if row["seed"] == seed]))
            if training.step and score >= self.best.get(seed, -np.inf):
                self.best[seed] = score
                self._save_agent(i, "best")

    def _save(self) -> None:
        """Write the state of the training, and the agents as they are."""
        tree, numbers = self.training.state()
        folder = self.out / CHECKPOINTS
        folder.mkdir(exist_ok=True)
        checkpoint.save(folder / STATE, tree)
        replace(folder / NUMBERS, json.dumps(numbers | {"best": self.best}) + "\n")
        for i in range(len(self.training.seeds)):
            self._save_agent(i, "last")

    def _save_agent(self, i: int, name: str) -> None:
        training = self.training
        agents = jax.tree.map(lambda leaf: leaf[i : i + 1], training.agents)
        folder = agent_folder(self.out, training.seeds[i], name)
        save_agent(folder, agents, training.task.name, training.settings, training.seeds[i], training.step)

    def _timed(self, rows: list[Row]) -> list[Row]:
        seconds = round(time.perf_counter() - self.begun, 2)
        return [{"seed": row["seed"], "step": row["step"], "seconds": seconds} | row for row in rows]

    def _complete(self, rows: list[Row]) -> list[Row]:
        """Give rows from before the first update the columns that later ones have."""
        return rows if "critic_error" in rows[0] else []


def agent_folder(out: Path, seed: int, name: str) -> Path:
    """Return where an agent of a training lies; name is "best" or "last"."""
    return out / CHECKPOINTS / name / f"seed={seed}"


def evaluate(command: EvalCommand) -> int:
    """Evaluate trained agents; return the exit code."""
    episodes = checks.positive_int("--episodes", command.episodes)
    change = Perturbation(command.action_noise, command.observation_noise, command.mass, command.friction)
    cache_compilations()
    changed = ", ".join(
        f"{name} {value:g}" for name, value in vars(change).items() if value != getattr(Perturbation, name)
    )
    table = Table(title=f"{episodes} episodes each" + (f", with {changed}" if changed else ""), title_justify="left")
    for name in ("agent", "mean return", "± s.e.", "min", "max", "length"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for folder in _agents(command.folder, command.checkpoint):
        agent = load_agent(folder)
        how = {"deterministic": not command.stochastic, "seed": command.seed}
        found = agent.evaluate(episodes, perturbation=change, **how)
        cells = [found.mean, found.standard_error, found.returns.min(), found.returns.max(), found.lengths.mean()]
        table.add_row(folder.name, *[f"{cell:.1f}" for cell in cells])
    Console().print(table)
    return 0


def watch(command: WatchCommand) -> int:
    """Film a trained agent; return the exit code."""
    cache_compilations()
    folder = _agents(command.folder, command.checkpoint)[0]
    agent = load_agent(folder)
    act = lambda obs: agent.predict(obs, deterministic=not command.stochastic)[0]  # noqa: E731
    episodes = checks.positive_int("--episodes", command.episodes)
    film = record(agent.task.name, act, command.out, episodes=episodes, seed=command.seed)
    returns = ", ".join(f"{value:.1f}" for value in film.returns)
    Console().print(f"{film.path}: {film.frames} frames, return {returns}", soft_wrap=True)
    return 0


def _agents(folder: Path, name: str) -> list[Path]:
    """Return the folders of a training's agents, or the folder of one agent itself."""
    checks.choice("--checkpoint", name, ("best", "last"))
    found = sorted((folder / CHECKPOINTS / name).glob("seed=*"))
    return found or [folder]


def _resume(training: Training, out: Path, steps: int) -> records.Writer:
    """Go on from the last checkpoint."""
    numbers = checks.json_object(out / CHECKPOINTS / NUMBERS)
    tree, _ = training.state()
    training.restore(checkpoint.restore(out / CHECKPOINTS / STATE, _with_pending(training, tree)), numbers)
    training.extend(steps)
    return records.resume(out, training.step, steps=steps)


def _with_pending(training: Training, tree: dict[str, Any]) -> dict[str, Any]:
    """Return the structure of a checkpoint: a transition of every environment awaits being stored."""
    count = training.settings.num_envs
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((leaf.shape[0], count, *leaf.shape[2:]), leaf.dtype), training.loop.replay
    )
    return tree | {"pending": shapes}


def _changes(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Read settings of the form name=value."""
    changes = {}
    known = _fields(Settings())
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign:
            raise checks.error("--set", repr(text), "name=value", "write for example --set candidates=32")
        checks.choice("--set", name, sorted(known))
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = {"None": None, "True": True, "False": False}.get(value, value)
    return changes


def _fields(settings: Settings) -> set[str]:
    """Return the names of all settings."""
    levels: list[Any] = [settings, settings.config, *(kind() for kind in ALGORITHMS.values())]
    return {field.name for level in levels for field in dataclasses.fields(level)} - {"config", "actor"}
