"""One trial of a study, where it runs: an ordinary run folder, begun or gone on with, and reported to Ray.

JAX and Ray are imported once they are needed: a worker sets the number of JAX's threads before.
"""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import filelock
import numpy as np
from rich.console import Console

from .. import checks
from ..storage import checkpoint, records
from ..storage.tables import read_table
from .study import Study, Trial, name_of, plainly

if TYPE_CHECKING:
    from ..agents.settings import Settings

PATIENCE = 60.0  # seconds for the process that worked on a trial before to be gone
SIZES = ".sizes.json"  # of the files of a run folder that travels
PROCESS = 1.0  # GiB of a worker with its programs, beside what a plan takes; see experiments/sweep


def settings_of(trial: Trial) -> "Settings":
    """Return the settings of a trial."""
    from ..agents.settings import PRESETS, change, of_algorithm
    from ..rl import ACTORS

    checks.choice("algorithms", trial.algorithm, [*ACTORS, *(name for name in PRESETS if name != "default")])
    preset = trial.algorithm in PRESETS
    base = of_algorithm("sac_isfm", trial.algorithm) if preset else of_algorithm(trial.algorithm)
    return change(base, trial.settings)


def check(study: Study) -> float:
    """Refuse what no trial of a study could be trained with; return the GiB of memory that every one of them has."""
    from .. import memory
    from ..agents.settings import change
    from ..agents.tasks import task

    tasks = {name: task(name) for name in dict.fromkeys(trial.task for trial in study.trials)}

    def needed(settings: "Settings") -> float:
        plan = SimpleNamespace(task=tasks[trial.task], settings=settings, seeds=trial.seeds)
        return sum(memory.of_training(plan, (), min(settings.buffer_size, trial.steps + settings.num_envs)).values())

    most = 0.0
    for trial in study.trials:
        settings = settings_of(trial)
        here = total = needed(settings)
        for name, given in study.ranges.items():
            ends = given if isinstance(given, list) else (given["from"], given["to"])
            total += max(needed(change(settings, {name: plainly(value)})) for value in ends) - here
        most = max(most, total / 2**30)
    return study.needs.memory or math.ceil(10 * (PROCESS + 2 * most)) / 10  # a checkpoint is a copy


def finished(trial: Trial, folder: Path) -> bool:
    """Whether a trial has come to its end."""
    steps = list(checkpoint.folders(folder / checkpoint.CHECKPOINTS))
    return bool(steps) and steps[-1] >= trial.steps and (folder / "learning_curve.png").exists()


def score(folder: Path, objective: str = "final") -> tuple[int, float, float]:
    """Return the step of the last evaluation, the objective there, and the seconds so far; zeros and NaN before."""
    table = read_table(folder / "evaluations.csv", records.EVALUATIONS)
    steps = np.unique(table["step"])
    if not steps.size:
        return 0, math.nan, 0.0
    means = [float(table["return"][table["step"] == step].mean()) for step in steps]
    return int(steps[-1]), means[-1] if objective == "final" else float(np.mean(means)), float(table["seconds"].max())


def run(trial: Trial, folder: Path, kept: Callable[[int], Any]) -> None:
    """Begin a trial in its folder, or go on with it, to its end; `kept` is told the step of every checkpoint."""
    from ..agents import learning
    from ..agents.compiled import training_of
    from ..agents.tasks import task
    from ..stopping import Stop
    from ..storage.folder import cache_compilations

    folder.mkdir(parents=True, exist_ok=True)
    # A process that lost its machine's manager takes a moment to notice.
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(folder / ".lock", timeout=PATIENCE):
        pass
    found, settings = task(trial.task), settings_of(trial)
    config: dict[str, Any] = learning.describe(found, settings, trial.seeds, trial.steps, trial.evaluation)
    config["spec"] = trial.task
    known = records.begun(folder, config, True, ("folder", "trial", trial.name), "")
    cache_compilations()
    training = training_of(found, settings, trial.seeds, max(trial.steps, (known or config)["steps"]))
    try:
        how = known or config, trial.steps, Stop(), Console(quiet=True)
        learning.Run(training, folder, *how, kept=kept).record(new=known is None)
    finally:
        training.close()


def of_config(config: dict[str, Any]) -> Trial:
    """Return the trial that a worker is handed, of a search with the settings to try."""
    trial = Trial(**config["trial"])
    if "search" not in config:
        return trial
    tried = {name: plainly(value) for name, value in config["search"].items()}
    trial = trial._replace(settings=trial.settings | tried)
    return trial._replace(name=name_of(trial))


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the sizes of all files in a folder but `SIZES`."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SIZES]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def opened(storage: str) -> tuple[Any, str]:
    """Return the file system of a place, and the path there."""
    from ray import tune

    place = tune.Checkpoint(storage)
    return place.filesystem, place.path.rstrip("/")


def fetch(system: Any, places: list[str], folder: Path) -> None:
    """Bring the first of several checkpoints that is whole from a storage: a copy may have been cut short."""
    from ray import tune

    for place in places:
        with contextlib.suppress(OSError, ValueError, TypeError):
            tune.Checkpoint(place, system).to_directory(folder)
            known, there = checks.json_object(folder / SIZES), sizes_of(folder)
            if all(there.get(name, -1) >= size for name, size in known.items()):  # TensorBoard's may have grown
                return
        shutil.rmtree(folder, ignore_errors=True)


def work(config: dict[str, Any]) -> None:
    """Run a trial in a worker of Ray, and report every evaluation; what is its own fault is reported, not raised."""
    os.environ.setdefault("NPROC", str(max(1, int(config["cores"]))))  # threads of JAX on a processor
    from ray import tune

    trial, scratch, system, places = of_config(config), None, None, list[str]()
    if config["storage"] is None:
        folder = Path(config["out"], trial.name)
    else:
        scratch = tempfile.TemporaryDirectory(prefix="entroflow-")
        folder = Path(scratch.name, trial.name)
        (system, _), places = opened(config["storage"]), dict(config["before"]).get(trial.name, [])
        if own := tune.get_checkpoint():
            own.to_directory(folder)
        else:
            fetch(system, places, folder)

    def report(step: int, *, failed: str = "") -> None:
        # Minus infinity, which a search takes, as it does not take NaN; what failed may have no records to read.
        step, value, seconds = (step, -math.inf, 0.0) if failed else score(folder, config["objective"])
        found = {"step": step, "score": value, "seconds": seconds, "failed": failed}
        travels = scratch is not None and (folder / records.CONFIG).exists()
        if travels:
            (folder / SIZES).write_text(json.dumps(sizes_of(folder)))
        tune.report(found, checkpoint=tune.Checkpoint.from_directory(folder) if travels else None)
        while places and travels and not failed:  # there is a newer one now
            with contextlib.suppress(OSError):
                cast(Any, system).delete_dir(places.pop())

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What a search suggests twice is one folder, in which the second waits for the first.
        with filelock.FileLock(folder / ".turn") if "search" in config else contextlib.nullcontext():
            if not finished(trial, folder):
                run(trial, folder, lambda step: report(step) if step < trial.steps else None)
            report(trial.steps)
    except Exception as problem:
        kind = "" if isinstance(problem, ValueError | FloatingPointError) else f"{type(problem).__name__}: "
        report(0, failed=f"{kind}{problem}")
    finally:
        if scratch is not None:
            scratch.cleanup()
