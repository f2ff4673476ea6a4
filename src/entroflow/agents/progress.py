"""What training shows in the terminal: a bar with the time left, a line of the learner's state, a closing table."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from .. import compiling

Row = Mapping[str, Any]

LINES = 10  # that a run prints where there is no terminal
PERIOD = 3600.0  # seconds over which the speed is measured, from the first update on: compiling does not count
TICK = 0.2  # seconds between movements of the bar
PATIENCE = 0.5  # seconds of a call from which on it is said to compile
PROGRAMS = {"learn": "the update (once, about 20 s)", "_act": "the policy", "_act_well": "the best of several actions"}
PROGRAMS |= {"advance": "steps and updates (once, about 20 s)", "play": "episodes"}  # of a task in JAX
# What is shown, by its names in the line of the learner's state and in the closing table.
SHOWN = {
    "evaluation": ("eval", "evaluation"),
    "return": ("return", "return"),
    "temperature": ("α", "α"),
    "entropy": ("entropy", "entropy"),
    "target_entropy": ("", "target"),
    "ess": ("ESS/N", "ESS/N"),
    "critic_error": ("critic", "critic\nerror"),
}


def console_of(verbose: int | None, progress_bar: bool | None) -> Console:
    """Return where to show a training: nowhere in scripts without a terminal or notebook, unless asked for.

    `verbose` is 0 for nothing, 1 for ten lines where there is no terminal, None for a bar if there is one; whatever it
    says, `progress_bar` tells whether there may be a bar, unless it is None.
    """
    found = Console()
    asked = bool(progress_bar or verbose)
    if asked or (verbose is None and progress_bar is None and (found.is_terminal or found.is_jupyter)):
        return found if progress_bar is not False else Console(force_terminal=False, force_jupyter=False)
    return Console(quiet=True, force_terminal=False, force_jupyter=False)


class TrainingProgress:
    """A live display, averaged over the seeds; plain lines, one each tenth, where the output is no terminal.

    A context manager. The table is printed at the end, also after Ctrl-C, but not after an error.
    """

    def __init__(self, title: str, steps: int, *, start: int = 0, begins: int = 0, console: Console | None = None):
        self.title, self.steps, self.start, self.begins = title, max(steps, 1), start, begins
        self.console = console or Console()
        self._seen: dict[int, dict[str, float]] = {}  # by seed, the newest value of every metric
        self._begun = time.perf_counter()
        self._step = self._told = start
        self._waiting: tuple[str, str] | None = None  # how a plain line begins that is to end with an evaluation
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            TaskProgressColumn(),
            TextColumn("{task.fields[pace]}"),
        )
        how = {"console": self.console, "get_time": time.perf_counter, "speed_estimate_period": PERIOD}
        self._progress = Progress(*columns, **how)
        self._progress.add_task(escape(title), total=self.steps, completed=start, pace="")
        self._status = Text("", "dim", no_wrap=True, overflow="ellipsis")
        self._live: Live | None = None
        self._next, self._learning = 0.0, False

    def __enter__(self) -> "TrainingProgress":
        self._begun = time.perf_counter()
        # A notebook shows what changes if it has ipywidgets.
        if self.console.is_terminal or (self.console.is_jupyter and find_spec("ipywidgets") is not None):
            self._live = Live(get_renderable=self._drawn, console=self.console, refresh_per_second=4)
            self._live.start()
        else:
            self._print(f"{self.title}: {self.steps:,} steps" + (f", from step {self.start:,}" if self.start else ""))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._seen and (kind is None or issubclass(kind, KeyboardInterrupt)):
            self.console.print(self.table())

    def update(self, step: int, rows: Sequence[Row], *, evaluated: bool = False) -> None:
        """Show that a step is done, one row per seed as in metrics.csv; what is None or NaN keeps its last value.

        If it will be `evaluated`, a plain line waits for that.
        """
        for row in rows:
            values = self._seen.setdefault(row["seed"], {})
            values.update({name: float(value) for name, value in row.items() if value is not None and value == value})
        pace = self._move(step)
        self._status.plain = self.status()
        share = lambda number: number * LINES // self.steps  # noqa: E731
        if self._live is None and (share(step) > share(self._told) or (self._told == self.start and pace)):
            self._told, self._waiting = step, (f"{100 * step / self.steps:3.0f} %", pace)
            if not evaluated:
                self._print_line()

    def tick(self, step: int) -> bool:
        """Show how far it is between the rows, and say not to stop; cheap, for it is called at every step."""
        if self._live is not None and (now := time.perf_counter()) >= self._next:
            self._next = now + TICK
            self._move(step)
        self._step = step
        return False

    def evaluated(self, rows: Sequence[Row]) -> None:
        """Show an evaluation, by one row per seed and episode as for evaluations.csv."""
        for seed in {row["seed"] for row in rows}:
            score = _mean(row["return"] for row in rows if row["seed"] == seed)
            self._seen.setdefault(seed, {})["evaluation"] = score
        self._status.plain = self.status()
        self._print_line()

    def status(self) -> str:
        """Return the line under the bar: averages over the seeds of what the learner reports."""
        mean = self._means()
        if "target_entropy" in mean and "entropy" in mean:
            mean["entropy"] += f" (target {mean['target_entropy']})"
        return "  ".join(f"{SHOWN[name][0]} {text}" for name, text in mean.items() if SHOWN[name][0])

    def table(self) -> Table:
        """Return the closing table, at most 80 columns wide: the newest values of every seed, and their average."""
        caption = f"{self._step - self.start:,} steps of every seed in {_duration(time.perf_counter() - self._begun)}"
        caption += f", {self._step:,} in all" if self.start else ""
        style = {"box": box.SIMPLE_HEAD, "padding": (0, 0, 0, 1), "pad_edge": False, "min_width": len(caption)}
        table = Table(title=escape(self.title), caption=caption, **style)
        shown = [name for name in SHOWN if any(name in values for values in self._seen.values())]
        shown.sort(key=lambda name: name != "return")
        for header in ("seed", *(SHOWN[name][1] for name in shown)):
            table.add_column(header, justify="right")
        for seed, values in self._seen.items():
            table.add_row(str(seed), *[_text(name, values[name]) if name in values else "–" for name in shown])
        if len(self._seen) > 1:
            mean = self._means()
            table.add_row("mean", *[mean.get(name, "nan") for name in shown], style="bold")
        return table

    def _move(self, step: int) -> str:
        """Move the bar; return the speed and the time left, or what comes before there is any."""
        (task,) = self._progress.tasks
        if not self._learning and step > self.begins:
            self._learning = True
            self._progress.reset(task.id, completed=self._step)
        self._step = step
        self._progress.update(task.id, completed=step)
        pace = f"{task.speed:,.0f} steps/s, {_duration(task.time_remaining or 0)} left" if task.speed else ""
        pace = pace if self._learning else "random actions"
        self._progress.update(task.id, pace=pace)
        return pace

    def _drawn(self) -> Group:
        """Return the bar and the line under it, which tells what is being compiled, if anything is."""
        name, since = compiling.current or ("", math.inf)
        if (seconds := time.perf_counter() - since) > PATIENCE:
            return Group(self._progress, Text(f"compiling {PROGRAMS.get(name, 'the start')}: {seconds:.0f} s", "dim"))
        return Group(self._progress, self._status)

    def _means(self) -> dict[str, str]:
        """Return the averages over the seeds that are finite, as text."""
        means = {name: _mean(values[name] for values in self._seen.values() if name in values) for name in SHOWN}
        return {name: _text(name, mean) for name, mean in means.items() if math.isfinite(mean)}

    def _print_line(self) -> None:
        if self._waiting is not None:
            share, pace = self._waiting
            self._print(f"{share}  {', '.join(filter(None, (pace, self.status())))}")
            self._waiting = None

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _mean(values: Iterable[Any]) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan


def _text(name: str, value: float) -> str:
    """Write a number in at most ten characters."""
    if name not in ("return", "evaluation"):
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _duration(seconds: float) -> str:
    """Write a time as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
