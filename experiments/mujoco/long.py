"""Print the tables of the runs of 100,000 and of a million steps: python -m experiments.mujoco.long."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from entroflow.plotting import LEARNED, OTHER, QUIET, legend_below, new_figure

from .. import frame

# Returns swing: the mean over the evaluations from the last mark but one to the last tells more than the last.
MARKS = 10_000, 20_000, 50_000, 80_000, 100_000
MILLION = 100_000, 200_000, 500_000, 800_000, 1_000_000
TASKS = {
    "ant": "Ant-v5",
    "halfcheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "humanoid": "Humanoid-v5",
    "walker2d": "Walker2d-v5",
}
# The preset as it is, by the folder of its runs: name, colour and line.
FLOW, GAUSSIAN = ("SAC-ISFM", LEARNED, "-"), ("Gaussian SAC", OTHER, "--")
WHOLE = "Gaussian SAC, whole steps", OTHER, "--"  # of the critic's last layer
PRESET = {"crossq-tame": FLOW, "crossq-gaussian-tame": GAUSSIAN}
# Of a million steps what is drawn, by task, and what SDAC's authors have by their figures, at its best in training.
LONGEST = {
    "ant": ({"crossq-tame": FLOW}, 5900),
    "halfcheetah": ({"crossq-tame-starts-25000": FLOW, "crossq-gaussian-starts-25000": WHOLE}, 12900),
}


def table(
    folder: Path = Path(__file__).parent / "100k",
    marks: Sequence[int] = MARKS,
    names: dict[str, str] | None = None,
) -> str:
    """Return in Markdown the mean return at the marks and the minutes to the last, with the lowest and highest seed.

    Args:
        folder: what holds TASK/RUN/evaluations.csv.
        marks: steps of the columns.
        names: the runs to show, and what they are called; all of them by default.
    """
    lines = []
    for path in sorted(folder.glob("*/*/evaluations.csv")):
        if names is not None and path.parent.name not in names:
            continue
        rows = frame.read_rows(path)
        seeds = sorted({row["seed"] for row in rows})
        found = [[means(rows, seed, mark) for seed in seeds] for mark in marks]
        task, change = path.parts[-3:-1]
        found += [[late(rows, seed, what, marks) for seed in seeds] for what in ("return", "length")]
        found.append(minutes(path.with_name("metrics.csv"), seeds, marks[-1]))
        lines.append([TASKS[task], (names or {}).get(change, change), str(len(seeds)), *map(_cell, found)])
    steps = [*(f"{mark:,}" for mark in marks), f"from {marks[-2]:,} on", "steps an episode then", "minutes"]
    return frame.markdown(["task", "run" if names is None else "", "seeds", *steps], lines)


def preset() -> str:
    """Return the table of the preset as it is."""
    return table(names={run: name for run, (name, *_) in PRESET.items()})


def _cell(found: Sequence[float | None]) -> str:
    """Return what is known of the seeds, and of how many if not of all."""
    known = [value for value in found if value is not None]
    if not known:
        return "–"
    some = f" ({len(known)} of {len(found)})" if len(known) < len(found) else ""
    return frame.told(known, "{:.0f}").removesuffix(" (one seed)") + some


def minutes(path: Path, seeds: Sequence[str], step: int) -> list[float | None]:
    """Return how long each seed took to a step, if it came there, by the clock and whatever ran beside it."""
    took = {row["seed"]: float(row["seconds"]) / 60 for row in frame.read_rows(path) if int(row["step"]) == step}
    return [took.get(seed) for seed in seeds]


def means(rows: list[dict[str, str]], seed: str, step: int, what: str = "return") -> float | None:
    """Return the mean return, or the mean length, of the episodes that a seed was evaluated with at a step."""
    found = [float(row[what]) for row in rows if row["seed"] == seed and int(row["step"]) == step]
    return statistics.fmean(found) if found else None


def late(rows: list[dict[str, str]], seed: str, what: str = "return", marks: Sequence[int] = MARKS) -> float | None:
    """Return the mean of `means` over a seed's evaluations between the last two marks, if it came to the last."""
    steps = {int(row["step"]) for row in rows if row["seed"] == seed}
    found = [means(rows, seed, step, what) for step in sorted(steps) if marks[-2] <= step <= marks[-1]]
    return statistics.fmean(filter(None, found)) if marks[-1] in steps else None


def curves(folder: Path = Path(__file__).parent / "100k") -> Figure:
    """Draw returns of the preset as it is, the seeds and their mean, beside the means of CrossQ's authors."""
    told = "--preset crossq, 100,000 steps: thin lines are seeds, thick ones their mean"
    figure = new_figure(7.2, 4.6, told)
    *panels, corner = figure.subplots(2, 3).flat
    corner.set_axis_off()
    published = frame.read_rows(folder.with_name("authors.csv"))
    for panel, name in zip(panels, TASKS, strict=True):
        for run in (run for run in PRESET if (folder / name / run).exists()):
            _draw(panel, folder / name / run, *PRESET[run])
        of_task = [row for row in published if row["task"][:-3] == TASKS[name][:-3]]  # whatever its version
        theirs = [row for row in of_task if row["method"].startswith("CrossQ")]
        at, mean, deviation = ([float(row[part]) for row in theirs] for part in ("env_steps", "mean", "sd"))
        panel.errorbar(at, mean, deviation, fmt="D", color=QUIET, markersize=4, capsize=3, label="CrossQ, its authors")
        _label(panel, name, first=name in ("ant", "humanoid"))
    legend_below(figure, "")
    return figure


def longest(folder: Path = Path(__file__).parent / "1M") -> Figure:
    """Draw returns of a million steps, the seeds and their mean, beside what SDAC's authors reach."""
    figure = new_figure(7.2, 3.0, "--preset crossq, a million steps: thin lines are seeds, thick ones their mean")
    for panel, (name, (runs, theirs)) in zip(figure.subplots(1, 2), LONGEST.items(), strict=True):
        for run, look in runs.items():
            _draw(panel, folder / name / run, *look)
        panel.axhline(theirs, color=QUIET, linestyle=":", label="SDAC, its authors, at its best in training")
        _label(panel, name, first=name == "ant")
    legend_below(figure, "")
    return figure


def _draw(panel: Axes, run: Path, label: str, colour: str, style: str) -> None:
    """Draw the seeds of a run and their mean."""
    rows = frame.read_rows(run / "evaluations.csv")
    steps = sorted({int(row["step"]) for row in rows})
    seeds = [[means(rows, seed, step) for step in steps] for seed in sorted({row["seed"] for row in rows})]
    for values in seeds:
        panel.plot(steps, values, color=colour, linewidth=0.6, alpha=0.6)
    mean = [statistics.fmean(part) for part in zip(*seeds, strict=True)]
    panel.plot(steps, mean, color=colour, linewidth=1.8, label=label, linestyle=style)


def _label(panel: Axes, name: str, *, first: bool) -> None:
    panel.set_title(TASKS[name])
    panel.set_xlabel("environment steps")
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_ylabel("return" if first else "")


if __name__ == "__main__":
    print(preset())
    print(table())
    print(table(Path(__file__).parent / "1M", MILLION), end="")
