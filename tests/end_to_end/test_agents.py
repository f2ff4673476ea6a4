"""Agents on Gymnasium tasks as a user drives them: train, predict, evaluate, save, load, and what is refused."""

import sys

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

import entroflow
from entroflow import isfm
from entroflow.agents import training
from entroflow.agents.evaluation import Perturbation, perturb
from entroflow.agents.settings import from_json, of_algorithm, to_json
from entroflow.agents.tasks import rebuilt, task

from .reach import Reach

# Programs are shared by all tests that use these settings and this task, four episodes and four observations.
SMALL = {"learning_starts": 20, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}
AGENTS = [entroflow.SACISFM, entroflow.GaussianSAC, entroflow.DenoisingSAC]


class Other(Reach):
    """The same with another space of observations or actions."""

    def __init__(self, *, observations=None, actions=None):
        super().__init__()
        self.observation_space = observations or self.observation_space
        self.action_space = actions or self.action_space


@pytest.fixture(scope="module")
def agent():
    """An agent that has learned a little."""
    return entroflow.SACISFM("Reach-v0", seed=3, **SMALL).learn(30)


def replay(agent):
    """What the agent remembers, oldest first, as NumPy arrays."""
    loop = agent._training.loop
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0, : int(loop.count)], loop.replay)


def test_an_agent_saved_with_its_memory_goes_on_as_if_it_had_not_been(tmp_path):
    """Bit for bit, replay, random keys, optimisers and the episode that it was in; without, the memory is empty."""
    whole = entroflow.GaussianSAC("Pendulum-v1", seed=3, **SMALL).learn(30)
    whole.save(tmp_path / "whole", replay=True)
    whole.save(tmp_path / "bare")
    again, bare = (entroflow.load(tmp_path / name) for name in ("whole", "bare"))
    for made in (again, whole):
        made.learn(11)
    jax.tree.map(np.testing.assert_array_equal, (again.state, replay(again)), (whole.state, replay(whole)))
    assert (again.num_timesteps, int(again._training.loop.count), int(bare._training.loop.count)) == (41, 40, 0)


def test_an_agent_loaded_without_its_memory_may_be_saved_with_one(tmp_path):
    """It begins another one, with other random keys than at first; what is saved before its first step loads, too."""
    first = entroflow.GaussianSAC("Pendulum-v1", seed=3, **SMALL).learn(30)
    first.save(tmp_path / "bare")
    bare = entroflow.load(tmp_path / "bare")
    bare.save(tmp_path / "before", replay=True)
    before = entroflow.load(tmp_path / "before")
    for made in (bare, before):
        made.learn(25)
    jax.tree.map(np.testing.assert_array_equal, (before.state, replay(before)), (bare.state, replay(bare)))
    assert before.num_timesteps == 55
    fresh = entroflow.GaussianSAC("Pendulum-v1", seed=3, **SMALL)._training.loop.key
    assert not np.array_equal(*map(jax.random.key_data, (entroflow.load(tmp_path / "bare")._training.loop.key, fresh)))


def test_one_environment_for_all_goes_on_after_an_evaluation_as_without_being_saved(tmp_path):
    """An evaluation in the training's own environment ends its episode; a saved agent begins the same new one."""
    make = lambda: gymnasium.make("Pendulum-v1", max_episode_steps=10)  # noqa: E731  # the state of which is known
    env = make()
    whole = entroflow.GaussianSAC(lambda: env, seed=3, **SMALL).learn(25)
    whole.evaluate(1)
    whole.save(tmp_path / "agent", replay=True)
    again = entroflow.load(tmp_path / "agent", env=make)
    for made in (again, whole):
        made.learn(7)
    jax.tree.map(np.testing.assert_array_equal, replay(again), replay(whole))


def test_steps_are_those_asked_for():
    """However many environments step together: at most a step of all of them more."""
    settings = SMALL | {"num_envs": 4}
    assert entroflow.GaussianSAC("Reach-v0", **settings).learn(10, log_interval=1).num_timesteps == 12


