"""Print the README's tables from committed data: python -m experiments.proposals.table."""

from pathlib import Path
from typing import Any

from .. import frame

COLUMNS = {
    "ess": "ESS/N",
    "renyi_2": "D_2",
    "renyi_4": "D_4",
    "log_z_all": "log Ẑ (all batches)",
    "max_weight": "largest weight",
    "kl": "KL",
}


def found() -> dict[str, Any]:
    """Return what was found."""
    return frame.read_json(Path(__file__).with_name("results.json"))


def missed() -> str:
    """Return in Markdown what the diagnostics of a policy say that has lost three modes of four."""
    rows = found()["miss"].items()
    lines = [[name, *(frame.minus(f"{row[key]:.3f}") for key in COLUMNS)] for name, row in rows]
    return frame.markdown(["proposal", *COLUMNS.values()], lines)


def recovered() -> str:
    """Return in Markdown after how many steps each seed had found all modes, or that it never did."""
    lines = []
    for name, row in found()["recover"].items():
        steps = ", ".join("never" if steps is None else str(steps) for steps in row["steps"])
        errors = row["final_deviation"]
        cells = [steps, f"{row['ess_start']:.2f} → {row['ess_end']:.2f}", f"{min(errors):.2f} to {max(errors):.2f}"]
        lines.append([name, *cells])
    return frame.markdown(
        ["proposal", "steps, by seed", "ESS/N first → last", "largest error of a weight at the end"], lines
    )


def costs() -> str:
    """Return in Markdown ESS/N of every policy, and effective samples per millisecond."""
    cases = found()["cost"]
    lines = [
        [case, *(f"{row['ess']:.3f}; {row['effective_samples_per_ms']:.1f}" for row in rows.values())]
        for case, rows in cases.items()
    ]
    return frame.markdown(["", *next(iter(cases.values()))], lines)


if __name__ == "__main__":
    print(missed(), recovered(), costs(), sep="\n", end="")
