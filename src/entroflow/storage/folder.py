"""What all commands share: the output folder, results.json, the cache of compiled programs, the clock.

JAX is imported where it is used, so that commands that only read files do without it.
"""

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from .. import checks
from ..files import PARTIAL, replace

PACKAGES = ("entroflow", "jax", "equinox", "optax", "numpy", "scipy")
RESULTS = "results.json"
LOCK = ".lock"


def contents(folder: Path) -> set[str]:
    """Return the names in a folder, without what a process leaves that was killed before it wrote anything whole."""
    return {path.name for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(PARTIAL)}


def unused(folder: Path) -> None:
    """Refuse an output folder that holds anything, with a `ValueError`."""
    with checks.reachable(folder, "a folder to write to"):
        if folder.exists() and (not folder.is_dir() or contents(folder)):
            given = f"{str(folder)!r}, which {'already holds another run' if folder.is_dir() else 'is a file'}"
            raise checks.error("--out", given, "a new or an empty folder", "pass another name or remove it")


def claim(folder: Path) -> None:
    """Make the output folder; a `ValueError` says so if it holds anything or cannot be made."""
    unused(folder)
    with checks.reachable(folder, "a folder to write to"):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder, which is made if there is none; remove what a kill left there.

    The system takes the lock back from a process that is killed. A folder inside that is a link, by which one would
    write elsewhere, is refused.
    """
    with contextlib.ExitStack() as held:
        with checks.reachable(folder, "a folder to write to"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(filelock.FileLock(folder / LOCK, timeout=0))
            except filelock.Timeout:
                given = f"{str(folder)!r}, where another process is at work"
                remedy = "wait for it, or pass another folder"
                raise checks.error("folder", given, "a folder for this process alone", remedy) from None
        for root, inside, names in os.walk(folder):
            if links := [name for name in inside if Path(root, name).is_symlink()]:
                given, remedy = f"{links[0]!r}, a link to another folder", "copy what it leads to"
                raise checks.error(root, given, "a folder that lies there itself", remedy)
            for name in names:
                if name.startswith(PARTIAL):
                    Path(root, name).unlink()
        yield


def write_results(out: Path, document: dict[str, Any], seconds: dict[str, float]) -> None:
    """Write results.json: the document, with versions and seconds."""
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    write_json(out / RESULTS, document | {"versions": versions(), "seconds": rounded})


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document, with NumPy numbers and arrays inside; what is not finite becomes null, as JSON has no other."""
    replace(path, json.dumps(plain(document), indent=2, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Return the versions of what computes, and the device."""
    import jax

    packages = {name: version(name) for name in PACKAGES}
    return packages | {"python": platform.python_version(), "device": str(jax.devices()[0])}


def plain(value: Any) -> Any:
    """Return the value in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):  # NumPy and JAX
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def cache_compilations() -> None:
    """Keep compiled programs on disk, so that the next run starts in seconds; where JAX was told to, if it was."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "entroflow" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # reading is ten times faster
        compilation_cache.reset_cache()  # or a process that compiled something before would do without


@contextlib.contextmanager
def timed(clock: dict[str, float], name: str) -> Iterator[None]:
    """Add the time that the block takes to an entry of the clock."""
    begun = time.perf_counter()
    yield
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - begun
