"""Checkpoints: arrays in a `.npz` and a JSON header that names it, whose renaming into place makes them valid at once.

    step=5000/checkpoint.json                     format, what it belongs to, numbers, versions, SHA-256 of the arrays
    step=5000/checkpoint-0123456789abcdef.npz     the arrays; the name tells their SHA-256

A process that is killed at any instant leaves the old header with the old arrays or the new one with the new. What no
header names is a leftover: it is ignored, and removed by the next checkpoint. A flipped bit in either file is found.
Nothing is pickled; NumPy alone reads the arrays, on any device.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import checks, files
from ..files import replace
from .folder import plain, versions
from .tables import count

T = TypeVar("T")
Arrays = dict[str, np.ndarray]

FORMAT = 1
HEADER = "checkpoint.json"
KEEP = 2  # checkpoints of a run
CHECKPOINTS = "checkpoints"  # folder of a run that holds them
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Damaged(ValueError):
    """A file is not as entroflow wrote it; the message says which, and why."""


def write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Write a header and its arrays; what was there before is replaced only when all is on disk."""
    if wrong := _not_finite(arrays):
        raise checks.error(str(path), f"NaN or infinity in {wrong}", "finite numbers", "what was there before is kept")
    with files.partial(path.parent) as file:
        np.savez(file, allow_pickle=False, **arrays)
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{path.stem}-{digest[:16]}.npz"
        files.settle(file, path.with_name(name))
    told = {"arrays": {"file": name, "bytes": size, "sha256": digest}}
    document = plain({**header, "versions": versions()} | told)
    text = json.dumps({**document, "sha256": _digest(document)}, indent=2, allow_nan=False) + "\n"
    replace(path, text)
    for other in path.parent.glob(f"{path.stem}-*.npz"):
        if other.name != name:
            other.unlink()
    return size + len(text.encode())


def read_header(path: Path, newest: int = FORMAT, *, oldest: int | None = None) -> dict[str, Any]:
    """Read what `write` has written, without the arrays."""
    header = checks.json_object(path)
    number, known = header.get("format"), range(newest if oldest is None else oldest, newest + 1)
    if type(number) is int and number not in known:
        remedy = "update entroflow to read it" if number > newest else "read it with the version that wrote it"
        raise checks.error(str(path), f"format {number}", f"format {newest}", remedy)
    with fitting(path):
        if type(number) is not int or header.pop("sha256", None) != _digest(header):
            raise damaged(path, "a header that was damaged or changed")
        if not re.fullmatch(re.escape(path.stem) + r"-[0-9a-f]{16}\.npz", header["arrays"]["file"]):
            raise damaged(path, f"arrays in {header['arrays']['file']!r}")
    return header


def read(path: Path, newest: int = FORMAT, *, oldest: int | None = None) -> tuple[dict[str, Any], Arrays]:
    """Read what `write` has written, the header and the arrays, also while it is being replaced."""
    header = read_header(path, newest, oldest=oldest)
    while True:
        try:
            with fitting(path):
                arrays = load(path.with_name(header["arrays"]["file"]), header["arrays"])
            if wrong := _not_finite(arrays):
                raise damaged(path, f"NaN or infinity in {wrong}")
            return header, arrays
        except Damaged:
            before, header = header, read_header(path, newest, oldest=oldest)
            if before == header:  # else a writer was faster
                raise


