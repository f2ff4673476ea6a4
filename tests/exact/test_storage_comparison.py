"""Comparing runs: interquartile means, intervals, areas and improvements against numbers worked out by hand."""

import io

import numpy as np
import pytest
from rich.console import Console

from entroflow.diagnostics.statistics import bootstrap_interval, iqm
from entroflow.plotting import COLOURS
from entroflow.storage.comparison import ALL_TASKS, compare
from entroflow.storage.curves import draw, table
from entroflow.storage.records import Record
from entroflow.studies.report import draw_profiles

STEPS = (100, 200, 300)


def run(returns, algorithm="flow", env="A-v0", *, steps=STEPS, seeds=None, settings=None, minutes=1.0, episodes=1):
    """A run in memory: one row of returns per seed, one column per step; episodes are spread around the return."""
    returns = np.asarray(returns, float)
    seeds = list(range(len(returns))) if seeds is None else seeds
    rows = [
        (seed, step, 60 * minutes * step / steps[-1], episode, value + episode - (episodes - 1) / 2, 7.0)
        for seed, values in zip(seeds, returns, strict=True)
        for step, value in zip(steps, values, strict=True)
        for episode in range(episodes)
    ]
    names = ("seed", "step", "seconds", "episode", "return", "length")
    table = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    gaps = np.where(table["step"] == steps[0], np.nan, table["return"])
    metrics = {name: table[name] for name in ("seed", "step", "seconds")}
    metrics |= {"return": gaps, "length": table["length"], "episodes": table["step"], "entropy": -table["return"]}
    config = {"algorithm": algorithm, "env": env, "seeds": seeds, "steps": steps[-1], "settings": settings or {}}
    return Record(f"folder of {algorithm}", config, metrics, table)


def flat(levels, **others):
    """Seeds whose return does not change."""
    return run([[level] * 3 for level in levels], **others)


def test_the_interquartile_mean_leaves_out_the_outer_quarters():
    """Of four seeds the middle two count; the outlier of 100 does not."""
    (curve,) = compare([flat([0, 1, 2, 100])]).curves
    np.testing.assert_allclose(curve.iqm, 1.5)
    assert curve.final.value == curve.area.value == 1.5
    assert curve.steps.tolist() == [100, 200, 300]


def test_the_interval_of_two_seeds_is_their_range():
    """A quarter of the resamples is twice the lower seed, a quarter twice the upper one."""
    (curve,) = compare([run([[0, 1, 2], [4, 4, 8]])]).curves
    np.testing.assert_allclose(curve.iqm, [2.0, 2.5, 5.0])
    assert np.asarray(curve.interval).tolist() == [[0, 1, 2], [4, 4, 8]]
    assert curve.final.interval == (2, 8)


def test_intervals_are_those_of_the_statistics_module():
    """Seeds are what is drawn again, not episodes: the episodes of an evaluation are averaged first."""
    values = np.random.default_rng(1).normal(size=(7, 3))
    (curve,) = compare([run(values, episodes=5)]).curves
    expected = bootstrap_interval(iqm, values[:, -1:], generator=np.random.default_rng(0))
    assert curve.final.interval == pytest.approx(expected, rel=1e-12)
    assert expected[0] < curve.final.value < expected[1]


def test_the_area_is_the_average_over_steps():
    """The trapezoidal rule on steps that are not equally far apart, of each seed before the seeds are averaged."""
    (curve,) = compare([run([[0, 1, 1], [0, 3, 3]], steps=(0, 100, 400))]).curves
    assert curve.area.value == pytest.approx(2 * (0.5 * 100 + 300) / 400)
    assert curve.area.interval == pytest.approx(((50 + 300) / 400, 3 * (50 + 300) / 400))


def test_runs_are_compared_up_to_the_shortest():
    """The longer run is cut, not the shorter one extended; a note says where and names the longer one."""
    found = compare([run([[1, 2, 9]] * 2), run([[1, 3]] * 2, "gauss", steps=(100, 200), minutes=4)])
    assert [curve.steps.tolist() for curve in found.curves] == [[100, 200]] * 2
    assert [curve.final.value for curve in found.curves] == [2, 3]
    assert found.improvements[0].probability.value == 0
    assert found.notes[0] == "A-v0: compared up to step 200, where the shortest run ends; flow goes on to 300"
    assert [curve.minutes for curve in found.curves] == pytest.approx([2 / 3, 4])