@pytest.mark.parametrize("terminates", [True, False])
def test_the_true_last_observation_is_remembered(terminates):
    """The observation that ends an episode is stored as its successor, with the right flag; the next starts anew."""
    seen = replay(entroflow.GaussianSAC(lambda: Reach(terminates=terminates), **SMALL).learn(19))
    ended = seen.obs[:, 1] == 2
    assert ended.sum() >= 5
    np.testing.assert_array_equal(seen.next_obs[:, 1], seen.obs[:, 1] + 1)
    np.testing.assert_array_equal(seen.next_obs[:, 0], seen.obs[:, 0])
    np.testing.assert_array_equal(seen.terminated, ended & terminates)
    np.testing.assert_array_equal(seen.truncated, ended & (not terminates))
    starts = seen.obs[1:, 0][ended[:-1]]
    assert len(np.unique(starts)) == len(starts)
    np.testing.assert_allclose(seen.reward, -np.sum((seen.action - 0.5) ** 2, axis=1), rtol=1e-5)


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.algorithm)
def test_training_moves_the_agent_and_repeats_itself(kind):
    """The same seed gives the same agent and metrics, bit for bit; another seed others; learning changes parameters."""

    def run(seed):
        rows = []
        made = kind(Reach, seed=seed, **SMALL)
        before = jax.tree.leaves(made.state.actor)
        made.learn(24, callback=lambda _, row: rows.append(row), log_interval=12)
        after = jax.tree.leaves(made.state.actor)
        assert any((old != new).any() for old, new in zip(before, after, strict=True))
        return rows, after

    (rows, leaves), (again, same), (_, other) = run(1), run(1), run(2)
    assert [row["step"] for row in rows] == [12, 24] and rows == again
    assert np.isfinite(rows[1]["critic_error"]) and rows[1]["episodes"] == 4
    for leaf, twin, stranger in zip(leaves, same, other, strict=True):
        np.testing.assert_array_equal(leaf, twin)
        assert leaf.size < 2 or (leaf != stranger).any() or not leaf.any()


def test_predict_as_stable_baselines_calls_it(agent):
    """One observation gives one action, a batch a batch, inside of the bounds, with the state handed through."""
    obs = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    actions, state = agent.predict(obs, state="kept", episode_start=np.ones(4, bool), deterministic=True)
    assert actions.shape == (4, 2) and state == "kept"
    one, _ = agent.predict(obs[0])
    assert one.shape == (2,) and agent.task.action_space.contains(one)
    draws = np.array([agent.predict(obs[0])[0] for _ in range(3)])
    assert len(np.unique(draws[:, 0])) == 3


def test_deterministic_actions_are_better_by_q(agent):
    """The best of many draws has a higher Q than a draw, on average."""
    from entroflow.rl import sac

    obs = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    value = jax.jit(jax.vmap(lambda obs, action: sac.q_value(agent.config, agent.state, obs, action)))
    best, drawn = (np.asarray(value(obs, agent.predict(obs, deterministic=how)[0])) for how in (True, False))
    assert best.mean() > drawn.mean()


def test_log_prob_integrates_to_one(agent):
    """The density of actions, which live in [−2, 2] × [0, 1], integrates to one over that box."""
    x, y = (np.arange(60) + 0.5) / 60 * 4 - 2, (np.arange(60) + 0.5) / 60
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    density = np.exp(agent.log_prob(np.tile(np.float32([0.3, 1.0]), (len(grid), 1)), grid))
    np.testing.assert_allclose(density.sum() * (4 / 60) * (1 / 60), 1.0, atol=0.02)
    assert np.ndim(agent.log_prob([0.3, 1.0], [0.0, 0.5])) == 0


