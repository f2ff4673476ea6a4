"""The command settings: every setting with its default, what it may be, and what it is."""

import inspect
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..agents.settings import of_algorithm, single
from ..flow import RungeKutta
from ..options import SettingsOptions
from ..rl import ACTORS, CRITICS

WIDE = 400  # columns where there is no terminal, so that every setting stays on one line


def show(command: SettingsOptions) -> int:
    """Print the table; return the exit code."""
    rows = []
    for name, (_, level, each) in single(of_algorithm(command.algorithm)).items():
        hint, default = get_type_hints(type(level), include_extras=True)[each.name], getattr(level, each.name)
        rows.append((name, written(default), possible(hint), meaning(type(level), each.name)))
    table = Table(title=f"settings of {command.algorithm}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header, column in zip(("setting", "default", "range", "what it is"), zip(*rows, strict=True), strict=True):
        longest = max(map(len, column)) if header != "what it is" else None
        table.add_column(header, no_wrap=True, overflow="ellipsis", min_width=longest)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    (console if console.is_terminal else Console(width=WIDE)).print(table)
    return 0


def written(value: Any) -> str:
    """Write a default in few characters."""
    if isinstance(value, RungeKutta):
        return f"{value.method} × {value.steps}" + (f", grading {value.grading:g}" if value.grading != 1 else "")
    return next((name for name, part in (ACTORS | CRITICS).items() if part == value), str(value))


def possible(hint: Any) -> str:
    """Say which values a field's type allows, see `entroflow.fields`."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(possible, get_args(hint))))
    if get_origin(hint) is Annotated:
        allowed = get_args(hint)[1]
        if isinstance(allowed, int):
            return f"1 to {allowed}" if allowed < 1000 else "1, 2, …"
        return re.sub("^a (finite )?number (of )?(?=.)", "", allowed.expected)
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    names = {bool: "True or False", str: "a name", types.NoneType: "None"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def meaning(kind: type[Any], name: str) -> str:
    """Return what the docstring of a class, or of one that it inherits from, says of an attribute."""
    for each in kind.__mro__:
        said = re.search(rf"^    {name}: ((?:.+\n?)(?:     .+\n?)*)", inspect.getdoc(each) or "", re.MULTILINE)
        if said:
            return " ".join(said[1].split())
    return ""
