"""`entroflow bench`: measures the parts that it is asked for, and shows all that its folder holds.

Times are those of the processor, on one core, in turns: see `measure`; only starts have the clock and all cores. Every
part is written as soon as it is measured, so that the parts can be measured one by one, and what another call has
measured stays.
"""

import contextlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from ... import checks
from ...agents.tasks import task as find
from ...storage.folder import cache_compilations, lock, plain
from ...storage.tables import replace
from . import accuracy, algorithms, pieces, report, scaling
from .measure import machine, one_core

PARTS = ("start", *algorithms.QUANTITIES, "pieces", "scaling", "accuracy")
DENSITIES = ("ring4", "many_well_8")
FILE = "bench.json"


@dataclass(frozen=True)
class BenchCommand:
    """Measure speed: beside other libraries, how it grows with sizes, what accuracy costs.

    Writes bench.json, bench.md and figures into a folder; what an earlier call measured there stays, part by part.
    """

    parts: tuple[str, ...] = ("all",)
    """update, act, density, steps, start, pieces, scaling, accuracy, or all."""
    task: tuple[str, ...] = ("HalfCheetah-v5", "Humanoid-v5")
    """Gymnasium tasks, whose shapes the data have."""
    peers: Path | None = None
    """The Python of an environment with Stable-Baselines3 and SBX (see benchmarks/README.md); without, ours alone."""
    rounds: int = 10
    """Rounds in which everything takes its turn."""
    out: Path = Path("out/bench")
    """Output folder."""


def run(command: BenchCommand) -> int:
    """Do what the command says; return the exit code.

    Raises:
        ValueError: for bad input, before anything is measured.
    """
    wanted = PARTS if command.parts == ("all",) else command.parts
    for part in wanted:
        checks.choice("part", part, PARTS)
    rounds = checks.positive_int("--rounds", command.rounds)
    tasks = [find(task).name for task in command.task]
    if command.peers is not None:
        _check_python(command.peers)
    console = Console()
    with lock(command.out), contextlib.ExitStack() as stack:
        results = _Results(command.out, console)
        if "start" in wanted:
            for task in tasks:
                results.add("start", task, algorithms.start_up(task, command.peers))
        stack.enter_context(one_core())
        cache_compilations()
        _algorithms(results, [part for part in wanted if part in algorithms.QUANTITIES], tasks, command.peers, rounds)
        if "pieces" in wanted:
            for task in tasks:
                results.add("pieces", task, pieces.measure(task, rounds))
        if "scaling" in wanted:
            for axis in scaling.SIZES:
                results.add("scaling", axis, scaling.measure(axis, rounds))
        if "accuracy" in wanted:
            for name in DENSITIES:
                results.add("accuracy", name, accuracy.measure(name, rounds))
        text = report.text(results.document)
        replace(command.out / "bench.md", text)
        report.draw(command.out, results.document)
        console.print(Markdown(text))
        console.print(f"{FILE}, bench.md and figures are in {command.out}", soft_wrap=True)
    return 0


class _Results:
    """The file of all that was measured, by part and by what it was measured for."""

    def __init__(self, out: Path, console: Console):
        self._path, self._console = out / FILE, console
        self.document: dict[str, Any] = {}
        if self._path.exists():
            try:
                self.document = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError:
                given, remedy = f"{str(self._path)!r}, which is damaged", "pass another folder"
                raise checks.error("--out", given, "results of entroflow bench", remedy) from None
        self._machine = machine()

    def add(self, part: str, name: str, found: Any) -> None:
        """Write what was found for one name in place of what is there."""
        cores = self._machine["cores"] if part == "start" else 1
        machine = self._machine | {"cores_used": cores}
        self.document.setdefault(part, {})[name] = plain({"machine": machine, "found": found})
        replace(self._path, json.dumps(self.document, indent=1) + "\n")
        self._console.print(f"measured: {part}, {name}", highlight=False)


def _algorithms(results: _Results, parts: list[str], tasks: list[str], peers: Path | None, rounds: int) -> None:
    """Measure the parts for which algorithms take turns."""
    names = [name for part in parts for name in algorithms.QUANTITIES[part]]
    for task in tasks if names else []:
        found = algorithms.compare(names, task, peers, rounds)
        for part in parts:
            kept = (*algorithms.QUANTITIES[part], "versions")
            results.add(part, task, {name: {k: row[k] for k in kept} for name, row in found.items()})


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
