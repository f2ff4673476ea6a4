"""The command compare: training runs beside each other."""

from rich.console import Console

from ..options import CompareOptions
from ..storage.folder import claim, contents
from ..storage.records import read

FILES = frozenset(f"compare.{ending}" for ending in ("png", "pdf", "json", "csv"))


def run(command: CompareOptions) -> int:
    """Do what the command says; return the exit code. Bad input is a `ValueError` before anything is written."""
    records = [read(folder) for folder in command.folders]
    from .. import plotting  # Matplotlib and SciPy take as long to import as all else takes together
    from ..storage.comparison import compare
    from ..storage.curves import draw, table, write

    found = compare(records, metric=command.metric, labels=command.labels or None)
    if not (command.out.is_dir() and contents(command.out) <= FILES):  # else: compare again
        claim(command.out)
    write(command.out, found)
    plotting.save(command.out, "compare", draw(found))
    console = Console()
    console.print(table(found))
    console.print(f"compare (png, pdf, json, csv) is in\n{command.out}", markup=False, highlight=False, soft_wrap=True)
    return 0