@pytest.mark.parametrize("kind", [entroflow.SACISFM, entroflow.GaussianSAC])
def test_there_is_no_density_beyond_the_bounds(kind):
    """Strictly outside it is zero; on a bound that of the nearest action inside."""
    made = kind("Reach-v0", **SMALL)
    actions = np.float32([[2.0, 0.5], [2.001, 0.5], [0.0, -0.001], [-2.0, 0.0], [2.0 - 1e-6, 0.5]])
    found = made.log_prob(np.zeros((5, 2)), actions)
    assert np.isneginf(found).tolist() == [False, True, True, False, False]
    np.testing.assert_allclose(found[0], found[4], rtol=1e-3)


def test_no_two_consumers_share_a_key():
    """The keys by which an agent acts, learns, is evaluated and predicts, and those derived from its seed, differ."""
    made = entroflow.GaussianSAC(Reach, seed=3, **SMALL)
    training = made._training
    held = [training._act_keys, training._evaluate_keys, training._learn_keys, training.predict_keys]
    seed = jax.random.key(3)
    keys = [seed, *(key[0] for key in held), *(jax.random.fold_in(training.predict_keys[0], i) for i in range(1, 4))]
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in keys}) == len(keys)


def test_evaluation_counts_whole_episodes(agent):
    """Lengths are the episodes'; the same seed gives the same episodes."""
    found, again = agent.evaluate(4, seed=5), agent.evaluate(4, seed=5)
    np.testing.assert_array_equal(found.lengths, 3)
    np.testing.assert_array_equal(found.returns, again.returns)
    assert found.mean == pytest.approx(found.returns.mean()) and found.standard_error > 0


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.algorithm)
def test_saved_agents_are_the_same_agents(kind, tmp_path):
    """A loaded agent acts and judges as the saved one, knows its settings, and trains on."""
    saved = kind("Reach-v0", seed=1, **SMALL).learn(24)
    saved.save(tmp_path / "agent")
    loaded = entroflow.load(tmp_path / "agent")
    assert type(loaded) is kind and loaded.settings == saved.settings and loaded.num_timesteps == 24
    obs = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    loaded._draws = saved._draws
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], saved.predict(obs, deterministic=True)[0])
    np.testing.assert_array_equal(loaded.evaluate(4).returns, saved.evaluate(4).returns)
    before = jax.tree.leaves(loaded.state.actor)
    loaded.learn(20)  # its memory is empty: it acts by its policy until there is enough to learn from
    assert loaded.num_timesteps == 44
    assert all(np.array_equal(*pair) for pair in zip(before, jax.tree.leaves(loaded.state.actor), strict=True))
    loaded.learn(4)
    assert not all(np.array_equal(*pair) for pair in zip(before, jax.tree.leaves(loaded.state.actor), strict=True))


def test_agents_of_other_algorithms_and_tasks_are_refused(tmp_path):
    """One sentence says what the folder holds and how to load it."""
    entroflow.GaussianSAC("Reach-v0", **SMALL).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="agent of gaussian_sac, expected one of sac_isfm; load it with GaussianSAC"):
        entroflow.SACISFM.load(tmp_path / "agent")
    with pytest.raises(
        ValueError, match="expected a task like Reach-v0 with .*'obs_size': 2.*pass the task itself as env="
    ):
        entroflow.GaussianSAC.load(tmp_path / "agent", "Pendulum-v1")
    with pytest.raises(ValueError, match="holds no agent"):
        entroflow.SACISFM.load(tmp_path / "nothing")


