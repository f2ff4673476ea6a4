"""The report: tables in Markdown and figures, from all that was measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from entroflow import plotting
from experiments import frame

from .accuracy import DIVERGENCES, METHODS, pareto
from .algorithms import OURS, PEERS
from .measure import Row
from .scaling import flatness

NAMES = {
    "sac_isfm": "SAC-ISFM",
    "gaussian_sac": "Gaussian SAC",
    "sb3": "SB3 SAC",
    "sbx": "SBX SAC",
    "sbx_alike": "SBX SAC, networks of our Gaussian SAC",
}
PARTS = {
    "update": [("update", "one update", 1e3, "ms")],
    "act": [
        ("act_1", "a drawn action, 1 observation", 1e3, "ms"),
        ("act_256", "drawn actions, 256 observations", 1e3, "ms"),
        ("best_1", "the deterministic action, 1 observation", 1e3, "ms"),
        ("best_of_4", "the same with `action_candidates=4`", 1e3, "ms"),
    ],
    "density": [("density", "log π of 256 given actions", 1e3, "ms")],
    "steps": [("steps", "a step of training, all included", 1e3, "ms")],
}
STARTS = ("cold", 20), ("warm", 3)  # and what is aimed at, in seconds
UNITS = {"action dimension": "components", "width": "units", "LQR runs": "runs"}  # of sizes, where not by their name
MARKERS = {"closed form": "o", "exact, by JVP": "s", "Hutchinson, 1 probe": "x", "Hutchinson, 16 probes": "+"}


def text(document: Row) -> str:
    """Return the report in Markdown.

    Args:
        document: what `run` has written: for every part, by task or size, the machine and what was found.
    """
    sections = [_targets(document), *_algorithms(document), _start(document), _pieces(document), _scaling(document)]
    sections += [_accuracy(document), _export(document), _machines(document)]
    return "\n\n".join(["# Benchmarks", *(section for section in sections if section)]) + "\n"


def draw(out: Path, document: Row) -> None:
    """Draw the figures of the parts that there are, into a folder, as PNG."""
    for name, figure_of in {"scaling": scaling_figure, "accuracy": accuracy_figure}.items():
        if name in document:
            figure_of(document[name]).savefig(out / f"{name}.png", dpi=150)


def _found(document: Row, part: str) -> Iterator[tuple[str, Any]]:
    """Go over what was found in a part."""
    for name, entry in document.get(part, {}).items():
        yield name, entry["found"]


def _table(headers: list[str], rows: list[list[str]]) -> str:
    return frame.markdown(headers, rows).rstrip()


def _number(value: float) -> str:
    """Write a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _algorithms(document: Row) -> Iterator[str]:
    """Make a table of all algorithms for every task."""
    for task in dict.fromkeys(task for part in PARTS for task in document.get(part, {})):
        legend = "Processor time on one core, 10th percentile (median)."
        yield f"## {task}\n\n{of_task(document, task)}\n\n{legend}"


def of_task(document: Row, task: str) -> str:
    """Return the table of all algorithms for one task."""
    found = {part: document[part][task]["found"] for part in PARTS if task in document.get(part, {})}
    present = [name for name in (*OURS, *PEERS) if any(name in rows for rows in found.values())]
    rows = []
    for part, rows_of_part in found.items():
        for key, label, factor, unit in PARTS[part]:
            cells = [_time(rows_of_part.get(name, {}).get(key), factor) for name in present]
            rows.append([f"{label}, {unit}", *cells])
        if part == "steps":
            speeds = [rows_of_part.get(name, {}).get("steps") for name in present]
            rows.append(["steps per second", *[f"{1 / row['cpu_median']:.0f}" if row else "–" for row in speeds]])
    return _table(["", *[NAMES[name] for name in present]], rows)


def _time(row: Row | None, factor: float) -> str:
    if row is None:
        return "–"
    return f"{_number(factor * row['cpu'])} ({_number(factor * row['cpu_median'])})"


def _start(document: Row) -> str:
    rows = []
    for task, found in _found(document, "start"):
        for name, row in found.items():
            times = [f"{row[kind]['wall']:.1f} ({row[kind]['cpu']:.1f})" for kind in ("cold", "warm")]
            rows.append(
                [f"{task}, {NAMES[name]}", *times, f"{row['warm']['imports']:.1f}", f"{row['peak'] / 1e6:,.0f}"]
            )
    headers = ["", "first action and update, cold, s", "with compiled programs on disk, s", "of these imports, s"]
    headers.append("peak memory, MB")
    note = "From the start of the process: clock (processor), all cores, the fastest of three starts."
    return f"## From nothing to the first update\n\n{_table(headers, rows)}\n\n{note}" if rows else ""


def _pieces(document: Row) -> str:
    tables = []
    for task, found in _found(document, "pieces"):
        rows = [
            [
                name.replace("  ", "&emsp;"),
                _number(1e3 * row["cpu"]),
                _number(1e3 * row["cpu_median"]),
                f"{row['system_median'] / row['cpu_median']:.0%}",
                f"{row['faults_median']:,.0f}",
            ]
            for name, row in found.items()
        ]
        headers = [task, "ms", "median", "in the system", "page faults"]
        tables.append(_table(headers, rows))
    note = "Pieces compiled alone; together they share work, and need not add up."
    return "\n\n".join(["## Where the time of an update of SAC-ISFM goes", *tables, note]) if tables else ""


