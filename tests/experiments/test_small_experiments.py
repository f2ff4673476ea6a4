"""A tiny size of the experiments that have no file of their own: they run to their end and write what they promise."""

import itertools
import json
import math
import random
import signal
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

import entroflow
from entroflow import optimise
from entroflow.cli import main
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import Faults
from entroflow.moments import standard
from entroflow.rl import Experience, loop_gym
from entroflow.storage import checkpoint, keeping
from experiments import frame
from experiments.ablations import run as ablations
from experiments.best_of import run as best_of
from experiments.mujoco import average, categorical, decay, held
from experiments.proposals import run as proposals
from experiments.resume import run as resume
from experiments.robustness import run as robustness
from experiments.variance import run as variance

SOUND = namedtuple("Metrics", "faults")(Faults(np.zeros(1), np.zeros(1)))
TINY = {"width": 8, "critic_width": 8, "depth": 1, "batch_size": 16, "learning_starts": 10}


@pytest.fixture(autouse=True)
def every_cell(monkeypatch):
    """Cells are kept however fast they are."""
    monkeypatch.setattr(keeping, "SHARE", math.inf)


def results_of(out):
    return json.loads((out / "results.json").read_text())


def small_policy(key, space):
    """A flow close to the identity whose program is small, too."""
    network = VelocityNetwork(1, space.size, width=8, depth=1, key=key)
    return FlowPolicy(network, space, solver=RungeKutta("euler", 1))


def test_variance(tmp_path, monkeypatch):
    """Plain and with Stein's control, gradients are exact on average, within 4 standard errors; with it they vary less.

    A row for each lever, fits, the tables and the figure are there.
    """
    chosen = [variance.PLAIN, "Stein, P = 1"]
    sizes = {"SIZES": (64,), "REPEATS": {64: 256}, "EXACT_BATCHES": 8, "PHASES": ("early",), "TIMED_CANDIDATES": 64}
    sizes |= {"TIMED_CALLS": 2, "FIT_CALLS": 2000, "SEEDS": 2, "FITS": chosen[:1]}
    sizes |= {"LEVERS": {name: variance.LEVERS[name] for name in chosen}}
    stirred = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)  # noqa: E731
    sizes |= {"new_policy": lambda key: jax.tree.map(stirred, small_policy(key, Unbounded(2)))}
    monkeypatch.setattr(optimise, "planned", lambda rate, *_: optax.sgd(rate))
    for name, value in sizes.items():
        monkeypatch.setattr(variance, name, value)
    assert variance.main(["--out", str(tmp_path / "out")]) == 0
    found = results_of(tmp_path / "out")
    assert len(found["gradients"]) == 2 * 2 and len(found["fits"]) == 2
    for row in found["gradients"]:
        assert row["bias_squared"] < 15 * row["variance"] / 256
    plain, stein = (row["variance"] for row in found["gradients"] if row["target"] == "gaussian")
    assert 0 < stein < 0.6 * plain
    assert all(np.isfinite(row["velocity_error"]).all() for row in found["fits"])
    assert (tmp_path / "out" / "table.md").read_text().count("plain: i.i.d. τ, P = 1") == 2
    assert imread(tmp_path / "out" / "gains.png").std() > 0.01


def test_proposals(tmp_path, monkeypatch):
    """A policy that sits in the mode on the right, and does not move, has all its weight there.

    Diagnostics and costs for a few proposals, and the figure.
    """
    names = [proposals.BEST]
    initial = lambda key: small_policy(key, Unbounded(2, center=proposals.MODES[0], scale=0.3))  # noqa: E731
    sizes = {"SEEDS": 2, "N": 8, "STEPS": 4, "EVERY": 2, "RATE": 0.0, "BATCHES": 4, "COST_BATCHES": 4}
    sizes |= {"initial": initial, "improve": lambda _, policy, *__: (policy, SOUND)}
    sizes |= {"RECOVER": {name: proposals.RECOVER[name] for name in names}}
    sizes |= {"MISS": {name: proposals.MISS[name] for name in ("policy (one mode)",)}}
    sizes |= {"cases": lambda collapsed, fitted: {"first policy": (initial(jax.random.key(0)), proposals.ring)}}
    monkeypatch.setattr(optimise, "planned", lambda rate, *_: optax.sgd(rate))
    for name, value in sizes.items():
        monkeypatch.setattr(proposals, name, value)
    assert proposals.main(["--out", str(tmp_path / "out")]) == 0
    found = results_of(tmp_path / "out")
    assert list(found["miss"]) == list(sizes["MISS"]) and list(found["recover"]) == names
    assert all(0 < row["ess"] <= 1 for row in found["miss"].values())
    for run in found["recover"].values():
        assert run["final_weights"] == [[1, 0, 0, 0]] * 2 and run["deviation"] == [[0.75] * 2] * 2
        assert run["steps"] == [None] * 2 and run["recovered"] == 0
    assert all(row["ms_per_batch"] > 0 for rows in found["cost"].values() for row in rows.values())
    assert imread(tmp_path / "out" / "figure.png").std() > 0.01