def test_a_line_that_is_cut_at_its_own_shortest_run_is_named():
    """Also where no other line is longer than that."""
    longer, shorter = run([[1, 2, 9]]), run([[1, 3]], steps=(100, 200), seeds=[1])
    found = compare([longer, shorter])
    assert found.curves[0].final.value == 2.5
    assert found.notes[0] == "A-v0: compared up to step 200, where the shortest run ends; flow goes on to 300"


def test_different_steps_are_interpolated():
    """The run with fewest evaluations gives the steps; a straight line stays one."""
    dense = run([[10, 15, 20, 25, 30]] * 2, steps=(100, 150, 200, 250, 300))
    coarse = run([[1, 2, 3]] * 2, "gauss", steps=(110, 210, 300))
    first, second = compare([dense, coarse]).curves
    assert first.steps.tolist() == second.steps.tolist() == [110, 210, 300]
    np.testing.assert_allclose(first.iqm, [11, 21, 30])
    np.testing.assert_allclose(second.iqm, [1, 2, 3])
    assert "interpolated" in compare([dense, coarse]).notes[0]


def test_long_runs_are_thinned_to_steps_that_were_measured():
    """No more than a hundred points, the first and the last among them."""
    steps = tuple(range(7, 3007, 10))
    (curve,) = compare([run([np.arange(300.0)] * 2, steps=steps)]).curves
    assert len(curve.steps) == 100 and curve.steps[0] == 7 and curve.steps[-1] == 2997
    assert set(curve.steps) <= set(steps)
    np.testing.assert_allclose(curve.iqm, (curve.steps - 7) / 10)
    assert not [note for note in compare([run([np.arange(300.0)] * 2, steps=steps)]).notes if "interpol" in note]


def test_improvement_counts_pairs_of_runs():
    """Three against two seeds, one of six pairs lost and one tied: (4 + 1/2) / 6, and the other way round."""
    a, b = flat([1, 5, 6]), flat([0, 3], algorithm="gauss")
    tied = flat([1, 3], algorithm="gauss")
    assert compare([a, b]).improvements[0].probability.value == pytest.approx(5 / 6)
    assert compare([a, tied]).improvements[0].probability.value == pytest.approx(4.5 / 6)
    back = compare([tied, a]).improvements[0]
    assert (back.first, back.other, back.probability.value) == ("gauss", "flow", pytest.approx(1.5 / 6))
    assert back.probability.interval is not None
    low, high = back.probability.interval
    assert 0 <= low < 0.25 < high <= 1


def test_a_single_seed_has_no_interval():
    """There is a curve, nothing around it, and a note; one seed of the other is enough to leave improvement bare."""
    found = compare([flat([1]), flat([0, 2], algorithm="gauss")])
    one, two = found.curves
    assert one.interval is None and one.final.interval is None and one.area.interval is None
    assert two.final.interval is not None
    assert found.improvements[0].probability == (0.5, None)
    assert "a single seed has no interval" in found.notes
    assert any("fewer than 5 seeds" in note for note in found.notes)


def test_folders_of_the_same_runs_are_put_together():
    """Equal algorithm, task and settings: one line with the seeds of both; paths and seeds are no settings."""
    first = flat([1, 2], settings={"gamma": 0.9}, minutes=2)
    second = flat([3, 4], seeds=[2, 3], settings={"gamma": 0.9}, minutes=4)
    (curve,) = compare([first, second]).curves
    assert curve.algorithm == "flow" and len(curve.values) == 4
    assert curve.final.value == 2.5 and curve.minutes == 3
    with pytest.raises(ValueError, match="got seed 0 of flow on A-v0 again"):
        compare([first, first])


