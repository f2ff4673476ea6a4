"""The commands train and eval as a user runs them, on a tiny task."""

import csv
import json

import gymnasium
import numpy as np
import pytest

import entroflow
from entroflow.agents import learning
from entroflow.cli import main

from .reach import Reach

SMALL = ["learning_starts=20", "critic_width=8", "width=8", "depth=1", "batch_size=16"]


def run(out, *options, steps=30):
    """Train on the tiny task; return the exit code."""
    arguments = ["train", "Reach-v0", "--algorithm", "gaussian_sac", "--seeds", "2", "--steps", str(steps)]
    arguments += ["--evaluate-every", "15", "--evaluation-episodes", "2", "--out", str(out), *options]
    return main([*arguments, "--set", *SMALL])


def table(path):
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished training."""
    out = tmp_path_factory.mktemp("train") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "LOG_INTERVAL", 5)
        assert run(out) == 0
    return out


def test_a_missing_package_is_named(capsys, monkeypatch):
    """The extra that brings it, where this package has one."""

    def lunar(**_):
        raise gymnasium.error.DependencyNotInstalled(
            "Box2D is not installed, you can install it by run `pip install x`"
        )

    monkeypatch.setitem(gymnasium.registry, "Lunar-v9", gymnasium.envs.registration.EnvSpec("Lunar-v9", lunar))
    assert main(["train", "Lunar-v9"]) == 2
    assert capsys.readouterr().err.endswith('; run: pip install "gymnasium[box2d]>=1.4".\n')


def test_a_settings_file_may_set_objects(tmp_path):
    """In the form that config.json has them; what --set says beside it counts before it."""
    (tmp_path / "mine.toml").write_text('critic = {kind = "MLPCritic", members = 3, width = 4}')
    out = tmp_path / "run"
    assert run(out, "--settings", str(tmp_path / "mine.toml"), steps=5) == 0
    critic = json.loads((out / "config.json").read_text())["settings"]["config"]["critic"]
    assert (critic["kind"], critic["members"], critic["width"]) == ("MLPCritic", 3, 8)
    options = ["--algorithm", "gaussian_sac", "--steps", "5", "--out", str(tmp_path / "other"), "--set"]
    assert main(["train", "Reach-v0", *options, 'critic={"kind": "MLPCritic", "width": 4}', "learning_starts=20"]) == 0
    assert main(["train", "Reach-v0", *options, 'critic={"kind": "Mine"}']) == 2


def test_training_leaves_records_and_agents(trained):
    """Every seed has rows at every interval, evaluations at start, middle and end, and agents that load."""
    metrics, evaluations = table(trained / "metrics.csv"), table(trained / "evaluations.csv")
    assert {(row["seed"], row["step"]) for row in metrics} == {(s, t) for s in "01" for t in ("25", "30")}
    assert {row["step"] for row in evaluations} == {"0", "15", "30"} and len(evaluations) == 3 * 2 * 2
    assert all(np.isfinite(float(row["critic_error"])) for row in metrics)
    config = json.loads((trained / "config.json").read_text())
    assert config["settings"]["config"]["actor"]["width"] == 8 and config["seeds"] == [0, 1]
    for name in ("learning_curve.png", "learning_curve.pdf", "checkpoints/best/seed=1/agent.json"):
        assert (trained / name).stat().st_size > 0
    agent = entroflow.load(trained, seed=1)
    assert agent.seed == 1 and agent.num_timesteps == 30
    several = "where there are several, expected one of: seed=0, seed=1; choose by seed and temperature, on the command"
    with pytest.raises(ValueError, match=several):
        entroflow.load(trained)


def test_an_agent_on_disk_is_the_agent_that_was_evaluated(trained):
    """The last agent, loaded, gets the last evaluation's returns again."""
    last = [row for row in table(trained / "evaluations.csv") if row["step"] == "30" and row["seed"] == "1"]
    found = entroflow.load(trained, seed=1).evaluate(2)
    np.testing.assert_allclose(found.returns, [float(row["return"]) for row in last], rtol=1e-3)


def test_resuming_goes_on_from_the_last_checkpoint(trained, capsys):
    """A longer plan continues the run: earlier rows stay, later ones follow, the replay is not empty."""
    before = table(trained / "metrics.csv")
    assert run(trained, "--resume", "auto", steps=45) == 0
    after = table(trained / "metrics.csv")
    assert after[: len(before)] == before
    assert {row["step"] for row in after[len(before) :]} == {"45"}
    assert entroflow.load(trained, seed=0).num_timesteps == 45
    output = capsys.readouterr().out
    assert "from step 30" in output and "going on with the settings" not in output