def test_ablations(tmp_path, monkeypatch):
    """Rows for every seed and evaluation; stopped after the first variant and gone on with, each is trained once."""
    sizes = {"TASKS": ("Pendulum-v1",), "SEEDS": (0, 1), "STEPS": 30, "EVERY": 15, "EPISODES": 1, "COMMON": TINY}
    sizes |= {"VARIANTS": {name: ablations.VARIANTS[name] for name in ("Gaussian SAC", "defaults")}}
    for name, value in sizes.items():
        monkeypatch.setattr(ablations, name, value)
    trained, train = [], ablations.train

    def counted(name, variant):
        if not trained:
            signal.raise_signal(signal.SIGTERM)
        trained.append(variant)
        return train(name, "Gaussian SAC")

    monkeypatch.setattr(ablations, "train", counted)
    command = ["--out", str(tmp_path / "out")]
    assert ablations.main(command) == 128 + signal.SIGTERM
    assert ablations.main([*command, "--resume"]) == 0
    assert trained == ["Gaussian SAC", "defaults"]
    rows = frame.read_rows(tmp_path / "out" / "results.csv")
    assert [(row["seed"], row["step"]) for row in rows] == [("0", "15"), ("1", "15"), ("0", "30"), ("1", "30")] * 2
    assert all(-2000 < float(row["return"]) < 0 for row in rows)
    first, second = rows[:4], rows[4:]
    assert [row["return"] for row in first] == [row["return"] for row in second], "the same seeds, the same returns"
    assert "| Gaussian SAC | -" in (tmp_path / "out" / "table.md").read_text()


def test_ablations_say_what_broke_down():
    """A variant whose numbers are not finite has rows without a return, and says so in the table."""
    label = {"task": "Pendulum-v1", "variant": "weights raw", "seed": 0, "step": 2000, "return": math.nan}
    (line,) = [line for line in ablations.table([label]).splitlines() if line.startswith("| weights raw |")]
    assert line.count("broke down") == 4 and line.count("not run") == 4


def test_robustness(tmp_path, monkeypatch, capsys):
    """Every change that the task knows, both ways to act, all episodes; a folder without agents is refused."""
    monkeypatch.setattr(robustness, "EPISODES", 2)
    agent = entroflow.GaussianSAC("Pendulum-v1", seed=3, width=8, critic_width=8, depth=1)
    agent.save(tmp_path / "run" / robustness.LAST / "seed=3")
    assert robustness.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    rows = frame.read_rows(tmp_path / "out" / "results.csv")
    known = [name for name in robustness.CHANGES if not name.startswith(("mass", "friction"))]
    assert list(dict.fromkeys(row["change"] for row in rows)) == known
    assert len(rows) == len(known) * 2 * 2 and {row["seed"] for row in rows} == {"3"}
    returns = {change: {row["return"] for row in rows if row["change"] == change} for change in known}
    assert returns["action noise 0.3"] != returns["none"] != returns["observation noise 0.1"]
    (line,) = [line for line in (tmp_path / "out" / "table.md").read_text().splitlines() if "| none |" in line]
    assert line.count("(1.00)") == 2
    assert robustness.main([str(tmp_path), "--out", str(tmp_path / "other")]) == 2
    assert "expected a folder with trained agents" in capsys.readouterr().err


