"""How all figures look and are saved. No display is needed and pyplot's global state is left alone.

Figures are no wider than a page's text, and their letters have at least 8 points there. Lines differ by more than their
colour, so that they can be told apart in grey.
"""

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from . import files

LEARNED, EXACT, QUIET, OTHER = "#0072b2", "black", "0.45", "#d55e00"
COLOURS = (LEARNED, OTHER, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", EXACT)  # Okabe–Ito
DASHES = "-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5))
MARKERS = "o", "s", "^", "D", "v", "P", "X"
PAGE = 7.2  # inches, the width of a page's text
NAMES = {"sac_isfm": "SAC-ISFM", "gaussian_sac": "Gaussian SAC", "denoising": "diffusion policy"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "pdf.fonttype": 42,  # text stays text
    "path.simplify_threshold": 0.5,
}


def looks(count: int) -> list[dict[str, Any]]:
    """Return colour, dashes and marker of every line, no two the same."""
    pairs = itertools.islice(itertools.cycle(zip(COLOURS, MARKERS, strict=True)), count)
    dashes = ((i + 2 * (i // len(COLOURS))) % len(DASHES) for i in range(count))
    styles = [{"color": c, "marker": m, "linestyle": DASHES[d]} for (c, m), d in zip(pairs, dashes, strict=True)]
    return [style | {"markersize": 3.5, "linewidth": 1.3} for style in styles]


class _Shown(Figure):
    """A figure that notebooks show without `%matplotlib inline`, which they need for others that are not pyplot's."""

    def _repr_png_(self) -> bytes:
        self.savefig(file := io.BytesIO(), format="png")
        return file.getvalue()


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure, to draw into under `matplotlib.rc_context(STYLE)`, from 5.2 inches to a page's text wide.

    The title takes as many lines as it needs, and is taken literally, dollar signs included.
    """
    figure = _Shown(figsize=(min(max(width, 5.2), PAGE), height), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False, wrap=True)
    return figure


def label_logarithmic(axis: Axis, text: Callable[[float], str] | None = None, most: int = 6) -> None:
    """Label a logarithmic axis at two round numbers or more, and at most so many, whatever it spans."""
    low, high = sorted(axis.get_view_interval())
    if not 0 < low <= high < np.inf:  # no finite number is drawn: any span will do
        low, high = 1.0, 10.0
        axis.set_view_interval(low, high, ignore=True)
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    choices = [(digits, 1) for digits in ((1, 2, 5), (1, 3), (1,))] + [((1,), stride) for stride in range(2, 30)]
    ticks: list[float] = []
    for digits, stride in choices:
        powers = [power for power in range(first, last + 1) if power % stride == 0]
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        if len(ticks := [tick for tick in ticks if low <= tick <= high]) <= most:
            break
    if len(ticks) < 2:
        ticks = [tick for tick in MaxNLocator(most - 2).tick_values(low, high) if low <= tick <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda x, _: text(x)) if text else EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())


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
