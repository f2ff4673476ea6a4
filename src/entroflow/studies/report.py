"""What is left of a study: what became of every trial, the comparison of all, and study.json."""

import contextlib
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from .. import plotting
from ..storage import records
from ..storage.comparison import Comparison, compare
from ..storage.curves import draw, write
from ..storage.folder import versions, write_json
from .study import Study, Trial
from .trial import finished, score

FORMAT = 1
STUDY, BEST = "study.json", "best.json"


class Outcome(NamedTuple):
    """What became of a trial.

    Attributes:
        trial: the trial.
        state: "stopped" is a trial of a search that did worse than others.
        step: of its last evaluation.
        score: mean return over seeds and episodes: of the last evaluation, or of all, as the objective says.
        seconds: of work until then, by the clock.
        failed: why it failed, in one sentence; empty if it did not.
        folder: where it is.
    """

    trial: Trial
    state: Literal["finished", "failed", "stopped", "waiting"]
    step: int
    score: float
    seconds: float
    failed: str
    folder: Path


def outcomes(study: Study, trials: Sequence[Trial], out: Path, failed: Mapping[str, str]) -> list[Outcome]:
    """Return what became of the trials, as their folders tell and as they `failed`; of a search, the best first."""
    told = []
    for trial in trials:
        folder = out / "trials" / trial.name
        done, (step, value, seconds) = finished(trial, folder), (0, math.nan, 0.0)
        why = "" if done else failed.get(trial.name, "")  # it may have failed before it was tried again
        try:
            if (folder / records.CONFIG).exists():
                records.read(folder)
            step, value, seconds = score(folder, study.search.objective if study.search else "final")
        except ValueError as problem:  # a damaged folder stops the report of no other trial
            why = why or str(problem)
        left = "stopped" if study.search and step else "waiting"
        state = "failed" if why else "finished" if done else left
        told.append(Outcome(trial, state, step, value, seconds, why, folder))
    if study.search:
        # Steps are rounded up to a multiple of the environments: no trial is ahead for that.
        made = lambda one: min(one.step, one.trial.steps)  # noqa: E731
        told.sort(key=lambda one: (one.failed == "", made(one), one.score), reverse=True)
    return told


def write_study(study: Study, out: Path, outcomes: Sequence[Outcome], seconds: float, memory: int) -> None:
    """Write study.json: the study, its trials with all their settings, versions, seconds, bytes asked for by each."""
    trials: list[dict[str, Any]] = []
    for one in outcomes:
        told = one.trial._asdict() | one._asdict() | {"trial": one.trial.name, "folder": f"trials/{one.trial.name}"}
        with contextlib.suppress(ValueError):  # it was not begun, or is damaged
            told["settings"] = records.read_config(one.folder)["settings"]
        trials.append(told)
    document = {"format": FORMAT, "study": study.document, "seconds": round(seconds, 1), "memory": memory}
    write_json(out / STUDY, document | {"trials": trials, "versions": versions()})


def compared(out: Path, outcomes: Sequence[Outcome]) -> Comparison | None:
    """Compare the trials that were finished, and write `compare`'s files; return what was found, if there is any."""
    done = [one for one in outcomes if one.state == "finished"]
    if not done:
        return None
    found = compare([records.read(one.folder) for one in done], labels=[one.trial.label for one in done])
    write(out, found)
    plotting.save(out, "compare", draw(found))
    if found.aggregate:
        plotting.save(out, "profiles", draw_profiles(found))
    return found


def draw_profiles(comparison: Comparison) -> Figure:
    """Draw performance profiles over all tasks: the share of runs that end above a normalised score."""
    with mpl.rc_context(plotting.STYLE):
        figure = plotting.new_figure(5.2, 3.0, "all tasks")
        ax = figure.subplots()
        ends = {curve.algorithm: np.sort(curve.values[..., -1].ravel()) for curve in comparison.aggregate}
        edges = min(map(min, ends.values())), max(map(max, ends.values()))
        for scores, look in zip(ends.values(), plotting.looks(len(ends)), strict=True):
            style = {name: part for name, part in look.items() if not name.startswith("marker")}
            at = np.concatenate([edges[:1], scores, edges[1:]])
            ax.step(at, [float(np.mean(scores > score)) for score in at], where="post", **style)
        for line, name in zip(ax.lines, ends, strict=True):
            line.set_label(name)
        ax.set_xlabel("normalised return at the end")
        ax.set_ylabel("share of runs above")
        plotting.legend_below(figure, "", columns=2)
    return figure


def write_best(out: Path, outcomes: Sequence[Outcome]) -> str:
    """Write the settings of a search's best trial, and return the command that trains with them."""
    from ..agents.settings import PRESETS

    trial = outcomes[0].trial
    write_json(out / BEST, trial.settings)
    how = "--preset" if trial.algorithm in PRESETS else "--algorithm"
    return shlex.join(["entroflow", "train", trial.task, how, trial.algorithm, "--settings", str(out / BEST)])