def test_settings_that_differ_make_lines():
    """An ablation's lines are named by what differs on the same task, nested settings by their path."""
    runs = [
        flat([1, 2], settings={"gamma": 0.9, "weights": {"floor": 0.3, "kind": "self"}}),
        flat([3, 4], settings={"gamma": 0.9, "weights": {"floor": None, "kind": "self"}}),
        flat([5, 6], env="B-v0", settings={"gamma": 0.5, "weights": {"floor": 0.3, "kind": "self"}}),
        flat([7, 8], algorithm="gauss"),
    ]
    solvers = compare([flat([steps], settings={"solver": {"steps": steps}}, seeds=[steps]) for steps in (4, 8)])
    assert [curve.algorithm for curve in solvers.curves] == ["flow (solver.steps=4)", "flow (solver.steps=8)"]
    names = ["flow (weights.floor=0.3)", "flow (weights.floor=None)", "flow (weights.floor=0.3)", "gauss"]
    found = compare(runs)
    assert {(curve.algorithm, curve.final.value) for curve in found.curves} == set(
        zip(names, [1.5, 3.5, 5.5, 7.5], strict=True)
    )
    labelled = compare(runs, labels=["a", "b", "a", "c"])
    assert [curve.algorithm for curve in labelled.curves] == ["a", "b", "c", "a"]
    with pytest.raises(ValueError, match="labels: got 2 names, expected 4"):
        compare(runs, labels=["a", "b"])


def grid():
    """Two algorithms on two tasks of very different scales."""
    return [
        run([[0, 50, 100]] * 2 + [[20, 70, 120]] * 2),
        run([[0, 0, 40]] * 3, "gauss"),
        run([[-8, -4, -2]] * 3, "gauss", env="B-v0", steps=(200, 400, 600)),
        run([[-10, -8, -6]] * 4, env="B-v0", steps=(200, 400, 600)),
    ]


def test_the_aggregate_is_normalised_by_task():
    """0 and 1 are the lowest and highest interquartile means on a task; steps are per cent of the task's own."""
    found = compare(grid())
    assert found.bounds == {"A-v0": (0, 110), "B-v0": (-10, -2)}
    flow, gauss = found.aggregate
    assert (flow.task, flow.algorithm, gauss.algorithm) == (ALL_TASKS, "flow", "gauss")
    assert flow.steps[0] == pytest.approx(100 / 3) and flow.steps[-1] == 100
    assert flow.values.shape[:2] == (4, 2) and gauss.values.shape[:2] == (3, 2)
    np.testing.assert_allclose(flow.values[:, 0, -1], np.array([100, 100, 120, 120]) / 110)
    np.testing.assert_allclose(flow.values[:, 1, -1], 0.5)
    assert flow.final.value == pytest.approx(np.mean([0.5, 0.5, 100 / 110, 100 / 110]))  # the middle four of eight
    assert gauss.final.value == pytest.approx(np.mean([40 / 110, 40 / 110, 1, 1]))  # of six, one is dropped at each end
    assert gauss.final.interval == pytest.approx((gauss.final.value, gauss.final.value))  # seeds agree within tasks
    assert flow.minutes == 2


def test_improvement_over_all_tasks_is_the_mean_over_tasks():
    """Better on one task, worse on the other: one half, and each task's own number beside it."""
    found = compare(grid())
    values = {step.task: step.probability.value for step in found.improvements}
    assert values == {"A-v0": 1, "B-v0": 0, ALL_TASKS: 0.5}
    assert all((step.first, step.other) == ("flow", "gauss") for step in found.improvements)


def test_no_aggregate_without_all_tasks():
    """A missing run is named, and nothing is put together; a single algorithm has nothing to be measured by."""
    found = compare(grid()[:3])
    assert found.aggregate == [] and found.bounds == {}
    assert "not put together over all tasks, for flow has no run on B-v0" in found.notes
    assert [step.task for step in found.improvements] == ["A-v0"]
    assert compare([grid()[0], grid()[3]]).aggregate == []


def test_unequal_seeds_over_tasks_are_cut():
    """The aggregate takes as many seeds of an algorithm as its task with the fewest has, and says so."""
    runs = grid()
    runs[3] = run([[-10, -8, -6]] * 2, env="B-v0", steps=(200, 400, 600))
    found = compare(runs)
    assert len(found.aggregate[0].values) == 2 and len(found.curves[0].values) == 4
    assert "all tasks: flow counts with its first 2 seeds, for some tasks have no more" in found.notes


def test_other_metrics_come_from_the_training():
    """Columns of metrics.csv, empty fields left out; there, larger is not better and nothing is put together."""
    (curve,) = compare([run([[1, 2, 3]] * 2)], metric="entropy").curves
    np.testing.assert_allclose(curve.iqm, [-1, -2, -3])
    (curve,) = compare([run([[1, 2, 3]] * 2)], metric="train/return").curves
    assert curve.steps.tolist() == [200, 300]
    assert compare([run([[1, 2, 3]] * 2)], metric="length").curves[0].final.value == 7
    found = compare(grid(), metric="entropy")
    assert found.improvements == [] and found.aggregate == []