def test_best_of(tmp_path, monkeypatch):
    """Every number of draws, all episodes; the best of one is a draw, and noise on observations is heard of."""
    monkeypatch.setattr(best_of, "EPISODES", 2)
    agent = entroflow.GaussianSAC("Pendulum-v1", seed=3, width=8, critic_width=8, depth=1)
    agent.save(tmp_path / "run" / robustness.LAST / "seed=3")
    for name, noise in (("plain", "0"), ("noisy", "0.1")):
        out = ["--out", str(tmp_path / name), "--observation-noise", noise]
        assert best_of.main([str(tmp_path / "run"), *out]) == 0
    plain, noisy = (frame.read_rows(tmp_path / name / "results.csv") for name in ("plain", "noisy"))
    assert [int(row["draws"]) for row in plain] == [draws for draws in best_of.DRAWS for _ in range(2)]
    drawn = agent.evaluate(2, deterministic=False, seed=best_of.FIRST_EPISODE).returns
    assert [float(row["return"]) for row in plain[:2]] == pytest.approx(drawn, abs=0.01)
    best = agent.evaluate(2, seed=best_of.FIRST_EPISODE).returns
    assert [float(row["return"]) for row in plain if row["draws"] == "16"] == pytest.approx(best, abs=0.01)
    assert {row["return"] for row in plain}.isdisjoint(row["return"] for row in noisy)
    assert "| Pendulum-v1 | 0 | 0.1 | Gaussian SAC | 1 |" in (tmp_path / "noisy" / "table.md").read_text()


