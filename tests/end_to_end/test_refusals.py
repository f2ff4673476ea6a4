"""What a user asks for is done or refused in a sentence, and never ignored."""

import inspect
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import entroflow
from entroflow.agents import callbacks
from entroflow.agents.evaluation import Perturbation, perturb
from entroflow.agents.tasks import task
from entroflow.options import TrainOptions
from entroflow.storage import records
from entroflow.studies import study

SMALL = {"learning_starts": 20, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}


@pytest.fixture(scope="module")
def agent():
    """An agent that has learned a little."""
    return entroflow.GaussianSAC("Pendulum-v1", seed=3, **SMALL).learn(30)


class Counts(gymnasium.Env):
    """Shows whole numbers."""

    observation_space, action_space = spaces.Box(0, 255, (3,), np.uint8), spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([0, 1, 5], np.uint8), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


def test_noise_on_whole_numbers_is_noise():
    """It is neither cut off nor does it make 255 of −1."""
    env = perturb(task(Counts), Perturbation(observation_noise=0.05)).make()
    seen = np.array([env.reset(seed=0)[0], *(env.step(np.zeros(1, np.float32))[0] for _ in range(200))])
    np.testing.assert_allclose(seen.mean(axis=0), [0, 1, 5], atol=5 * 0.05 / np.sqrt(200))
    np.testing.assert_allclose(seen.std(axis=0), 0.05, rtol=0.3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy_delay": 3, "updates": 60}, "^policy_delay: got 3 with updates=60, .*; use policy_delay=1"),
        ({"exploration": 0.0}, "^exploration: got 0, whose entropy is -inf, .*; pass a small one"),
    ],
)
def test_settings_that_do_not_go_together(settings, words):
    """A schedule that would end at a third of its way, and an entropy that nothing can follow."""
    with pytest.raises(ValueError, match=words):
        (entroflow.DenoisingSAC if "exploration" in settings else entroflow.GaussianSAC)("Pendulum-v1", **settings)


class Still(gymnasium.Env):
    """An environment in which nothing happens, and which keeps the last action."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.action = action
        return np.zeros(2, np.float32), 0.0, False, False, {}


def test_the_one_agent_of_a_folder_is_the_one_asked_for(agent, tmp_path):
    """Its own seed and temperature find it, others do not."""
    agent.save(tmp_path / "agent")
    assert entroflow.load(tmp_path / "agent", seed=3, temperature=0.2).seed == 3
    for other in ({"seed": 9}, {"temperature": 3.0}):
        with pytest.raises(ValueError, match=f"{next(iter(other))}: got .* expected .* that of the one agent in"):
            entroflow.load(tmp_path / "agent", **other)


def test_an_agent_is_not_saved_into_a_run(tmp_path):
    """Where it would be taken for the run's own agents from then on."""
    run = entroflow.GaussianSAC("Pendulum-v1", **SMALL).learn(30, log=tmp_path / "run", evaluation_episodes=1)
    with pytest.raises(ValueError, match="which holds a run, expected a folder of its own"):
        run.save(tmp_path / "run")
    run.save(tmp_path / "run" / "agent")
    (tmp_path / "lqr" / "policies").mkdir(parents=True)
    with pytest.raises(ValueError, match="which holds a run"):
        run.save(tmp_path / "lqr")


def test_evaluations_of_a_run_stay_as_they_are(tmp_path):
    """Others are refused; those that nobody asked for are the run's."""
    log = {"log": tmp_path / "run", "evaluation_episodes": 1}
    entroflow.GaussianSAC("Pendulum-v1", **SMALL).learn(30, evaluate_every=30, **log)
    again = entroflow.GaussianSAC("Pendulum-v1", **SMALL)
    with pytest.raises(ValueError, match="resume: got evaluations with every=20, where the run in .* has 30"):
        again.learn(40, evaluate_every=20, resume=True, **log)
    again.learn(40, log=tmp_path / "run", resume=True)
    assert "\n0,40," in (tmp_path / "run" / "evaluations.csv").read_text()


def test_evaluations_that_nobody_asked_for_are_the_same_everywhere():
    """On the command line, in Python, and where others are told from them."""
    named = {"every": "evaluate_every", "episodes": "evaluation_episodes"}
    for part, name in named.items():
        in_python = inspect.signature(entroflow.SAC.learn).parameters[name].default
        assert in_python == getattr(TrainOptions, name) == records.EVALUATION[part]


def test_training_stops_at_what_it_was_told(agent):
    """A metric that no row has is refused once rows have all of them; an evaluation counts that comes after, too."""
    with pytest.raises(ValueError, match="metric: got 'returns', expected evaluation or one of seed, step"):
        agent.learn(10, callback=callbacks.stop_at(-1e9, "returns"))
    before = agent.num_timesteps
    stop = callbacks.stop_at(-1e9, "evaluation")
    agent.learn(20, callback=[stop, callbacks.evaluation(1, 1)], log_interval=5)
    assert agent.num_timesteps == before + 10  # at the row after the evaluation
    assert stop(agent, {"return": 0.0})  # begun anew


@pytest.mark.parametrize("batch", [(), (3,)])
def test_actions_may_be_single_numbers(batch):
    """Shape () is a shape, too."""
    agent = entroflow.GaussianSAC(lambda: Still(spaces.Box(-1, 1, (), np.float32)), **SMALL)
    assert agent.predict(np.zeros((*batch, 2)))[0].shape == batch
    assert agent.sample(np.zeros((*batch, 2)), n=2).shape == (*batch, 2)


