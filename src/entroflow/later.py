"""What is imported on first use, so that bad input is refused before JAX is, whose import takes a second."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package (PEP 562).

    Args:
        package: its name.
        homes: by public names, the modules that have them; other public names are those of its own modules.

    Returns:
        The function.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name], package), name)
        if name in sys.modules[package].__all__:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


class Module:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


class Attribute:
    """An attribute of a class that is made when it is asked for."""

    def __init__(self, make: Callable[[Any], Any]):
        self._make = make

    def __get__(self, _: Any, kind: Any) -> Any:
        return self._make(kind)
