"""What a user sees of `learn`: what is shown, recorded, resumed, called and warned of."""

import csv
import dataclasses
import inspect
import signal
import warnings
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

import entroflow
from entroflow.agents import callbacks, compiled, learning, progress
from entroflow.cli import main
from entroflow.rl import MLPCritic, loop_gym, loop_scheduled
from entroflow.storage import curves

from .reach import Reach

SMALL = {"learning_starts": 20, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}
EVERY = {"log_interval": 5, "evaluate_every": 15, "evaluation_episodes": 2}


TASK = "Pendulum-v1"  # the state of which checkpoints know


def made(task="Reach-v0", **changes):
    """A small agent, on the tiny task."""
    return entroflow.GaussianSAC(task, seed=3, **SMALL, **changes)


def table(path):
    """The rows of a CSV file, without the time they took."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with a training from Python, and its agent."""
    out = tmp_path_factory.mktemp("learn") / "run"
    return out, made(TASK).learn(30, log=out, **EVERY)


def test_python_records_what_the_command_records(recorded, tmp_path, monkeypatch):
    """Rows, evaluations and curve are those of the command with the same seed; unrecorded, the same is learned."""
    out, agent = recorded
    monkeypatch.setattr(learning, "LOG_INTERVAL", 5)
    options = ["--algorithm", "gaussian_sac", "--seed", "3", "--steps", "30", "--evaluate-every", "15"]
    options += ["--evaluation-episodes", "2", "--out", str(tmp_path / "run"), "--set"]
    assert main(["train", TASK, *options, *(f"{name}={value}" for name, value in SMALL.items())]) == 0
    for name in ("metrics.csv", "evaluations.csv"):
        assert table(out / name) == table(tmp_path / "run" / name) and len(table(out / name)) > 1
    assert (out / "learning_curve.png").stat().st_size > 0
    obs, action = np.zeros((2, 3)), np.full((2, 1), 0.5)
    for same in (entroflow.load(out), made(TASK).learn(30)):
        np.testing.assert_array_equal(same.log_prob(obs, action), agent.log_prob(obs, action))


