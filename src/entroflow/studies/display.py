"""What a study shows while it runs: trials by state, the best so far, steps per second, time left."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from .study import Study, Trial
from .trial import finished, of_config, score

TENTHS = 10  # of a study, after each of which the table is printed where there is no terminal
STATES = {"PENDING": "waiting", "RUNNING": "running", "TERMINATED": "finished", "ERROR": "failed"}  # ours for Ray's
COLUMNS = "{task.description}", "{task.fields[states]}", "best {task.fields[best]}", "{task.fields[speed]} steps/s"
Told = Sequence[tuple[str, dict[str, Any], dict[str, Any]]]


class Display(Progress):
    """A table that changes; where the output is no terminal, it is printed from time to time. A context manager.

    Args:
        study: the study.
        out: the folder of its trials.
        console: where to show it.

    Attributes:
        count: how many trials there are in all.
        failed: by trial, the sentence that says why.
    """

    def __init__(self, study: Study, out: Path, console: Console):
        columns = *(TextColumn(text, markup=False) for text in COLUMNS), TimeRemainingColumn()
        super().__init__(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=3600)
        trials = study.trials * (study.search.trials if study.search else 1)
        self.steps, self.count, self.failed = trials[0].steps, len(trials), dict[str, str]()
        for name, count in {"all": self.count, **Counter(map(_row, trials))}.items():
            self.add_task(name, count=count, states="", best="–", speed="–")
        self._known: dict[str, tuple[str, str, int, float]] = {}  # of a trial its row, state, step and score
        for trial in [] if study.search else trials:
            state = "finished" if finished(trial, out / trial.name) else "waiting"
            self._known[trial.name] = (_row(trial), state, *score(out / trial.name)[:2])
        self.ended = sum(state == "finished" for _, state, *_ in self._known.values())

    def show(self, told: Told) -> None:
        """Show the trials.

        Args:
            told: of each that Ray knows its state, its config, and what it last reported.
        """
        for status, config, last in told:
            trial = of_config(config)
            if why := last.get("failed"):
                self.fail(trial.name, why)
            state = "failed" if why else STATES.get(status, "waiting")
            *_, step, value = self._known.get(trial.name, (0, -math.inf))
            self._known[trial.name] = _row(trial), state, last.get("step", step), last.get("score", value)
        for row in self.tasks:
            some = [known for known in self._known.values() if row.description in ("all", known[0])]
            states = Counter(state for _, state, *_ in some)
            states["waiting"] += row.fields["count"] - len(some)
            best = max((value for *_, value in some if math.isfinite(value)), default=math.nan)
            made, ended = sum(step for *_, step, _ in some), states["finished"] + states["failed"]
            under_way = sum(step for _, state, step, _ in some if state in ("waiting", "running"))
            total = made - under_way + (row.fields["count"] - ended) * self.steps
            shown: dict[str, Any] = {"best": f"{best:.4g}", "speed": f"{row.speed or 0:,.0f}"}
            shown["states"] = ", ".join(f"{states[state]} {state}" for state in STATES.values())
            self.update(row.id, completed=made, total=max(made, total), **shown)
        ended = sum(state in ("finished", "failed") for _, state, *_ in self._known.values())
        if self.disable and ended * TENTHS // self.count > self.ended * TENTHS // self.count:
            self.ended = ended
            self.console.print(self)

    def fail(self, name: str, why: str) -> None:
        """Say once that a trial has failed.

        Args:
            name: of the trial.
            why: in one sentence.
        """
        if name not in self.failed:
            self.failed[name] = why
            self.console.print(f"failed: {name}: {why}", style="red", markup=False, soft_wrap=True)


def _row(trial: Trial) -> str:
    return f"{trial.task} {trial.algorithm}"
