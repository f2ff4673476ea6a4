"""What training shows in the terminal: a bar with the time left, a line of the learner's state, a closing table."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

LINES = 10  # that a run prints where there is no terminal
WINDOW = 30  # updates over which the speed is measured
STATUS = {"return": "return", "temperature": "α", "entropy": "entropy", "ess": "ESS/N", "critic_error": "critic"}
TABLE = {
    "return": "return",
    "evaluation": "evaluation",
    "temperature": "α",
    "entropy": "entropy",
    "target_entropy": "target",
    "ess": "ESS/N",
    "critic_error": "critic\nerror",
}


class TrainingProgress:
    """A live display, averaged over the seeds; plain lines, one each tenth, where the output is no terminal.

    A context manager, which a continued run begins at the step `start`. The table is printed at the end, also after
    Ctrl-C, but not after an error.
    """

    def __init__(self, title: str, steps: int, *, start: int = 0, console: Console | None = None):
        self.title, self.steps, self.start = title, max(steps, 1), start
        self.console = console or Console()
        self._seen: dict[int, dict[str, float]] = {}  # by seed, the newest value of every metric
        self._evaluated: dict[int, float] = {}  # by seed, the newest evaluation's mean return
        self._clock: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._begun = time.perf_counter()
        self._step = self._told = start
        columns = TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn()
        self._progress = Progress(*columns, TextColumn("{task.fields[pace]}"), console=self.console)
        self._task = self._progress.add_task(escape(title), total=self.steps, completed=start, pace="compiling")
        self._status = Text("", "dim", no_wrap=True, overflow="ellipsis")
        self._live: Live | None = None

    def __enter__(self) -> "TrainingProgress":
        self._begun = time.perf_counter()
        if self.console.is_terminal:
            self._live = Live(Group(self._progress, self._status), console=self.console, refresh_per_second=4)
            self._live.start()
        else:
            self._print(f"{self.title}: {self.steps:,} steps" + (f", from step {self.start:,}" if self.start else ""))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._seen and (kind is None or issubclass(kind, KeyboardInterrupt)):
            self.console.print(self.table())

    def update(self, step: int, rows: Sequence[Row]) -> None:
        """Show that a step is done, one row per seed as in metrics.csv; what is None or NaN keeps its last value."""
        for row in rows:
            values = self._seen.setdefault(row["seed"], {})
            values.update({name: float(value) for name, value in row.items() if value is not None and value == value})
        self._step = step
        self._clock.append((time.perf_counter(), step))
        pace = self._pace()
        self._progress.update(self._task, completed=step, pace=pace)
        self._status.plain = self.status()
        share = lambda number: number * LINES // self.steps  # noqa: E731
        if self._live is None and (share(step) > share(self._told) or (self._told == self.start and pace)):
            self._told = step
            percent = f"{100 * step / self.steps:.0f} %"
            self._print(f"{percent:>5}  {', '.join(part for part in (pace, self.status()) if part)}")

    def evaluated(self, rows: Sequence[Row]) -> None:
        """Show an evaluation, by one row per seed and episode as for evaluations.csv."""
        for seed in {row["seed"] for row in rows}:
            self._evaluated[seed] = _mean([row["return"] for row in rows if row["seed"] == seed])
        self._status.plain = self.status()

    def status(self) -> str:
        """Return the line under the bar: averages over the seeds of what the learner reports."""
        parts = []
        if self._evaluated:
            parts.append(f"eval {_number(_mean(self._evaluated.values()))}")
        target = self._average("target_entropy")
        for name, label in STATUS.items():
            if math.isfinite(average := self._average(name)):
                aim = f" (target {target:.3g})" if name == "entropy" and math.isfinite(target) else ""
                parts.append(f"{label} {_number(average) if name == 'return' else f'{average:.3g}'}{aim}")
        return "  ".join(parts)

    def table(self) -> Table:
        """Return the closing table, at most 80 columns wide: the newest values of every seed, and their average."""
        caption = f"{self._step:,} steps of every seed in {_duration(time.perf_counter() - self._begun)}"
        style = {"box": box.SIMPLE_HEAD, "padding": (0, 0, 0, 1), "pad_edge": False}
        table = Table(title=escape(self.title), caption=caption, **style)
        scores = {seed: {"evaluation": score} for seed, score in self._evaluated.items()}
        rows = {str(seed): values | scores.get(seed, {}) for seed, values in self._seen.items()}
        shown = [name for name in TABLE if any(name in values for values in rows.values())]
        if len(rows) > 1:
            rows["mean"] = {name: _mean([row[name] for row in rows.values() if name in row]) for name in shown}
        table.add_column("seed", justify="right")
        for name in shown:
            table.add_column(TABLE[name], justify="right")
        for label, values in rows.items():
            digits = {name: _number if name in ("return", "evaluation") else "{:.3g}".format for name in shown}
            cells = [digits[name](values[name]) if name in values else "–" for name in shown]
            table.add_row(label, *cells, style="bold" if label == "mean" else None)
        return table

    def _pace(self) -> str:
        """Return speed and time left, measured over the last updates so that compiling does not count."""
        (before, first), (now, last) = self._clock[0], self._clock[-1]
        speed = (last - first) / max(now - before, 1e-9)
        return f"{speed:,.0f} steps/s, {_duration(max(self.steps - last, 0) / speed)} left" if speed > 0 else ""

    def _average(self, name: str) -> float:
        return _mean([values[name] for values in self._seen.values() if name in values])

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def _number(value: float) -> str:
    """Write a return in at most ten characters."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _duration(seconds: float) -> str:
    """Write a time as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
