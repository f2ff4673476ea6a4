"""Table and figure of the changes, beside the default's three seeds from `experiments/mujoco`.

python -m experiments.changes.report
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from entroflow.plotting import STYLE, legend_below, looks, new_figure
from entroflow.storage.tables import replace

from .. import frame

HERE = Path(__file__).parent
FOLDERS = {"HalfCheetah-v5": "halfcheetah", "Hopper-v5": "hopper"}
MARKS = 5000, 10_000, 15_000, 20_000
SCREEN_MARKS = 5000, 10_000, 15_000, 20_000, 25_000, 45_000
DEFAULTS = "defaults"


def controls() -> list[frame.Row]:
    """Return the mean of every evaluation of the default's runs until the last mark, the best of 16 actions alone."""
    rows: dict[tuple[str, str, int], list[float]] = {}
    for task, folder in FOLDERS.items():
        for row in frame.read_rows(HERE.parent / "mujoco" / folder / "sac_isfm" / "evaluations.csv"):
            if 0 < int(row["step"]) <= MARKS[-1]:
                rows.setdefault((task, row["seed"], int(row["step"])), []).append(float(row["return"]))
    names = "task", "seed", "step"
    return [
        dict(zip(names, key, strict=True)) | {"change": DEFAULTS, "best of 16": np.mean(parts)}
        for key, parts in rows.items()
    ]


def table(rows: Sequence[frame.Row]) -> str:
    """Return Markdown tables: returns at the marks, one seed's or the mean [lowest, highest] of several; the rest."""
    return returns(rows) + "\n" + learned(rows)


def learned(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table of what every training had learned at its end."""
    names = {
        "q": "Q",
        "critic_error": "error of Q",
        "entropy": "entropy",
        "temperature": "α",
        "ess": "ESS/N",
        "beta": "β",
    }
    last = {tuple(str(row[name]) for name in ("task", "change", "seed", "step")): row for row in rows}
    ends = {key[:3]: (key[3], row) for key, row in last.items()}
    lines = [
        [f"{task}, {change}", seed, f"{int(step):,}", *(f"{float(row[name]):.3g}" for name in names)]
        for (task, change, seed), (step, row) in sorted(ends.items())
    ]
    return frame.markdown(["task and change", "seed", "steps", *names.values()], lines)


def returns(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table of the returns."""
    headers = ["task and change", "seeds"]
    for mark in MARKS:
        headers += [f"{mark:,}: best of 16", "drawn"]
    rows, lines = [*controls(), *rows], []
    for task in FOLDERS:
        for change in dict.fromkeys(row["change"] for row in rows if row["task"] == task):
            of = [row for row in rows if (row["task"], row["change"]) == (task, change)]
            cells = [f"{task}, {change}", str(len({str(row["seed"]) for row in of}))]
            for mark in MARKS:
                at = [row for row in of if int(row["step"]) == mark]
                cells += [_told(row[name] for row in at if name in row) for name in ("best of 16", "drawn")]
            lines.append(cells)
    return frame.markdown(headers, lines)


def screened(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table of the screening: returns of the best of 16 actions at the marks, and Q at the last."""
    lines = []
    for task, change in dict.fromkeys((row["task"], row["change"]) for row in rows):
        of = [row for row in rows if (row["task"], row["change"]) == (task, change)]
        cells = [f"{task}, {change}", str(len({row["seed"] for row in of}))]
        cells += [_told(row["best of 16"] for row in of if int(row["step"]) == mark) for mark in SCREEN_MARKS]
        last = max(int(row["step"]) for row in of)
        lines.append([*cells, f"{last:,}", _told(row["q"] for row in of if int(row["step"]) == last)])
    headers = ["task and change", "seeds", *(f"{mark:,}" for mark in SCREEN_MARKS), "last step", "Q there"]
    return frame.markdown(headers, lines)


def write(out: Path, rows: Sequence[frame.Row]) -> None:
    """Write table.md and curves.png, every seed a line."""
    replace(out / "table.md", table(rows))
    figure_of(rows).savefig(out / "curves.png", dpi=150)


def figure_of(rows: Sequence[frame.Row]) -> Figure:
    """Return the figure: every seed a line."""
    rows = [*controls(), *rows]
    changes = [name for name in dict.fromkeys(row["change"] for row in rows) if name != DEFAULTS]
    styles = dict(zip(changes, looks(len(changes)), strict=True))
    styles[DEFAULTS] = {"color": "0.6", "marker": ".", "linestyle": "-"}
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 4.0, "Return during training, the best of 16 actions, a line for every seed")
        for ax, task in zip(figure.subplots(1, len(FOLDERS)), FOLDERS, strict=True):
            for change in (DEFAULTS, *changes):
                of = [row for row in rows if (row["task"], row["change"]) == (task, change)]
                for seed in sorted({str(row["seed"]) for row in of}):
                    line = [row for row in of if str(row["seed"]) == seed]
                    steps, returns = ([float(row[name]) for row in line] for name in ("step", "best of 16"))
                    ax.plot(steps, returns, label=change, **styles[change])
            ax.set(title=task, xlabel="environment steps", xticks=MARKS)
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.axes[0].set_ylabel("return")
        legend_below(figure, "", 3)
    return figure


def _told(values: Iterable[object]) -> str:
    numbers = [float(str(value)) for value in values]
    if not numbers:
        return "–"
    if len(numbers) == 1:
        return f"{numbers[0]:.0f}"
    return f"{np.mean(numbers):.0f} [{min(numbers):.0f}, {max(numbers):.0f}]"


if __name__ == "__main__":
    write(HERE, frame.read_rows(HERE / "results.csv"))
    replace(HERE / "screen.md", screened(frame.read_rows(HERE / "screen.csv")))