def test_resume_finds_what_is_different(tmp_path, monkeypatch):
    """A run whose resumed process writes other arrays, or another row, is told; one that does not is not."""
    faults = {"killed-1": "arrays", "killed-2": "rows"}

    def start(task, folder, moment="never", seed=0):
        """Write half of a run and be killed, or all of it, with a fault or without."""
        folder.mkdir(parents=True, exist_ok=True)
        fault = faults.get(folder.name)
        checkpoint.save(folder / "checkpoints", 4, {}, {"a": 1}, {"x": np.arange(3.0) + (fault == "arrays")})
        (folder / "metrics.csv").write_text(f"step,loss,seconds\n4,{2 if fault == 'rows' else 1},{random.random()}\n")
        return 0 if moment == "never" else -9

    monkeypatch.setattr(resume, "start", start)
    command = ["--task", "lqr", "--kills", "40", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(resume.random, "Random", lambda seed: Draws())
    assert resume.main(command) == 0
    rows = frame.read_rows(tmp_path / "out" / "kills.csv")
    assert len(rows) == 40 and all(row["resumed_from"] == "4" for row in rows)
    different = {row["run"]: row["different"] for row in rows}
    assert different == {"0": "", "1": "checkpoint 4", "2": "metrics.csv", "3": ""}
    assert results_of(tmp_path / "out")["kills"]["lqr"]["mismatches"] == 2


class Draws(random.Random):
    """Every tenth moment is to be left in peace."""

    count = 0

    def choice(self, seq):
        self.count += 1
        return "never" if self.count % 11 == 0 else seq[0]


@pytest.mark.slow
def test_resume(tmp_path):
    """One kill of a real process; what comes after it is bit for bit what would have been."""
    assert resume.main(["--task", "multigoal", "--kills", "1", "--out", str(tmp_path / "out")]) == 0
    (row,) = frame.read_rows(tmp_path / "out" / "kills.csv")
    assert row["different"] == ""


def test_averages_of_actors(tmp_path, monkeypatch):
    """A finished run learns on as one with a longer plan does, and every average is evaluated; one is the actor."""
    changed = [f"{name}={value}" for name, value in TINY.items()]
    command = ["train", "Pendulum-v1", "--algorithm", "gaussian_sac", "--seed", "3", "--evaluate-every", "20"]
    command += ["--evaluation-episodes", "1", "--out"]
    assert main([*command, str(tmp_path / "run"), "--steps", "20", "--set", *changed]) == 0
    monkeypatch.setattr(average, "BETWEEN", 5)
    monkeypatch.setattr(average, "REACH", 10)
    rows = list(average.measure(tmp_path / "run", 20, 10, 2, (1, 5, 20, 40, 50)))
    assert [(row["seed"], row["step"], row["window"]) for row in rows] == [
        (3, step, window) for step in (30, 40) for window in (1, 5, 20, 40, 50)
    ]
    whole = entroflow.GaussianSAC("Pendulum-v1", seed=3, **TINY)
    whole.learn(40)
    alone = whole._training.evaluate(2, seed=average.FIRST_EPISODE + 20)
    assert rows[5]["return"] == round(sum(row["return"] for row in alone) / 2)
    assert len({row["return"] for row in rows[5:]}) > 1
    assert rows[-1]["return"] == rows[-2]["return"]  # over 30 updates, as far as either reaches
    assert average.table(rows).count("| Pendulum-v1 | 3 | 2 |") == 1


@pytest.mark.parametrize("atoms", ["even", "spread"])
def test_a_categorical_critic_learns_what_it_is_told(atoms):
    """What is to be predicted has the target as its mean, and so has, after learning, what is predicted."""
    critic = categorical.Categorical(atoms=atoms, width=64)
    for target in (-100.0, -3.0, 0.25, 41.0, 640.0):
        likely = critic.project(jnp.float32(target))
        assert float(likely @ critic.values) == pytest.approx(target, rel=1e-3) and float(likely.sum()) < 1 + 1e-5
        assert 1 - 1e-5 < float(likely.sum()) and float(likely.min()) >= 0
    assert float(critic.project(jnp.float32(1e9)) @ critic.values) > 0.98 * critic.values[-1]

    keys, rng = jax.random.split(jax.random.key(0)), np.random.default_rng(0)
    state, target = critic.init(keys, standard(2), 1, None), lambda obs: 30.0 + 20.0 * obs[:, 0]

    @jax.jit
    def step_of(state, obs, action, after, step):
        told = target(obs)
        given = Experience(obs, action, after, action, lambda _: told, None, state.obs_units, step, None)
        return critic.update(state, given)

    obs, metrics = np.zeros((0, 2), np.float32), {}
    for step in range(400):
        obs, action, after = (rng.normal(size=(64, n)).astype(np.float32) for n in (2, 1, 2))
        state, metrics = step_of(state, obs, action, after, np.float32(step))
    assert float(metrics["critic_error"]) < 5 and float(metrics["q"]) == pytest.approx(target(obs).mean(), rel=1e-5)
    for first in (-1.0, 1.0):
        told = float(critic.q(state, jnp.array([first, 0.0]), jnp.zeros(1)))
        assert told == pytest.approx(30 + 20 * first, abs=4)


def test_rates_fall(tmp_path, monkeypatch):
    """Of actor and critic, from half of the updates on; where nothing is left of them, neither learns on."""
    rates = [float(decay.falling(1e-3)(count)) for count in (0, 47_500, 71_250, 95_000, 200_000)]
    assert rates == pytest.approx([1e-3, 1e-3, 5.25e-4, 5e-5, 5e-5])
    monkeypatch.setattr(decay, "UPDATES", 4)
    monkeypatch.setattr(decay, "LEAST", 0.0)
    changed = [f"{name}={value}" for name, value in (TINY | {"state_width": 8, "candidates": 2}).items()]
    found = []
    for steps in ("13", "16", "26"):  # so that two, five and fifteen updates are made
        command = ["train", "Pendulum-v1", "--preset", "crossq", "--steps", steps, "--out", str(tmp_path / steps)]
        assert decay.run([*command, "--evaluation-episodes", "1", "--set", *changed]) == 0
        state = entroflow.load(tmp_path / steps).state
        found.append([np.asarray(part) for part in jax.tree.leaves((state.actor, state.critic.q.layers[0]))])
    differ = [[not np.array_equal(*pair) for pair in zip(a, b, strict=True)] for a, b in itertools.pairwise(found)]
    assert all(differ[0]) and not any(differ[1])


def test_noise_is_held(tmp_path, monkeypatch):
    """Random actions have noise of their own; later ones that of a step before, for as long as chance says."""
    act, seen = loop_gym.act, []

    def watched(*given, explore):
        seen.append((given[-1], explore))
        return act(*given, explore=explore)

    monkeypatch.setattr(loop_gym, "act", watched)
    changed = [f"{name}={value}" for name, value in (TINY | {"learning_starts": 10}).items()]
    command = ["train", "Pendulum-v1", "--algorithm", "gaussian_sac", "--steps", "40", "--out", str(tmp_path), "--set"]
    assert held.run([*command, *changed]) == 0
    assert seen[:10] == [(step, True) for step in range(10)]
    noise = [step for step, explore in seen[10:] if not explore]
    assert noise == list(itertools.islice(held.begins(10, np.random.default_rng(12345)), 30))
    assert 5 < len(set(noise)) < 25
    assert held.run([*command[:-3], "--out", str(tmp_path / "two"), "--set", *changed, "num_envs=2"]) == 2
    assert loop_gym.act is watched
    many = np.array(list(itertools.islice(held.begins(0, np.random.default_rng(0)), 200_000)))
    starts = np.flatnonzero(np.diff(many, prepend=-1))
    assert np.array_equal(many[starts], starts)  # noise is that of the step at which it begins to be held
    lengths = np.diff(starts)
    assert lengths.max() == held.LONGEST
    likely = np.mean(lengths == 1), held.CHANCES[0] / held.CHANCES.sum()
    assert abs(likely[0] - likely[1]) < 4 * math.sqrt(likely[1] * (1 - likely[1]) / len(lengths))
