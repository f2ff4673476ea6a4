"""Tables of numbers in CSV files that grow row by row: on disk at once, and readable after a crash.

Fields are numbers, so that a line is complete if and only if it ends, and nothing needs quotes. What the functions have
in common:

Args:
    path: the file; without it the table is empty.
    fixed: names that every table of this kind, and so its header, begins with.
    step: the last step to keep.
    rows: how many rows there must be up to it, if that is known.

Returns:
    The columns, whole numbers as int64, others as float64, empty fields as NaN.

Raises:
    ValueError: of one sentence, on what is wrong in which line.
"""

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..files import replace

WHOLE = frozenset({"seed", "step", "episode", "episodes"})
NEVER_EMPTY = WHOLE | {"seconds"}

Row = Mapping[str, Any]
Columns = dict[str, np.ndarray]


class Table:
    """A CSV file that grows at its end, with columns that do not change.

    Args:
        path: the file, made if there is none.
        fixed: names that every table of this kind begins with.
    """

    def __init__(self, path: Path, fixed: tuple[str, ...]):
        self._path, self._fixed, self._columns = path, fixed, _lines(path)[0]
        self._file = open(path, "ab", opener=_not_a_link)
        self.close = self._file.close

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows, all of them or none; they are on disk when this returns."""
        columns, lines = self._columns, []
        if rows and not columns:
            columns = [*self._fixed, *(name for name in rows[0] if name not in self._fixed)]
            if wrong := [name for name in columns if not re.fullmatch(r"[A-Za-z_][\w./-]*", name, re.ASCII)]:
                given = f"the column {wrong[0]!r}"
                raise checks.error(self._path.name, given, "letters, digits and . / - _", "rename it")
            lines.append(columns)
        for row in rows:
            if new := [name for name in row if name not in columns]:
                given = f"the new column {new[0]!r} at step {row.get('step')}"
                remedy = "give every row the same names"
                raise checks.error(self._path.name, given, "the columns of the first row", remedy)
            lines.append([_field(self._path, name, row.get(name)) for name in columns])
        self._file.write(_text(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._columns = columns


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _field(path: Path, name: str, value: Any) -> str:
    """Write one number, so that reading it gives the same one."""
    if value is None and name not in NEVER_EMPTY:
        return ""
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind in "biuf":
        number = array[()]
        if name not in NEVER_EMPTY:
            return str(int(number) if number.dtype.kind == "b" else number)
        if np.isfinite(number) and number >= 0 and (name not in WHOLE or number == int(number)):
            return str(int(number) if name in WHOLE else number)
    expected = "a whole number of at least 0" if name in WHOLE else "a number"
    raise checks.error(f"{path.name}: {name}", repr(value), expected, "pass one number for each row")


def _text(lines: Iterable[Iterable[str]]) -> str:
    return "".join(",".join(line) + "\n" for line in lines)


def _lines(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table in fields; none if there is no file. A half-written end is left out."""
    data = checks.content(path, "a table written by entroflow") if os.path.exists(path) else b""
    try:
        header, *rows = [line.split(",") for line in data.decode("ascii").split("\n")[:-1]] or [[]]
    except UnicodeDecodeError:
        raise _damaged(path, "bytes that are no text") from None
    return header, rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table with anything in it, all at once; the first row names its columns."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0] if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(path, file.getvalue())


def count(path: Path) -> int:
    """Return the number of a table's rows."""
    return max(0, path.read_bytes().count(b"\n") - 1)


def read_table(path: Path, fixed: tuple[str, ...]) -> Columns:
    """Read a table; a half-written last line is left out."""
    header, rows = _lines(path)
    header = header or list(fixed)
    if tuple(header[: len(fixed)]) != fixed or len(set(header)) < len(header):
        raise _damaged(path, f"a header that does not begin with {','.join(fixed)}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise _damaged(path, f"{len(row)} fields for {len(header)} columns in line {number}")
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: _column(path, name, fields) for name, fields in zip(header, columns, strict=True)}


def _column(path: Path, name: str, fields: Iterable[str]) -> np.ndarray:
    convert: Callable[[str], float] = int if name in WHOLE else lambda field: float(field or "nan")
    values = []
    for number, field in enumerate(fields, start=2):
        try:
            value = convert(field)
            if len(field) > checks.DIGITS or (name in NEVER_EMPTY and not 0 <= value < 2**63):
                raise ValueError
        except ValueError:
            given = f"{field!r}" if len(field) <= checks.DIGITS else f"{len(field)} characters"
            raise _damaged(path, f"{given} for {name} in line {number}") from None
        values.append(value)
    return np.array(values, np.int64 if name in WHOLE else np.float64)


def drop_after(path: Path, fixed: tuple[str, ...], step: int, rows: int | None = None) -> None:
    """Replace a table by its rows up to a step, all at once; a damaged one is left as it is."""
    kept = read_table(path, fixed)["step"] <= step  # also refuses a damaged table
    if rows is not None and kept.sum() != rows:
        raise _damaged(path, f"{kept.sum()} rows up to step {step}, where {rows} were written")
    header, lines = _lines(path)
    if header or os.path.exists(path):
        part = [line for line, keep in zip(lines, kept, strict=True) if keep]
        replace(path, _text([header, *part] if header else []))


def _damaged(path: Path, given: str) -> ValueError:
    return checks.error(str(path), given, "a table written by entroflow", "restore the file or leave this run out")