def _scaling(document: Row) -> str:
    rows = []
    for axis, found in _found(document, "scaling"):
        first, last = found["rows"][0], found["rows"][-1]
        share = "–"
        if last["operations"]:
            share = " to ".join(f"{row['operations'] / row['cpu'] / found['matmul_rate']:.0%}" for row in (first, last))
        sizes = f"{first['size']} to {last['size']}"
        times = f"{_number(1e3 * first['cpu'])} to {_number(1e3 * last['cpu'])}"
        rows.append([axis, sizes, times, f"{found['slope']:.2f}", share])
    if not rows:
        return ""
    headers = ["", "sizes", "ms", "log-log slope of time against operations", "share of the speed of matrix products"]
    rates = [found["matmul_rate"] for _, found in _found(document, "scaling")]
    note = (
        "Processor time of an improvement step of SAC-ISFM (for action dimensions: of drawing its candidates with "
        "densities; for LQR runs: of an iteration of `entroflow lqr`), all other sizes at their defaults. Large matrix "
        f"products reach {min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f} GFLOP/s."
    )
    parts = [f"## How it grows\n\n{_table(headers, rows)}\n\n{note}"]
    for axis, found in _found(document, "scaling"):
        paired = "alone" in found["rows"][0]
        columns = [axis, "ms", "operations, millions"] + ["sampling alone, ms", "median of the ratio"] * paired
        lines = []
        for row in found["rows"]:
            operations = f"{row['operations'] / 1e6:,.1f}" if row["operations"] else "–"
            line = [f"{row['size']}", _number(1e3 * row["cpu"]), operations]
            if paired:
                line += [_number(1e3 * row["alone"]["cpu"]), f"{row['ratio']:.2f}"]
            if axis == "LQR runs":
                line[2] = f"{1e3 * row['cpu'] / row['size']:.3g} per run"
            lines.append(line)
        if axis == "LQR runs":
            columns[2] = "ms per run"
        parts.append(_table(columns, lines))
    return "\n\n".join(parts)


def _accuracy(document: Row) -> str:
    parts = []
    for name, found in _found(document, "accuracy"):
        names = lambda row: f"{row['divergence']}, {row['method']}, {row['steps']} steps"  # noqa: E731
        rows = [[names(row), f"{row['error']:.1e}", _number(1e3 * row["cpu"])] for row in pareto(found["rows"])]
        differ = f"The two references, of different schemes, differ by {found['references_differ_by']:.0e}."
        parts.append(_table([f"{name} (d = {found['size']})", "error", "ms"], rows) + f"\n\n{differ}")
    note = (
        "Settings that no other one beats: root mean square error of log π of 256 given actions, against double "
        "precision and an adaptive solver, and processor time for all of them."
    )
    return "\n\n".join(["## What accuracy of log π costs", *parts, note]) if parts else ""


def _export(document: Row) -> str:
    rows = []
    for name, found in _found(document, "export"):
        for row in found:
            kinds = [row[kind] for kind in ("JAX", "StableHLO", "ONNX")]
            times = [f"{_number(1e6 * kind['cpu'])} ({_number(1e6 * kind['cpu_median'])})" for kind in kinds]
            rows.append([name, f"{row['batch']}", *times, f"{max(kind['difference'] for kind in kinds):.0e}"])
    headers = ["policy", "observations", "JAX, µs", "StableHLO, µs", "ONNX, µs", "largest difference"]
    note = "Processor time of a call, 10th percentile (median), from NumPy to NumPy."
    return f"## Exported policies\n\n{_table(headers, rows)}\n\n{note}" if rows else ""


def _targets(document: Row) -> str:
    """Set what was measured against what it should be."""
    rows = []
    for task, found in _found(document, "update"):
        rows += _ratio(f"update, SAC-ISFM / Gaussian SAC, {task}", found, "update", "sac_isfm", "gaussian_sac", 3)
        rows += _ratio(f"update, SAC-ISFM / SBX, {task}", found, "update", "sac_isfm", "sbx", 3)
        rows += _ratio(f"update, Gaussian SAC / SBX, {task}", found, "update", "gaussian_sac", "sbx", 1)
        alike = f"update, Gaussian SAC / SBX with its networks, {task}"
        rows += _ratio(alike, found, "update", "gaussian_sac", "sbx_alike", 1.1)
    for task, found in _found(document, "act"):
        rows += _ratio(f"one drawn action, SAC-ISFM / SBX, {task}", found, "act_1", "sac_isfm", "sbx", 2)
        rows += _ratio(f"256 drawn actions, SAC-ISFM / SBX, {task}", found, "act_256", "sac_isfm", "sbx", 2.5)
        rows += _ratio(f"the deterministic action, SAC-ISFM / SBX, {task}", found, "best_1", "sac_isfm", "sbx", 4)
        label = f"the same with `action_candidates=4`, {task}"
        rows += _ratio(label, found, "best_of_4", "sac_isfm", "sbx", 4)
    for axis, found in _found(document, "scaling"):
        if axis == "action dimension":
            label = "sampling with log π / sampling alone, worst of all action dimensions"
            rows.append(_line(label, flatness(found["rows"]), 1.3))
    for task, found in _found(document, "start"):
        for name, kind, most in [(name, *limit) for name in OURS if name in found for limit in STARTS]:
            label = f"first update, {kind}, {NAMES[name]}, {task}, s"
            rows.append(_line(label, found[name][kind]["wall"], most))
    return f"## Targets\n\n{_table(['', 'measured', 'at most', ''], rows)}" if rows else ""


