"""Jobs that survive: what a job is stands in its folder, its newest state beside it, so that it can be gone on with."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape

from .. import checks
from ..stopping import Stop
from . import checkpoint
from .checkpoint import CHECKPOINTS
from .folder import RESULTS, cache_compilations, claim, lock, plain, versions, write_json
from .records import CONFIG

T = TypeVar("T")

FORMAT = 1
SHARE = 0.05  # of a job's time, at most, that goes into checkpoints


class Keeper:
    """Keeps the state of a job: after a stretch of its work if that is cheap, and whenever it is stopped.

    `run` is what the job is: only checkpoints of which the same is said are its own. `again` is the command that goes
    on with it. Its `step` is where the newest checkpoint is, zero if there is none, with its `numbers` and `arrays`.
    """

    def __init__(self, out: Path, run: dict[str, Any], stop: Stop, again: str):
        self.out, self.stop, self._run, self._again = out, stop, run, again
        header, self.arrays, notes = checkpoint.latest(out / CHECKPOINTS, run)
        if (out / RESULTS).exists():  # see `read_plan`
            notes.append(f"{out / RESULTS} is no whole file: the work goes on without it.")
        for note in notes:
            Console().print(note, style="yellow", markup=False, soft_wrap=True)
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
        console.print(f"stopped; to go on: {escape(self._again)}", soft_wrap=True)
        return self.stop.exit_code

    def restored(self, name: str, like: T) -> T:
        """Return a tree of the newest checkpoint."""
        import jax  # which `read_plan` does without

        tree = checkpoint.unflatten(name, like, self.arrays)
        return jax.tree.map(lambda leaf, there: jax.device_put(leaf, there.sharding), tree, like)

    def finished(self) -> None:
        """Remove the checkpoints of a job that has written its results."""
        shutil.rmtree(self.out / CHECKPOINTS, ignore_errors=True)


@contextlib.contextmanager
def keeping(
    name: str, out: Path, options: Mapping[str, Any], facts: Mapping[str, Any], *, resumed: bool, again: str
) -> Iterator[Keeper]:
    """Begin a job in its folder or go on there, alone and with an ear for signals; yield its keeper."""
    run = plain({"command": name, "options": options, "facts": facts})
    if not resumed:
        claim(out)
    with lock(out), Stop() as stop:
        if not resumed:
            write_json(out / CONFIG, {"format": FORMAT} | run | {"versions": versions()})
        yield Keeper(out, run, stop, again)


def conduct(out: Path, job: Callable[[Console], int]) -> int:
    """Run a job whose options have been checked; return its exit code, 130 after Ctrl-C, 1 if a file cannot be written.

    `Damaged` says that the checkpoint to go on from does not fit; another `ValueError` is no bad input any more.
    """
    console = Console()
    cache_compilations()
    try:
        return job(console)
    except KeyboardInterrupt:
        console.print(f"\nstopped; what was finished is in {escape(str(out))}", soft_wrap=True)
        return 130
    except OSError as problem:
        console.print(f"cannot write to {out} ({problem}): the job stops", style="red", markup=False, soft_wrap=True)
        return 1
    except checkpoint.Damaged:
        raise
    except ValueError as problem:
        raise RuntimeError("the job failed") from problem


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Read what the unfinished job in a folder is: command, options and facts; None if there is no job."""
    path = folder / CONFIG
    with checks.reachable(folder):
        config = checks.json_object(path) if path.is_file() else {}
    if "command" not in config:
        return None
    if config.get("format") != FORMAT:
        given, remedy = f"format {config.get('format')!r}", "read it with the version of entroflow that wrote it"
        raise checks.error(str(path), given, f"format {FORMAT}", remedy)
    try:
        checks.json_object(folder / RESULTS)
    except ValueError:  # none, or a file that was cut short
        return config
    raise checks.error("folder", f"{str(folder)!r}, a finished study", "an unfinished one", "look inside")