def test_damaged_agents_are_refused(tmp_path):
    """A file that was cut short is named."""
    entroflow.GaussianSAC("Reach-v0", **SMALL).save(tmp_path / "agent")
    header, arrays = sorted((tmp_path / "agent").iterdir(), reverse=True)
    arrays.write_bytes(arrays.read_bytes()[: arrays.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"agent-\w+.npz: got .*bytes that are not those that were written"):
        entroflow.GaussianSAC.load(tmp_path / "agent")
    header.write_text(header.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="agent.json: got a header that was damaged or changed"):
        entroflow.GaussianSAC.load(tmp_path / "agent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": spaces.Discrete(3)}, "Discrete.*expected a Box"),
        ({"actions": spaces.MultiBinary(3)}, "MultiBinary.*expected a Box"),
        ({"actions": spaces.Box(0.0, 0.0, (2,))}, "no room between its bounds"),
        ({"actions": spaces.Box(np.float32([-1, -np.inf]), np.float32([1, np.inf]))}, "bounded in part"),
        ({"observations": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "images"),
        ({"observations": spaces.Sequence(spaces.Box(-1, 1, (2,)))}, "variable size"),
    ],
)
def test_tasks_that_are_not_supported_are_refused(change, message):
    """One sentence says what is wrong with the task."""
    with pytest.raises(ValueError, match=message) as refusal:
        entroflow.SACISFM(lambda: Other(**change))
    assert "\n" not in str(refusal.value)


def test_names_that_do_not_exist_are_refused():
    """Environments, settings and seeds."""
    with pytest.raises(ValueError, match=r"env: got 'HalfCheetha-v5'"):
        entroflow.SACISFM("HalfCheetha-v5")
    with pytest.raises(ValueError, match="setting: got 'candidate'.*did you mean 'candidates'"):
        entroflow.SACISFM(Reach, **{"candidate": 3})  # type: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="seed: got -1"):
        entroflow.SACISFM(Reach, seed=-1)
    with pytest.raises(ValueError, match="num_envs: got 0"):
        entroflow.SACISFM(Reach, num_envs=0)


def test_missing_mujoco_is_said(monkeypatch):
    """The sentence names what to install."""

    def make(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed, run `pip install 'gymnasium[mujoco]'`")

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(ValueError, match=r'run: pip install "gymnasium\[mujoco\]>=1.4"'):
        entroflow.SACISFM("HalfCheetah-v5")


def test_a_reward_that_is_not_finite_stops_training():
    """The message says which number, where and when."""
    made = entroflow.GaussianSAC(lambda: Reach(bad_step=25), **SMALL)
    with pytest.raises(training.NotFinite, match="reward that is not finite at step 25, seed 0"):
        made.learn(40)


def test_dict_observations_are_flattened():
    """A Dict of vectors is one vector to the agent."""
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})

    class Structured(Reach):
        def __init__(self):
            super().__init__()
            self.observation_space = space

        def _observe(self):
            return {"a": np.float32([0.5, self.time]), "b": np.int64(self.time % 3)}

    made = entroflow.GaussianSAC(Structured, **SMALL).learn(6)
    assert made.task.obs_size == 5
    np.testing.assert_array_equal(replay(made).obs[1], np.float32([0.5, 1, 0, 1, 0]))

    # What the task returns is what `predict` takes, one or a batch.
    one = {"a": np.float32([0.5, 1]), "b": np.int64(1)}
    batch = {"a": np.float32([[0.5, 1], [0.5, 2]]), "b": np.int64([1, 2])}
    flat, lead = made.task.flatten(one)
    np.testing.assert_array_equal(flat, np.float32([[0.5, 1, 0, 1, 0]]))
    assert lead == () and made.predict(one)[0].shape == (2,)
    assert made.task.flatten(batch)[1] == (2,) and made.predict(batch)[0].shape == (2, 2)
    # Its form counts, not its precision, nor whether it is within the bounds.
    for other in ({"a": np.array([0.5, 1.0]), "b": 1}, {"a": [0.5, 1.0], "b": np.int32(1)}):
        np.testing.assert_array_equal(made.task.flatten(other)[0], flat)
        assert made.task.flatten(other)[1] == ()
    stacked = {"a": np.full((3, 4, 2), 1.01), "b": np.ones((3, 4), int)}
    assert made.task.flatten(stacked)[0].shape == (12, 5) and made.predict(stacked)[0].shape == (3, 4, 2)
    for wrong in (
        {"a": np.float32([0.5, 1])},
        {"a": np.float32([0.5, 1]), "b": 1, "c": 1},
        {"a": np.float32([0.5, 1]), "b": 3},
        {"a": np.zeros((2, 3)), "b": np.zeros(2, int)},
        {"a": np.zeros((2, 2)), "b": np.zeros(3, int)},
    ):
        with pytest.raises(ValueError, match="observation: got .*expected one of Dict"):
            made.predict(wrong)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros((3, 5)), r"shape \(3, 5\), expected numbers of shape \(2,\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.array(["a", "b"]), "expected numbers"),
        (np.float64([1e300, 0.0]), "got NaN or infinity"),
    ],
)
def test_observations_are_judged_by_the_task_s_space(agent, observation, message):
    """Neither the number of entries counts, nor what single precision cannot hold."""
    with pytest.raises(ValueError, match=message):
        agent.predict(observation)


