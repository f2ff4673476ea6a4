"""Write table.md, fresh.md and lqr.md from committed data: python -m experiments.adaptive.table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from entroflow.storage.tables import replace

from .. import frame

HERE = Path(__file__).parent
DATA = {"table": "results.json", "fresh": "fresh.json"}
LEVELS = {"gaussian": 0.1, "ring4": 0.2}  # errors to reach, by density
LEVEL = 0.05  # and on LQR


def densities(rows: Sequence[frame.Row]) -> str:
    """Return in Markdown how many candidates each setting needs; ×/÷ is the factor of two standard errors."""
    lines = []
    for rule, c in dict.fromkeys((row["rule"], row["c"]) for row in rows):
        cells = [f"{c:.0f}" if rule == "fixed" else f"{rule}, budget {c:g}"]
        for name, level in LEVELS.items():
            mine = [row for row in rows if (row["target"], row["rule"], row["c"]) == (name, rule, c)]
            logs = needed(mine, level)
            if np.isnan(logs).any():
                cells.append(f"not by all seeds (error {min(np.mean(row['error']) for row in mine):.3f})")
            else:
                factor = np.exp(2 * logs.std(ddof=1) / np.sqrt(len(logs)))
                cells.append(f"{np.exp(logs.mean()) / 1000:.1f}k (×/÷ {factor:.2f})")
        lines.append(cells)
    headers = ["candidates per state and step", *(f"{name}: drawn to reach {level}" for name, level in LEVELS.items())]
    return frame.markdown(headers, lines)


def needed(rows: Sequence[frame.Row], level: float) -> Float[np.ndarray, " seeds"]:
    """Return the logarithm of each seed's candidates at the error, interpolated between numbers of steps; or NaN."""
    rows = sorted(rows, key=lambda row: row["steps"])
    columns = (np.log([row[name] for row in rows]).T for name in ("error", "drawn"))
    runs = zip(*columns, strict=True)
    best = [(np.maximum.accumulate(-errors), drawn) for errors, drawn in runs]
    return np.array([np.interp(-np.log(level), *run, right=np.nan) for run in best])


def lqr(rows: Sequence[Mapping[str, str]]) -> str:
    """Return in Markdown what each setting drew and reached; the last error is a mean over five evaluations."""
    lines = []
    for setting, alpha in dict.fromkeys((row["setting"], row["alpha"]) for row in rows):
        mine = [row for row in rows if (row["setting"], row["alpha"]) == (setting, alpha)]
        seeds = [[row for row in mine if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in mine)]
        below = [run[beginning(run)] for run in seeds]
        drawn, steps = (np.mean([float(row[name]) for row in below]) for name in ("candidates_drawn", "step"))
        total = np.mean([float(run[-1]["candidates_drawn"]) for run in seeds])
        last = [np.mean([error(row) for row in run[-5:]]) for run in seeds]
        of_seeds = ", ".join(f"{part:.2%}" for part in last)
        cells = [f"{drawn / 1e6:.2f}M", f"{steps:.0f}", f"{total / 1e6:.2f}M", f"{np.mean(last):.2%} ({of_seeds})"]
        lines.append([setting, alpha, *cells])
    headers = ["N", "α", "drawn until the error stays below 5 %", "steps until then", "drawn in all", "last error"]
    return frame.markdown(headers, lines)


def error(row: Mapping[str, str]) -> float:
    """Return the larger of the errors of mean and covariance."""
    return max(float(row[name]) for name in ("mean_error_relative", "covariance_error_relative"))


def beginning(run: Sequence[Mapping[str, str]]) -> int:
    """Return which evaluation is the first from which on the error stays below the level."""
    return max((place + 1 for place, row in enumerate(run) if error(row) > LEVEL), default=0)


def tables() -> dict[str, str]:
    """Return the tables by the names of their files."""
    found = {f"{name}.md": densities(frame.read_json(HERE / data)["densities"]) for name, data in DATA.items()}
    return found | {"lqr.md": lqr(frame.read_rows(HERE / "lqr.csv"))}


if __name__ == "__main__":
    for name, text in tables().items():
        replace(HERE / name, text)
