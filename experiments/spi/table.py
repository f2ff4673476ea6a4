"""Print the README's table from committed data: python -m experiments.spi.table."""

from pathlib import Path

from .. import frame

HERE = Path(__file__).parent
SYSTEMS = "double_integrator", "coupled", "unstable"
COLUMNS = {  # of metrics.csv: what it is called, and how it is written
    "exact_gain_to_optimum": ("start from K*", ".0%"),
    "exact_covariance_to_optimum": ("start from Σ*", ".0%"),
    "gain_error": ("gain K", ".2%"),
    "covariance_error": ("covariance Σ", ".2%"),
}


def table() -> str:
    """Return in Markdown how far the start is from the optimum, and flows at worst from the exact iterates."""
    lines = []
    for name in SYSTEMS:
        rows = frame.read_rows(HERE / name / "metrics.csv")
        worst = [format(max(float(row[key]) for row in rows), form) for key, (_, form) in COLUMNS.items()]
        lines.append([f"`{name}`", *worst])
    return frame.markdown(["system", *(name for name, _ in COLUMNS.values())], lines)


if __name__ == "__main__":
    print(table(), end="")