def without(record, table):
    columns = {name: column[:0] for name, column in getattr(record, table).items()}
    return record._replace(**{table: columns})


@pytest.mark.parametrize(
    ("records", "metric", "message"),
    [
        ([], "return", "records: got none"),
        ([flat([1])], "retrun", "metric: got 'retrun', expected one of return, length, train/return"),
        ([flat([1])], "step", "metric: got 'step'"),
        ([flat([1, np.nan])], "return", "folder of flow: got return nan at step 100, expected finite numbers"),
        ([without(flat([1]), "evaluations")], "return", "got no evaluation yet, .* or compare train/return"),
        ([without(flat([1]), "metrics")], "entropy", "got no value of entropy yet"),
        (
            [flat([1]), run([[1, 2]], "gauss", steps=(10, 20))],
            "return",
            "A-v0: got runs up to step 20 and from step 100",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(records, metric, message):
    """One sentence, with the folder or the task."""
    with pytest.raises(ValueError, match=message):
        compare(records, metric=metric)


def test_the_figure_draws_what_was_found():
    """One panel per task and one for all; a line and a band per algorithm, in the same colour in every panel."""
    found = compare(grid())
    figure = draw(found)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["A-v0", "B-v0", ALL_TASKS]
    for ax in figure.axes:
        colours = {line.get_label(): line.get_color() for line in ax.lines}
        assert colours == {"flow": COLOURS[0], "gauss": COLOURS[1]}
        assert len(ax.collections) == 2
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), found.curves[0].iqm)
    alone = draw(compare(grid()[:1]))
    assert alone.get_suptitle() == "A-v0" and len(alone.axes[0].lines) == 1 + 4  # the mean and each seed


def test_odd_names_and_single_points_are_drawn(tmp_path):
    """Names are taken literally: no formulas, no markup, no hidden lines; a single step is enough."""
    odd = ["$\\frac$", "_private", "[bold]x[/nothing]", "a" * 70, *"bcdefg"]
    runs = [run([[i], [i + 1]], name, env="$[red]-v0", steps=(50,)) for i, name in enumerate(odd)]
    found = compare(runs)
    draw(found).savefig(tmp_path / "odd.png")
    assert len({(line.get_color(), str(line.get_linestyle())) for line in draw(found).axes[0].lines[: len(odd)]}) > 7
    shown = rendered(found)
    assert "[bold]x[/nothing]" in shown and "$[red]-v0" in shown


def rendered(found, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(table(found))
    return console.file.getvalue()


def test_the_table_fits_a_terminal():
    """Within 80 columns though there is room for more, with large numbers in full."""
    large = {"steps": (10**6, 2 * 10**6, 3 * 10**6), "minutes": 12345.6}
    wide = [
        run(np.arange(12).reshape(4, 3) * -12345.6, **large, env="InvertedDoublePendulum-v5"),
        run(np.arange(9).reshape(3, 3) * -12345.6, "gaussian_sac", **large, env="InvertedDoublePendulum-v5"),
    ]
    shown = rendered(compare(wide), width=200)
    assert max(map(len, shown.splitlines())) <= 80
    assert (
        "…" not in shown
        and "-80246" in shown
        and "3M" in shown
        and "12346" in shown
        and "InvertedDoublePendulum-v5" in shown
    )


def test_profiles_are_the_shares_of_runs_above_a_score():
    """Of the flow's four runs three end above 0, and one above 1; none of the Gaussian's ends above 0."""
    runs = [flat([0, 4], env="A-v0"), flat([0, 0], env="A-v0", algorithm="gauss")]
    runs += [flat([9, 9], env="B-v0"), flat([1, 1], env="B-v0", algorithm="gauss")]
    (ax,) = draw_profiles(compare(runs)).axes
    flow, gauss = ([line.get_xdata().tolist(), line.get_ydata().tolist()] for line in ax.lines)
    # On A 0 is 0 and 1 is 2, so that a run of 4 has 2; on B 0 is 1 and 1 is 9.
    assert flow == [[0, 0, 1, 1, 2, 2], [0.75, 0.75, 0.25, 0.25, 0, 0]]
    assert gauss == [[0, 0, 0, 0, 0, 2], [0] * 6]
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
