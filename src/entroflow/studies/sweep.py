"""A study from its file to its figures; see `sweep`."""

import os
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import checks, devices
from ..files import replace
from ..storage import records
from ..storage.curves import table
from ..storage.folder import claim, lock, plain
from . import trial as one
from .display import Display
from .report import STUDY, Outcome, compared, outcomes, write_best, write_study
from .study import Study, read

FILE = "study.toml"
HERE = "local"  # Ray's word for a cluster of its own


def sweep(
    study: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    address: str | None = None,
    console: Console | None = None,
) -> list[Outcome]:
    """Run a study on Ray: tasks × algorithms × settings × seeds, or a search of settings.

    Every trial is a run folder in `out/trials`, as `entroflow train` writes them. What a process, a machine or this
    process loses goes on from its last checkpoint, with `resume=True` in the last case.

    Args:
        study: the study's file, see `entroflow.studies.study`, or what it would hold.
        out: its folder.
        resume: go on with the study in the folder; what is new in the file is run, too.
        address: of a Ray cluster; None: that of RAY_ADDRESS, or Ray is started on this machine.
        console: where to show it; None: nowhere.

    Returns:
        What became of every trial.

    Raises:
        ValueError: in one sentence, for what cannot be run; nothing has been started then.

    Example:
        study = {"tasks": ["Pendulum-v1"], "algorithms": ["sac_isfm", "gaussian_sac"], "seeds": 5, "steps": 20_000}
        entroflow.sweep(study, "out/pendulum")
    """
    plan, console = read(study), console or Console(quiet=True)
    with checks.reachable(out, "a folder to write to"):
        out = Path(out).resolve()
    if missing := [name for name in ("ray", *["optuna"] * bool(plan.search)) if find_spec(name) is None]:
        remedy = f"run: {checks.install('ray')}"
        raise checks.error("sweep", f"no package {missing[0]}", "what the extra ray brings", remedy)
    before = _begun(plan, out, resume=resume)
    where = address or os.environ.get("RAY_ADDRESS") or HERE
    here = devices.cores() if where == HERE else None
    if here is not None and plan.needs.cores > here:
        given, expected = f"{plan.needs.cores:g} for one trial", f"at most the {here} of this machine"
        raise checks.error("needs: cores", given, expected, "ask for less, or pass --address")
    memory = int(one.check(plan) * 2**30)
    _check_folders(plan, out)
    if before is None:
        claim(out)
    from .running import conduct, joined  # brings Ray

    with lock(out):
        started = time.perf_counter()
        seconds = lambda: (before or 0.0) + time.perf_counter() - started  # noqa: E731
        write_study(plan, out, [], seconds(), memory)  # first, for by it the folder is known as a study's
        if not isinstance(study, Mapping):
            replace(out / FILE, checks.content(study, "a study"))
        done = {trial.name for trial in plan.trials if one.finished(trial, out / "trials" / trial.name)}
        count = plan.search.trials if plan.search else len(plan.trials)
        display = Display(plan.trials[0].steps, done, count, console)
        trials = [] if plan.search else plan.trials
        try:
            with joined(where, here, plan.needs, memory) as dashboard, display:
                display.heading = f"{count} trials, {len(done)} of them finished; dashboard: {dashboard}"
                console.print(display.heading, markup=False, highlight=False, soft_wrap=True)
                trials = conduct(plan, out, memory, display, resume=resume)
        finally:
            found = outcomes(plan, trials, out, display.failed)
            write_study(plan, out, found, seconds(), memory)
        for part in _closing(plan, out, found):
            console.print(part, markup=not isinstance(part, str), highlight=False, soft_wrap=isinstance(part, str))
        return found


def _closing(plan: Study, out: Path, found: list[Outcome]) -> Iterator[Any]:
    """Write what is left of a study, and yield what there is to say of it."""
    ended = [one for one in found if one.step and not one.failed]
    if plan.search and ended:
        yield f"the best of {len(ended)} trials has {ended[0].score:.4g}; to train with it:\n{write_best(out, ended)}"
    elif not plan.search and (comparison := compared(out, found)) is not None:
        yield table(comparison)
    yield f"{len(found)} trials, {sum(one.failed != '' for one in found)} failed; all is in {out}"


def _begun(plan: Study, out: Path, *, resume: bool) -> float | None:
    """Check a study's folder; return the seconds that earlier processes worked there, None if there was none."""
    with checks.reachable(out, "a folder to write to"):
        there = (out / STUDY).is_file()
    if not there:
        if resume:
            raise checks.error("--resume", f"{str(out)!r}", "the folder of a study", "leave --resume out")
        return None
    if not resume:
        given, remedy = f"{str(out)!r}, which holds a study", "pass another name, or --resume to go on with it"
        raise checks.error("--out", given, "a new or an empty folder", remedy)
    known = checks.json_object(out / STUDY)
    if plan.search and known.get("study") != plain(plan.document):
        given = "another file than the search was begun with"
        raise checks.error("--resume", given, "the same search", "begin it anew with another --out")
    seconds = known.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _check_folders(plan: Study, out: Path) -> None:
    """Refuse to go on with trials that are not what their folders hold."""
    for trial in plan.trials:
        folder = out / "trials" / trial.name
        if not plan.search and (folder / records.CONFIG).exists():
            from ..agents.settings import to_json

            config = {"env": trial.task, "seeds": trial.seeds, "settings": to_json(one.settings_of(trial))}
            known = records.begun(folder, config, True, ("--out", trial.name, f"trial {trial.name}"), "")
            if known is not None and known["evaluation"] != trial.evaluation:
                given = f"evaluation {trial.evaluation}, where the run in {folder} has {known['evaluation']}"
                raise checks.error(trial.name, given, "the same run", "pass what it was started with, or another --out")
