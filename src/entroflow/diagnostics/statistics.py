"""Statistics over independent runs, as rliable defines them (Agarwal et al., NeurIPS 2021).

Scores are arrays (seeds, tasks): one number for a run, not for an episode, because the run is what was repeated. A
*statistic* maps scores (..., seeds, tasks) to numbers (...), so that all resamples are computed in one call.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks


def iqm(scores: ArrayLike) -> Float[np.ndarray, "*batch"]:
    """Interquartile mean: the mean of the middle half of all runs of all tasks together.

    A quarter of the runs, rounded down, is dropped at either end. Scores (..., seeds, tasks) ↦ (...).

    Example:
        >>> float(iqm([[0.0], [1.0], [2.0], [100.0]]))  # four seeds on one task
        1.5
    """
    scores = _scores("scores", scores)
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    dropped = ordered.shape[-1] // 4
    return np.asarray(ordered[..., dropped : ordered.shape[-1] - dropped].mean(axis=-1))


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> Float[np.ndarray, "*batch"]:
    """Probability that a run of x beats a run of y on a random task, ties counting one half (Mann–Whitney U).

    Args:
        x: (..., seeds of x, tasks) scores, larger is better.
        y: (..., seeds of y, tasks) scores on the same tasks.

    Returns:
        (...) probabilities.

    Raises:
        ValueError: where the tasks are not the same, or a score is not finite.

    Example:
        >>> float(probability_of_improvement([[2.0], [3.0]], [[1.0], [2.0]]))
        0.875
    """
    x, y = _scores("x", x), _scores("y", y)
    if x.shape[-1] != y.shape[-1]:
        raise checks.error("y", f"{y.shape[-1]} tasks", f"{x.shape[-1]} as in x", "compare runs on the same tasks")
    signs = np.sign(x[..., :, None, :] - y[..., None, :, :])
    return np.asarray(0.5 + 0.5 * signs.mean(axis=(-3, -2, -1)))


def bootstrap_interval(
    statistic: Callable[..., Float[np.ndarray, "..."]],
    *scores: ArrayLike,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Percentile interval of the stratified bootstrap: seeds are drawn again within each task, with replacement.

    Args:
        statistic: maps one array (..., seeds, tasks) per entry of `scores` to (...), such as `iqm`.
        *scores: arrays (seeds, tasks), resampled independently of each other.
        generator: the source of randomness; the same generator state gives the same interval.
        confidence: share of the resampled statistics inside the interval.
        resamples: number of times that all scores are drawn again.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: where scores are not (seeds, tasks) or do not share their tasks.

    Example:
        >>> scores = np.arange(20.0)[:, None]  # twenty seeds on one task
        >>> low, high = bootstrap_interval(iqm, scores, generator=np.random.default_rng(0))
        >>> bool(low < iqm(scores) < high)
        True
    """
    resamples = checks.positive_int("resamples", resamples)
    if not 0 < confidence < 1:
        raise checks.error("confidence", repr(confidence), "a number between 0 and 1", "pass for example 0.95")
    if not scores:
        raise checks.error("scores", "no array", "at least one array (seeds, tasks)", "pass it after the statistic")
    remedy = "pass one row per seed and one column per task, the same tasks in every array"
    tasks, drawn = None, []
    for number, values in enumerate(scores):
        runs = checks.finite_array(f"scores[{number}]", values, (None, tasks), remedy)
        seeds, tasks = runs.shape
        picks = generator.integers(seeds, size=(resamples, seeds, tasks))
        drawn.append(np.take_along_axis(runs[None], picks, axis=1))
    low, high = np.quantile(statistic(*drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _scores(name: str, value: ArrayLike) -> Float[np.ndarray, "*batch seeds tasks"]:
    """Scores with at least a seed and a task axis; a NaN is refused, since sorting would hide it in the dropped end."""
    scores = np.asarray(value, dtype=np.float64)
    shapeless = scores.ndim < 2 or 0 in scores.shape
    if shapeless or not np.isfinite(scores).all():
        given = f"shape {scores.shape}" if shapeless else "NaN or infinity"
        expected, remedy = "finite scores (..., seeds, tasks)", "pass one row per seed, one column per task"
        raise checks.error(name, given, expected, remedy)
    return scores
