"""Checkpoints: arrays in a `.npz` and a JSON header that names it, whose renaming into place makes them valid at once.

    step=5000/checkpoint.json                     format, what it belongs to, numbers, versions, SHA-256 of the arrays
    step=5000/checkpoint-0123456789abcdef.npz     the arrays; the name tells their SHA-256

A process that is killed at any instant leaves the old header with the old arrays or the new one with the new. What no
header names is a leftover: it is ignored, and removed by the next checkpoint. A flipped bit in either file is found.
Nothing is pickled; NumPy alone reads the arrays, on any device. What the functions have in common:

Args:
    path: file of the header, such as `agent.json`; the arrays lie beside it.
    header: what to say of the arrays, in types that JSON knows, NumPy's included; "format" is one of them.
    arrays: the arrays by name.
    newest: the newest format that is known.
    oldest: the oldest one that is; the newest if not given.
    name: what names of arrays begin with; where they are in the tree follows.
    tree: a tree of arrays; of random keys, their data is taken.
    like: a tree of the same structure, or of its shapes and types alone.
    root: folder of the run's checkpoints.
    step: how far the run is.
    run: what the checkpoint belongs to; only a run of which the same is said can go on from it.
    numbers: its state besides arrays, in types that JSON knows.

Raises:
    ValueError: in one sentence, if a file is missing, damaged, or of another format or shape.
    OSError: if the disk is full or the folder cannot be written to; what was there before is still whole.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks
from .folder import plain, versions
from .tables import replace

T = TypeVar("T")
Arrays = dict[str, np.ndarray]

FORMAT = 1
HEADER = "checkpoint.json"
KEEP = 2  # checkpoints of a run
CHECKPOINTS = "checkpoints"  # folder of a run that holds them


def write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Write a header and its arrays; what was there before is replaced only when all is on disk.

    Returns:
        The size in bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.npz.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        digest, size = _sha256(partial), partial.stat().st_size
        name = f"{path.stem}-{digest[:16]}.npz"
        partial.replace(path.with_name(name))
        document = plain({**header, "versions": versions(), "arrays": {"file": name, "bytes": size, "sha256": digest}})
        text = _signed(document)
        replace(path, text)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    for other in path.parent.glob(f"{path.stem}-*.npz"):
        if other.name != name:
            other.unlink()
    return size + len(text.encode())


def read_header(path: Path, newest: int, *, oldest: int | None = None) -> dict[str, Any]:
    """Read what `write` has written, without the arrays.

    Returns:
        The header.
    """
    header = checks.json_object(path)
    number, known = header.get("format"), range(newest if oldest is None else oldest, newest + 1)
    if isinstance(number, int) and number not in known:
        remedy = "update entroflow to read it" if number > newest else "read it with the version that wrote it"
        raise checks.error(str(path), f"format {number}", f"format {newest}", remedy)
    unsigned = {name: value for name, value in header.items() if name != "sha256"}
    if number not in known or path.read_text(encoding="utf-8") != _signed(unsigned):
        raise _damaged(path, "a header that was damaged or changed")
    return unsigned


def read(path: Path, newest: int = FORMAT, *, oldest: int | None = None) -> tuple[dict[str, Any], Arrays]:
    """Read what `write` has written.

    Returns:
        The header and the arrays by name.
    """
    header = read_header(path, newest, oldest=oldest)
    file = path.with_name(header["arrays"]["file"])
    try:
        if file.stat().st_size != header["arrays"]["bytes"] or _sha256(file) != header["arrays"]["sha256"]:
            raise _damaged(file, "bytes that are not those that were written")
        with file.open("rb") as content, np.load(content, allow_pickle=False) as arrays:
            return header, dict(arrays)
    except OSError as problem:
        raise _damaged(file, problem.strerror or "a file that cannot be read") from None


def flatten(name: str, tree: Any) -> Arrays:
    """Return the leaves of a tree as NumPy arrays.

    Returns:
        The arrays by name.
    """
    return {_name(name, path): np.asarray(_data(leaf)) for path, leaf in jax.tree.leaves_with_path(tree)}


def unflatten(name: str, like: T, arrays: Mapping[str, np.ndarray]) -> T:
    """Return the tree that `flatten` made arrays of, on the default device.

    Returns:
        The tree.
    """

    def leaf(path: Any, like: Any) -> Any:
        found, expected = arrays.get(_name(name, path)), jax.eval_shape(_data, like)
        if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            have = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
            wanted = f"{expected.dtype} of shape {expected.shape}"
            raise checks.error(_name(name, path), have, wanted, "the checkpoint belongs to other settings")
        return jax.random.wrap_key_data(jnp.asarray(found)) if _is_key(like) else jnp.asarray(found)

    return jax.tree_util.tree_map_with_path(leaf, like)


def folders(root: Path) -> dict[int, Path]:
    """Return the checkpoints of a run by their steps, newest last; what was never finished is not one."""
    found = {int(path.name[5:]): path for path in root.glob("step=*") if re.fullmatch(r"step=\d+", path.name)}
    return {step: found[step] for step in sorted(found) if (found[step] / HEADER).exists()}


def save(root: Path, step: int, run: Mapping[str, Any], numbers: Mapping[str, Any], arrays: Arrays) -> int:
    """Write a checkpoint of a run, then remove all but the newest ones up to it.

    Returns:
        The size in bytes.
    """
    folder = root / f"step={step}"
    size = write(folder / HEADER, {"format": FORMAT, "step": step, "run": run, "numbers": numbers}, arrays)
    kept = [path for number, path in folders(root).items() if number <= step][-KEEP:]
    for path in root.glob("step=*"):
        if path not in kept:
            shutil.rmtree(path)
    return size


def latest(root: Path, run: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Arrays, list[str]]:
    """Read the newest checkpoint that is whole; checkpoints of which none is, or of a newer format, are refused.

    Returns:
        Its header, None if the run never came to a checkpoint; its arrays; and what is wrong with newer checkpoints.
    """
    problems = []
    for folder in reversed(folders(root).values()):
        try:
            header, arrays = read(folder / HEADER)
            if header.get("run") != plain(run):
                raise _damaged(folder / HEADER, "the checkpoint of another run")
            if header["step"] != int(folder.name[5:]):
                raise _damaged(folder / HEADER, f"the checkpoint of step {header['step']}")
            return header, arrays, problems
        except ValueError as problem:
            if "update entroflow" in str(problem):
                raise
            problems.append(str(problem))
    if problems:
        raise ValueError(problems[0] if len(problems) == 1 else f"{problems[0]} (None of the older ones is whole.)")
    return None, {}, []


def _damaged(path: Path, given: str) -> ValueError:
    """Return the error about a file that is not as entroflow wrote it, but as `given` says."""
    return checks.error(str(path), given, "a file as entroflow wrote it", "restore it, or begin anew in another folder")


def _signed(document: Mapping[str, Any]) -> str:
    """Return a JSON text that ends with the SHA-256 of the rest."""
    digest = hashlib.sha256(json.dumps(document, indent=2, allow_nan=False).encode()).hexdigest()
    return json.dumps({**document, "sha256": digest}, indent=2, allow_nan=False) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(name: str, path: Any) -> str:
    return ".".join(part for part in (name, jax.tree_util.keystr(path, simple=True, separator=".")) if part)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
