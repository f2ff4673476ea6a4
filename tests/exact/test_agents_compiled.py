"""Training on environments in JAX: the same loop in Python, the transitions, evaluations, and going on."""

import dataclasses
import json
import math
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import entroflow
from entroflow.agents.compiled import CompiledTraining, training_of
from entroflow.agents.settings import Settings
from entroflow.agents.tasks import rebuilt, task
from entroflow.agents.training import NotFinite, Training
from entroflow.cli import main
from entroflow.envs import EnvState, LQREnv, PendulumEnv, reset, step
from entroflow.lqr import systems
from entroflow.rl import Config, Gaussian, MLPCritic, buffer, sac
from experiments.resume.run import content

from .course import GOAL, LIMIT, Course, course

CONFIG = Config(Gaussian(width=4, depth=1), MLPCritic(width=4, depth=1), batch_size=8)
SETTINGS = Settings(
    CONFIG,
    num_envs=2,
    updates_per_step=1.5,
    policy_delay=2,
    learning_starts=5,
    buffer_size=60,
    action_candidates=3,
)
SEEDS = [7]


def train(settings=SETTINGS, env=None, seeds=SEEDS):
    """A training that has made no step."""
    return training_of(task(course() if env is None else env), settings, seeds)


def leaves(tree):
    """Its numbers, keys by their data."""
    found = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in found]


