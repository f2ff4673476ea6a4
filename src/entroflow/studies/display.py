"""What a study shows while it runs: trials by state, steps per second, time left, the best so far."""

import math
import time
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from .trial import of_config

LINES = 10  # that a study prints where there is no terminal
STATES = {"PENDING": "waiting", "RUNNING": "running", "TERMINATED": "finished", "ERROR": "failed"}  # ours for Ray's
Told = Sequence[tuple[str, dict[str, Any], dict[str, Any]]]


class Display:
    """A table that changes; plain lines, one each tenth, where the output is no terminal. A context manager.

    Attributes:
        failed: by trial, the sentence that says why.
    """

    def __init__(self, steps: int, done: set[str], count: int, console: Console):
        self.steps, self.done, self.count, self.console = steps, done, count, console
        self.failed: dict[str, str] = {}
        self.heading = ""
        self._begun = time.perf_counter()
        self._first: dict[str, int] = {}  # by trial, the first step that was heard of
        self._told = len(done)
        self._live: Live | None = None

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, told: Told) -> None:
        """Show the trials: of each that Ray knows its state, its config, and what it last reported."""
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        made, ended = 0, set(self.done)
        for status, config, last in told:
            trial, step, score = of_config(config), last.get("step", 0), last.get("score", -math.inf)
            state = STATES.get(status, "waiting")
            if last.get("failed"):
                state = "failed"
                self.fail(trial.name, last["failed"])
            made += max(0, step - self._first.setdefault(trial.name, step))
            ended |= {trial.name} if state in ("finished", "failed") else set()
            group = groups.setdefault(
                (trial.task, trial.algorithm), dict.fromkeys(STATES.values(), 0) | {"best": -math.inf}
            )
            group[state] += 1
            if score > group["best"]:
                group["best"] = score
        pace = made / (time.perf_counter() - self._begun)
        speed = f"{pace:,.0f} steps/s, {self._left(len(ended), told, pace)} left" if made else "starting"
        if self._live is not None:
            self._live.update(self._table(groups, speed))
        elif len(ended) * LINES // self.count > self._told * LINES // self.count:
            self._told = len(ended)
            line = f"{len(ended)} of {self.count} ended, {len(self.failed)} failed; {speed}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def fail(self, name: str, why: str) -> None:
        """Say once that a trial has failed, and why, in one sentence."""
        if name not in self.failed:
            self.failed[name] = why
            self.console.print(f"failed: {name}: {why}", style="red", markup=False, soft_wrap=True)

    def _left(self, ended: int, told: Told, pace: float) -> str:
        """Return the time that the steps which are left take at a pace."""
        under_way = sum(last.get("step", 0) for status, _, last in told if status == "RUNNING")
        minutes = max(0.0, (self.count - ended) * self.steps - under_way) / pace / 60
        return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.0f} h"

    def _table(self, groups: dict[tuple[str, str], dict[str, Any]], speed: str) -> Table:
        table = Table(title=self.heading, caption=speed, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for header in ("task", "algorithm", *STATES.values(), "best"):
            table.add_column(header, justify="left" if header in ("task", "algorithm") else "right")
        for (task, algorithm), group in groups.items():
            best = f"{group['best']:.4g}" if math.isfinite(group["best"]) else "–"
            table.add_row(task, algorithm, *(str(group[state]) for state in STATES.values()), best)
        return table
