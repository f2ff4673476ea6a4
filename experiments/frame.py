"""What every experiment shares: options, cells that are kept, whole files, and one way to run it and to go on.

    python -m experiments.theorem2.run --out out/theorem2
    python -m experiments.theorem2.run --out out/theorem2 --resume    # after it was stopped or killed

An experiment is a function that checks its options, before anything is written, and returns its work: a function of a
`Job`. The work goes from cell to cell. What a cell has found is kept when it is finished, so that another process goes
on with the next one, and ends with the results of a run that was never stopped.
"""

import csv
import dataclasses
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro
from jax.sharding import PartitionSpec as P
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from entroflow import checks
from entroflow.devices import mesh_of
from entroflow.options import readable, refuse_repeats
from entroflow.storage import checkpoint
from entroflow.storage.folder import plain, timed, write_results
from entroflow.storage.keeping import Keeper, conduct, keeping, read_plan
from entroflow.storage.tables import replace, write_rows

T = TypeVar("T")
Row = dict[str, Any]
OURS = "out", "resume"  # options that make no difference to what is found


@dataclass(frozen=True)
class Options:
    """Options of every experiment."""

    out: Path | None = None
    """Output folder, new or empty; out/NAME if not given."""
    resume: bool = False
    """Go on with what was stopped or killed in the folder; the other options stay as they were."""


class Stopped(Exception):
    """The job was asked to stop, and all that is finished is kept."""


class Broken(Exception):
    """The work cannot go on: the message says why."""


