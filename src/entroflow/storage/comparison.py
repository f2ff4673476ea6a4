"""Several training runs side by side: learning curves, final scores and who improves on whom, with intervals.

The definitions are those of Agarwal et al. (NeurIPS 2021), see `entroflow.diagnostics.statistics`: a run is one seed of
one algorithm on one task; what is reported is the interquartile mean over runs, with intervals of the stratified
bootstrap. Episodes of one evaluation are averaged first, for they are not independent runs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from .. import checks
from ..diagnostics.statistics import bootstrap_interval, iqm, probability_of_improvement
from .records import Record

ALL_TASKS = "all tasks"
POINTS = 100  # of a curve at most
FEW = 5  # seeds, below which an interval is said to be rough


class Estimate(NamedTuple):
    """A number and its 95 % interval, which a single seed does not have."""

    value: float
    interval: tuple[float, float] | None


class Curve(NamedTuple):
    """One algorithm on one task, or on all tasks together.

    Attributes:
        task: its id, or ALL_TASKS.
        steps: environment steps of one seed; for all tasks, per cent of the compared steps.
        values: normalised for all tasks.
        iqm: over seeds and tasks.
        interval: of 95 %; none for a single seed.
        area: under the curve, divided by its length: the average over the steps.
        minutes: to the last step, for all seeds of a run folder together; the mean over run folders.
    """

    task: str
    algorithm: str
    steps: Num[np.ndarray, " t"]
    values: Float[np.ndarray, "seeds tasks t"]
    iqm: Float[np.ndarray, " t"]
    interval: Float[np.ndarray, "2 t"] | None
    area: Estimate
    minutes: float

    @property
    def final(self) -> Estimate:
        """The score at the last step."""
        ends = None if self.interval is None else (float(self.interval[0, -1]), float(self.interval[1, -1]))
        return Estimate(float(self.iqm[-1]), ends)


class Improvement(NamedTuple):
    """Probability that a run of the first algorithm ends better than one of the other, ties counting one half."""

    task: str
    first: str
    other: str
    probability: Estimate


class Comparison(NamedTuple):
    """What `compare` finds: a curve for every task and algorithm, and one per algorithm over all tasks.

    Attributes:
        aggregate: the latter; empty unless every algorithm has all of several tasks.
        bounds: of every task of the aggregate what its scores 0 and 1 stand for.
        improvements: of the first algorithm over each other one, by task, then over all tasks.
        notes: sentences that belong under every figure and table made of this.
    """

    metric: str
    curves: list[Curve]
    aggregate: list[Curve]
    bounds: dict[str, tuple[float, float]]
    improvements: list[Improvement]
    notes: list[str]


class _Series(NamedTuple):
    """One seed: values and seconds at steps that increase."""

    steps: Num[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    seconds: Float[np.ndarray, " n"]


_Group = list[dict[int, _Series]]  # the runs behind one line: of every run folder the seeds


def compare(records: Sequence[Record], *, metric: str = "return", labels: Sequence[str] | None = None) -> Comparison:
    """Compare runs, task by task and over all tasks.

    Runs of the same algorithm on the same task with the same settings are put together if their seeds differ. Where
    settings differ, each is a line of its own, named after what differs, if not after its label.

    The metric is `return` or `length` of the evaluations, `train/return`, or a column of metrics.csv. Curves of one
    task share their steps and end with the shortest run; values between two steps of a run are interpolated. For
    returns, there are improvements and an aggregate, in which 0 and 1 are the lowest and the highest interquartile mean
    that any compared algorithm has on the task.
    """
    if not records:
        raise checks.error("records", "none", "at least one run", "pass folders of training runs")
    names = list(labels) if labels is not None else _names(records)
    if len(names) != len(records):
        expected = f"{len(records)}, one for each run"
        raise checks.error("labels", f"{len(names)} names", expected, "name every run")
    tasks = {task: _groups(records, names, task, metric) for task in dict.fromkeys(r.config["env"] for r in records)}
    notes: list[str] = []
    curves = [curve for task, groups in tasks.items() for curve in _task_curves(task, groups, notes)]
    aggregate, bounds, improvements = [], {}, []
    if metric in ("return", "train/return"):
        aggregate, bounds = _aggregate(curves, notes)
        for task in (*tasks, ALL_TASKS):
            improvements += _improvements(names[0], [curve for curve in curves + aggregate if curve.task == task])
    counts = {len(curve.values) for curve in curves}
    if 1 in counts:
        notes.append("a single seed has no interval")
    if any(1 < count < FEW for count in counts):
        notes.append(f"with fewer than {FEW} seeds the intervals are rough, and rather too narrow")
    return Comparison(metric, curves, aggregate, bounds, improvements, notes)


def _names(records: Sequence[Record]) -> list[str]:
    """Name runs after their algorithm and after the settings that differ between its runs on the same task."""
    flat = [dict(_flatten(record.config.get("settings") or {})) for record in records]
    kinds = [(record.config["algorithm"], record.config["env"]) for record in records]
    differing: dict[str, dict[str, None]] = {algorithm: {} for algorithm, _ in kinds}
    for kind in dict.fromkeys(kinds):
        alike = [settings for settings, other in zip(flat, kinds, strict=True) if other == kind]
        keys = dict.fromkeys(key for settings in alike for key in settings)
        differing[kind[0]] |= {key: None for key in keys if any(part.get(key) != alike[0].get(key) for part in alike)}
    parts = [
        ", ".join(f"{key}={settings.get(key)}" for key in differing[algorithm])
        for settings, (algorithm, _) in zip(flat, kinds, strict=True)
    ]
    return [f"{algorithm} ({part})" if part else algorithm for part, (algorithm, _) in zip(parts, kinds, strict=True)]


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _groups(records: Sequence[Record], names: Sequence[str], task: str, metric: str) -> dict[str, _Group]:
    """Return the runs on a task by the name of their line."""
    groups: dict[str, _Group] = {}
    for name, record in zip(names, records, strict=True):
        if record.config["env"] == task:
            group, found = groups.setdefault(name, []), _series(record, metric)
            if twice := sorted(found.keys() & {seed for folder in group for seed in folder}):
                given = f"seed {twice[0]} of {name} on {task} again"
                remedy = "leave one of the two out, or give them different labels"
                raise checks.error(str(record.folder), given, "every seed once", remedy)
            group.append(found)
    return groups


def _series(record: Record, metric: str) -> dict[int, _Series]:
    """Return the metric of every seed."""
    evaluated = metric in ("return", "length")
    table, column = record.evaluations if evaluated else record.metrics, metric.removeprefix("train/")
    if column not in table or column in ("seed", "step", "episode", "episodes"):
        options = ["return", "length", "train/return", "train/length", *list(record.metrics)[6:]]
        checks.choice("metric", metric, options)
    given = ~np.isnan(table[column]) if not evaluated else np.ones(len(table[column]), bool)
    if not given.any():
        what = "evaluation" if evaluated else f"value of {metric}"
        remedy = "wait for the first one" + (", or compare train/return" if metric == "return" else "")
        raise checks.error(str(record.folder), f"no {what} yet", "at least one", remedy)
    series = {}
    for seed in np.unique(table["seed"][given]):
        rows = given & (table["seed"] == seed)
        steps, inverse, counts = np.unique(table["step"][rows], return_inverse=True, return_counts=True)
        values, seconds = (np.bincount(inverse, table[name][rows]) / counts for name in (column, "seconds"))
        if not np.isfinite(values).all():
            worst = np.argmin(np.isfinite(values))
            found = f"{metric} {values[worst]} at step {steps[worst]}"
            raise checks.error(str(record.folder), found, "finite numbers", "leave this run out")
        series[int(seed)] = _Series(steps, values, seconds)
    return series


def _task_curves(task: str, groups: dict[str, _Group], notes: list[str]) -> list[Curve]:
    """Bring all runs on a task to the same steps."""
    lines = {name: [part for folder in group for part in folder.values()] for name, group in groups.items()}
    every = [part for parts in lines.values() for part in parts]
    last = {name: max(part.steps[-1] for part in parts) for name, parts in lines.items()}
    begin, end = max(part.steps[0] for part in every), min(part.steps[-1] for part in every)
    if begin > end:
        raise checks.error(task, f"runs up to step {end} and from step {begin} on", "steps in common", "train longer")
    if longest := [f"{name} goes on to {step:,}" for name, step in last.items() if step > end]:
        notes.append(f"{task}: compared up to step {end:,}, where the shortest run ends; {', '.join(longest)}")
    inside = [part.steps[(part.steps >= begin) & (part.steps <= end)] for part in every]
    grid = np.unique(np.concatenate([[begin], min(inside, key=len), [end]]))
    if len(grid) > POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, POINTS).round().astype(int)]
    if any(not np.isin(grid, part.steps).all() for part in every):
        notes.append(f"{task}: runs were measured at different steps; values between them are interpolated")
    curves = []
    for name, parts in lines.items():
        values = np.stack([np.interp(grid, part.steps, part.values) for part in parts])
        seconds = [max(np.interp(end, part.steps, part.seconds) for part in run.values()) for run in groups[name]]
        curves.append(_curve(task, name, grid, values[:, None], float(np.mean(seconds)) / 60))
    return curves


def _curve(
    task: str, algorithm: str, steps: Num[np.ndarray, " t"], values: Float[np.ndarray, "seeds tasks t"], minutes: float
) -> Curve:
    estimates = [_estimate(iqm, values[..., i]) for i in range(len(steps))]
    interval = np.array([estimate.interval for estimate in estimates]).T if len(values) > 1 else None
    length = steps[-1] - steps[0]
    average = np.trapezoid(values, steps, axis=-1) / length if length else values[..., -1]
    center = np.array([estimate.value for estimate in estimates])
    return Curve(task, algorithm, steps, values, center, interval, _estimate(iqm, average), minutes)


def _estimate(statistic: Callable[..., Any], *scores: Float[np.ndarray, "_ tasks"]) -> Estimate:
    interval = None
    if min(map(len, scores)) > 1:
        interval = bootstrap_interval(statistic, *scores, generator=np.random.default_rng(0))
    return Estimate(float(statistic(*scores)), interval)


def _aggregate(curves: list[Curve], notes: list[str]) -> tuple[list[Curve], dict[str, tuple[float, float]]]:
    """Put all tasks together, if every algorithm has them all, and if all tasks tell algorithms or steps apart."""
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    algorithms = list(dict.fromkeys(curve.algorithm for curve in curves))
    found = {(curve.algorithm, curve.task): curve for curve in curves}
    if min(len(tasks), len(algorithms)) < 2:  # one's own lowest and highest value would say nothing
        return [], {}
    if missing := [(name, task) for name in algorithms for task in tasks if (name, task) not in found]:
        notes.append(f"not put together over all tasks, for {missing[0][0]} has no run on {missing[0][1]}")
        return [], {}
    bounds = {}
    for task in tasks:
        centers = np.concatenate([found[name, task].iqm for name in algorithms])
        bounds[task] = float(centers.min()), float(centers.max())
        if bounds[task][0] == bounds[task][1]:
            notes.append(f"not put together over all tasks, for on {task} all scores are the same")
            return [], {}
    first = max(100 * curve.steps[0] / max(curve.steps[-1], 1) for curve in curves)
    percents = np.unique(np.append(np.linspace(first, 100, POINTS // 2 + 1), 100.0))

    def normalised(curve: Curve) -> Float[np.ndarray, "seeds p"]:
        low, high = bounds[curve.task]
        steps = percents / 100 * curve.steps[-1]
        return (np.stack([np.interp(steps, curve.steps, run) for run in curve.values[:, 0]]) - low) / (high - low)

    together = []
    for name in algorithms:
        parts = [found[name, task] for task in tasks]
        counts = [len(part.values) for part in parts]
        if min(counts) < max(counts):
            notes.append(f"{ALL_TASKS}: {name} counts with its first {min(counts)} seeds, for some tasks have no more")
        values = np.stack([normalised(part)[: min(counts)] for part in parts], axis=1)
        together.append(_curve(ALL_TASKS, name, percents, values, sum(part.minutes for part in parts)))
    notes.append(
        f"{ALL_TASKS}: 0 and 1 are the lowest and the highest interquartile mean of any compared algorithm on the task"
    )
    return together, bounds


def _improvements(first: str, curves: list[Curve]) -> list[Improvement]:
    """Compare the final scores of an algorithm with those of the others on one task, if it has runs there."""
    ends = {curve.algorithm: curve.values[..., -1] for curve in curves}
    probability = lambda other: _estimate(probability_of_improvement, ends[first], ends[other])  # noqa: E731
    others = [name for name in ends if first in ends and name != first]
    return [Improvement(curves[0].task, first, other, probability(other)) for other in others]
