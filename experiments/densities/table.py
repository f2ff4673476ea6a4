"""Print the README's table from committed data: python -m experiments.densities.table."""

import statistics
from pathlib import Path

from .. import frame

HERE = Path(__file__).parent


def table() -> str:
    """Return in Markdown how far the learned densities are from the exact ones."""
    lines = []
    for target in (row for name in ("simple", "results") for row in frame.read_json(HERE / f"{name}.json")["targets"]):
        names = "ess", "log_z_error", "w2", "mode_error"
        ess, errors, distances, modes = ([row[name] for row in target["seeds"]] for name in names)
        cells = [
            f"{statistics.fmean(ess):.3f} ({min(ess):.3f})",
            f"{statistics.fmean(errors):.2g} ({max(errors):.2g})",
            f"{statistics.fmean(distances):.2f} ({target['w2_floor']:.2f})",
            "–" if None in modes else f"{statistics.fmean(modes):.1%}",
        ]
        lines.append([target["target"], *cells])
    return frame.markdown(["target", "ESS/N", "error of log Ẑ", "W₂ (floor)", "modes"], lines)


if __name__ == "__main__":
    print(table(), end="")
