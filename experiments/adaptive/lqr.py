"""Errors on max-entropy LQR against the candidates drawn, with fixed and with adaptive numbers.

python experiments/adaptive/lqr.py [FOLDER]; FOLDER/N holds what `entroflow lqr --candidates N --out FOLDER/N` wrote,
for N = 4, 8, …, 64 and adaptive. Without it the table and the figure are redone from lqr.csv.
"""

import csv
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from entroflow.isfm import SIZES
from entroflow.plotting import LEARNED, STYLE, legend_below, new_figure

HERE = Path(__file__).parent
SETTINGS = (*[str(size) for size in SIZES], "adaptive")
KEPT = (
    "alpha",
    "seed",
    "step",
    "mean_error_relative",
    "covariance_error_relative",
    "ess",
    "candidates",
    "candidates_drawn",
)
LEVEL = 0.05  # error to reach


def collect(folder: Path) -> None:
    """Bring lqr.csv up to date with the metrics of the commands that have been run; the others' rows stay."""
    path = HERE / "lqr.csv"
    known = list(csv.DictReader(path.open())) if path.exists() else []
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("setting", *KEPT))
        writer.writeheader()
        for setting in SETTINGS:
            if (metrics := folder / setting / "metrics.csv").exists():
                rows = list(csv.DictReader(metrics.open()))
                writer.writerows({"setting": setting} | {n: f"{float(row[n]):.6g}" for n in KEPT} for row in rows)
            else:
                writer.writerows(row for row in known if row["setting"] == setting)


def load() -> dict[str, dict[float, dict[str, np.ndarray]]]:
    """Return for each setting and temperature the columns of lqr.csv, arrays of shape (seeds, evaluations)."""
    rows = list(csv.DictReader((HERE / "lqr.csv").open()))
    found: dict[str, dict[float, dict[str, np.ndarray]]] = {}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        for alpha in dict.fromkeys(row["alpha"] for row in mine):
            runs = [row for row in mine if row["alpha"] == alpha]
            seeds = dict.fromkeys(row["seed"] for row in runs)
            columns = {
                name: np.array([[float(row[name]) for row in runs if row["seed"] == seed] for seed in seeds])
                for name in KEPT
            }
            columns["error"] = np.maximum(columns["mean_error_relative"], columns["covariance_error_relative"])
            found.setdefault(setting, {})[float(alpha)] = columns
    return found


def reached(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return a column's value where a seed's error first is and from then on stays below the level, or NaN."""
    found = []
    for error, values in zip(columns["error"], columns[name], strict=True):
        above = np.flatnonzero(error > LEVEL)
        first = above[-1] + 1 if above.size else 0
        found.append(values[first] if first < len(values) else np.nan)
    return np.array(found)


def table(found: dict[str, dict[float, dict[str, np.ndarray]]]) -> str:
    """Write in Markdown what each setting drew and reached; the last error is a mean over five evaluations."""
    lines = ["| N | α | drawn until the error stays below 5 % | steps until then | drawn in all | last error |"]
    lines += ["|---" * 6 + "|"]
    for setting, runs in found.items():
        for alpha, columns in runs.items():
            drawn, steps = (reached(columns, name).mean() for name in ("candidates_drawn", "step"))
            last = columns["error"][:, -5:].mean(axis=1)
            cells = [
                "not by all" if np.isnan(drawn) else f"{drawn / 1e6:.2f}M",
                "–" if np.isnan(steps) else f"{steps:.0f}",
                f"{columns['candidates_drawn'][:, -1].mean() / 1e6:.2f}M",
                f"{last.mean():.2%} ({', '.join(f'{error:.2%}' for error in last)})",
            ]
            lines.append(f"| {setting} | {alpha:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(found: dict[str, dict[float, dict[str, np.ndarray]]]) -> None:
    """Draw the error against the candidates drawn, and the numbers that the schedule chose."""
    greys = dict(zip(SETTINGS[:-1], mpl.colormaps["Greys"](np.linspace(0.3, 0.9, len(SIZES))), strict=True))
    alphas = list(next(iter(found.values())))
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 3.6, "LQR: error against candidates drawn, fixed numbers and the adaptive schedule")
        *axes, last = figure.subplots(1, len(alphas) + 1)
        for ax, alpha in zip(axes, alphas, strict=True):
            for setting, runs in found.items():
                columns = runs[alpha]
                error = np.exp(np.log(columns["error"]).mean(axis=0))
                label, colour = (setting, LEARNED) if setting == "adaptive" else (f"N = {setting}", greys[setting])
                ax.plot(columns["candidates_drawn"].mean(axis=0), error, color=colour, linewidth=1.2, label=label)
            ax.axhline(LEVEL, color="0.8", linewidth=0.8, zorder=0)
            ax.set(title=f"α = {alpha:g}", xscale="log", yscale="log", xlabel="candidates drawn by a run")
        axes[0].set_ylabel("relative error, the larger of two")
        for alpha, style in zip(alphas, ("-", "--", ":"), strict=False):
            columns = found["adaptive"][alpha]
            last.plot(columns["step"][0], columns["candidates"].mean(axis=0), style, color=LEARNED)
        last.set(title=f"adaptive: mean N (dashed: α = {alphas[-1]:g})", xlabel="step", yscale="log")
        last.set_yticks(SIZES, [str(size) for size in SIZES])
        last.minorticks_off()
        legend_below(figure, "mean over seeds", columns=6)
        figure.savefig(HERE / "lqr.png", dpi=130)


def main() -> None:
    """Write lqr.csv, lqr.md and lqr.png."""
    if len(sys.argv) > 1:
        collect(Path(sys.argv[1]))
    found = load()
    (HERE / "lqr.md").write_text(table(found), encoding="utf-8")
    draw(found)
    print(table(found))


if __name__ == "__main__":
    main()
