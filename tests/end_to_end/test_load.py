"""`entroflow.load`: agents come back from disk and answer in NumPy; damaged files are refused by name."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entroflow
from entroflow.agents import sampling
from entroflow.agents.sampling import BLOCK
from entroflow.flow import RungeKutta, Unbounded
from entroflow.moments import Moments
from entroflow.storage import checkpoint
from entroflow.storage.places import policy_folder

OLD = Path(__file__).parents[1] / "data" / "format-1"
ACCURATE = RungeKutta("rk4", 16)
SMALL = {"width": 8, "depth": 1, "state_width": 8, "critic_width": 4, "critic_depth": 1, "batch_size": 16}


def system(inputs):
    """A system of three states."""
    A, B = 0.5 * np.eye(3), np.eye(3)[:, :inputs]
    return entroflow.LQR(A, B, np.eye(3), np.eye(inputs), np.eye(3), np.eye(3), 0.9)


class Boxed(gymnasium.Env):
    """Never stepped: a box of actions."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(np.float32([-1.0, 0.0]), np.float32([2.0, 0.5]))


gymnasium.register("Boxed-v0", Boxed)


def agent(env, number=0, seed=0, temperature=0.2):
    """An agent whose policy is far from a Gaussian: a small network with large parameters, and units of its own."""
    made = entroflow.SACISFM(
        env, seed=seed, temperature=temperature, solver=ACCURATE, acting_solver=ACCURATE, pathwise=0.0, **SMALL
    )
    state = made.state
    leaves, structure = jax.tree.flatten(state.actor)
    keys = jax.random.split(jax.random.key(number + 1), len(leaves))
    drawn = [0.25 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    units = Moments(jnp.array([0.1, -0.2, 0.3]), jnp.array([1.0, 2.0, 0.5]), state.obs_units.limit)
    space = state.action_space
    if isinstance(space, Unbounded):
        space = Unbounded(space.size, jnp.array([0.5, -1.0])[: space.size], jnp.array([0.5, 2.0])[: space.size])
    changes = {"actor_average": structure.unflatten(drawn), "obs_units": units, "action_space": space}
    made._training.agents = jax.tree.map(lambda leaf: leaf[None], dataclasses.replace(state, **changes))
    return made


RUNS = [(0.5, 3), (0.5, 4), (1.0, 3), (1.0, 4)]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder like the main job's: two temperatures with two seeds each, of different policies."""
    folder = tmp_path_factory.mktemp("out")
    env = gymnasium.make("entroflow/LQR-v0", system=system(2))
    for number, (temperature, seed) in enumerate(RUNS):
        agent(env, number, seed, temperature).save(folder / policy_folder(temperature, seed))
    agent(gymnasium.make("entroflow/LQR-v0", system=system(1))).save(folder / "line")
    agent("Boxed-v0").save(folder / "box")
    return folder


@pytest.fixture(scope="module")
def plane(out):
    return entroflow.load(out, temperature=0.5, seed=3)


OBS = np.array([[0.4, -1.1, 0.7], [0.0, 0.2, -0.3]])


def test_the_chosen_policy_comes_back_exactly(out):
    """Temperature and seed select one policy, whose parameters, units and solver are those that were saved."""
    env = gymnasium.make("entroflow/LQR-v0", system=system(2))
    for number, (temperature, seed) in enumerate(RUNS):
        loaded = entroflow.load(str(out), temperature=temperature, seed=seed)
        assert type(loaded) is entroflow.SACISFM and loaded.seed == seed
        saved = agent(env, number, seed, temperature)
        assert bool(eqx.tree_equal(loaded.policy, saved.policy)) and loaded.policy.solver == ACCURATE
        alone = entroflow.load(out / policy_folder(temperature, seed))
        assert bool(eqx.tree_equal(alone.state, saved.state))
        assert loaded.task.spec and loaded.task.spec["kwargs"]["system"] == system(2).to_dict()


@pytest.mark.parametrize("batch", [(2,), (1, 2, 1)])
def test_shapes_and_types(plane, batch):
    """Any leading axes, NumPy in and NumPy out, in single precision."""
    obs = OBS.reshape(*batch, 3)
    actions, log_probs = plane.sample_and_log_prob(obs, n=4, seed=1)
    assert type(actions) is np.ndarray and type(log_probs) is np.ndarray
    assert actions.shape == (*batch, 4, 2) and log_probs.shape == (*batch, 4)
    assert actions.dtype == log_probs.dtype == np.float32
    assert plane.sample(obs, n=4, seed=1).shape == actions.shape
    given = plane.log_prob(obs[..., None, :], actions)
    assert type(given) is np.ndarray and given.shape == log_probs.shape
    assert len({tuple(action) for action in actions.reshape(-1, 2)}) == actions.size // 2, "no two draws are the same"


def test_one_observation(plane):
    """A single state gives n actions and their densities, a single action one density."""
    actions = plane.sample(OBS[0], n=4)
    assert actions.shape == (4, 2)
    assert plane.log_prob(OBS[0], actions[0]).shape == ()


def test_no_observations_give_no_actions(plane):
    """An empty batch goes through like any other."""
    none = np.zeros((0, 3))
    assert plane.sample(none, n=4).shape == (0, 4, 2)
    assert plane.sample_and_log_prob(none, n=4)[1].shape == (0, 4)
    assert plane.log_prob(none, np.zeros((0, 2))).shape == (0,)


def test_the_seed_decides(plane):
    """The same seed gives the same actions, with or without densities; another one gives others."""
    actions, log_probs = plane.sample_and_log_prob(OBS, n=4, seed=1)
    assert np.array_equal(actions, plane.sample_and_log_prob(OBS, n=4, seed=1)[0])
    np.testing.assert_allclose(plane.sample(OBS, n=4, seed=1), actions, rtol=1e-5, atol=1e-5)
    assert np.abs(plane.sample(OBS, n=4, seed=2) - actions).min() > 1e-4
    # Within the solver's accuracy the density of an action does not depend on the direction of integration.
    np.testing.assert_allclose(plane.log_prob(OBS[:, None], actions), log_probs, atol=2e-4)


@pytest.mark.parametrize("name", ["policies/alpha=0.5_seed=3", "line", "box"])
def test_densities_integrate_to_one(out, name):
    """exp(log_prob) is a density over the actions in their own units: total mass 1, mean as of the samples."""
    loaded = entroflow.load(out / name)
    actions = loaded.sample(OBS[0], n=4096)
    low, high = actions.min(axis=0) - 1.5 * actions.std(axis=0), actions.max(axis=0) + 1.5 * actions.std(axis=0)
    if name == "box":
        low, high = np.array([-1.0, 0.0]), np.array([2.0, 0.5])
    cells = 128 if len(low) == 2 else 2048
    axes = [low[i] + (np.arange(cells) + 0.5) / cells * (high[i] - low[i]) for i in range(len(low))]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    mass = np.exp(loaded.log_prob(OBS[0], grid).astype(float)) * np.prod((high - low) / cells)
    assert mass.shape == grid.shape[:-1]
    assert mass.sum() == pytest.approx(1, abs=0.01)
    mean = (mass[..., None] * grid).reshape(-1, len(low)).sum(axis=0)
    np.testing.assert_allclose(mean, actions.mean(axis=0), atol=5 * actions.std(axis=0).max() / 64 + 0.01)


def test_leading_axes_broadcast(plane):
    """Observations (2, 1, n) and actions (5, d) meet as (2, 5); what does not fit is named."""
    actions = np.linspace(-1, 1, 10).reshape(5, 2)
    table = plane.log_prob(OBS[:, None], actions)
    assert table.shape == (2, 5)
    np.testing.assert_allclose(table[1, 3], plane.log_prob(OBS[1], actions[3]), atol=1e-5)
    with pytest.raises(ValueError, match=r"\(2,\) of the observations and \(5,\) of the actions"):
        plane.log_prob(OBS, actions)


def test_large_requests_are_cut_into_blocks(out):
    """More actions than are computed at once come back whole, in order, all different."""
    loaded = entroflow.load(out / "line")
    actions, log_probs = loaded.sample_and_log_prob(OBS, n=BLOCK + 1, seed=5)
    assert actions.shape == (2, BLOCK + 1, 1)
    np.testing.assert_allclose(loaded.log_prob(OBS[:, None], actions), log_probs, atol=5e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda agent: agent.sample(np.zeros(2)), r"observation: got shape \(2,\)"),
        (lambda agent: agent.sample(1.0), r"observation: got shape \(\)"),
        (lambda agent: agent.sample(np.array(["a", "b", "c"])), "observation: .*expected numbers of shape"),
        (lambda agent: agent.sample([0.0, np.nan, 0.0]), "observation: got NaN or infinity"),
        (lambda agent: agent.sample(OBS, n=0), "n: got 0"),
        (lambda agent: agent.sample(OBS, n=1, seed=-1), "seed: got -1"),
        (lambda agent: agent.sample(OBS, n=1, seed=2**32), "seed: got 4294967296"),
        (lambda agent: agent.log_prob(OBS[0], np.zeros(3)), r"action: got shape \(3,\)"),
        (lambda agent: agent.log_prob(OBS[0], [0.0, np.inf]), "action: got NaN or infinity"),
    ],
    ids=range(9),
)
def test_bad_arguments_are_named(plane, call, words):
    """What was given and what was expected, before anything is computed."""
    with pytest.raises(ValueError, match=words):
        call(plane)


