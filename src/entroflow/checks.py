"""Argument checks at the edge, in one message style: what was given, what was expected, what to do.

Every check returns the value in the type that the library goes on with, or raises a `ValueError` of one sentence.
"""

import contextlib
import difflib
import json
import math
import os
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import requires
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

LONGEST = 1000  # letters of a part of a message
MOST_SEEDS = 2**20


def error(name: str, given: str, expected: str, remedy: str) -> ValueError:
    """The one message style of the library, as an exception to raise.

    Example:
        >>> print(error("discount", "1.5", "a number in [0, 1)", "pass for example 0.95"))
        discount: got 1.5, expected a number in [0, 1); pass for example 0.95.
    """
    return ValueError(f"{_short(name)}: got {_short(given)}, expected {_short(expected)}; {_short(remedy)}.")


def install(extra: str) -> str:
    """Return the command that installs what an extra of this package brings, by names that are known everywhere."""
    lines = [line.replace("'", '"') for line in requires("entroflow") or ()]
    packages = [line.partition(";")[0].strip() for line in lines if f'extra == "{extra}"' in line]
    return "pip install " + " ".join(f'"{package}"' for package in packages)


def _short(text: str) -> str:
    """Leave out the middle of what is too long to be read, and write out what would not stay on the line."""
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def number(
    name: str,
    value: Any,
    expected: str = "a finite number",
    remedy: str = "pass a number such as 0.5",
    *,
    holds: Callable[[float], bool] = lambda x: True,
) -> float:
    """A finite real number that `holds`; text and truth values are refused rather than converted."""
    scalar = _scalar(value)
    try:
        if isinstance(scalar, Real) and not isinstance(scalar, bool) and math.isfinite(scalar) and holds(float(scalar)):
            return float(scalar)
    except OverflowError:  # a whole number beyond the floating-point range
        pass
    raise error(name, repr(scalar), expected, remedy)


def positive_number(name: str, value: Any, remedy: str = "pass a positive number such as 0.5") -> float:
    """A finite number above zero."""
    return number(name, value, "a finite number above 0", remedy, holds=lambda x: x > 0)


def discount(name: str, value: Any) -> float:
    """A discount factor in [0, 1)."""
    return number(name, value, "a number in [0, 1)", "pass for example 0.95", holds=lambda x: 0 <= x < 1)


def positive_int(
    name: str, value: Any, remedy: str = "pass a whole number of at least 1", *, most: int | None = None
) -> int:
    """A whole number above zero, no larger than `most`; 3.0 is refused like 3.5."""
    scalar = _scalar(value)
    if isinstance(scalar, bool) or not isinstance(scalar, Integral) or int(scalar) < 1:
        raise error(name, repr(value), "a whole number above 0", remedy)
    if most is not None and int(scalar) > most:
        raise error(name, repr(value), f"at most {most}", "pass a smaller number")
    return int(scalar)


def seed(name: str, value: Any) -> int:
    """A seed of 32 bits."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 2**32:
        raise error(name, repr(value), "a whole number of at least 0 and below 2**32", "pass for example 0")
    return int(value)


def _scalar(value: Any) -> Any:
    """Return what an array of no axes holds."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def seeds(first: int, count: int) -> list[int]:
    """The seeds of the options `--seed` and `--seeds`: the first, the next one, …."""
    positive_int("--seeds", count, most=MOST_SEEDS)
    if not 0 <= first <= 2**32 - count:
        given = f"{first} for {count} seeds"
        raise error("--seed", given, "seeds of at least 0 and below 2**32", "pass for example 0")
    return list(range(first, first + count))


def distinct(name: str, values: Sequence[Any], what: str) -> list[Any]:
    """One or more values, no two of them equal."""
    if not values or len(set(values)) < len(values):
        raise error(name, f"{list(values)}", f"one or more different {what}", "name each once")
    return list(values)


def choice(name: str, value: Any, options: Iterable[str], remedy: str = "choose one of these") -> str:
    """One of the given names; the nearest name is suggested for a misspelt one.

    Example:
        >>> choice("method", "eulr", ["euler", "heun"])
        Traceback (most recent call last):
        ValueError: method: got 'eulr', expected one of euler, heun; did you mean 'euler'.
    """
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    close = lambda share: difflib.get_close_matches(str(value), options, 1, share)  # noqa: E731
    # By its words learning_rate is rate; by its letters it would be learning_starts.
    within = [name for name in options if set(name.split("_")) < set(str(value).split("_"))]
    near = close(0.85) or sorted(within, key=len)[-1:] or close(0.6)
    hint = f"did you mean {near[0]!r}" if near else remedy
    raise error(name, repr(value), f"one of {', '.join(options)}", hint)


