"""Print the README's table from committed data: python -m experiments.resume.table."""

from pathlib import Path

from .. import frame

HERE = Path(__file__).parent
COLUMNS = {
    "kills": "kills",
    "while_writing": "of these while writing",
    "resumes": "resumes",
    "mismatches": "mismatches",
}


def table() -> str:
    """Return in Markdown how often runs were killed and resumed, and how many ended otherwise than in peace."""
    found = [frame.read_json(HERE / f"{name}.json")["kills"] for name in ("results", "flow")]
    lines = [[task, *(str(row[key]) for key in COLUMNS)] for part in found for task, row in part.items()]
    return frame.markdown(["run", *COLUMNS.values()], lines)


if __name__ == "__main__":
    print(table(), end="")
