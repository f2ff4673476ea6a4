"""Agents where users put them: in double precision, in forked processes, beside other libraries, with odd bounds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import entroflow
from entroflow import isfm
from entroflow.agents import sampling
from entroflow.agents.settings import level_of, of_algorithm, single
from entroflow.agents.tasks import task
from entroflow.cli import main
from entroflow.commands.lqr import job
from entroflow.flow import Box, FlowPolicy, Unbounded, VelocityNetwork
from entroflow.names import ELSEWHERE
from entroflow.rl import loop_gym

from .reach import Reach

ROOT = Path(__file__).parents[2]
SMALL = {"learning_starts": 4, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 4, "buffer_size": 20}
LEARN = f"""
import entroflow, numpy as np
from tests.end_to_end.reach import Reach
made = entroflow.GaussianSAC(Reach, **{SMALL}).learn(7)
assert made.log_prob([0.0, 1.0], [0.0, 0.5]).dtype == made.predict(np.zeros(2))[0].dtype == np.float64
made.save(FOLDER)
assert entroflow.load(FOLDER, env=Reach).sample(np.zeros(2), 3).dtype == np.float64
print(entroflow.load(SINGLE, env=Reach).log_prob([0.0, 1.0], [0.0, 0.5]))
"""


def test_double_precision(tmp_path):
    """What JAX is set to is used, by agents saved in single, too, without a warning or a number that is not finite."""
    single = entroflow.GaussianSAC(Reach, **SMALL)
    single.save(tmp_path / "single")
    flags = {"JAX_ENABLE_X64": "1", "JAX_DEBUG_NANS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    code = f"FOLDER, SINGLE = {str(tmp_path / 'out')!r}, {str(tmp_path / 'single')!r}\n{LEARN}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=os.environ | flags, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == pytest.approx(single.log_prob([0.0, 1.0], [0.0, 0.5]), abs=1e-4)


def test_lqr_is_computed_in_single_precision(monkeypatch, tmp_path):
    """Whatever JAX is set to, and only there."""

    class Job:
        def __init__(self, *_): ...

        def run(self):
            return int(jnp.zeros(1).dtype != jnp.float32)

    monkeypatch.setattr(job, "_Job", Job)
    with jax.enable_x64(True):
        assert main(["lqr", "--system", "double_integrator", "--out", str(tmp_path / "out")]) == 0
        assert jnp.zeros(1).dtype == jnp.float64


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize(
    "use",
    [
        lambda made: made.predict(np.zeros(2)),
        lambda made: made.learn(1),
        lambda made: made.log_prob(np.zeros(2), np.zeros(2)),
        lambda made: entroflow.GaussianSAC(Reach, **SMALL),
    ],
    ids=["predict", "learn", "log_prob", "new"],
)
def test_a_fork_is_told_that_it_is_one(use):
    """A child of a process that used an agent gets one sentence, where JAX would wait for ever."""
    made = entroflow.GaussianSAC(Reach, **SMALL)
    source, sink = os.pipe()
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # no Python runs in a process that hangs
        signal.alarm(10)
        try:
            use(made)
        except ValueError as refusal:
            os.write(sink, str(refusal).encode())
        os._exit(0)
    os.close(sink)
    os.waitpid(child, 0)
    with os.fdopen(source) as told:
        assert told.read().startswith("process: got a process forked after entroflow was used, expected ")
    assert made.predict(np.zeros(2))[0].shape == (2,)


def test_no_two_consumers_ever_hold_equal_keys(monkeypatch):
    """Acting, learning, evaluation, prediction and sampling: no key is another one's, nor derived as another one is."""
    held = {}

    def hold(consumer, key, *steps):
        """Keep a key, what is folded into it, and all that `split` or `fold_in` make of these."""
        parts = [key, *(jax.random.fold_in(key, step) for step in steps)]
        parts = [part for one in parts for part in (one, *jax.random.split(one, 4))]
        held.setdefault(consumer, set()).update(tuple(np.asarray(jax.random.key_data(part)).tolist()) for part in parts)

    def act(consumer):
        def acted(config, agent, obs, keys, step, **_):
            hold(consumer, keys[0], int(step))
            return np.zeros((*obs.shape[:2], 2), np.float32)

        return acted

    def draw(policy, method, obs, key, n):
        hold("sample", key)
        return np.zeros((len(obs), n, 2))

    start = loop_gym.start
    begin = lambda agents, keys, **sizes: hold("learn", keys[0]) or start(agents, keys, **sizes)  # noqa: E731
    monkeypatch.setattr(loop_gym, "start", begin)
    monkeypatch.setattr(sampling, "draw", draw)
    monkeypatch.setattr(loop_gym, "act", act("act"))
    for seed in (0, 3):
        made = entroflow.GaussianSAC(Reach, seed=seed, **SMALL)
        monkeypatch.setattr(loop_gym, "act_well", act("predict"))
        made.learn(4).predict(np.zeros(2))
        made.predict(np.zeros(2), deterministic=True)
        monkeypatch.setattr(loop_gym, "act_well", act("evaluate"))
        made.evaluate(1)
        made.sample(np.zeros(2), seed=seed)
        made.sample(np.zeros((3, 2)), seed=seed + 1)
        hold("seed", jax.random.key(seed))
    assert held.keys() == {"act", "learn", "predict", "evaluate", "sample", "seed"}
    roots = held.pop("seed")  # its children are what the others begin with, but for those of `sample`
    assert not roots & held["sample"]
    found = [key for keys in held.values() for key in keys]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("algorithm", ["sac_isfm", "gaussian_sac", "denoising"])