def same(first, second):
    """Whether two trees have the same numbers, bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


@pytest.fixture(scope="module")
def trained():
    """A training after 36 steps, and its rows."""
    training = train()
    return training, training.advance(20), training.advance(16)


@jax.jit
def move(env, key, state, action):
    return jax.vmap(step, in_axes=(None, 0, 0, 0))(env, key, state, action)


def in_python(training, iterations):
    """What `CompiledTraining` says that it does, one step at a time; returns the agent."""
    config, env, settings, e = training.config, training.task.functional, training.settings, SETTINGS.num_envs
    agent = jax.tree.map(lambda leaf: leaf[0], training.agents)
    update = jax.jit(lambda *parts, both: sac.update(config, *parts, update_policy=both), static_argnames="both")
    draw = jax.jit(lambda agent, keys, obs: jax.vmap(sac.policy(config, agent).sample)(keys, obs))
    key, reset_key = jax.random.split(jax.random.fold_in(training._learn_keys[0], 0))
    envs = jax.vmap(reset, in_axes=(None, 0))(env, jax.random.split(reset_key, e))
    seen, updates = [], 0
    for i in range(iterations):
        act_key, learn_key, key = jax.random.split(key, 3)
        keys = jax.vmap(jax.random.split)(jax.random.split(act_key, e))
        if i * e < settings.learning_starts:
            shares = jnp.stack([jax.random.uniform(key, (1,)) for key in keys[:, 0]])
            actions = env.action_low[None] + shares * (env.action_high - env.action_low)[None]
        else:
            actions = draw(agent, keys[:, 0], jax.vmap(env.observation)(envs.state))
        envs, transitions = move(env, keys[:, 1], envs, actions)
        seen.append(transitions)
        ring = jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen)
        counted = [max(0, (j + 1) * e - settings.learning_starts // e * e) for j in (i - 1, i)]
        before, after = [int(Fraction(3, 2) * n) for n in counted]
        for j in range(after - before if (i + 1) * e > settings.learning_starts else 0):
            batch_key, update_key = jax.random.split(jax.random.fold_in(learn_key, j))
            batch = buffer.sample(ring, batch_key, jnp.int32((i + 1) * e), config.batch_size)
            agent, _ = update(agent, batch, update_key, both=updates % settings.policy_delay == 0)
            updates += 1
    return agent, updates


def test_it_is_the_loop_written_in_python(trained):
    """Actions, transitions, batches and updates, in the order and number that the settings say."""
    agent, updates = in_python(train(), 18)
    assert updates == int(1.5 * (36 - 4)) == int(trained[0].agents.step[0])
    for found, expected in zip(leaves(trained[0].agents), leaves(agent), strict=True):
        np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ratio", "num_envs", "starts"), [(1.5, 2, 5), (0.3, 1, 4), (1 / 3, 4, 9), (2.0, 3, 0)])
def test_no_fraction_of_an_update_is_lost(monkeypatch, ratio, num_envs, starts):
    """After n steps that count there were floor(ratio n) updates, in chunks of any size."""
    from entroflow.agents import compiled

    settings = dataclasses.replace(SETTINGS, updates_per_step=ratio, num_envs=num_envs, learning_starts=starts or 1)
    training, made = train(settings), []

    def advance(config, env, agents, loop, count, due, iterations, exploring, updates, *, delay):
        assert iterations <= compiled.CHUNK == len(due) and not due[iterations:].any() and updates == sum(made) % delay
        assert exploring == max(0, math.ceil((settings.learning_starts - training.step) / num_envs))
        made.append(int(due.sum()))
        return agents, loop

    monkeypatch.setattr(compiled.loop_scheduled, "advance", advance)
    for steps in (1, 3, 40, 350):
        training.advance(steps)
        n = max(0, training.step - settings.learning_starts // num_envs * num_envs)
        assert sum(made) == math.floor(Fraction(str(ratio)) * n)


def episodes(replay):
    """The transitions of every environment, in their order, as NumPy arrays."""
    part = jax.tree.map(lambda ring: np.asarray(ring)[0], replay)
    return [jax.tree.map(lambda ring, i=i: ring[i:36:2], part) for i in range(2)]


def test_transitions_keep_the_end_of_their_episode(trained):
    """The last observation is that of the episode that ended, and how it ended is told; rows count what ended."""
    training, first, second = trained
    told, ends = [], []
    for t in episodes(training._loop.replay):
        np.testing.assert_array_equal(t.next_obs[:, 1], t.obs[:, 1] + 1)
        np.testing.assert_allclose(t.next_obs[:, 0], t.obs[:, 0] + 0.4 * t.action[:, 0], rtol=1e-5, atol=1e-6)
        expected = 10 * t.obs[:, 0] + t.next_obs[:, 0] - t.action[:, 0] ** 2
        np.testing.assert_allclose(t.reward, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(t.terminated, t.next_obs[:, 0] > GOAL)
        np.testing.assert_array_equal(t.truncated, (t.next_obs[:, 1] == LIMIT) & ~t.terminated)
        over = t.terminated | t.truncated
        np.testing.assert_array_equal(t.obs[1:], np.where(over[:-1, None], t.obs[1:], t.next_obs[:-1]))
        assert np.all(t.obs[1:][over[:-1], 1] == 0) and np.all(np.abs(t.obs[1:][over[:-1], 0]) <= 0.5)
        ends.append((t.terminated.sum(), t.truncated.sum()))
        begins = np.flatnonzero(np.r_[True, over[:-1]])
        stops = np.flatnonzero(over)
        told += [
            (stop, t.reward[begin : stop + 1].sum(), stop + 1 - begin)
            for begin, stop in zip(begins, stops, strict=False)
        ]
    assert np.all(np.sum(ends, axis=0) > 0)
    for rows, since, until in ((first, 0, 10), (second, 10, 18)):
        part = [episode[1:] for episode in told if since <= episode[0] < until]
        assert rows[0]["episodes"] == len(part) > 0
        np.testing.assert_allclose([rows[0]["return"], rows[0]["length"]], np.mean(part, axis=0), rtol=1e-4)
        assert rows[0]["seed"] == SEEDS[0] and rows[0]["step"] == 2 * until


def test_random_actions_fill_the_box():
    """Before learning starts, unlike those of the policy: Kolmogorov–Smirnov against the uniform distribution."""
    training = train(dataclasses.replace(SETTINGS, learning_starts=60))
    training.advance(60)
    drawn = np.asarray(training._loop.replay.action).ravel()
    assert stats.kstest(drawn, stats.uniform(-1, 4).cdf).pvalue > 1e-3 and np.unique(drawn).size == 60
    assert int(training.agents.step[0]) == 0 and "critic_error" not in training.advance(0)[0]


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluations_are_those_of_gymnasium(trained, deterministic):
    """The same episodes as one by one through `GymAdapter`, with the same random numbers."""
    how = {"deterministic": deterministic, "seed": 3}
    found, expected = trained[0].evaluate(4, **how), Training.evaluate(trained[0], 4, **how)
    assert len({row["length"] for row in found}) > 1
    for row, other in zip(found, expected, strict=True):
        assert row == other | {"return": pytest.approx(other["return"], rel=1e-4, abs=1e-4)}
    changed = trained[0].evaluate(4, **how, task=trained[0].task._replace(name="another"))
    assert changed == expected


def test_going_on_is_not_having_stopped():
    """What was stopped between two chunks goes on from its checkpoint bit for bit, rows included."""
    whole, part, asked = train(), train(), []
    rows = whole.advance(140)
    assert part.advance(140, lambda: asked.append(1) or len(asked) > 1) == [] and part.step == 128
    numbers, arrays = part.state()
    again = train()
    again.restore(json.loads(json.dumps(numbers)), arrays)
    assert again.advance(12) == rows
    assert same((again.agents, again._loop), (whole.agents, whole._loop))
    assert again.advance(10) == whole.advance(10)


@pytest.mark.parametrize("bad", ["reward", "observation", "learner"])
def test_after_a_number_that_is_not_finite_learning_can_go_on(bad):
    """It is named with step and seed; agents are those of before, and memory begins anew."""
    training = train(dataclasses.replace(SETTINGS, learning_starts=2), course(bad))
    good = training.agents
    of_task = f"^Course returned .*{bad} that is not finite at step (\\d+), seed 7$"
    told = of_task if bad != "learner" else "^.* of the run with seed 7 is not finite at step (\\d+)$"
    with pytest.raises(NotFinite, match=told):
        training.advance(100)
    assert same(training.agents, good) and 0 < training.step < 100 and training.step % 2 == 0
    numbers, _ = training.state()
    assert numbers["count"] == 0
    before = training.step
    training.advance(2)
    assert training.step == before + 2


def test_agents_of_the_package(tmp_path):
    """They learn, act, record, are saved with their memory and learn on as if they had not been."""
    rows = []
    make = lambda: entroflow.GaussianSAC(course(), seed=7, settings=SETTINGS)  # noqa: E731
    agent = make().learn(20, log=tmp_path / "run", evaluate_every=10, evaluation_episodes=2, log_interval=10)
    assert "Course" in repr(agent) and agent.predict(np.zeros(2))[0].shape == (1,)
    agent.save(tmp_path / "agent", replay=True)
    loaded = entroflow.GaussianSAC.load(tmp_path / "agent", env=course())
    for each in (agent, loaded):
        each.learn(10, callback=lambda _, row: rows.append(row), log_interval=10)
    assert rows[0] == rows[1] and same(agent.state, loaded.state)
    with pytest.raises(ValueError, match="an agent for 'Course', which no file can make again"):
        entroflow.load(tmp_path / "agent")
    again = make().learn(30, log=tmp_path / "run", resume=True, evaluate_every=10, evaluation_episodes=2)
    assert again.num_timesteps == 30 and same(again.state, agent.state)
    found = agent.evaluate(3, perturbation=entroflow.agents.Perturbation(observation_noise=0.1))
    assert found.returns.shape == (3,) and isinstance(agent._training, CompiledTraining)


def test_unbounded_actions_begin_in_the_units_of_the_task():
    """As on Gymnasium's tasks: LQR's actions, of a system that reckons them in thousands."""
    units = systems.get("coupled").in_units(np.ones(2), np.full(2, 1 / 1024), 1.0)
    training = train(dataclasses.replace(SETTINGS, policy_delay=1, updates_per_step=1), LQREnv(units), [0])
    before = np.asarray(training.agents.action_space.scale)
    training.state()
    assert np.all(np.asarray(training.agents.action_space.scale) / before > 100)


def test_ids_of_the_package():
    """An id says all that a file needs, and a misspelt one is told."""
    made = task("jax/Pendulum")
    assert made.spec == "jax/Pendulum" and isinstance(rebuilt(made.spec).functional, PendulumEnv)
    assert isinstance(training_of(made, SETTINGS, [0]), CompiledTraining)
    assert type(training_of(task("Pendulum-v1"), SETTINGS, [0])) is Training


HERE = course()


def test_ids_of_one_s_own():
    """'module:Name' is an environment or its class, else Gymnasium is asked; no file chooses a module."""
    for name, kind in {"entroflow.envs.pendulum:PendulumEnv": PendulumEnv, f"{__name__}:HERE": Course}.items():
        made = task(name)
        assert type(made.functional) is kind and (made.name, made.spec) == (name, None)
        with pytest.raises(ValueError, match=f"the id '{name}' in a file"):
            rebuilt(name)
    with pytest.raises(ValueError, match=r"Course', which cannot be made \(TypeError"):
        task("tests.exact.course:Course")
    for name, told in {f"{__name__}:Fraction": "doesn't exist", "nosuch:Own": "No module named 'nosuch'"}.items():
        with pytest.raises(ValueError, match=told):
            task(name)


@pytest.mark.slow
def test_the_command_line_trains_one_s_own(tmp_path, capsys):
    """It goes on bit for bit, and evaluates; the task is named each time."""
    name, place = "entroflow.envs.pendulum:PendulumEnv", str(tmp_path)
    small = ["width=4", "critic_width=4", "depth=1", "batch_size=8", "learning_starts=40", "num_envs=2"]
    rest = ["--algorithm", "gaussian_sac", "--evaluate-every", "60", "--evaluation-episodes", "1", "--set", *small]
    for out, steps in {"whole": "120", "parts": "60"}.items():
        assert main(["train", name, "--steps", steps, "--out", f"{place}/{out}", *rest]) == 0
    resume = ["resume", f"{place}/parts", "--steps", "120"]
    assert main(resume) == 2 and main([*resume, "--task", "Pendulum-v1"]) == 2
    assert main([*resume, "--task", name]) == 0
    assert content(tmp_path / "whole") == content(tmp_path / "parts")
    evaluation = ["eval", f"{place}/whole", "--episodes", "1"]
    assert main(evaluation) == 2 and main([*evaluation, "--task", name]) == 0
    told = capsys.readouterr().err
    assert "name the task by --task" in told and "the same run" in told and "or name it by --task" in told


class Wrong(Course):
    """Its part of that name is wrong."""

    part: str = eqx.field(static=True, default="")

    def observation(self, state: Any) -> Any:
        return state[:1] if self.part == "observation" else state

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        return action if self.part == "reward" else action[0] if self.part != "trace" else float(action[0])

    def terminal(self, state: Any) -> Any:
        return state > 1 if self.part == "terminal" else jnp.bool_(False)

    def transition(self, key: Any, state: Any, action: Any) -> Any:
        return {"x": state} if self.part == "transition" else state


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("observation", r"Wrong.observation, which returns float32\[1\], expected an array of shape \(2,\); see .*"),
        ("reward", r"Wrong.reward, which returns float32\[1\], expected an array of shape \(\); see .*"),
        ("terminal", r"Wrong.terminal, which returns bool\[2\], expected an array of shape \(\); see .*"),
        ("transition", "Wrong.transition, which makes .* of float32.*, expected a state of the same .*; return .*"),
        ("trace", "Wrong, which JAX cannot trace .*Error.*, expected pure functions; write it with jax.numpy.*"),
    ],
)
def test_what_is_no_environment_is_refused(part, message):
    """In one sentence, before anything is compiled."""
    with pytest.raises(ValueError, match=f"^env: got {message}$") as refusal:
        task(Wrong(action_low=jnp.full(1, -1.0), action_high=jnp.ones(1), bad=jnp.int32(0), part=part))
    assert "\n" not in str(refusal.value)


def test_environments_are_stepped_as_they_are(key):
    """The state that goes on after the end of an episode is a fresh one, at time zero."""
    env = course()
    state = EnvState(jnp.array([0.9, 2.0]), jnp.int32(2))
    following, transition = eqx.filter_jit(step)(env, key, state, jnp.ones(1))
    assert transition.terminated and not transition.truncated and following.time == 0
    np.testing.assert_allclose(transition.next_obs, [1.3, 3.0], rtol=1e-6)