@pytest.mark.parametrize(("bound", "unit"), [(np.inf, 1.0), (np.finfo(np.float32).max, 1.0), (4.0, 4.0)])
def test_noise_on_actions_is_in_units_of_half_their_range(bound, unit):
    """In their own where bounds are infinite, or as large as numbers can be."""
    env = perturb(task(Still(spaces.Box(-bound, bound, (4096,), np.float32))), Perturbation(action_noise=0.1)).make()
    env.reset(seed=0)
    env.step(np.zeros(4096, np.float32))
    assert np.std(env.unwrapped.action) == pytest.approx(0.1 * unit, rel=0.05)


CALLS = {  # which the type checker of the tests would refuse in its own words
    "agent.evaluate(1, perturbation={'action_noise': 0.1})": "perturbation: got {'action_noise': 0.1}, expected a Pert",
    "lqr.finite_horizon(([[1.0]], [[1.0]]), 3)": "plant: got a tuple, expected a design, or its plant",
    "lqr.track(made.plant, [1.0])": "design: got a Plant, expected a design",
    "lqr.worst_cost(made.plant)": "design: got a Plant, expected a design",
    "lqr.observe(known, [[1.0]], 1.0)": "design: got a LQR, expected a design",
    "lqr.risk_seeking_cost(known, [1.0], 3)": "plant: got a LQR, expected a design, or its plant",
    "lqr.sample_noise(made, default_rng(0), 3, 4)": "lqr: got a Design, expected an LQR",
    "lqr.sample_noise(known, 0, 3, 4)": "rng: got a int, expected a generator",
    "lqr.simulate(made, made.gain, made.covariance, None)": "lqr: got a Design, expected an LQR",
    "lqr.simulate(known, 0 * known.A, known.R, 3)": "noise: got a int, expected draws",
    "LQREnv(made)": "lqr: got a Design, expected an LQR",
    "lqr.design(known, [[1.0]], [[1.0]], temperature=1.0)": "system: got a LQR, expected a state-space system, or a",
    "lqr.design(made, [[1.0]], [[1.0]], temperature=1.0)": "system: got a Design, expected a state-space system, or a",
    "lqr.load_design(made)": "path: got a Design, expected the path of a file",
    "lqr.LQR.from_json(3)": "path: got a int, expected the path of a file",
    "lqr.LQR.from_dict(3)": "system: got a int, expected a dictionary",
    "lqr.systems.load(made)": "system: got a Design, expected an LQR, a name or the path of a file",
    "made.to_json(3)": "path: got a int, expected the path of a file",
    "known.in_units(1.0, [1.0, 1.0])": "state: got shape (), expected finite numbers in an array of shape (2,)",
    "known.in_units([1.0, 1.0], [1.0, 1.0], -1.0)": "reward: got -1.0, expected a finite number above 0",
    "solve('Pendulum-v1', [9], temperature=1.0, discount=0.9)": "env: got 'Pendulum-v1', expected a FunctionalEnv",
    "entroflow.sweep(None, 'out/none')": "study: got None, expected a file, or a dict of what it would hold",
    "lqr.design(TransferFunction(), [[1.0]], [[1.0]], temperature=1.0)": "system: got a TransferFunction, expected a",
}
SCRIPT = """
import sys, entroflow
from entroflow import lqr
from numpy.random import default_rng
from entroflow.envs import LQREnv
from entroflow.exact import solve
agent = entroflow.GaussianSAC("Pendulum-v1")
made, known = lqr.design(2.0, 1.0, 1.0, 1.0, temperature=1.0), lqr.systems.get("coupled")
TransferFunction = type("TransferFunction", (), {"num": (), "den": ()})
for call in sys.argv[1:]:
    try:
        eval(call)
    except ValueError as problem:
        print(problem)
"""


def test_things_of_another_kind_are_named():
    """In place of an attribute that they have not."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *CALLS], capture_output=True, text=True, check=True)
    for said, expected in zip(done.stdout.splitlines(), CALLS.values(), strict=True):
        assert said.startswith(expected)


def test_remedies_can_be_followed():
    """A discount that one would take, and the layers of each network."""
    with pytest.raises(ValueError, match=r"pass a number such as 0\.99"):
        entroflow.GaussianSAC("Pendulum-v1", gamma=1.0)
    sizes = "pass width=64, depth=1, critic_width=32, critic_depth=2"
    with pytest.raises(ValueError, match=sizes):
        entroflow.GaussianSAC("Pendulum-v1", policy_kwargs={"net_arch": {"pi": [64], "qf": [32, 32]}})


def test_a_study_has_no_table_of_an_algorithm_that_it_has_not():
    """The message names the table, and the algorithms that there are."""
    document = {"tasks": "Pendulum-v1", "algorithms": "gaussian_sac", "steps": 100}
    with pytest.raises(ValueError, match=r"settings\.sac_isfm: .*expected one of gaussian_sac"):
        study.read(document | {"settings": {"sac_isfm": {"candidates": 4}}})


@pytest.mark.parametrize(("given", "meant"), [("jax/Pendulu", "jax/Pendulum"), ("mjx/Ants", "mjx/Ant")])
def test_a_compiled_task_misspelt_is_answered_by_those_that_there_are(given, meant):
    """Gymnasium, which knows no such namespace, would only say so."""
    with pytest.raises(ValueError, match=f"env: got '{given}', expected one of .*did you mean '{meant}'"):
        task(given)
