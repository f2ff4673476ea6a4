"""What training shows: averages, speed and time left, ten lines in a file, a table that fits."""

import contextlib
import io

import numpy as np
import pytest
from rich.console import Console

from entroflow.agents import progress
from entroflow.agents.progress import TrainingProgress


def rows(step, seeds=2, **others):
    learner = {"temperature": 0.25, "entropy": -2.5, "target_entropy": -3.0, "ess": 0.5, "critic_error": 0.125}
    return [
        {"seed": seed, "step": step, "seconds": 1.0, "return": 10.0 * seed, "length": 5.0, "episodes": 1}
        | learner
        | others
        for seed in range(seeds)
    ]


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def shown(terminal=False, width=80, **settings):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    return TrainingProgress("SAC-ISFM on Task-v0", 1000, console=console, **settings), console.file


def train(live, clock, steps):
    with live:
        for step in steps:
            clock[0] += 2.0
            live.update(step, rows(step))


def test_a_file_gets_a_line_for_every_tenth(clock):
    """Ten lines after the first, with per cents, steps per second, the time left and the averages."""
    live, file = shown()
    train(live, clock, range(20, 1001, 20))
    lines = [line for line in file.getvalue().splitlines() if " % " in line]
    assert [line.split()[0] for line in lines] == ["4", *[str(10 * i) for i in range(1, 11)]]
    assert lines[5].startswith(" 50 %  10 steps/s, 0:50 left, return 5  α 0.25  entropy -2.5 (target -3)  ESS/N 0.5")
    assert "\x1b" not in file.getvalue()
    assert "1,000 steps of every seed in 1:40" in file.getvalue()


def test_a_line_waits_for_its_evaluation(clock):
    """Where an evaluation follows, the line has that one, not the one before; without a line, there is none."""
    live, file = shown()
    scores = [{"seed": 0, "return": 7.0}]
    with live:
        live.evaluated(scores)
        live.update(100, rows(100), evaluated=True)
        assert " 10 %" not in file.getvalue()
        live.evaluated([{"seed": 0, "return": 8.0}])
        live.update(150, rows(150), evaluated=True)
        live.evaluated(scores)
    lines = [line for line in file.getvalue().splitlines() if " % " in line]
    assert len(lines) == 1 and lines[0].startswith(" 10 %") and "eval 8  " in lines[0]


def test_what_was_stopped_between_rows_tells_all_its_steps(clock):
    """Those after the last row, too."""
    live, file = shown()
    with live:
        live.update(100, rows(100))
        live.tick(152)
    assert "152 steps of every seed" in file.getvalue()


def test_a_continued_run_begins_where_it_stopped(clock):
    """Steps that were made before count for the per cents and not for the speed."""
    live, file = shown(start=600)
    train(live, clock, range(620, 1001, 20))
    lines = [line for line in file.getvalue().splitlines() if " % " in line]
    assert "from step 600" in file.getvalue() and "400 steps of every seed in 0:40, 1,000 in all" in file.getvalue()
    assert lines[0].startswith(" 64 %  10 steps/s, 0:36 left") and lines[-1].startswith("100 %")


def test_compiling_is_no_part_of_the_speed(clock):
    """Speed counts from the first update on."""
    live, file = shown()
    with live:
        clock[0] = 100.0
        live.update(100, rows(100))
        clock[0] = 101.0
        live.update(200, rows(200))
    assert " 20 %  100 steps/s, 0:08 left" in file.getvalue()


def test_averages_are_over_seeds_and_newest_values(clock):
    """None and NaN keep what was there before; what no seed has is not shown; evaluations are means of means."""
    live, _ = shown()
    assert live.status() == ""
    live.update(10, rows(10))
    live.update(20, rows(20, **{"return": None, "entropy": np.nan, "temperature": np.float32(0.5)}))
    assert live.status().startswith("return 5  α 0.5  entropy -2.5 (target -3)")
    live.update(30, [{"seed": 1, "return": 30.0}])
    assert live.status().startswith("return 15  α 0.5")
    live.evaluated([{"seed": 0, "return": 1.0}, {"seed": 0, "return": 3.0}, {"seed": 1, "return": 12_344.0}])
    assert live.status().startswith("eval 6173  return 15")


def test_a_terminal_gets_a_bar(clock):
    """The bar and the status line are drawn in place, within the terminal's width."""
    live, file = shown(terminal=True)
    train(live, clock, range(200, 1001, 200))
    assert "100%" in file.getvalue() and "━" in file.getvalue() and "ESS/N 0.5" in file.getvalue()


@pytest.mark.parametrize(("error", "printed"), [(None, True), (KeyboardInterrupt, True), (RuntimeError, False)])
def test_the_table_comes_at_the_end(clock, error, printed):
    """After the last step and after Ctrl-C, not after a failure; never without a single update."""
    for updates, expected in ((1, printed), (0, False)):
        live, file = shown()
        with contextlib.suppress(KeyboardInterrupt, RuntimeError), live:
            for _ in range(updates):
                live.update(100, rows(100))
            if error:
                raise error
        assert ("steps of every seed" in file.getvalue()) == expected


def test_the_table_fits_a_terminal(clock):
    """Within 80 columns for the widest numbers, though there is room for more, with the average of several seeds."""
    live, _ = shown()
    wide = {"return": -123_456.7, "temperature": 1.234e-5, "entropy": -12345.6, "target_entropy": -123.45}
    live.update(100, rows(100, seeds=3, **wide, ess=1.23e-5, critic_error=1.23e-5))
    live.evaluated([{"seed": seed, "return": -1_234_567.8 * (seed + 1)} for seed in range(3)])
    console = Console(file=io.StringIO(), width=200)
    console.print(live.table())
    lines = console.file.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert any(line.split()[:3] == ["mean", "-123,457", "-2,469,136"] for line in lines)


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (90_000, "25:00:00")])
def test_times_are_read_at_a_glance(seconds, text):
    """Minutes and seconds, hours only where there are any."""
    assert progress._duration(seconds) == text


def test_random_actions_are_no_part_of_the_speed(clock):
    """The bar moves between the rows; its speed counts from where learning begins, and compiling is named."""
    live, file = shown(terminal=True, width=120, begins=100)
    with live:
        for step in (0, 50, 100):
            clock[0] += 1.0
            assert live.tick(step) is False
        (task,) = live._progress.tasks
        assert task.fields["pace"] == "random actions" and task.completed == 100
        live.tick(101)
        assert task.completed == 100  # at the same instant: nothing to see
        for step in (102, 112):
            clock[0] += 2.0
            live.tick(step)
        assert task.fields["pace"].startswith("5 steps/s, 2:58 left")
        progress.compiling.current = ("learn", clock[0])
        clock[0] += 7.0
        assert live._live is not None
        live._live.refresh()
        progress.compiling.current = None
    assert "compiling the update (once, about 20 s): 7 s" in file.getvalue()
