"""The deviations from Algorithm 2: what is changed, and what was found."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from entroflow.commands.lqr import plan
from entroflow.options import LQROptions
from experiments import frame
from experiments.deviations import changed, run

ROWS = [{name: value or None for name, value in row.items()} for row in frame.read_rows(run.HERE / "results.csv")]


def test_no_change_is_the_default_and_all_are_the_paper_s():
    """Of the settings, but for the states and pairs of an improvement step, and of the boldest environment's noise."""
    default, paper = plan.settings(100), plan.settings(100, preset="paper")
    for name, settings, preset in (("former default", default, "default"), ("paper", paper, "paper")):
        change = changed.CHANGES[name]
        former = dataclasses.replace(settings, actor=dataclasses.replace(settings.actor, states=64, pairs=2))
        assert changed.changed(change, default) == former
        assert change.exploration == plan.EXPLORATION[preset]


@pytest.mark.parametrize("start", ["former default", "paper"])
def test_the_others_differ_from_either_in_one_thing(start):
    """Three leave one deviation out, three leave one in."""
    parts = dataclasses.asdict(changed.CHANGES[start])
    different = [
        sum(parts[key] != value for key, value in dataclasses.asdict(change).items())
        for change in changed.CHANGES.values()
    ]
    assert sorted(different) == [0, 1, 1, 1, 2, 2, 2, 3]


def test_what_was_tried_differs_in_what_its_name_says():
    """Bolder than six times the policy's noise, with 256 states and one pair, it is what the default of LQR is now."""
    last = changed.TRIED["256 states, one pair, bolder environments"]
    default = plan.settings(100)
    assert changed.changed(last, default) == default
    assert last.exploration == pytest.approx(plan.exploration(LQROptions(), 0.1 / 8), rel=0.01)
    assert {change.target for name, change in changed.TRIED.items() if "posterior" in name} == {"posterior"}


def test_a_break_down_is_read_though_its_line_is_broken(monkeypatch, tmp_path):
    """Of the run that broke, and at which step; nothing else is taken for one."""
    told = (
        "lines before\ncritic_error of the run alpha=0.5 seed=1 is nan at step 17; training cannot go\non. metrics.csv"
    )
    answer = lambda out: lambda *_, **__: subprocess.CompletedProcess([], 1, out, "")  # noqa: E731
    monkeypatch.setattr(run.subprocess, "run", answer(told))
    (row,) = run.measure("paper", "coupled", run.Options(), tmp_path)
    assert row["broke"] == "critic_error of the run alpha=0.5 seed=1 is nan at step 17" and row["mean"] is None
    monkeypatch.setattr(run.subprocess, "run", answer("killed"))
    with pytest.raises(frame.Broken, match="killed"):
        run.measure("paper", "coupled", run.Options(), tmp_path)


def test_a_return_s_gap_is_what_it_lacks(monkeypatch, tmp_path):
    """A return of −11 where −10 is the best: a gap of −0.1, as in all tables; the errors are those of the study."""
    told = {"seed": 0, "mean_error_relative": 0.1, "covariance_error_relative": 0.2, "ess": 0.9}
    told |= {"standard_return": -11.0, "optimal_standard_return": -10.0}

    def learn(command, **_):
        out = Path(next(word for word in command if word.startswith("--out=")).removeprefix("--out="))
        out.mkdir()
        (out / "results.json").write_text(json.dumps({"runs": [told]}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(run.subprocess, "run", learn)
    (row,) = run.measure("paper", "coupled", run.Options(), tmp_path)
    assert row["gap"] == pytest.approx(-0.1) and (row["mean"], row["covariance"], row["ess"]) == (0.1, 0.2, 0.9)


@pytest.mark.slow
def test_a_change_is_learned(tmp_path):
    """A few steps, as the experiment runs them."""
    words = ["--changes", "paper, tempered", "--systems", "coupled", "--seeds", "1", "--steps", "4"]
    assert run.main([*words, "--out", str(tmp_path / "out")]) == 0
    (row,) = frame.read_rows(tmp_path / "out" / "results.csv")
    assert row["change"] == "paper, tempered" and float(row["covariance"]) > 0


def test_the_committed_table_is_that_of_the_committed_rows():
    """To the letter."""
    assert run.table(ROWS) == (run.HERE / "table.md").read_text()
