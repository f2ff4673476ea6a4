"""The benchmarks: this measures the parts that it is asked for, and shows all that its folder holds.

Times are those of the processor, on one core, in turns: see `measure`; only starts have the clock and all cores. Every
part is written as soon as it is measured, so that the parts can be measured one by one, and what another call has
measured stays.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from tyro.conf import Positional

from entroflow import checks
from entroflow.agents.tasks import task as find
from entroflow.storage.folder import cache_compilations, lock, plain
from entroflow.storage.tables import replace
from experiments import frame

from . import accuracy, algorithms, exported, pieces, report, scaling
from .measure import machine, one_core

PARTS = ("start", *algorithms.QUANTITIES, "pieces", "scaling", "accuracy", "export")
DENSITIES = ("ring4", "many_well_8")
FILE = "bench.json"


@dataclass(frozen=True)
class Options:
    """What can be chosen."""

    parts: Positional[tuple[str, ...]] = ("all",)
    """update, act, density, steps, start, pieces, scaling, accuracy, export, or all."""
    task: tuple[str, ...] = ("HalfCheetah-v5", "Humanoid-v5")
    """Gymnasium tasks, whose shapes the data have."""
    peers: Path | None = None
    """The Python of an environment with Stable-Baselines3 and SBX (see benchmarks/README.md); without, ours alone."""
    rounds: int = 10
    """Rounds in which everything takes its turn."""
    out: Path = Path("out/bench")
    """Output folder."""
    resume: bool = False
    """Leave out what the folder holds already: go on with a call that was stopped or killed."""


def run(options: Options) -> int:
    """Do what the options say; return the exit code.

    Raises:
        ValueError: for bad input, before anything is measured.
    """
    wanted = PARTS if options.parts == ("all",) else options.parts
    for part in wanted:
        checks.choice("part", part, PARTS)
    rounds = checks.positive_int("--rounds", options.rounds)
    tasks = [find(task).name for task in options.task]
    if options.peers is not None:
        _check_python(options.peers)
    timed = [part for part in wanted if part in algorithms.QUANTITIES]
    console = Console()
    with lock(options.out):
        results = Results(options.out, console, keep=options.resume)
        for task in tasks if "start" in wanted else []:
            results.measure("start", task, lambda task=task: algorithms.start_up(task, options.peers))
        with one_core():
            cache_compilations()
            for task in tasks:
                if parts := [part for part in timed if results.lacks(part, task)]:
                    for part, found in algorithms.compare(parts, task, options.peers, rounds).items():
                        results.add(part, task, found)
            kinds: dict[str, tuple[Any, Callable[[str, int], Any]]] = {
                "pieces": (tasks, pieces.measure),
                "scaling": (scaling.SIZES, scaling.measure),
                "accuracy": (DENSITIES, accuracy.measure),
                "export": (exported.POLICIES, exported.measure),
            }
            for part in [part for part in kinds if part in wanted]:
                names, measure = kinds[part]
                for name in names:
                    results.measure(part, name, lambda name=name, measure=measure: measure(name, rounds))
        text = report.text(results.document)
        replace(options.out / "bench.md", text)
        report.draw(options.out, results.document)
    console.print(Markdown(text))
    console.print(f"{FILE}, bench.md and figures are in {options.out}", soft_wrap=True)
    return 0


class Results:
    """The file of all that was measured, by part and by what it was measured for."""

    def __init__(self, out: Path, console: Console, *, keep: bool):
        self._path, self._console, self._keep = out / FILE, console, keep
        self.document: dict[str, Any] = {}
        if self._path.exists():
            try:
                self.document = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError:
                given, remedy = f"{str(self._path)!r}, which is damaged", "pass another folder"
                raise checks.error("--out", given, "results of benchmarks", remedy) from None
        self._machine = machine()

    def lacks(self, part: str, name: str) -> bool:
        """Whether a part is to be measured for this name."""
        return not self._keep or name not in self.document.get(part, {})

    def measure(self, part: str, name: str, work: Callable[[], Any]) -> None:
        """Measure a part for one name, unless it is there and to be kept."""
        if self.lacks(part, name):
            self.add(part, name, work())

    def add(self, part: str, name: str, found: Any) -> None:
        """Write what was found for one name in place of what is there."""
        cores = self._machine["cores"] if part == "start" else 1
        machine = self._machine | {"cores_used": cores}
        self.document.setdefault(part, {})[name] = plain({"machine": machine, "found": found})
        replace(self._path, json.dumps(self.document, indent=1) + "\n")
        self._console.print(f"measured: {part}, {name}", highlight=False)


def _check_python(python: Path) -> None:
    """Refuse a Python without the peers' packages."""
    code = "import importlib.util as u; raise SystemExit(not all(map(u.find_spec, ('stable_baselines3', 'sbx'))))"
    try:
        good = subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        good = False
    if not good:
        given, expected = f"{str(python)!r}", "a Python that has stable-baselines3 and sbx-rl"
        raise checks.error("--peers", given, expected, "make one with: make peers")


main = functools.partial(frame.read, "benchmarks.run", run, Options)

if __name__ == "__main__":
    sys.exit(main())