def load(path: Path, told: Mapping[str, Any] | None = None) -> Arrays:
    """Read a `.npz` in which no array says that it is larger than it is, as its header told; nothing is unpickled."""
    try:
        # Opened by hand, since NumPy does not close a file that it cannot read; a pipe would never end.
        with open(path, "rb", opener=_at_once) as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
            if told is not None and (size, digest) != (told["bytes"], told["sha256"]):
                raise ValueError("bytes that are not those that were written")
            with zipfile.ZipFile(file) as archive:
                if sum(member.file_size for member in archive.infolist()) > size:
                    raise ValueError("they are compressed")
                for member in archive.infolist():
                    with archive.open(member) as array:
                        shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(array)](array)
                        if math.prod(shape) * dtype.itemsize + array.tell() != member.file_size:
                            raise ValueError(f"{member.filename} is not of shape {shape}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except Exception as problem:  # what damage does to NumPy or zipfile, they do not promise
        raise damaged(path, f"not the arrays that were written ({getattr(problem, 'strerror', problem)})") from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def flatten(name: str, tree: Any) -> Arrays:
    """Return the leaves of a tree as NumPy arrays."""
    import jax

    return {_name(name, path): np.asarray(_data(leaf)) for path, leaf in jax.tree.leaves_with_path(tree)}


def unflatten(name: str, like: T, arrays: Mapping[str, np.ndarray]) -> T:
    """Return the tree that `flatten` made arrays of, on the default device, in the precision of `like`."""
    import jax

    def leaf(path: Any, like: Any) -> Any:
        found, expected = arrays.get(_name(name, path)), jax.eval_shape(_data, like)
        if found is not None and found.dtype.kind == expected.dtype.kind and np.can_cast(found.dtype, expected.dtype):
            found = found.astype(expected.dtype)  # single precision where double is asked for: every number stays
        if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            have = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
            wanted, remedy = f"{expected.dtype} of shape {expected.shape}", "the checkpoint belongs to other settings"
            raise Damaged(checks.error(_name(name, path), have, wanted, remedy))
        array = jax.numpy.asarray(found)
        return array if like.dtype == expected.dtype else jax.random.wrap_key_data(array)

    return jax.tree_util.tree_map_with_path(leaf, like)


def _name(name: str, path: Any) -> str:
    from jax.tree_util import keystr

    return ".".join(part for part in (name, keystr(path, simple=True, separator=".")) if part)


def _data(leaf: Any) -> Any:
    import jax

    return jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def folders(root: Path) -> dict[int, Path]:
    """Return the checkpoints of a run by their steps, newest last; what was never finished is not one."""
    found = {int(path.name[5:]): path for path in root.glob("step=*") if re.fullmatch(r"step=\d+", path.name)}
    return {step: found[step] for step in sorted(found) if (found[step] / HEADER).exists()}


def save(root: Path, step: int, run: Mapping[str, Any], numbers: Mapping[str, Any], arrays: Arrays) -> int:
    """Write a checkpoint of a run, then remove all but the newest ones up to it."""
    folder = root / f"step={step}"
    rows = {path.name: count(path) for path in root.parent.glob("*.csv")}
    document = {"format": FORMAT, "step": step, "run": run, "rows": rows, "numbers": numbers}
    size = write(folder / HEADER, document, arrays)
    kept = [path for number, path in folders(root).items() if number <= step][-KEEP:]
    for path in root.glob("step=*"):
        if path not in kept:
            shutil.rmtree(path)
    return size


def latest(root: Path, run: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Arrays, list[str]]:
    """Read the newest checkpoint that is whole; checkpoints of which none is, or of a newer format, are refused.

    The header is None if the run never came to a checkpoint. With the arrays come sentences to show: what is wrong with
    newer checkpoints, and which versions differ from those that it was made with.
    """
    notes = []
    for folder in reversed(folders(root).values()):
        path = folder / HEADER
        try:
            header, arrays = read(path)
            if header.get("run") != plain(run):
                raise damaged(path, "the checkpoint of another run")
            if header.get("step") != int(folder.name[5:]) or not isinstance(header.get("numbers"), dict):
                raise damaged(path, f"the checkpoint of step {header.get('step')}")
        except ValueError as problem:
            if "update entroflow" in str(problem):
                raise
            notes.append(f"{problem} Going on from an older checkpoint.")
            continue
        told = header.get("versions")
        before, now = told if isinstance(told, dict) else {}, versions()
        if changed := [name for name in now if before.get(name) != now[name]]:
            was, here = (", ".join(f"{name} {part.get(name)}" for name in changed) for part in (before, now))
            notes.append(f"The checkpoint was made with {was}; here is {here}: rounding may differ from there.")
        return header, arrays, notes
    if notes:
        first = notes[0].removesuffix(" Going on from an older checkpoint.")
        raise Damaged(first if len(notes) == 1 else f"{first} (None of the older ones is whole.)")
    return None, {}, []


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Say in one sentence that a file which is whole, by its check sum, does not hold what belongs there."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError) as problem:
        raise damaged(path, f"content that does not fit ({type(problem).__name__}: {problem})") from None


def damaged(path: Path, given: str) -> Damaged:
    """Return the error about a file that is not as entroflow wrote it, but as `given` says."""
    remedy = "restore it, or begin anew in another folder"
    return Damaged(checks.error(str(path), given, "a file as entroflow wrote it", remedy))


def _not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of an array with a number that is not finite; those of environments may mean something by it."""
    ours = {name: array for name, array in arrays.items() if array.dtype.kind == "f" and "envs" not in name.split(".")}
    return next((name for name, array in ours.items() if not np.isfinite(array).all()), None)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, indent=2, allow_nan=False).encode()).hexdigest()
