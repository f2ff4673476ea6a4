"""Ray: joined or started, its tuners, and what is heard of them while they run.

Placement, retries, schedules, suggestions and the transport of results are Ray's own (`ray.tune`).
"""

import contextlib
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import checks
from . import trial as one
from .display import Display
from .study import Needs, Study, Trial

# Before Ray is imported: no telemetry, no output of its own, and Ctrl-C is ours.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # everything: what raylets say at their end
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from pyarrow import fs  # noqa: E402
from ray import tune  # noqa: E402

_displays: list[Display] = []  # Ray pickles its callbacks: what they tell is here


@contextlib.contextmanager
def joined(address: str, cores: int | None, needs: Needs, memory: int) -> Iterator[str]:
    """Join a cluster, or start Ray in this process on so many cores; yield the address of its dashboard."""
    started = {} if cores is None else {"num_cpus": cores, "include_dashboard": True}
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            context = ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **started)
        except Exception as problem:  # Ray has no class of its own for a start that takes too long
            given = f"{address!r} ({' '.join(str(problem).split())[:200]})"
            remedy = "see whether it runs: ray status" if cores is None else "try again with less at work here"
            raise checks.error("--address", given, "a cluster that answers", remedy) from None
        try:
            check_machines(needs, memory, [node["Resources"] for node in ray.nodes() if node["Alive"]])
            yield f"http://{context.dashboard_url}" if context.dashboard_url else "none"
        finally:
            ray.shutdown()


def check_machines(needs: Needs, memory: int, machines: list[dict[str, float]]) -> None:
    """Refuse a trial that no machine, of what Ray calls its resources, has room for."""
    wanted = {"CPU": ("cores", needs.cores), "GPU": ("gpus", needs.gpus), "memory": ("memory", memory)}
    for resource, (name, value) in wanted.items():
        most = max((machine.get(resource, 0.0) for machine in machines), default=0.0)
        if value > most:
            unit, given, there = ("", value, most) if name != "memory" else (" GiB", value / 2**30, most / 2**30)
            given, expected = f"{given:.3g}{unit} for one trial", f"at most the {there:.3g}{unit} of one machine"
            raise checks.error(f"needs: {name}", given, expected, "ask for less, or add a larger machine")


class Watch(tune.Callback):
    """Tells the display what Ray does, and brings home what has no shared disk."""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Show the trials."""
        _displays[-1].show([(each.status, each.config, each.last_result or {}) for each in trials])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Bring a trial's folder home; one that was stopped takes not the place of the same one at its end."""
        if trial.checkpoint and trial.config["storage"] and not trial.last_result.get("failed"):
            found = one.of_config(trial.config)
            if not one.finished(found, folder := Path(trial.config["out"], found.name)):
                trial.checkpoint.to_directory(folder)
                (folder / one.SIZES).unlink(missing_ok=True)


def conduct(study: Study, out: Path, memory: int, display: Display, *, resume: bool) -> list[Trial]:
    """Run all trials that are not finished; return those of a search, which nobody knew before, or of the study."""
    tried: dict[str, Trial] = {}
    _displays.append(display)
    try:
        for tuner in tuners(study, out, memory, resume=resume):
            for result in tuner.fit():
                trial = one.of_config(result.config or {})
                tried[trial.name] = trial
                if result.error is not None:  # a process or machine that died too often
                    display.fail(trial.name, f"its process died: {str(result.error).strip().splitlines()[-1]}")
    finally:
        _displays.pop()
    return list(tried.values()) if study.search else study.trials


def tuners(study: Study, out: Path, memory: int, *, resume: bool) -> Iterator[tune.Tuner]:
    """Yield what goes on with an earlier process's search, whose state is Ray's to know, or what runs the rest."""
    system, root = one.opened(study.storage or str(out))
    path, where = f"{root}/ray-0", {"storage_filesystem": system}
    searched = study.search is not None and tune.Tuner.can_restore(path, **where)
    before = left_in(system, root) if study.storage and not study.search else []
    if (searched or before) and not resume:
        given = f"{study.storage!r}, which holds a study"
        raise checks.error("storage", given, "a place without one", "name another one, or --resume")
    if searched:
        yield tune.Tuner.restore(path, worker(study, memory), resume_unfinished=True, resume_errored=True, **where)
        return
    own = study.search is None and study.storage is None
    if own:
        shutil.rmtree(out / "ray-0", ignore_errors=True)
    if waiting := [trial for trial in study.trials if not one.finished(trial, out / "trials" / trial.name)]:
        yield new_tuner(study, out, waiting, memory, before)
    if own:
        shutil.rmtree(out / "ray-0", ignore_errors=True)


def left_in(system: fs.FileSystem, root: str) -> list[dict[str, list[str]]]:
    """Return by trial the checkpoints in a storage, the last one first, for each time that Ray was started with it.

    The newest may be half written; see `trial.fetch`.
    """
    found: list[dict[str, list[str]]] = []
    while system.get_file_info(folder := f"{root}/ray-{len(found)}").type != fs.FileType.NotFound:
        files = [Path(info.path) for info in system.get_file_info(fs.FileSelector(folder, recursive=True))]
        found.append({})
        for place in sorted((file.parent for file in files if file.name == one.SIZES), reverse=True):
            found[-1].setdefault(place.parent.name, []).append(place.as_posix())
    return found


def new_tuner(
    study: Study, out: Path, waiting: list[Trial], memory: int, before: list[dict[str, list[str]]]
) -> tune.Tuner:
    """Return what runs the waiting trials, or searches settings; `before` is what `left_in` found."""
    places = {trial.name: [place for part in before[::-1] for place in part.get(trial.name, ())] for trial in waiting}
    config: dict[str, Any] = {"out": str(out / "trials"), "storage": study.storage, "cores": study.needs.cores}
    config |= {"before": list(places.items()), "objective": study.search.objective if study.search else "final"}
    config |= {"trial": tune.grid_search([trial._asdict() for trial in waiting])}
    how: dict[str, Any] = {"reuse_actors": True}
    twice = study.search is not None  # the same settings may be suggested; a folder of Ray's is of one trial
    how["trial_dirname_creator"] = lambda trial: one.of_config(trial.config).name + f"-{trial.trial_id}" * twice
    if study.search:
        from .search import searched, space

        config |= {"trial": waiting[0]._asdict(), "search": space(study)}
        how |= searched(study.search, waiting[0].steps, waiting[0].evaluation["every"])
    kept = tune.RunConfig(
        name=f"ray-{len(before)}",
        storage_path=study.storage or str(out),
        verbose=0,
        callbacks=[Watch()],
        failure_config=tune.FailureConfig(max_failures=study.needs.retries),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tune.Tuner(
            worker(study, memory), param_space=config, tune_config=tune.TuneConfig(**how), run_config=kept
        )


def worker(study: Study, memory: int) -> Any:
    """Return what Ray runs in a process of its own, with what one trial needs."""
    return tune.with_resources(one.work, {"cpu": study.needs.cores, "gpu": study.needs.gpus, "memory": memory})
