"""Files that are written whole or not at all, and nowhere else than they say.

What is being written has a name that nobody can prepare, and is renamed into place. What was there before, be it a
link, is replaced itself; no link leads a write elsewhere.
"""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial-"  # how names of files that are being written begin; a process that was killed leaves them behind


@contextlib.contextmanager
def partial(folder: Path, ending: str = "") -> Iterator[io.BufferedRandom]:
    """Open a new file, which is gone at the end of the block if it was not settled; its folder is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder}: got a file, expected a folder, new or not; pass another name.") from None
    path = folder / f"{PARTIAL}{secrets.token_hex(8)}{ending}"
    try:
        with path.open("x+b") as file:
            yield file
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def settle(file: io.BufferedRandom, path: Path) -> None:
    """Close a file of `partial` and rename it, once it is on disk; a crash leaves the old file there or the new one."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    Path(file.name).replace(path)
    with contextlib.suppress(OSError):  # some systems cannot open folders; there the rename is as safe as it gets
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves the old content or the new one, and nothing between."""
    with partial(path.parent) as file:
        file.write(content.encode() if isinstance(content, str) else content)
        settle(file, path)
