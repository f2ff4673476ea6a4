"""Studies that survive: what a study is kept in its folder, its newest state beside it, and `entroflow resume`."""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
from rich.console import Console
from rich.markup import escape

from .. import checks
from ..run import checkpoint, train
from ..run.cli import LQRCommand, MultiGoalCommand, ResumeCommand
from ..run.folder import claim, lock, plain, versions
from ..run.load import CHECKPOINTS
from ..run.records import CONFIG
from ..run.stop import Stop
from ..run.tables import replace

T = TypeVar("T")

FORMAT = 1
SHARE = 0.05  # of a study's time, at most, that goes into checkpoints


class Keeper:
    """Keeps the state of a study: after a stretch of its work if that is cheap, and whenever it is stopped.

    Attributes:
        stop: tells whether the study is to stop.
        step: where the newest checkpoint is; zero if there is none.
        numbers: its numbers.
        arrays: its arrays.
    """

    def __init__(self, out: Path, run: dict[str, Any], stop: Stop):
        self.out, self.stop, self._run = out, stop, run
        header, self.arrays, problems = checkpoint.latest(out / CHECKPOINTS, run)
        for problem in problems:
            Console().print(f"{problem} Going on from an older checkpoint.", style="yellow", markup=False)
        self.step, self.numbers = (header["step"], header["numbers"]) if header else (0, {})
        self._saved, self._took = time.perf_counter(), 0.0

    def keep(self, step: int, state: Callable[[], tuple[dict[str, Any], checkpoint.Arrays]]) -> bool:
        """Write a checkpoint unless the last one is too young for what it cost; return whether to stop now."""
        begun = time.perf_counter()
        if self.stop() or self._took <= SHARE * (begun - self._saved):
            checkpoint.save(self.out / CHECKPOINTS, step, self._run, *state())
            self._saved = time.perf_counter()
            self._took = self._saved - begun
        return self.stop()

    def stopped(self, console: Console) -> int:
        """Say how to go on; return the exit code."""
        console.print(f"stopped; to go on: entroflow resume {escape(str(self.out))}", soft_wrap=True)
        return self.stop.exit_code

    def restored(self, name: str, like: T) -> T:
        """Return a tree of the newest checkpoint, divided among the devices as one that is there."""
        tree = checkpoint.unflatten(name, like, self.arrays)
        return jax.tree.map(lambda leaf, there: jax.device_put(leaf, there.sharding), tree, like)

    def finished(self) -> None:
        """Remove the checkpoints of a study that has written its results."""
        shutil.rmtree(self.out / CHECKPOINTS, ignore_errors=True)


@contextlib.contextmanager
def keeping(name: str, command: Any, facts: dict[str, Any], *, resumed: bool) -> Iterator[Keeper]:
    """Begin a study in its folder or go on there, alone and with an ear for signals.

    Args:
        name: the command's name.
        command: its options.
        facts: what the options refer to, such as a file's content; kept with them.
        resumed: whether to go on.

    Yields:
        The keeper.

    Raises:
        ValueError: if the folder is in use, or none of the checkpoints there is whole.
    """
    out = command.out
    options = {key: value for key, value in dataclasses.asdict(command).items() if key != "out"}
    run = plain({"command": name, "options": options, "facts": facts})
    if not resumed:
        claim(out)
    with lock(out), Stop() as stop:
        if not resumed:
            document = {"format": FORMAT} | run | {"versions": versions()}
            replace(out / CONFIG, json.dumps(document, indent=2, allow_nan=False) + "\n")
        yield Keeper(out, run, stop)


def resume(command: ResumeCommand) -> int:
    """Go on with the training or the study in a folder; return the exit code.

    Raises:
        ValueError: if the folder holds none, or one that cannot be gone on with.
    """
    path = command.folder / CONFIG
    config = checks.json_object(path) if path.is_file() else {}
    if "command" not in config:
        return train.resume(command)
    if config.get("format") != FORMAT:
        given, remedy = f"format {config.get('format')!r}", "read it with the version of entroflow that wrote it"
        raise checks.error(str(path), given, f"format {FORMAT}", remedy)
    if command.steps is not None:
        remedy = "leave it out, or begin anew in another folder"
        raise checks.error("--steps", f"{command.steps}", "none: a study's length is part of its plan", remedy)
    if (command.folder / "results.json").exists():
        raise checks.error("folder", f"{str(command.folder)!r}, a finished study", "an unfinished one", "look inside")
    from .lqr import study as lqr
    from .multigoal import study as multigoal

    studies: dict[str, Any] = {"lqr": (LQRCommand, lqr.run), "multigoal": (MultiGoalCommand, multigoal.run)}
    try:
        kind, run = studies[config["command"]]
        options = {
            name: tuple(value) if isinstance(value, list) else value for name, value in config["options"].items()
        }
        made, facts = kind(**options, out=command.folder), config["facts"]
    except (KeyError, TypeError) as problem:
        given = f"fields that do not fit ({problem})"
        raise checks.error(str(path), given, "the options of a study", "restore the file, or begin anew") from None
    return run(made, facts)
