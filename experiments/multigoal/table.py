"""Print the table of the README and of docs/results.md from committed data: python -m experiments.multigoal.table."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from entroflow.plotting import NAMES

from .. import frame

ROWS = {
    "total_variation": "total variation, states visited by the optimum",
    "total_variation_histogram": "the same from histograms",
    "total_variation_origin": "total variation at the origin, the diffusion's from histograms",
    "mode_weight_error": "largest error of the four mode weights",
    "soft_return_gap_relative": "gap of the soft return ± standard error, the diffusion's estimated",
}


def table() -> str:
    """Return in Markdown how far every algorithm is from the optimum, and what the exact policy scores."""
    document = frame.read_json(Path(__file__).with_name("results.json"))
    groups: dict[str, list[frame.Row]] = {}
    for run in document["runs"]:
        groups.setdefault(NAMES[run["algorithm"]], []).append(run)
    shown = [*groups.values(), [document["exact"]]]
    lines = [[told, *(cell(runs, name) for runs in shown)] for name, told in ROWS.items()]
    return frame.markdown(["mean over seeds (worst)", *groups, "exact policy, same measure"], lines)


def cell(runs: Sequence[frame.Row], name: str) -> str:
    """Return the mean with the worst seed, and the standard error of what is a gap; of one policy the number."""
    values, is_gap = [run[name] for run in runs], name == "soft_return_gap_relative"
    if name == "total_variation" and runs[0]["mass"] is None:
        return "–"  # there is no density
    form = "{:.1%}" if is_gap else "{:.3f}"
    if len(values) == 1:
        return form.format(*values)
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.1%}" if is_gap else ""
    return f"{form.format(statistics.fmean(values))}{error} ({form.format(max(values))})"


if __name__ == "__main__":
    print(table(), end="")