def test_settings_that_stay_are_told(trained, capsys):
    """With --resume auto and no --set the folder's settings stay, and are named."""
    command = "train Reach-v0 --algorithm gaussian_sac --seeds 2 --evaluate-every 15 --evaluation-episodes 2".split()
    assert main([*command, "--steps", "45", "--out", str(trained), "--resume", "auto"]) == 0
    output = capsys.readouterr().out
    assert f"going on with the settings that {trained} has: learning_starts=20" in output and "width=8" in output


def test_evaluation_prints_a_table(trained, capsys):
    """One line for every seed, and the perturbation in the title."""
    assert main(["eval", str(trained), "--episodes", "2", "--action-noise", "0.1"]) == 0
    output = capsys.readouterr().out
    assert "seed=0" in output and "seed=1" in output
    assert "2 episodes each, undiscounted, with action_noise 0.1" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "Pendulum-v2"], "env: got 'Pendulum-v2'"),
        (["train", "nosuch:X-v0"], "(No module named 'nosuch'"),
        (["train", "GymV26Environment-v0"], "shimmy"),
        (
            ["train", "phys2d/Pendulum-v0"],
            "(No module named 'flax'), expected a package that is installed; run: pip install \"flax\".",
        ),
        (["train", "CartPole-v1"], "actions of CartPole-v1: got Discrete(2)"),
        (["train", "Reach-v0", "--algorithm", "sac"], "algorithm: got 'sac'"),
        (["train", "Reach-v0", "--set", "candidate=3"], "did you mean 'candidates'"),
        (["train", "Reach-v0", "--set", "candidates"], "expected name=value"),
        (["train", "Reach-v0", "--set", "actor=gaussian_sac"], "choose it by --algorithm"),
        (["train", "Reach-v0", "--steps", "0"], "--steps: got 0"),
        (["train", "Reach-v0", "--set", "states=8", "--set", "pairs=2"], "--set: got it 2 times"),
        (["train", "Reach-v0", "--set", "states=8", "states=9"], "--set: got states twice"),
        (["train", "Reach-v0", "--evaluate-every", "5", "--evaluate_every", "6"], "--evaluate-every: got it 2 times"),
        (["eval", "nowhere"], "holds no agent"),
        (["watch", "nowhere"], "holds no agent"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    """Exit code 2, a sentence that says what to do, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_same_command_again_says_what_to_do(trained, capsys):
    """Without --resume a folder that holds a run is refused: the option is named, and the way to go on."""
    assert run(trained) == 2
    assert f"--out: got '{trained}', which already holds a run" in (said := capsys.readouterr().err)
    assert said.endswith(f"or go on with: entroflow resume {trained}.\n")
    (trained / "file").touch()
    assert run(trained / "file") == 2 and f"--out: got the file '{trained}/file'" in capsys.readouterr().err


def test_going_on_with_other_settings_is_refused(trained, capsys, monkeypatch):
    """With --resume auto, --set must be what the run began with."""
    monkeypatch.setitem(globals(), "SMALL", [*SMALL, "discount=0.5"])
    assert run(trained, "--resume", "auto") == 2
    assert "other settings, expected the same settings" in capsys.readouterr().err


def test_going_on_with_other_evaluations_is_refused(trained, capsys):
    """They stay as the run has them."""
    command = (
        "train Reach-v0 --algorithm gaussian_sac --seeds 2 --resume auto --evaluation-episodes 3 --steps 45".split()
    )
    assert main([*command, "--out", str(trained)]) == 2
    assert "evaluations with episodes=3, where the run in" in capsys.readouterr().err


def test_a_broken_environment_stops_training(tmp_path, capsys, monkeypatch):
    """The exit code is 1; the message names the step and the checkpoint that is kept."""
    gymnasium.register("Broken-v0", lambda: Reach(bad_step=22))
    monkeypatch.setattr(learning, "LOG_INTERVAL", 5)
    arguments = ["train", "Broken-v0", "--algorithm", "gaussian_sac", "--steps", "30", "--evaluate-every", "15"]
    out = tmp_path / "run"
    assert main([*arguments, "--evaluation-episodes", "2", "--out", str(out), "--set", *SMALL]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "reward that is not finite at step 22, seed 0" in output
    assert "the last checkpoint is that of step 15" in output
    assert entroflow.load(out).num_timesteps == 15
