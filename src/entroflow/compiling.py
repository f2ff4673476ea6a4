"""Compiling no longer than pays: XLA's default optimisation of CPU programs takes long and gives little here."""

import functools
import gc
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import checks

T = TypeVar("T")

OPTION, WIDTH = "xla_backend_optimization_level", "xla_cpu_prefer_vector_width"
RUN_ONCE = 0  # initial states compile four times faster than at XLA's own level, 3
RUN_OFTEN = 1  # updates compile a quarter faster and run as fast; at 0 they run three times slower

current: tuple[str, float] | None = None  # the function that is being called, and since when: one that lasts compiles


def jit(level: int, *, wide: bool = False, **options: Any) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Compile a function as `jax.jit` does, on CPUs with less optimisation; a level in XLA_FLAGS comes first.

    `wide` asks for vectors of 512 bits where the processor has them, which suits loops over small layers.
    The function is for calls from outside of compiled programs.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.cache
        def program() -> Callable[..., T]:
            given = OPTION in os.environ.get("XLA_FLAGS", "")
            chosen = ({} if given else {OPTION: level}) | ({WIDTH: 512} if wide else {})
            on_cpu = jax.default_backend() == "cpu"
            return jax.jit(function, compiler_options=chosen if chosen and on_cpu else None, **options)

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> T:
            global current
            refuse_forks()
            current, collecting = (function.__name__, time.perf_counter()), gc.isenabled()
            gc.disable()  # tracing makes millions of objects that live; looking through them takes a fifth of its time
            try:
                return program()(*arguments, **named)
            finally:
                current = None
                if collecting:
                    gc.enable()

        call.program = program  # type: ignore[attr-defined]
        return call

    return decorate


def shapes_of(compiled: Callable[..., T], *arguments: Any) -> T:
    """Return the shapes and types of what a call would return; the function is not traced again when it is called."""
    return compiled.program().eval_shape(*arguments)  # type: ignore[attr-defined]


def waiting(text: str, console: Console) -> Progress:
    """Return a context manager that shows in a terminal that something lasts, and for how long it has."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    shown.add_task(text, total=None)
    return shown


def refuse_forks() -> None:
    """Raise in a process forked from one that computed: JAX's threads are not there, it would wait for ever."""
    if _first_process() != os.getpid():
        given, remedy = "a process forked after entroflow was used", "use multiprocessing.get_context('spawn')"
        raise checks.error("process", given, "one that was started anew", remedy)


@functools.cache
def _first_process() -> int:
    return os.getpid()
