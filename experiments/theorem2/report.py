"""What the study of Theorem 2 reports: slopes with intervals, verdicts in words, tables."""

import math
from typing import Any

import numpy as np
from rich.table import Table

from entroflow.diagnostics import bootstrap_interval

from .. import frame
from . import weights as weighing
from .data import slope

SAMPLES_SLOPE, DIVERGENCE_SLOPE = -0.5, 0.75  # the theorem's: W_2² ∝ N^(-1/2) and exp(¾ D_4)
ABOVE_FLOOR = 4.0  # sizes whose W_2² exceeds this many floors are fitted a second time, alone
FAMILIES = "shifted", "widened"


def summarise(
    rows: list[dict[str, Any]], errors: list[dict[str, Any]], fitted: dict[str, dict[str, list[float]]]
) -> dict[str, Any]:
    """Return the document of results.json: the cells, the slopes and what became of the normalisations."""
    slopes = []
    for d in (1, 2):
        chosen = [row for row in rows if row["study"] == "samples" and row["dimension"] == d]
        (floor,) = (row for row in rows if row["study"] == "floor" and row["dimension"] == d)
        above = [row for row in chosen if average(row) > ABOVE_FLOOR * average(floor)]
        slopes.append(_slope(f"N, d = {d}", chosen, "candidates", SAMPLES_SLOPE))
        slopes.append(_slope(f"N, d = {d}, above floor", above, "candidates", SAMPLES_SLOPE))
        if d == 1:
            slopes.append(_slope("N, the sets alone", chosen, "candidates", SAMPLES_SLOPE, "set_w2_squared"))
    start = [row for row in rows if row["study"] == "divergence" and row["proposal"] == "target"]
    for family in FAMILIES:
        chosen = start + [row for row in rows if row["study"] == "divergence" and row["proposal"] == family]
        slopes.append(_slope(f"D₄, {family}", chosen, "renyi_4", DIVERGENCE_SLOPE))
    return {"slopes": slopes, "cells": rows, "weights": errors, "fitted": fitted}


def average(row: dict[str, Any], key: str = "w2_squared") -> float:
    """Return the geometric mean over the seeds, NaN if one of them broke down."""
    return float(np.exp(np.mean(np.log(np.array(row[key], float)))))


def _slope(
    name: str, rows: list[dict[str, Any]], axis: str, predicted: float, key: str = "w2_squared"
) -> dict[str, Any]:
    """Fit the slope of log W_2² in log N or in D_4, with its bootstrap interval over seeds."""
    x = np.array([row[axis] for row in rows], float)
    x = np.log(x) if axis == "candidates" else x
    values = np.array([row[key] for row in rows], float).T
    value, low, high = math.nan, math.nan, math.nan
    if len(rows) > 1 and np.isfinite(values).all():
        statistic = slope(x)
        value = float(statistic(values))
        low, high = bootstrap_interval(statistic, values, generator=np.random.default_rng(0))
    result = {"name": name, "axis": axis, "points": [row[axis] for row in rows]}
    return result | {
        "slope": value,
        "low": low,
        "high": high,
        "predicted": predicted,
        "verdict": verdict(low, high, predicted),
    }


def verdict(low: float, high: float, predicted: float) -> str:
    """Say how a slope's interval lies to the bound's trend: a bound allows every slope below its own."""
    if math.isnan(low):
        return "too few points"
    if high <= predicted:
        return "within the bound"
    return "exceeds its trend" if low > predicted else "undecided"


def tables(document: dict[str, Any]) -> list[Table]:
    """Return the closing tables, at most 80 columns wide."""
    return [_slopes_table(document), _proposals_table(document), _weights_table(document)]


def _slopes_table(document: dict[str, Any]) -> Table:
    caption = "slope of log W₂² in log N or in D₄, and the largest that the bound allows"
    headers = "W₂² against", "slope", "95 % interval", "bound", "verdict"
    table = frame.new_table("Theorem 2: trends", caption, headers)
    for row in document["slopes"]:
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        table.add_row(row["name"], f"{row['slope']:.2f}", interval, f"{row['predicted']:.2f}", row["verdict"])
    return table


def proposal_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells that compare proposals at equal N, the fixed Gaussian of the other sweep among them."""
    compared = [row for row in document["cells"] if row["study"] == "proposals"]
    n = compared[0]["candidates"]
    shared = [
        row for row in document["cells"] if (row["study"], row["dimension"], row["candidates"]) == ("samples", 2, n)
    ]
    names = [row["proposal"] for row in compared]
    place = names.index("uniform, ±4") if "uniform, ±4" in names else len(compared)
    return compared[:place] + shared + compared[place:]


def _proposals_table(document: dict[str, Any]) -> Table:
    rows = proposal_rows(document)
    caption = "geometric means over seeds; D₄ of policies is estimated from their samples"
    title = f"Proposals at N = {rows[0]['candidates']}, d = 2"
    table = frame.new_table(title, caption, ("proposal", "D₄", "ESS/N", "W₂²"))
    for row in rows:
        table.add_row(row["proposal"], f"{row['renyi_4']:.2f}", f"{row['ess']:.2f}", f"{average(row):.2g}")
    return table


def _weights_table(document: dict[str, Any]) -> Table:
    sizes = sorted({row["candidates"] for row in document["weights"]})
    few, many = sizes[0], sizes[min(3, len(sizes) - 1)]
    headers = (
        "weights",
        *[f"{what}\nN = {n}" for n in (few, many) for what in ("bias %", "sd %")],
        "fit: mean\nerror %",
        "fit: variance\nerror %",
    )
    caption = f"of the loss's gradient, relative to the gradient; fits with {few} new candidates a step"
    table = frame.new_table("Normalisations", caption, headers)
    for name, fit in document["fitted"].items():
        by_size = {row["candidates"]: row for row in document["weights"] if row["normalisation"] == name}
        numbers = [100 * by_size[n][key] for n in (few, many) for key in ("gradient_bias", "gradient_sd")]
        relative = [
            100 * (np.array(fit["mean"]) / weighing.MEAN - 1),
            100 * (np.array(fit["variance"]) / weighing.SD**2 - 1),
        ]
        table.add_row(
            name, *map(frame.short, numbers), *[f"{part.mean():+.1f} ± {part.std():.1f}" for part in relative]
        )
    return table