def test_observations_and_actions_of_any_shape():
    """Matrices are flattened by their own shape: one gives one action, several as many."""
    matrices = spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, (1, 2))

    class Matrix(Other):
        def __init__(self):
            super().__init__(observations=matrices[0], actions=matrices[1])

        def _observe(self):
            return np.full((2, 3), 0.1, np.float32)

    made = entroflow.GaussianSAC(Matrix, **SMALL)
    assert made.predict(np.zeros((2, 3)))[0].shape == (1, 2)
    assert made.predict(np.zeros((4, 2, 3)))[0].shape == (4, 1, 2)
    assert made.predict(np.zeros((4, 6)))[0].shape == (4, 1, 2)
    assert made.log_prob(np.zeros((4, 2, 3)), np.zeros((4, 1, 2))).shape == (4,)


def test_a_saved_agent_remembers_its_task(tmp_path):
    """Time limit, arguments and Gymnasium's wrappers come back; what files cannot tell is asked for."""
    short = gymnasium.make("Pendulum-v1", max_episode_steps=7)
    env = gymnasium.wrappers.RescaleAction(short, np.float32(-1.0), np.float32(1.0))
    entroflow.GaussianSAC(env, **SMALL).save(tmp_path / "agent")
    loaded = entroflow.load(tmp_path / "agent")
    assert loaded.evaluate(1).lengths.tolist() == [7]
    np.testing.assert_array_equal(loaded.task.action_space.high, [1.0])
    with pytest.raises(ValueError, match="and other bounds, expected a task like Pendulum-v1"):
        entroflow.GaussianSAC.load(tmp_path / "agent", "Pendulum-v1")

    entroflow.GaussianSAC(Reach, **SMALL).save(tmp_path / "own")
    with pytest.raises(ValueError, match="an agent for 'Reach', which no file can make again.*pass it as env="):
        entroflow.load(tmp_path / "own")
    assert entroflow.load(tmp_path / "own", env=Reach).task.name == "Reach"


def test_no_file_chooses_an_import(tmp_path, monkeypatch):
    """An id that names a module is refused before anything is imported, whatever the check sums say."""
    (tmp_path / "payload.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for spec in ("payload:X-v0", {"id": "payload:X-v0"}, {"id": "Reach-v0", "wrappers": [{"name": "os.system"}]}, 3):
        with pytest.raises(ValueError, match="pass the task itself as env="):
            rebuilt(spec)
    assert "payload" not in sys.modules


def test_no_file_chooses_where_to_write(tmp_path):
    """Wrappers that write or show are refused, whatever their arguments."""
    for name in ("RecordVideo", "HumanRendering", "RenderCollection"):
        spec = {"id": "Pendulum-v1", "kwargs": {"render_mode": "rgb_array"}, "max_episode_steps": None}
        spec["wrappers"] = [{"name": name, "kwargs": {"video_folder": str(tmp_path / "films")}}]
        with pytest.raises(ValueError, match=f"the wrapper '{name}' in a file, expected one of Gymnasium's own"):
            rebuilt(spec)
    assert list(tmp_path.iterdir()) == []


def test_one_s_own_parts(tmp_path):
    """Own objects enter training, are told from others, and are asked for where a file cannot bring them back."""

    def broad(policy, q_function, temperature):
        return isfm.defensive(policy, isfm.UniformProposal(policy.action_space), 0.5)

    made = entroflow.SACISFM("Reach-v0", proposal=broad, **SMALL).learn(24)
    assert made.settings.config.actor.proposal is broad
    made.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="proposal: got an object of your own, .*broad, .*pass proposal=…"):
        entroflow.load(tmp_path / "agent")
    assert entroflow.load(tmp_path / "agent", proposal=broad).settings == made.settings


