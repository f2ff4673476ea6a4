"""What every study does around its work: its folder, Ctrl-C, and faults that are the program's own."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..run.folder import cache_compilations, claim


def conduct(out: Path, study: Callable[[Console], int], *, claimed: bool = False) -> int:
    """Run a study whose options have been checked.

    Args:
        out: its output folder, which is made.
        study: the work, which writes into the folder and to the console, and returns the exit code.
        claimed: whether that is the folder of this study already.

    Returns:
        The study's exit code, 130 after Ctrl-C, or 1 if a file cannot be written.

    Raises:
        ValueError: if the folder is in use.
        RuntimeError: for a `ValueError` of the study, which is no bad input any more.
    """
    if not claimed:
        claim(out)
    console = Console()
    cache_compilations()
    try:
        return study(console)
    except KeyboardInterrupt:
        console.print(f"\nstopped; what was finished is in {escape(str(out))}", soft_wrap=True)
        return 130
    except OSError as problem:
        console.print(f"cannot write to {out} ({problem}): the study stops", style="red", markup=False, soft_wrap=True)
        return 1
    except ValueError as problem:
        raise RuntimeError("the study failed") from problem
