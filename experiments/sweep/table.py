"""The tables of the committed data: python -m experiments.sweep.table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..frame import markdown, read_rows

Rows = Sequence[Mapping[str, str]]


def kills(rows: Rows) -> str:
    """Return the table of killed studies in Markdown."""
    headers = "study", "intervals when a node died", "when the driver died", "exit code", "lost trials", "mismatches"
    names = "repetition", "node_killed_at", "driver_killed_at", "exit_code", "lost", "mismatches"
    return markdown(headers, [[row[name] for name in names] for row in rows])


def times(rows: Rows) -> str:
    """Return the table of what Ray costs in Markdown: seconds by the clock, and those of the processor."""
    headers = "pair", "loop of `entroflow train`", "study", "of that Ray's start", "study without it, beside the loop"
    cells = []
    for i, row in enumerate(rows):
        for kind, name in {"clock": "", "processor": "_processor"}.items():
            if row[f"loop{name}"]:
                loop, ray, start = (float(row[part + name]) for part in ("loop", "ray", "ray_start"))
                texts = (f"{seconds:.1f}" for seconds in (loop, ray, start))
                cells.append([f"{i}, by the {kind}", *texts, f"{100 * ((ray - start) / loop - 1):+.0f} %"])
    return markdown(headers, cells)


if __name__ == "__main__":
    here = Path(__file__).parent
    print(kills(read_rows(here / "kills.csv")), times(read_rows(here / "times.csv")), sep="\n", end="")