def test_a_choice_must_be_one_agent(out, tmp_path):
    """No agent, several, none with these numbers: the message lists what there is."""
    there = "alpha=0.5_seed=3, alpha=0.5_seed=4, alpha=1_seed=3"
    for choice in ({}, {"temperature": 0.5}, {"seed": 3}, {"temperature": 0.7, "seed": 3}):
        with pytest.raises(ValueError, match=there):
            entroflow.load(out, **choice)
    with pytest.raises(ValueError, match="on the command line --seed and --alpha"):
        entroflow.load(out)
    for nowhere in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"{nowhere.name}.*holds no agent"):
            entroflow.load(nowhere)


@pytest.mark.parametrize("name", ["alpha=0.5_seed=4", "alpha=1_seed=3", "alpha=0.50_seed=3"])
def test_agents_under_another_name_are_refused(out, tmp_path, name):
    """An agent of another temperature or seed than its folder says."""
    shutil.copytree(out / policy_folder(0.5, 3), tmp_path / "policies" / name)
    with pytest.raises(ValueError, match="got the agent of seed 3, temperature 0.5"):
        entroflow.load(tmp_path)


@pytest.mark.parametrize("place", ["policies/mine", "checkpoints/first/mine", "checkpoints/best/mine"])
def test_agents_of_ones_own_may_lie_anywhere(out, tmp_path, place):
    """In folders whose names are those of a run's, too."""
    shutil.copytree(out / policy_folder(0.5, 3), tmp_path / place)
    assert entroflow.load(tmp_path / place).seed == 3