@pytest.mark.parametrize("way", ["python", "command"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(recorded, tmp_path, way, monkeypatch):
    """From its last checkpoint, in Python or on the command line: the same rows."""
    out = tmp_path / "run"
    monkeypatch.setattr(learning, "LOG_INTERVAL", 5)

    def interrupt(_, row):
        if row["step"] == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(TASK).learn(30, interrupt, log=out, **EVERY)
    if way == "python":
        agent = made(TASK).learn(30, log=out, resume=True, **EVERY)
        assert agent.num_timesteps == 30
    else:
        assert main(["resume", str(out)]) == 0
    for name in ("metrics.csv", "evaluations.csv"):
        assert table(out / name) == table(recorded[0] / name)


def test_a_run_that_was_made_longer_has_no_old_figure(tmp_path, monkeypatch):
    """Killed between its last checkpoint and the new figure, it has not come to its end, which a study is to see."""
    out = tmp_path / "run"
    made(TASK).learn(22, log=out, **EVERY)
    assert (out / "learning_curve.png").exists()
    monkeypatch.setattr(curves, "draw_learning_curve", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made(TASK).learn(25, log=out, resume=True, **EVERY)
    assert table(out / "evaluations.csv")[-1]["step"] == "25"
    assert not list(out.glob("learning_curve.*"))


def test_a_folder_with_another_run_is_refused(recorded):
    """Without `resume`, and with another seed or other settings."""
    out, _ = recorded
    with pytest.raises(ValueError, match="^log: got .*, which already holds a run, .*; pass another .*resume=True.$"):
        made(TASK).learn(5, log=out)
    with pytest.raises(ValueError, match=r"^resume: got seeds \[4\], where the run .* has \[3\], expected"):
        entroflow.GaussianSAC(TASK, seed=4, **SMALL).learn(5, log=out, resume=True)
    with pytest.raises(ValueError, match="^resume: got settings, where the run in .* has other settings"):
        made(TASK, discount=0.5).learn(5, log=out, resume=True)


def test_a_run_that_no_file_can_make_again_goes_on_in_python(tmp_path, capsys):
    """The command says so; a tensorboard_log gets a folder of its own for every training."""
    agent = entroflow.GaussianSAC(lambda: Reach(), tensorboard_log=tmp_path, **SMALL)
    for number in (1, 2):
        with pytest.warns(UserWarning, match="the state of .* cannot be saved"):
            agent.learn(3, tb_log_name="run", **EVERY)
        assert table(tmp_path / f"run_{number}" / "evaluations.csv")[-1]["step"] == str(3 * number)
    assert list((tmp_path / "run_1" / "tensorboard" / "seed=0").glob("events*"))
    assert main(["resume", str(tmp_path / "run_1")]) == 2
    assert "go on in Python, with resume=True" in capsys.readouterr().err


def test_callbacks(tmp_path):
    """All of a list are called, at their own times; what one adds to the row others see; False from any ends it."""
    seen, agent = [], made()
    keep = callbacks.checkpoints(tmp_path / "kept", every=4)
    look = callbacks.evaluation(every=6, episodes=2, best=tmp_path / "best")
    end = callbacks.stop_at(-1e9, "evaluation")
    agent.learn(30, [keep, look, end, lambda _, row: seen.append(row)], log_interval=3)
    assert [row["step"] for row in seen] == [3, 6] and ["evaluation" in row for row in seen] == [False, True]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step=6"] and agent.num_timesteps == 6
    assert entroflow.load(tmp_path / "best").num_timesteps == 6
    assert callbacks.stop_at(1.0)(agent, {"return": 0.5}) and not callbacks.stop_at(1.0)(agent, {"return": 1.0})
    with pytest.raises(ValueError, match="^callback: got a Reach, expected a function of the agent and a row"):
        inspect.unwrap(callbacks.together)([Reach()])
    with pytest.raises(ValueError, match="^callback: got a Reach"):  # as Stable-Baselines3's: no function, and no list
        inspect.unwrap(callbacks.together)(Reach())


def test_only_false_ends_training():
    """No number that equals it, and no array that has no truth."""
    for said, ends in [(False, True), (np.bool_(False), True), (0, False), (None, False), (np.zeros(2), False)]:
        assert callbacks.together([lambda *_, said=said: said, lambda *_: None])(None, {}) is not ends


@pytest.mark.parametrize(
    ("name", "module", "program"), [(TASK, loop_gym, "learn"), ("jax/Pendulum", loop_scheduled, "advance")]
)
def test_an_interrupted_agent_is_whole(name, module, program, monkeypatch):
    """Ctrl-C comes when an update has taken the agent's memory and not given it back; without a folder, too."""
    agent, real = made(name), getattr(module, program)

    def interrupted(*args, **kwargs):
        found = real(*args, **kwargs)
        signal.raise_signal(signal.SIGINT)
        return found

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, program, interrupted)
            agent.learn(2000)
    finally:
        signal.signal(signal.SIGINT, usual)
    before = agent.num_timesteps
    assert 0 < before < 2000 and np.isfinite(agent.predict(np.zeros(3))[0]).all()
    assert agent.learn(10).num_timesteps >= before + 10


@dataclasses.dataclass(frozen=True)
class Told(MLPCritic):
    """A critic that calls its metric otherwise."""

    def update(self, state, experience):
        state, metrics = super().update(state, experience)
        return state, {"td_error": metrics["critic_error"]}


def test_a_critic_may_log_what_it_likes(tmp_path):
    """Rows are kept once something was learned, whatever the critic tells; also of intervals without an update."""
    small = SMALL | {"critic": Told(width=8)}
    del small["critic_width"]
    out = tmp_path / "run"
    entroflow.GaussianSAC(TASK, updates_per_step=0.1, **small).learn(60, log=out, **EVERY)
    told = {row["step"]: bool(row["td_error"]) for row in table(out / "metrics.csv")}
    assert told == {"35": True, "40": False, "45": True, "50": False, "55": True, "60": False}


@pytest.mark.parametrize(
    ("verbose", "bar", "terminal", "quiet", "live"),
    [
        (None, None, False, True, False),
        (None, None, True, False, True),
        (0, None, True, True, False),
        (1, None, False, False, False),
        (0, True, True, False, True),
        (1, False, True, False, False),
        (None, False, True, True, False),
    ],
)
def test_where_training_is_shown(verbose, bar, terminal, quiet, live, monkeypatch):
    """A bar in a terminal, nothing in a script, lines if asked for."""
    monkeypatch.setenv("FORCE_COLOR" if terminal else "COLUMNS", "1")
    console = progress.console_of(verbose, bar)
    assert (console.quiet, console.is_terminal and not console.quiet) == (quiet, live)


def test_programs_are_kept_on_disk_from_python(tmp_path, monkeypatch):
    """In the user's own cache, where JAX was told of none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update(names[0], None)
        monkeypatch.setattr(compiled, "training_of", lambda *_: 1 / 0)  # what compiles first
        with pytest.raises(ZeroDivisionError):
            made()
        assert Path(getattr(jax.config, names[0])).is_relative_to(tmp_path)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_a_script_is_told_only_what_it_asks_for(capsys):
    """Nothing by default; with verbose=1 a first line at once and the closing table."""
    made().learn(3)
    assert capsys.readouterr().out == ""
    made(verbose=1).learn(3)
    assert capsys.readouterr().out.startswith("gaussian_sac on Reach-v0: 3 steps\n")


def test_steps_without_learning_are_warned_of(tmp_path):
    """With and without a folder; not once there was an update."""
    expected = r"no update was made: learning begins after 20 steps \(learning_starts\); 4 were made"
    for where in ({}, {"log": tmp_path / "run", "evaluation_episodes": 1}):
        with pytest.warns(UserWarning, match=expected):
            made(TASK).learn(4, **where)
    with pytest.warns(UserWarning, match="nothing to do: all of the run's 4 steps are made"):
        made(TASK).learn(4, log=tmp_path / "run", evaluation_episodes=1, resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made().learn(24)


def test_going_on_needs_a_folder():
    """`resume=True` alone would begin anew without a word."""
    with pytest.raises(ValueError, match="^resume: got True, .*log=FOLDER"):
        made().learn(4, resume=True)


def test_an_agent_says_what_it_is():
    """Task, seed, what is not as by default, sizes, steps."""
    said = repr(made(discount=0.5).learn(3))
    assert said.startswith("<GaussianSAC('Reach-v0', seed=3, learning_starts=20, buffer_size=200, discount=0.5, ")
    assert "critic_width=8" in said and said.endswith(": 2 observations, 2 actions, 3 steps made>")


def test_what_reset_returns_is_no_observation():
    """As in Stable-Baselines3 the pair is refused, with what to write."""
    with pytest.raises(ValueError, match=r"what env.reset\(\) returns, .*; write observation, _ = env.reset\(\)"):
        made().predict(Reach().reset(seed=0))


def test_densities_come_with_samples():
    """What `sample_and_log_prob` says of its actions is what `log_prob` says of them."""
    agent, obs = made(), np.zeros((2, 2))
    actions, log_probs = agent.sample_and_log_prob(obs, n=4)
    np.testing.assert_allclose(agent.log_prob(obs[:, None], actions), log_probs, rtol=1e-4)


def test_a_console_in_a_file_is_no_terminal():
    """The display of a training knows where learning begins."""
    agent = made()
    live = learning.display(agent._training, 100, Console(quiet=True))
    assert (live.start, live.begins, live.steps) == (0, 22, 100)
