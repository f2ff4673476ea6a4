"""Programs kept as JAX traced and lowered them, beside those that it compiled: the next process does neither again.

What is kept is StableHLO, data from which nothing is unpickled and from which JAX finds what it has compiled of it.
Its name is a hash of all that it follows from: the functions, classes and constants that the traced function reaches
here, as they are in memory (edited files and replaced functions make other programs), the settings, the arguments'
shapes, the versions of other packages, and JAX's configuration. Where anything else has a say, such as an actor of
one's own, the function is traced as ever; so it is on other devices than one CPU, and whatever goes wrong.
"""

import contextlib
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from .files import replace

T = TypeVar("T")
Pair = tuple[Any, Any]

PACKAGE = __name__.partition(".")[0]
VERSIONED = ("jax", "jaxlib", "equinox", "optax", "diffrax", "jaxtyping", "numpy")
ELSEWHERE = sys.stdlib_module_names.union(VERSIONED)


class Unknown(Exception):
    """There is something on which a program may depend in ways that are not seen."""


def kept(function: Callable[..., Pair]) -> Callable[..., Pair]:
    """Keep the programs of a function that `jax.jit` traces.

    Args:
        function: its second argument, given by position, is a tree; it returns a tree of the same structure and a
            dictionary of arrays.

    Returns:
        The same function.
    """

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Pair:
        folder = _folder()
        if folder is None:
            return function(*arguments, **named)
        try:
            arrays, rest = eqx.partition((arguments, named), eqx.is_array)
            leaves, given = jax.tree.flatten(arrays)
            following = jax.tree.structure(arguments[1])

            def flat(*leaves: Any) -> Pair:
                arguments, named = eqx.combine(jax.tree.unflatten(given, leaves), rest)
                first, second = function(*arguments, **named)
                if jax.tree.structure(first) != following:
                    raise Unknown("another structure")
                return jax.tree.leaves(first), second

            first, second = _program(folder, flat, [function, rest, str(given)], leaves).call(*leaves)
            return jax.tree.unflatten(following, first), second
        except Exception:  # no reason not to compute; what is wrong with the function itself comes again
            return function(*arguments, **named)

    return call


def committed(tree: T) -> T:
    """Bind arrays to the device, where programs are kept.

    What such a program returns is bound, and arguments that are not would have it lowered and read once more.
    """
    return tree if _folder() is None else jax.device_put(tree, jax.devices()[0])


def _folder() -> Path | None:
    """Return the folder of JAX's compiled programs, if there is one, and one CPU that computes."""
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"] if settings["jax_enable_compilation_cache"] else None
    alone = [device.platform for device in jax.devices()] == ["cpu"]
    return Path(folder) if folder is not None and alone else None


def _program(folder: Path, flat: Callable[..., Any], made_of: list[Any], leaves: list[Any]) -> jax.export.Exported:
    """Return what is kept of a function of arrays, or keep it."""
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=leaf.weak_type) for leaf in leaves]
    around = [sys.version, *map(version, VERSIONED), *sorted(map(repr, jax.config.values.items()))]
    path = folder / f"entroflow-{fingerprint([*made_of, *map(str, shapes), *around])}.stablehlo"
    with contextlib.suppress(Exception):  # there is none, or it is damaged
        digest, content = path.read_bytes().split(b"\n", 1)
        if digest == _digest(content):
            return jax.export.deserialize(bytearray(content))
    program = jax.export.export(jax.jit(flat))(*shapes)
    content = bytes(program.serialize())
    with contextlib.suppress(OSError):  # nobody may write there; JAX goes on then, too
        replace(path, _digest(content) + b"\n" + content)
    return program


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def fingerprint(values: Iterable[Any]) -> str:
    """Return a hash of values and of all that they reach in this package.

    Args:
        values: the values, functions and classes among them.

    Returns:
        The hash, in hexadecimal digits.

    Raises:
        Unknown: if they reach what is of other packages than those whose versions are known, or says nothing of itself.
    """
    found, waiting, seen = hashlib.sha256(), [*values], {}
    while waiting:
        value = waiting.pop()
        text, parts = (f"{seen[id(value)]}", []) if id(value) in seen else _told(value)
        if isinstance(value, FunctionType | type | ModuleType):  # which use each other
            seen.setdefault(id(value), len(seen))
        found.update(f"{type(value).__qualname__} {text} {len(parts)}\n".encode())
        waiting += parts
    return found.hexdigest()


def _told(value: Any) -> tuple[str, list[Any]]:
    """Return what a value says of itself, and the values that it has and uses."""
    match value:
        case str() | bytes() | int() | float() | complex() | None:
            return repr(value), []
        case tuple() | list():
            return "", [*value]
        case Mapping():
            return "", [*value.keys(), *value.values()]
        case set() | frozenset():
            return "", sorted(value, key=repr)
        case np.ndarray() | jax.Array():
            return f"{value.dtype} {value.shape}", [np.asarray(value).tobytes()]
        case CodeType():
            return f"{value.co_names} {value.co_varnames} {value.co_freevars}", [value.co_code, *value.co_consts]
        case staticmethod() | classmethod() | MethodType():
            return "", [value.__func__, getattr(value, "__self__", None)]
        case property():
            return "", [value.fget]
        case functools.partial():
            return "", [value.func, value.args, value.keywords]
        case FunctionType() | type() | ModuleType():
            name = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
            return name, _inside(value) if _ours(name) else []
    if _ours(type(value).__module__):
        return "", [type(value), vars(value)]
    if hasattr(value, "__wrapped__"):
        return "", [value.__wrapped__]
    if " at 0x" in repr(value):
        raise Unknown(repr(value))
    return repr(value), []


def _inside(value: FunctionType | type | ModuleType) -> list[Any]:
    """Return what is in a module or class, or what a function has and which globals it uses."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        used = {name: value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__}
        return [value.__code__, value.__defaults__, value.__kwdefaults__, cells, used]
    own = {name: part for name, part in vars(value).items() if callable(part) or not name.startswith(("__", "_abc"))}
    return [own, *getattr(value, "__bases__", ())]


def _names(code: CodeType) -> list[str]:
    """Return the names that code uses, with the code of functions inside of it."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return [*code.co_names, *(name for part in inner for name in _names(part))]


def _ours(name: str) -> bool:
    """Whether something is of this package, by its name; what is of none of known version is refused."""
    home = name.partition(".")[0]
    if home != PACKAGE and home not in ELSEWHERE and not home.startswith("namedtuple_"):  # of `NamedTuple.__new__`
        raise Unknown(name)
    return home == PACKAGE
