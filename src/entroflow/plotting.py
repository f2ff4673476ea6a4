"""How all figures look and are saved. No display is needed and pyplot's global state is left alone.

What the functions have in common:

Args:
    width: the figure's width in inches, at least 5.2.
    height: its height in inches.
    title: its title, in as many lines as it takes, taken literally, dollar signs included.
    figure: the figure.
    note: heading of its legend, none if empty.
    columns: number of the legend's columns.
    folder: where to write to.
    name: name of the files, without ending.

Returns:
    The figure.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from . import files

LEARNED, EXACT, QUIET = "#0072b2", "black", "0.45"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "path.simplify_threshold": 0.5,
}


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure, to draw into under `matplotlib.rc_context(STYLE)`."""
    figure = Figure(figsize=(max(width, 5.2), height), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False, wrap=True)
    return figure


def legend_below(figure: Figure, note: str, columns: int = 3) -> None:
    """Put one legend below all panels, each label once."""
    handles = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    style = {"loc": "outside lower center", "ncols": columns, "fontsize": 8, "title_fontsize": 8}
    figure.legend(list(handles.values()), list(handles), title=note or None, **style)


def save(folder: Path, name: str, figure: Figure) -> None:
    """Write a figure as PNG and PDF."""
    with mpl.rc_context(STYLE):
        for kind in ("png", "pdf"):
            with files.partial(folder) as file:
                figure.savefig(file, dpi=150, format=kind)
                files.settle(file, folder / f"{name}.{kind}")
            figure.set_layout_engine("none")  # keep the layout just found; finding it is most of the work
