"""Environments of one's own as people first have them: no spaces, modules not found, observations that do not fit."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import entroflow
from entroflow.agents import Broken, NotFinite
from entroflow.agents.tasks import rebuilt, task
from entroflow.cli import main

from .reach import Reach

# No test here learns: what is looked at comes before.
SMALL = {"learning_starts": 1000, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}
PARTS = {"arm": spaces.Box(-np.inf, np.inf, (1,)), "goal": spaces.Box(-np.inf, np.inf, (1,))}


class Parts(Reach):
    """Its observations are a Dict; some can be left out."""

    def __init__(self, shown=tuple(PARTS)):
        super().__init__()
        self.observation_space, self.shown = spaces.Dict(PARTS), shown

    def _observe(self):
        arm, goal = super()._observe()[:, None]
        return {name: value for name, value in {"arm": arm, "goal": goal}.items() if name in self.shown}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observation_space": None},
            "^observations of Reach: got None, .*; give the environment an observation_space",
        ),
        ({"observation_space": spaces.Box(-1, 1, (0,))}, "^observations of Reach: got Box.*, which has no component, "),
        ({"observation_space": spaces.Dict({})}, "^observations of Reach: got Dict.*, which has no component, "),
        ({"action_space": spaces.Box(-1, 1, (0,))}, "^actions of Reach: got Box.*, which has no component, "),
        (
            {"action_space": spaces.Box(0, np.inf, (1,))},
            "^actions of Reach: got Box.*, bounded in part, .*TransformAct",
        ),
    ],
)
def test_spaces_of_which_nothing_can_be_learned_are_refused(changes, message):
    """In one sentence that names the space and what to do."""
    env = Reach()
    vars(env).update(changes)
    with pytest.raises(ValueError, match=message):
        task(env)


@pytest.mark.parametrize("low", [0.0, -np.finfo(np.float32).max])
def test_the_advice_on_bounds_can_be_followed(low):
    """Bounds of some components alone become bounds of all by the wrapper that the refusal names."""
    env = Reach(low=(-2.0, low), high=(2.0, np.inf if low == 0 else -low))
    with pytest.raises(ValueError, match=r"gymnasium\.wrappers\.TransformAction\(env, lambda action: action, Box\("):
        entroflow.GaussianSAC(env, **SMALL)
    bounded = gymnasium.wrappers.TransformAction(env, lambda action: action, spaces.Box(0, 1, (2,)))
    made = entroflow.GaussianSAC(bounded, **SMALL).learn(4)
    assert made._training.loop.replay.action[0, :4].min() >= 0


def test_a_dict_that_lacks_a_key_is_told_of_with_the_space():
    """The key's name alone would not tell whose it is; a key error of the environment's own stays as it is."""
    with pytest.raises(Broken, match=r"^Parts.reset failed \(KeyError: 'goal', for the observation is none of Dict\("):
        entroflow.GaussianSAC(lambda: Parts(["arm"]), **SMALL).learn(2)

    class Own(Parts):
        def step(self, action):
            return {}["speed"]

    with pytest.raises(Broken, match=r"^Own.step failed \(KeyError: 'speed'\); "):
        entroflow.GaussianSAC(Own, **SMALL).learn(2)
    assert entroflow.GaussianSAC(Parts, **SMALL).learn(4).num_timesteps == 4


@pytest.mark.parametrize("component", [0, 1])
def test_the_component_that_is_not_finite_is_named(component):
    """Counted in the flat observation."""

    class Faulty(Reach):
        def _observe(self):
            found = super()._observe()
            found[component] = np.nan if self.total == 2 else found[component]
            return found

    with pytest.raises(
        NotFinite, match=f"^Faulty returned an observation .* step 2, seed 0, in component {component}$"
    ):
        entroflow.GaussianSAC(Faulty, **SMALL).learn(4)


MODULE = """
import gymnasium

from end_to_end.reach import Reach


class Own(Reach):
    pass


gymnasium.register("OwnReach-v0", Own)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of one's own with an environment, which Python finds."""
    (tmp_path / "of_mine.py").write_text(MODULE.replace("end_to_end.reach", Reach.__module__))
    monkeypatch.syspath_prepend(tmp_path)
    yield "of_mine"
    sys.modules.pop("of_mine", None)
    gymnasium.registry.pop("OwnReach-v0", None)


def test_modules_and_classes_that_are_no_ids_are_told_what_to_do(module):
    """Where Python looks for a module, and how a class comes to an id."""
    with pytest.raises(ValueError, match=r"No module named 'not_mine'.*a module that Python finds; .* set PYTHONPATH"):
        task("not_mine:OwnReach-v0")
    with pytest.raises(ValueError, match=rf'; write gymnasium.register\("Own-v0", Own\) in {module}, and name it '):
        task(f"{module}:Own")
    assert task(f"{module}:OwnReach-v0").obs_size == 2


def test_going_on_with_a_task_of_ones_own_names_it(module, tmp_path, capsys):
    """No file chooses a module: the messages say which option does."""
    with pytest.raises(ValueError, match=r"exist\), .*; name the task by --task, as 'module:OwnReach-v0' if"):
        rebuilt({"id": "OwnReach-v0", "kwargs": {}, "max_episode_steps": None, "wrappers": []})
    with pytest.raises(ValueError, match="name the task by --task") as told:
        rebuilt("Pendulam-v1")
    assert "Did you mean" not in str(told.value)  # Pendulum-v1, which it is not
    out = tmp_path / "run"
    line = ["train", f"{module}:OwnReach-v0", "--algorithm", "gaussian_sac", "--steps", "2", "--out", str(out)]
    line += ["--evaluation-episodes", "1", "--set", *(f"{name}={value}" for name, value in SMALL.items())]
    assert main(line) == 0
    assert main(line) == 2
    again = f"entroflow resume {out} --task {module}:OwnReach-v0"
    assert again in capsys.readouterr().err
    assert main([*again.split()[1:], "--steps", "4"]) == 0