def finite_array(name: str, value: Any, shape: tuple[int | None, ...], meaning: str) -> Float[np.ndarray, "..."]:
    """A float64 copy of an array of finite numbers with a given shape, in which None is any length of at least one.

    `meaning` says what the shape stands for, such as "one row and one column per state".
    """
    wanted = f"({', '.join('any' if size is None else str(size) for size in shape)}{',' * (len(shape) == 1)})"
    expected = f"finite numbers in an array of shape {wanted}"
    is_numeric = isinstance(value, np.ndarray) and value.dtype.kind in "iuf"
    if is_numeric and np.isfinite(value).all():
        entries = value
    else:  # entry by entry, since NumPy would turn text and truth values into numbers
        try:
            entries = np.array(value, dtype=object)
        except ValueError:
            raise error(name, "rows of unequal length", expected, "give every row the same length") from None
        for entry in entries.flat:
            if isinstance(entry, list | tuple):
                raise error(name, "rows of unequal length", expected, "give every row the same length")
            number(f"an entry of {name}", entry, remedy=f"{name} must hold finite numbers only")
    agrees = entries.ndim == len(shape) and all(
        given == size if size is not None else given > 0 for given, size in zip(entries.shape, shape, strict=True)
    )
    if not agrees:
        raise error(name, f"shape {entries.shape}", expected, meaning)
    return entries.astype(np.float64)


def kind(name: str, value: Any, wanted: Any, expected: str, remedy: str) -> Any:
    """An object of one class."""
    if not isinstance(value, wanted):
        raise error(name, f"a {type(value).__name__}", expected, remedy)
    return value


LARGEST = 2**28  # bytes of a file that is read whole
DIGITS = 400  # of a whole number in a file


@contextlib.contextmanager
def reachable(path: str | Path, expected: str = "a folder that can be read") -> Iterator[None]:
    """Say in one sentence that the system does not let a file or a folder be reached."""
    if "\0" in str(path):  # of which Python says that a byte is embedded, and not where
        raise error(str(path), "a NUL character in the name", expected, "leave it out")
    try:
        yield
    except OSError as problem:
        given = f"'{problem.strerror or problem}' from the system"
        raise error(str(path), given, expected, "check the name and the permissions") from None


def content(path: str | Path, expected: str) -> bytes:
    """The bytes of a file that is one, and no larger than fits into memory; see `reachable`."""
    kind("path", path, str | os.PathLike, "the path of a file", "pass a text")
    with reachable(path, expected):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a pipe: reading would wait
            raise error(str(path), "what is no file", expected, "check the name")
        if status.st_size > LARGEST:
            raise error(str(path), f"{status.st_size} bytes", f"{expected} of at most {LARGEST}", "check the name")
        return Path(path).read_bytes()


def json_object(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file, read strictly: no NaN, no Infinity, no key twice, nothing but one object."""
    name, expected = str(path), "a JSON object in a UTF-8 text file"

    def refuse_constant(constant: str) -> None:
        raise error(name, constant, "finite numbers", "JSON has no NaN or Infinity: write a number")

    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise error(name, f"the key {twice[0]!r} twice", "every key once", "remove one of the two")
        return dict(pairs)

    def whole(digits: str) -> int:
        if len(digits) > DIGITS:
            given = f"a whole number of {len(digits)} digits"
            raise error(name, given, f"numbers of at most {DIGITS}", "write it in fewer")
        return int(digits)

    def real(digits: str) -> float:
        if math.isinf(value := float(digits)):
            refuse_constant(digits)
        return value

    try:
        text = content(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error(name, "bytes that are not UTF-8", expected, "save the file as UTF-8 text") from None
    hooks = {"parse_constant": refuse_constant, "object_pairs_hook": refuse_twice}
    try:
        value = json.loads(text, parse_int=whole, parse_float=real, **hooks)
    except json.JSONDecodeError as failure:
        given = f"malformed JSON ({failure.msg} at line {failure.lineno}, column {failure.colno})"
        raise error(name, given, expected, "correct the file there") from None
    except RecursionError:
        raise error(name, "JSON nested too deeply", expected, "write matrices as lists of rows") from None
    if not isinstance(value, dict):
        raise error(name, f"a JSON {type(value).__name__}", expected, "put the fields between braces")
    return value


def toml_table(path: str | Path) -> dict[str, Any]:
    """The table in a TOML file."""
    name, expected = str(path), "TOML in a UTF-8 text file"
    try:
        return tomllib.loads(content(path, expected).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise error(name, "bytes that are not UTF-8", expected, "save the file as UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as failure:
        given = f"malformed TOML ({failure})" if str(failure) else "TOML nested too deeply"
        raise error(name, given, expected, "correct the file there") from None
