"""Errors on max-entropy LQR against the candidates drawn: `entroflow lqr`, with fixed and with adaptive numbers."""

import csv
import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.markdown import Markdown

from entroflow.isfm.schedule import SIZES
from entroflow.plotting import LEARNED, STYLE, legend_below, new_figure, save

from .. import frame

SETTINGS = (*[str(size) for size in SIZES], "adaptive")
OPTIONS = ("--system", "coupled", "--alpha", "0.1", "1", "--seeds", "2", "--steps", "2000")
ERRORS = "mean_error_relative", "covariance_error_relative"
KEPT = ("alpha", "seed", "step", *ERRORS, "ess", "candidates", "candidates_drawn")
LEVEL = 0.05  # error to reach

Columns = dict[str, np.ndarray]  # each of shape (seeds, evaluations)
Found = dict[str, dict[float, Columns]]  # by setting and temperature


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Train with all settings; return results and the table."""
    rows, job.cells = [], len(SETTINGS)
    for setting in SETTINGS:
        rows += job.cell(f"N = {setting}", functools.partial(train, job, setting))
        job.rows("lqr.csv", rows)
    found = columns(rows)
    job.text("lqr.md", table(found))
    save(job.out, "lqr", draw(found))
    return {"settings": {"options": OPTIONS}}, [Markdown(table(found))]


def train(job: frame.Job, setting: str) -> list[frame.Row]:
    """Train with one setting, or go on with it; return what lqr.csv says of it."""
    folder = job.out / setting
    begun = (folder / "config.json").exists()
    command = ["resume", str(folder)] if begun else ["lqr", *OPTIONS, "--candidates", setting, "--out", str(folder)]
    if not (folder / "results.json").exists():
        with (job.out / f"{setting}.log").open("a") as log:
            done = subprocess.run([sys.executable, "-m", "entroflow", *command], stdout=log, stderr=log, check=False)
        if done.returncode:
            job.keep()  # ends here if Ctrl-C ended both
            raise frame.Broken(f"entroflow {' '.join(command)} ended with exit code {done.returncode}")
    return kept(setting, folder / "metrics.csv")


def kept(setting: str, metrics: Path) -> list[frame.Row]:
    """Return what lqr.csv says of a run's metrics."""
    with metrics.open(newline="") as file:
        return [{"setting": setting} | {n: f"{float(row[n]):.6g}" for n in KEPT} for row in csv.DictReader(file)]


def columns(rows: Sequence[frame.Row]) -> Found:
    """Return the columns of lqr.csv for each setting and temperature, and the larger of the errors as "error"."""
    found: Found = {}
    for setting, temperature in dict.fromkeys((row["setting"], row["alpha"]) for row in rows):
        runs = [row for row in rows if (row["setting"], row["alpha"]) == (setting, temperature)]
        seeds = dict.fromkeys(row["seed"] for row in runs)
        made = {
            name: np.array([[float(row[name]) for row in runs if row["seed"] == seed] for seed in seeds])
            for name in KEPT
        }
        made["error"] = np.maximum(*[made[name] for name in ERRORS])
        found.setdefault(setting, {})[float(temperature)] = made
    return found


def reached(columns: Columns, name: str) -> np.ndarray:
    """Return a column's value where a seed's error first is and from then on stays below the level, or NaN."""
    found = []
    for error, values in zip(columns["error"], columns[name], strict=True):
        above = np.flatnonzero(error > LEVEL)
        first = above[-1] + 1 if above.size else 0
        found.append(values[first] if first < len(values) else np.nan)
    return np.array(found)


def table(found: Found) -> str:
    """Write in Markdown what each setting drew and reached; the last error is a mean over five evaluations."""
    lines = []
    for setting, runs in found.items():
        for temperature, columns in runs.items():
            drawn, steps = (reached(columns, name).mean() for name in ("candidates_drawn", "step"))
            last = columns["error"][:, -5:].mean(axis=1)
            cells = [
                "not by all" if np.isnan(drawn) else f"{drawn / 1e6:.2f}M",
                "–" if np.isnan(steps) else f"{steps:.0f}",
                f"{columns['candidates_drawn'][:, -1].mean() / 1e6:.2f}M",
                f"{last.mean():.2%} ({', '.join(f'{error:.2%}' for error in last)})",
            ]
            lines.append([setting, f"{temperature:g}", *cells])
    headers = ("N", "α", "drawn until the error stays below 5 %", "steps until then", "drawn in all", "last error")
    return frame.markdown(headers, lines)


def draw(found: Found) -> Figure:
    """Draw the error against the candidates drawn, and the numbers that the schedule chose; return the figure."""
    greys = dict(zip(SETTINGS[:-1], mpl.colormaps["Greys"](np.linspace(0.3, 0.9, len(SIZES))), strict=True))
    temperatures = list(next(iter(found.values())))
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 3.6, "LQR: error against candidates drawn, fixed numbers and the adaptive schedule")
        *axes, last = figure.subplots(1, len(temperatures) + 1)
        for ax, temperature in zip(axes, temperatures, strict=True):
            for setting, runs in found.items():
                columns = runs[temperature]
                error = np.exp(np.log(columns["error"]).mean(axis=0))
                label, colour = (setting, LEARNED) if setting == "adaptive" else (f"N = {setting}", greys[setting])
                ax.plot(columns["candidates_drawn"].mean(axis=0), error, color=colour, linewidth=1.2, label=label)
            ax.axhline(LEVEL, color="0.8", linewidth=0.8, zorder=0)
            ax.set(title=f"α = {temperature:g}", xscale="log", yscale="log", xlabel="candidates drawn by a run")
        axes[0].set_ylabel("relative error, the larger of two")
        for temperature, style in zip(temperatures, ("-", "--", ":"), strict=False):
            columns = found["adaptive"][temperature]
            last.plot(columns["step"][0], columns["candidates"].mean(axis=0), style, color=LEARNED)
        last.set(title=f"adaptive: mean N (dashed: α = {temperatures[-1]:g})", xlabel="step", yscale="log")
        last.set_yticks(SIZES, [str(size) for size in SIZES])
        last.minorticks_off()
        legend_below(figure, "mean over seeds", columns=6)
    return figure