def test_names_of_other_libraries(algorithm):
    """What is called otherwise elsewhere is refused on the command line with the name to use here."""
    assert set(ELSEWHERE.values()) <= single(of_algorithm(algorithm)).keys()
    assert not ELSEWHERE.keys() & single(of_algorithm(algorithm)).keys()
    for name in ("learning_rate", "gamma", "tau", "ent_coef", "gradient_steps"):
        with pytest.raises(ValueError, match=f"^--set: got '{name}', .*; here it is '{ELSEWHERE[name]}'.$"):
            level_of(name, of_algorithm(algorithm), "--set")


@pytest.mark.parametrize(
    ("largest", "kind"), [(np.finfo(np.float32).max, Unbounded), (1e38, Box), (np.inf, Unbounded), (1.0, Box)]
)
def test_actions_of_enormous_boxes_are_finite(largest, kind):
    """A width that single precision cannot hold counts as none; a large one that it can is one."""

    class Wide(Reach):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Box(np.full(2, -largest, np.float32), np.full(2, largest, np.float32))

    made = entroflow.GaussianSAC(Wide, **SMALL)
    assert isinstance(task(Wide).policy_space(), kind)
    target = made.config.target_entropy
    assert target is None if kind is Unbounded else np.isfinite(target)  # pyright: ignore[reportCallIssue, reportArgumentType]
    obs, keys = jnp.zeros((1, 1, 2)), jax.random.key(0)[None]
    first = loop_gym.act(made.config, made._training.agents, obs, keys, 0, explore=True)
    actions = made.sample(np.zeros(2), 64)
    assert np.isfinite(first).all() and np.isfinite(actions).all()
    assert np.isfinite(made.log_prob(np.zeros(2), actions)).all()


def test_bounds_of_some_components_alone_are_refused():
    """Also where the others are as large as numbers can be."""
    largest = np.finfo(np.float32).max

    class Mixed(Reach):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Box(np.float32([-1.0, -largest]), np.float32([1.0, largest]))

    with pytest.raises(
        ValueError,
        match="^actions of Mixed: got Box.*; give every component bounds, as gymnasium.wrappers.TransformAction",
    ):
        entroflow.GaussianSAC(Mixed, **SMALL)


@pytest.mark.parametrize(
    "q_function", [lambda obs, action: action, lambda obs, action: action[:1], lambda obs, action: (action[0], obs[0])]
)
def test_a_q_of_another_shape_is_refused(q_function, key):
    """One sentence, before anything is compiled."""
    policy = FlowPolicy(VelocityNetwork(3, 2, width=4, depth=1, key=key), Unbounded(2))
    with pytest.raises(ValueError, match=r"^q_function: got values of shape .*, expected one number, of shape \(\); "):
        isfm.improve(isfm.FitConfig(steps=1), policy, key, lambda key: jax.random.normal(key, (5, 3)), q_function, 1.0)
