"""A small size of experiments/hostile/environment_ids.py: the ids that people type, and a registered one a kind."""

from pathlib import Path

import pytest

from experiments import frame
from experiments.hostile.environment_ids import TYPED, Options, attempt, attempts, run, table

COMMITTED = Path(__file__).parents[2] / "experiments/hostile"
REGISTERED = {
    "Pendulum-v1": "works",
    "CartPole-v1": "is told why not",
    "Hopper-v2": 'run: pip install "gymnasium-robotics".',
    "Pusher-v4": 'run: pip install "mujoco<3".',
    "phys2d/CartPole-v1": 'run: pip install "flax".',
    "GymV26Environment-v0": 'run: pip install "shimmy[gym-v26]".',
}


@pytest.mark.parametrize("name", REGISTERED)
@pytest.mark.filterwarnings("ignore:.*is out of date")
def test_registered_ids(name):
    """Each works, or its sentence ends with what to install."""
    found = attempt(name)
    assert REGISTERED[name] in (found["outcome"], found["said"][-len(REGISTERED[name]) :])


def test_ids_as_people_type_them():
    """Another case, no version, no module, none at all: each answer is one sentence."""
    rows = attempts(TYPED)
    assert {row["outcome"] for row in rows if row["id"] != "Hopper"} == {"package is named", "is told why not"}
    assert "No module named 'nosuch'" in next(row["said"] for row in rows if row["id"] == "nosuch:X-v0")


def test_the_committed_table_is_that_of_the_committed_data():
    """Nothing failed."""
    rows = frame.read_rows(COMMITTED / "environment_ids.csv")
    assert (COMMITTED / "environment_ids.md").read_text() == table(rows)
    assert len(rows) > 80 and not {"no sentence", "traceback"} & {row["outcome"] for row in rows}


def test_a_traceback_is_counted(monkeypatch, tmp_path):
    """What is no sentence, or no `ValueError`, fails."""
    from experiments.hostile import environment_ids

    def broken(name):
        raise KeyError(name) if name else ValueError("two\nlines")

    monkeypatch.setattr(environment_ids, "task", broken)
    assert [row["outcome"] for row in attempts(["", "Hopper"])] == ["no sentence", "traceback"]
    monkeypatch.setattr(environment_ids.gymnasium, "registry", {"X-v0": None})
    assert run(Options(tmp_path)) == 1