def test_unbounded_actions_are_the_policy_s_own():
    """A Box without bounds is trained on as in LQR."""
    made = entroflow.GaussianSAC(lambda: Reach(low=(-np.inf,) * 2, high=(np.inf,) * 2), **SMALL).learn(24)
    assert np.abs(replay(made).action).max() > 2.0 and made.config.target_entropy is None


def test_noise_on_actions_and_observations():
    """Noise has the stated size, actions stay inside of their bounds, and the reset's seed decides it."""
    changed = perturb(task(Reach), Perturbation(action_noise=0.1, observation_noise=0.2))
    env, plain = changed.make(), Reach()
    first, again, true = env.reset(seed=4)[0], env.reset(seed=4)[0], plain.reset(seed=4)[0]
    np.testing.assert_array_equal(first, again)
    noise, rewards = [], []
    for seed in range(400):
        noise.append(env.reset(seed=seed)[0] - plain.reset(seed=seed)[0])
        rewards.append(env.step(np.float32([0.5, 0.5]))[1])
    assert np.any(first != true)
    spread = np.std(noise)  # of 800 normal draws: a standard error of 2.5 %
    assert abs(spread / 0.2 - 1) < 0.1
    # The noise of the actions is 0.1 half-ranges: 0.2 and 0.05.
    np.testing.assert_allclose(-np.mean(rewards), 0.2**2 + 0.05**2, rtol=4 * np.sqrt(2 / 400))
    with pytest.raises(ValueError, match="mass 1.2 and friction 1 for Reach, which MuJoCo does not simulate"):
        perturb(task(Reach), Perturbation(mass=1.2))
    with pytest.raises(ValueError, match="action_noise: got -1"):
        Perturbation(action_noise=-1.0)


def test_masses_and_friction_of_mujoco_tasks():
    """Every environment is scaled once, from the model as it is."""
    changed = perturb(task("Hopper-v5"), Perturbation(mass=1.2, friction=0.8))
    model, scaled = task("Hopper-v5").make().unwrapped.model, changed.make().unwrapped.model
    np.testing.assert_allclose(scaled.body_mass, 1.2 * model.body_mass)
    np.testing.assert_allclose(scaled.geom_friction, 0.8 * model.geom_friction)
    np.testing.assert_allclose(changed.make().unwrapped.model.body_mass, 1.2 * model.body_mass)
    np.testing.assert_allclose(scaled.body_subtreemass, 1.2 * model.body_subtreemass)
    assert (scaled.dof_invweight0 < model.dof_invweight0).all()
    env = task("Hopper-v5").make()
    shared = task(lambda: env)
    with pytest.raises(ValueError, match="mass 1.2 and friction 1 for <lambda>, always one environment, expected"):
        perturb(shared, Perturbation(mass=1.2))
    perturb(shared, Perturbation(action_noise=0.1)).make().reset()  # was not closed


@pytest.mark.parametrize("name", ["sac_isfm", "gaussian_sac", "denoising"])
def test_settings_survive_json(name):
    """Settings read back are the settings written."""
    settings = of_algorithm(name)
    assert from_json(to_json(settings)) == settings and settings.algorithm == name
