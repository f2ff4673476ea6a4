"""Settings that check themselves: the types of a dataclass's fields say which values are possible.

@dataclass(frozen=True)
class Settings:
    width: Count = 64
    warmup: Share = 0.1
    kind: Literal["min", "mean"] = "min"

    def __post_init__(self):
        check_fields(self)

A type is `Count`, a real number with its `Range`, bool, a `Literal`, None, a class or a protocol of which the value is
to be an instance, or a union of these. Another value is a `ValueError` of one sentence.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from . import checks

T = TypeVar("T")


class Range(NamedTuple):
    """Which real numbers are possible.

    Attributes:
        expected: what an error message says of them.
        holds: whether a finite number is one of them.
        example: one of them that makes sense.
    """

    expected: str
    holds: Callable[[float], bool]
    example: float = 0.5


Count = Annotated[int, 2**31 - 1]  # a whole number above 0, at most this
Layers = Annotated[int, 100]
Number = Annotated[float, Range("a finite number", lambda x: True)]
Positive = Annotated[float, Range("a finite number above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Range("a number of at least 0", lambda x: x >= 0)]
Share = Annotated[float, Range("a number from 0 to 1", lambda x: 0 <= x <= 1)]
PositiveShare = Annotated[float, Range("a number above 0, at most 1", lambda x: 0 < x <= 1)]
Discount = Annotated[float, Range("a number in [0, 1)", lambda x: 0 <= x < 1, 0.99)]


def check_fields(settings: Any) -> None:
    """Check all fields of a frozen dataclass; whole numbers given for real ones become these."""
    hints = _hints(type(settings))
    for field in dataclasses.fields(settings):
        value = checked(field.name, getattr(settings, field.name), hints[field.name])
        object.__setattr__(settings, field.name, value)


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return a value in the type that a field has."""
    problems = []
    for kind in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        try:
            return _checked(name, value, kind)
        except ValueError as problem:
            problems.append((_concerns(value, kind), problem))
    raise max(problems, key=lambda pair: pair[0])[1] from None


def named(name: str, value: Any, table: Mapping[str, T], protocol: type[Any]) -> T | Any:
    """Return what a field names: an entry of a table, or the object that was given in its place."""
    if isinstance(value, str):
        return table[checks.choice(name, value, table)]
    if not _is_one(value, protocol):
        expected = f"one of {', '.join(table)}, or an object with the methods of {protocol.__name__}"
        missing = [part for part in _members(protocol) if not hasattr(value, part)]
        raise _no_such_thing(name, value, expected, f"it has no {' and no '.join(missing)}")
    if _members(protocol) == ["__call__"]:
        _check_arguments(name, value, protocol)
    return _hashed(name, value)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _members(protocol: type[Any]) -> list[str]:
    """Return what a protocol asks for."""
    parts = {name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_")}
    return sorted(parts) or ["__call__"]


def _is_one(value: Any, kind: type[Any]) -> bool:
    """Return whether a value is an object of a class or a protocol. A class has the methods of its objects and is none.

    What is asked for may be a function, which a class is, too.
    """
    return isinstance(value, kind) and (not isinstance(value, type) or _members(kind) == ["__call__"])


def _check_arguments(name: str, value: Any, protocol: type[Any]) -> None:
    """Refuse a function that does not take what it will be called with."""
    arguments = list(inspect.signature(protocol.__call__).parameters)[1:]
    try:
        inspect.signature(value).bind(*arguments)
    except TypeError as problem:
        expected = f"one of the arguments ({', '.join(arguments)})"
        raise checks.error(name, f"a function with {problem}", expected, "let it take these") from None
    except ValueError:  # one in C, of which Python knows no signature
        pass


def _no_such_thing(name: str, value: Any, expected: str, remedy: str) -> ValueError:
    """Return the error of an object that is none of what was expected, or a class in its place."""
    if isinstance(value, type):
        return checks.error(name, f"the class {value.__name__}", expected, "pass an object made of it")
    return checks.error(name, repr(value), expected, remedy)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Check a value by one type."""
    if get_origin(hint) is Annotated:
        allowed = get_args(hint)[1]
        if isinstance(allowed, int):
            return checks.positive_int(name, value, "pass a whole number such as 1", most=allowed)
        remedy = f"pass a number such as {allowed.example}"
        return checks.number(name, value, allowed.expected, remedy, holds=allowed.holds)
    if hint is types.NoneType:
        if value is not None:
            raise checks.error(name, repr(value), "None", "leave it out")
        return None
    if get_origin(hint) is Literal:
        return checks.choice(name, value, get_args(hint))
    if hint is bool and not isinstance(value, bool):
        raise checks.error(name, repr(value), "true or false", "pass one of these")
    kind = get_origin(hint) or hint
    if kind is not Any and isinstance(kind, type) and not _is_one(value, kind):
        raise _no_such_thing(name, value, f"an object of the kind {kind.__name__}", "leave it out, or make one")
    return _hashed(name, value)


def _hashed(name: str, value: T) -> T:
    """Return an object that JAX can tell from others, for which it compiles programs of their own."""
    try:
        hash(value)
    except TypeError as problem:
        given, remedy = f"{type(value).__name__}, which has no hash ({problem})", "make it a frozen dataclass"
        raise checks.error(name, given, "an object that can be compared", remedy) from None
    return value


def _concerns(value: Any, hint: Any) -> int:
    """Return how close a type is to a value, so that the message speaks of the type that was meant."""
    if get_origin(hint) is Literal:
        return 2 if isinstance(value, str) else 0
    if get_origin(hint) is Annotated:
        return 2 if isinstance(value, int | float) and not isinstance(value, bool) else not isinstance(value, type)
    if hint is types.NoneType:
        return -1
    return 3 if hint is not Any and isinstance(hint, type) and _is_one(value, hint) else isinstance(value, type)
