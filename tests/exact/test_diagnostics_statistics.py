"""Statistics over seeds against SciPy and against bootstrap distributions that can be enumerated."""

import numpy as np
import pytest
from scipy import stats

from entroflow.diagnostics import bootstrap_interval, iqm, probability_of_improvement


def mean(scores):
    return scores.mean(axis=(-2, -1))


@pytest.mark.parametrize(("seeds", "tasks"), [(1, 1), (3, 1), (5, 3), (8, 4)])
def test_iqm_is_the_trimmed_mean_over_all_runs(seeds, tasks):
    """The interquartile mean is rliable's definition: SciPy's 25 % trimmed mean over seeds and tasks together."""
    scores = np.random.default_rng(seeds).normal(size=(seeds, tasks)) ** 3
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), rel=1e-12)


def test_iqm_keeps_leading_axes():
    """Statistics of many resamples come from one call."""
    scores = np.random.default_rng(0).normal(size=(6, 5, 3))
    np.testing.assert_allclose(iqm(scores), [iqm(one) for one in scores])


def test_probability_of_improvement_is_mann_whitney():
    """Averaged over tasks, it is SciPy's U statistic over the number of pairs; ties count one half."""
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 6, size=(7, 3)), generator.integers(0, 5, size=(4, 3))
    pairs = 7 * 4
    expected = np.mean([stats.mannwhitneyu(x[:, task], y[:, task]).statistic / pairs for task in range(3)])
    assert probability_of_improvement(x, y) == pytest.approx(expected, rel=1e-12)
    assert probability_of_improvement(x + 10, y) == 1


def test_seeds_are_drawn_within_each_task():
    """Levels that differ between tasks alone leave no uncertainty: tasks are strata, not runs."""
    scores = np.tile([1.0, 10.0, 100.0], (4, 1))
    assert bootstrap_interval(mean, scores, generator=np.random.default_rng(0)) == (37.0, 37.0)


def test_tasks_are_drawn_independently():
    """With seeds (0, 0) and (1, −1), whole rows always average to 0; drawn apart, ±½ has mass 1/16 each."""
    scores = [[0.0, 0.0], [1.0, -1.0]]
    assert bootstrap_interval(mean, scores, generator=np.random.default_rng(0)) == (-0.5, 0.5)
    narrow = bootstrap_interval(mean, scores, generator=np.random.default_rng(0), confidence=0.8)
    assert narrow == (-0.25, 0.25)


def test_two_arrays_are_drawn_independently():
    """A comparison of two methods resamples each: one constant method leaves the other's distribution alone."""
    x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0], [1.0]])
    interval = bootstrap_interval(probability_of_improvement, x, y, generator=np.random.default_rng(0), resamples=1000)
    assert interval == (0.0, 1.0)


def test_the_same_generator_gives_the_same_interval():
    """The interval depends on the generator that is passed and on no global state."""
    scores = np.random.default_rng(0).normal(size=(5, 2))
    intervals = [bootstrap_interval(iqm, scores, generator=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert intervals[0] == intervals[1] != intervals[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iqm([1.0, 2.0]), r"shape \(2,\)"),
        (lambda: iqm([[1.0], [np.nan], [2.0], [3.0]]), "NaN"),
        (lambda: iqm(np.zeros((0, 3))), r"shape \(0, 3\)"),
        (lambda: probability_of_improvement(np.zeros((3, 2)), np.zeros((3, 1))), "same tasks"),
        (lambda: bootstrap_interval(iqm, generator=np.random.default_rng(0)), "at least one array"),
        (lambda: bootstrap_interval(iqm, [1.0, 2.0], generator=np.random.default_rng(0)), "one row per seed"),
        (
            lambda: bootstrap_interval(iqm, [[1.0]], generator=np.random.default_rng(0), confidence=95),
            "between 0 and 1",
        ),
        (lambda: bootstrap_interval(iqm, [[1.0]], generator=np.random.default_rng(0), resamples=0), "above 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    """Bad input gives one sentence that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        call()