def test_folders_out_of_reach_are_one_sentence(tmp_path):
    """A name of 5,000 characters, and a folder of somebody else's."""
    with pytest.raises(ValueError, match="File name too long") as refusal:
        entroflow.load("x" * 5000)
    assert len(str(refusal.value)) < 1500
    (tmp_path / "theirs").mkdir(mode=0o700)
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    (tmp_path / "theirs").chmod(0) if user else None
    try:
        with pytest.raises(ValueError, match="Permission denied"):
            entroflow.load(tmp_path / "theirs")
    finally:
        os.seteuid(user)
        (tmp_path / "theirs").chmod(0o700)


HEADERS = {
    "depth": lambda header: header["settings"]["config"]["actor"].update(depth=-1),
    "kind": lambda header: header["settings"]["config"]["actor"].update(kind="os.system"),
    "no settings": lambda header: header.pop("settings"),
    "seed": lambda header: header.update(seed="3"),
    "step": lambda header: header.update(step=10**300),
    "true": lambda header: header.update(step=True),
    "sizes": lambda header: header.update(sizes={"obs_size": 10**9, "action_size": 2}),
    "algorithm": lambda header: header.update(algorithm="gaussian_sac"),
    "arrays": lambda header: header["arrays"].update(file="../agent.json"),
    "no arrays": lambda header: header.pop("arrays"),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_headers_with_check_sums_made_anew_are_not_believed(out, tmp_path, change):
    """What a header says is compared with what is there, before anything of its size is made."""
    folder = shutil.copytree(out / policy_folder(0.5, 3), tmp_path / "agent")
    header = checkpoint.read_header(folder / "agent.json", 3)
    change(header)
    (folder / "agent.json").write_text(json.dumps(header | {"sha256": checkpoint._digest(header)}))
    with pytest.raises(ValueError) as refusal:
        entroflow.load(folder)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 1500


def test_the_best_action_by_q_is_exported_and_predicted(plane):
    """Agents of lqr come with their critics: the deterministic action is the best of several draws."""
    obs = np.tile(np.float32(OBS[0]), (64, 1))
    value = jax.jit(jax.vmap(lambda obs, action: entroflow.rl.q_value(plane.config, plane.state, obs, action)))
    best, drawn = (np.asarray(value(obs, plane.predict(obs, deterministic=how)[0])) for how in (True, False))
    assert best.mean() > drawn.mean()


# What earlier versions wrote


def expected(name):
    return json.loads((OLD / "expected.json").read_text())[name]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_old_policies_of_lqr_load(temperature, monkeypatch):
    """policy.json and policy.npz of the first version give the actions and densities that they gave then."""
    monkeypatch.setattr(sampling, "key_of", jax.random.key)  # which earlier versions drew from
    loaded, then = (
        entroflow.load(OLD / "lqr", temperature=temperature),
        expected(f"alpha={temperature:g}_seed=3"),
    )
    assert type(loaded) is entroflow.SACISFM and loaded.settings.temperature == temperature
    actions, log_probs = loaded.sample_and_log_prob(then["obs"], n=2, seed=1)
    np.testing.assert_allclose(actions, then["actions"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_probs, then["log_probs"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loaded.log_prob(then["obs"], actions[:, 0]), then["log_prob"], atol=1e-4)
    assert loaded.predict(then["obs"], deterministic=True)[0].shape == (2, 2)


@pytest.mark.parametrize("name", ["sac_isfm", "gaussian_sac", "denoising"])
def test_old_agents_load(name):
    """Agents of format 2 choose the actions that they chose then, the best by Q."""
    loaded, then = entroflow.load(OLD / "agents" / name), expected(name)
    assert (
        loaded.algorithm == name and loaded.num_timesteps == then["step"] and loaded.settings.config.critic.width == 8
    )
    loaded._training.predict_keys = jax.random.key(1)[None]  # which earlier versions drew from
    actions, _ = loaded.predict(np.float32(then["obs"]), deterministic=True)
    np.testing.assert_allclose(actions, then["predict"], rtol=1e-3, atol=1e-4)


def change_header(**changes):
    def damage(folder):
        header = json.loads((folder / "policy.json").read_text()) | changes
        (folder / "policy.json").write_text(json.dumps(header))

    return damage


def change_arrays(change):
    def damage(folder):
        with np.load(folder / "policy.npz") as file:
            arrays = dict(file)
        change(arrays)
        np.savez(folder / "policy.npz", **arrays)

    return damage


def replace(name, change):
    return change_arrays(lambda arrays: arrays.update({name: change(arrays[name])}))


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


DAMAGE = {
    "no arrays": lambda folder: (folder / "policy.npz").unlink(),
    "truncated": lambda folder: (folder / "policy.npz").write_bytes((folder / "policy.npz").read_bytes()[:-100]),
    "empty": lambda folder: (folder / "policy.npz").write_bytes(b""),
    "other content": lambda folder: (folder / "policy.npz").write_bytes(b"PK\x03\x04 no, not really"),
    "header cut": lambda folder: (folder / "policy.json").write_text('{"format": 1,'),
    "header empty": lambda folder: (folder / "policy.json").write_text("{}"),
    "newer format": change_header(format=2),
    "no format": change_header(format=None),
    "wider": change_header(width=9),
    "more actions": change_header(action_size=3),
    "deep beyond reason": change_header(depth=10_000_000),
    "no width": change_header(width=None),
    "width of text": change_header(width="8"),
    "negative size": change_header(obs_size=-3),
    "unknown solver": change_header(solver={"method": "magic", "steps": 8}),
    "no solver": change_header(solver=None),
    "no system": change_header(system=None),
    "array missing": change_arrays(lambda arrays: arrays.pop("obs_mean")),
    "another shape": replace("obs_mean", lambda array: array[:1]),
    "transposed": replace("velocity.first.weight", lambda array: array.T),
    "NaN": replace("obs_mean", lambda array: array * np.nan),
    "infinity": replace("velocity.first.weight", lambda array: array + np.inf),
    "text": replace("obs_mean", lambda array: array.astype(str)),
    "whole numbers": replace("obs_mean", lambda array: array.astype(int)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_policies_are_refused(tmp_path, damage):
    """One ValueError of one line, whatever is wrong with the files."""
    folder = shutil.copytree(OLD / "lqr" / policy_folder(0.5, 3), tmp_path / "policy")
    damage(folder)
    with pytest.raises(ValueError) as refusal:
        entroflow.load(folder)
    assert "\n" not in str(refusal.value)


def test_nothing_is_unpickled(tmp_path):
    """An archive with a Python object inside is refused, and the object does not come to life."""
    folder, trace = shutil.copytree(OLD / "lqr" / policy_folder(0.5, 3), tmp_path / "policy"), tmp_path / "trace"
    with np.load(folder / "policy.npz") as file:
        arrays = dict(file)
    np.savez(folder / "policy.npz", **arrays | {"obs_mean": np.array([Malice(trace)] * 2, dtype=object)})
    with pytest.raises(ValueError, match="policy"):
        entroflow.load(folder)
    assert not trace.exists()