def _ratio(label: str, found: Row, key: str, above: str, below: str, most: float) -> list[list[str]]:
    if above not in found or below not in found:
        return []
    return [_line(label, found[above][key]["cpu"] / found[below][key]["cpu"], most)]


def _line(label: str, value: float, most: float) -> list[str]:
    return [label, f"{value:.2f}", f"{most:g}", "met" if value <= most else "missed"]


def _machines(document: Row) -> str:
    """Say what everything was measured on, once for every different machine or version."""
    lines: dict[str, None] = {}
    for part in document.values():
        for entry in part.values():
            machine = {name: value for name, value in entry["machine"].items() if name != "load_at_start"}
            lines[", ".join(f"{name} {value}" for name, value in machine.items())] = None
            for row in entry["found"].values() if isinstance(entry["found"], dict) else []:
                if isinstance(row, dict) and "versions" in row:
                    lines[", ".join(f"{name} {value}" for name, value in row["versions"].items())] = None
    return "## Measured on\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def scaling_figure(part: Row) -> Figure:
    """Return time against size for every axis, with the time that a slope of one in operations would give.

    Args:
        part: what was measured of scaling.

    Returns:
        The figure.
    """
    columns = 3
    with mpl.rc_context(plotting.STYLE):
        rows = -(-len(part) // columns)
        figure = plotting.new_figure(7.2, 0.8 + 1.9 * rows, "Processor time on one core against size")
        for i, (axis, entry) in enumerate(part.items()):
            found = entry["found"]
            ax = figure.add_subplot(rows, columns, i + 1)
            sizes = [row["size"] for row in found["rows"]]
            times = [1e3 * row["cpu"] for row in found["rows"]]
            ax.loglog(sizes, times, "o-", color=plotting.LEARNED, label="measured", markersize=4)
            if "alone" in found["rows"][0]:
                alone = [1e3 * row["alone"]["cpu"] for row in found["rows"]]
                ax.loglog(sizes, alone, "s--", color=plotting.OTHER, label="sampling without log π", markersize=4)
            work = [row["operations"] or row["size"] for row in found["rows"]]
            expected = [times[-1] * amount / work[-1] for amount in work]
            ax.loglog(sizes, expected, ":", color=plotting.QUIET, label="as the operations")
            ax.set_title(axis)
            ax.set(xlabel=UNITS.get(axis, axis), ylabel="ms" if i % columns == 0 else "")
            plotting.label_logarithmic(ax.xaxis, lambda size: f"{size:g}", most=5)
            plotting.label_logarithmic(ax.yaxis, lambda time: f"{time:g}", most=5)
        plotting.legend_below(figure, "")
    return figure


def accuracy_figure(part: Row) -> Figure:
    """Return error against time: colours are solvers, markers and dashes divergences, marks numbers of steps.

    Args:
        part: what was measured of accuracy.

    Returns:
        The figure.
    """
    looks = dict(zip(DIVERGENCES, plotting.DASHES, strict=False))
    colours = dict(zip(METHODS, plotting.COLOURS, strict=False))
    with mpl.rc_context(plotting.STYLE):
        figure = plotting.new_figure(7.2, 4.4, "Error of log π against processor time for 256 actions")
        for i, (name, entry) in enumerate(part.items()):
            found = entry["found"]
            ax = figure.add_subplot(1, len(part), i + 1)
            for divergence, method in [(d, m) for d in DIVERGENCES for m in METHODS]:
                rows = [row for row in found["rows"] if (row["divergence"], row["method"]) == (divergence, method)]
                if rows:
                    x, y = [1e3 * row["cpu"] for row in rows], [row["error"] for row in rows]
                    look = {"linestyle": looks[divergence], "marker": MARKERS[divergence], "color": colours[method]}
                    ax.loglog(x, y, label=f"{divergence}, {method}", ms=4, **look)
            best = pareto(found["rows"])
            x, y = [1e3 * row["cpu"] for row in best], [row["error"] for row in best]
            ax.step(x, y, where="post", color="0.8", lw=4, zorder=0, label="the best of all")
            ax.set_title(f"{name}, d = {found['size']}")
            ax.set(xlabel="processor time in ms", ylabel="root mean square error of log π" if i == 0 else "")
            plotting.label_logarithmic(ax.xaxis, lambda time: f"{time:g}", most=4)
            plotting.label_logarithmic(ax.yaxis, frame.power_of_ten)
        plotting.legend_below(figure, "")
    return figure
