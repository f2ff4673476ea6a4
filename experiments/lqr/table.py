"""Print the table of docs/results.md from the results.json files beside it: python -m experiments.lqr.table."""

import json
from pathlib import Path

import numpy as np

from .. import frame

COLUMNS = ("system", "α", "mean error", "covariance error", "return", "optimal", "worst gap", "entropy", "optimal")


def table(folder: Path = Path(__file__).parent) -> str:
    """Return in Markdown what the studies of `entroflow lqr` in a folder reached where the plant is stable."""
    rows = []
    for path in sorted(folder.glob("*/results.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for temperature in dict.fromkeys(run["alpha"] for run in document["runs"]):
            every = [run for run in document["runs"] if run["alpha"] == temperature]
            runs = [run for run in every if run["mean_error_relative"] is not None]  # its policy stabilises the plant
            share = "" if runs == every else f", {len(runs)} of {len(every)} seeds"
            values = {name: np.array([run[name] for run in runs]) for name in runs[0] if name != "policy"}
            errors = [values[name] for name in ("mean_error_relative", "covariance_error_relative")]
            gaps = 1 - values["standard_return"] / values["optimal_standard_return"]
            numbers = [
                *[f"{error.mean():.1%} ({error.max():.1%})" for error in errors],
                f"{values['standard_return'].mean():.3f}",
                f"{values['optimal_standard_return'].mean():.3f}",
                f"{gaps[np.abs(gaps).argmax()]:+.2%}",
                f"{values['entropy'].mean():.3f}",
                f"{values['optimal_entropy'].mean():.3f}",
            ]
            rows.append([f"`{document['system']['name']}`{share}", f"{temperature:g}", *numbers])
    return frame.markdown(COLUMNS, rows)


if __name__ == "__main__":
    print(table(), "\nThe paper's preset:\n", table(Path(__file__).parent / "paper"), sep="\n", end="")