class Job:
    """One run of an experiment: its folder, what it has found, its clock and its progress.

    Attributes:
        out: the folder.
        console: where to print.
        found: what the cells have found, by name, in JSON's types (and infinity and NaN).
        trees: trees of arrays, by name, that going on needs beside it.
        clock: seconds by part of the work, those of earlier processes included.
        cells: number of cells in all, for the progress.
    """

    def __init__(self, out: Path, keeper: Keeper, console: Console, progress: Progress):
        self.out, self.console, self._keeper, self._progress = out, console, keeper, progress
        self.found: dict[str, Any] = json.loads(keeper.numbers.get("found", "{}"))
        self.clock: dict[str, float] = dict(keeper.numbers.get("seconds", {}))
        self.trees: dict[str, Any] = {}
        self.cells = 1
        self._step, self._finished, self._asked = keeper.step, 0, False
        self._begun = time.perf_counter() - self.clock.get("total", 0.0)
        self._task = progress.add_task("", total=None)

    def cell(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what `work` finds, now or in an earlier process, in JSON's types; keep it.

        Args:
            name: the cell's name, of no other one.
            work: returns numbers, lists, rows, NumPy arrays.

        Raises:
            Stopped: if there is work, but the job was asked to stop in an earlier cell.
        """
        if name not in self.found:
            self.pause()
            self.show(0.0, name)
            self.found[name] = json.loads(json.dumps(work(), default=lambda part: part.tolist()))
            self._save()
        self._finished += 1
        self.show(0.0)
        return self.found[name]

    def keep(self) -> None:
        """Keep `found` and `trees` as they are within a cell, unless that was done just now.

        Raises:
            Stopped: if the job was asked to stop.
        """
        self._save()
        self.pause()

    def pause(self) -> None:
        """End here if the job was asked to stop and has kept what it found since.

        Raises:
            Stopped: if so.
        """
        if self._asked:
            raise Stopped

    def restored(self, name: str, like: T) -> T:
        """Return a tree that an earlier process kept, divided among the devices as one that is there."""
        return self._keeper.restored(name, like)

    def kept(self, name: str) -> checkpoint.Arrays:
        """Return the arrays that an earlier process kept under a name in `trees`, by their own names."""
        start = f"{name}."
        return {key.removeprefix(start): part for key, part in self._keeper.arrays.items() if key.startswith(start)}

    def timed(self, name: str) -> AbstractContextManager[None]:
        """Add the time that a block takes to an entry of the clock."""
        return timed(self.clock, name)

    def show(self, share: float, text: str | None = None) -> None:
        """Show how much of the present cell is done, and what it does."""
        self._progress.update(self._task, total=self.cells, completed=self._finished + share)
        if text is not None:
            self._progress.update(self._task, description=text)

    def rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows so far as a CSV file, whole at any moment; a value that the first row lacks is refused."""
        write_rows(self.out / name, rows)

    def text(self, name: str, text: str) -> None:
        """Write a text file, whole at any moment."""
        replace(self.out / name, text)

    def finish(self, document: Row) -> None:
        """Write results.json; nothing is left to be gone on with."""
        self._count()
        write_results(self.out, document, self.clock)
        self._keeper.finished()

    def _save(self) -> None:
        self._step += 1
        self._asked = self._keeper.keep(self._step, self._state)

    def _state(self) -> tuple[Row, checkpoint.Arrays]:
        """Return what going on needs; what was found is text, since JSON has no infinity."""
        self._count()
        arrays = [checkpoint.flatten(name, tree) for name, tree in self.trees.items()]
        numbers = {"found": json.dumps(self.found), "seconds": self.clock}
        return numbers, {name: array for part in arrays for name, array in part.items()}

    def _count(self) -> None:
        self.clock["total"] = time.perf_counter() - self._begun


Work = Callable[[Job], tuple[Row, Sequence[RenderableType]]]
"""What an experiment does: the document of results.json (settings beyond the options under "settings"), and tables."""


def command(name: str, plan: Callable[[Any], Work], kind: type[Options] = Options) -> Callable[..., int]:
    """Return `main(argv=None)` of `python -m experiments.NAME.run`.

    Args:
        name: the experiment's folder.
        plan: checks the options and returns the work; raises a `ValueError` for bad input.
        kind: its options.

    Returns:
        A function that takes the arguments, those of the process if not given, and returns the exit code: 0 for
        success, 1 if the work broke down, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    module = f"experiments.{name}.run"

    def main(argv: list[str] | None = None) -> int:
        given = sys.argv[1:] if argv is None else argv
        again = shlex.join(["python", "-m", module, *given, *["--resume"] * ("--resume" not in given)])
        return read(module, lambda options: _run(name, options, plan(options), again), kind, given, plan.__module__)

    return main


def read(
    module: str, do: Callable[[T], int], kind: type[T], argv: list[str] | None = None, told_in: str | None = None
) -> int:
    """Read the options of `python -m MODULE` and do what they say.

    Args:
        module: the module's name.
        do: does what the options say and returns the exit code; raises a `ValueError` for bad input.
        kind: the options.
        argv: arguments; those of the process if not given.
        told_in: the module whose docstring `--help` shows; that of `do` if not given.

    Returns:
        The exit code, 2 for bad input.
    """
    readable()
    try:
        refuse_repeats(sys.argv[1:] if argv is None else argv)
        description = sys.modules[told_in or do.__module__].__doc__
        return do(tyro.cli(kind, prog=f"python -m {module}", description=description, args=argv))
    except ValueError as problem:
        print(f"{module}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(name: str, options: Options, work: Work, again: str) -> int:
    out = options.out or Path("out") / name
    told = {field: value for field, value in dataclasses.asdict(options).items() if field not in OURS}
    if options.resume:
        _check_same(name, out, told)

    def job(console: Console) -> int:
        bar = BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
        try:
            with Progress(TextColumn("{task.percentage:3.0f} %"), *bar, console=console) as progress:
                job = Job(out, keeper, console, progress)
                document, tables = work(job)
                job.finish({"settings": told} | document | {"settings": told | document.get("settings", {})})
            if not console.is_interactive:
                console.print()  # the live line does not end in a file
        except Stopped:
            return keeper.stopped(console)
        except Broken as problem:
            console.print(f"{problem}; what was finished is in {out}", style="red", markup=False, soft_wrap=True)
            return 1
        for table in tables:
            console.print(table)
        console.print(f"{job.clock['total']:.0f} s; results are in {out}", markup=False, soft_wrap=True)
        return 0

    with keeping(name, out, told, {}, resumed=options.resume, again=again) as keeper:
        return conduct(out, job)


def _check_same(name: str, out: Path, told: Row) -> None:
    """Refuse to go on where there is nothing to go on with, or with something else."""
    config = read_plan(out)
    if config is None:
        raise checks.error("--resume", f"{str(out)!r}", "the folder of an experiment", "leave --resume out")
    before, now = {"command": config["command"]} | config["options"], {"command": name} | plain(told)
    if different := [field for field in now if now[field] != before.get(field)]:
        field = different[0]
        given, remedy = f"{field} {now[field]!r} where {before.get(field)!r} was", "give the same options"
        raise checks.error("--resume", given, f"the options that {str(out)!r} was begun with", remedy)


def seeds_of(options: Any) -> list[int]:
    """Return the seeds of the options `seed`, the first, and `seeds`, their number."""
    return checks.seeds(options.seed, options.seeds)


def over_runs(function: Callable[..., Any], runs: int) -> Any:
    """Map a function of one run over the leading axis of all its arguments, compiled, every device doing its share.

    Args:
        function: function of one run, pure JAX.
        runs: number of runs. As many devices take part as divide it evenly.

    Returns:
        The function of all runs, as `jax.jit` returns it.
    """
    mapped = jax.vmap(function)
    return jax.jit(jax.shard_map(mapped, mesh=mesh_of(runs), in_specs=P("runs"), out_specs=P("runs"), check_vma=False))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file of this folder's data."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> Any:
    """Read a JSON file of this folder's data."""
    return json.loads(path.read_text(encoding="utf-8"))


def power_of_ten(value: float) -> str:
    """Write a power of ten as one in a figure, and another number as it is."""
    power = math.log10(value)
    return f"$10^{{{power:.0f}}}$" if abs(power - round(power)) < 1e-9 else f"{value:g}"


def markdown(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    headers = list(headers)
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def new_table(title: str, caption: str, headers: Iterable[str], padding: int = 1) -> Table:
    """Return an empty table for the terminal, numbers to the right of the first column."""
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, padding), pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left", overflow="fold")
    return table


def short(number: float) -> str:
    """Write a number in at most six characters."""
    return f"{number:.1f}" if abs(number) < 1000 else f"{number:.0e}"


def told(values: Iterable[float], form: str) -> str:
    """Write a mean with its lowest and highest value, or that it is one value."""
    numbers = list(values)
    if len(numbers) == 1:
        return minus(form.format(numbers[0])) + " (one seed)"
    return within(statistics.fmean(numbers), min(numbers), max(numbers), form)


def within(mean: float, low: float, high: float, form: str = "{:.0f}") -> str:
    """Write a number with the lowest and the highest of those that it is the mean of."""
    text = [minus(form.format(part)) for part in (mean, low, high)]
    return f"{text[0]} [{text[1]}, {text[2]}]"


def compared(row: Mapping[str, str]) -> list[str]:
    """Write what `entroflow compare` found of an algorithm: returns at the end and over training, and minutes."""
    end, area = ([float(row[name + part]) for part in ("", "_low", "_high")] for name in ("final", "area"))
    return [within(*end), within(*area), f"{float(row['minutes']):.0f}"]


def minus(text: str) -> str:
    """Write the sign of a negative number as one prints it."""
    return text.replace("-", "−")
