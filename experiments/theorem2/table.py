"""Print the README's table from committed data: python -m experiments.theorem2.table."""

from pathlib import Path

from .. import frame


def table() -> str:
    """Return in Markdown the slopes of log W₂², and the largest that the bound's trend allows."""
    slopes = frame.read_json(Path(__file__).with_name("results.json"))["slopes"]
    lines = []
    for row in slopes:
        cells = f"{row['slope']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}", f"{row['predicted']:g}"
        lines.append([row["name"], *map(frame.minus, cells)])
    return frame.markdown(["W₂² against", "slope", "95 % interval", "bound's trend"], lines)


if __name__ == "__main__":
    print(table(), end="")
