"""Actors against frozen critics: what is told of them, in closed form, and a tiny size of all."""

import dataclasses
import json
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entroflow
from entroflow.flow import Box
from entroflow.rl import Config, Gaussian, MLPCritic, sac
from experiments.frozen import run

TEMPERATURE, CENTRE, WIDTH = 0.5, 0.5, 0.2


@dataclass(frozen=True)
class Quadratic(MLPCritic):
    """A Q of which exp(Q/α)/Z is a Gaussian that the box hardly cuts."""

    def q(self, state, obs, action):
        return 3.0 - TEMPERATURE * jnp.sum((action - CENTRE) ** 2) / (2 * WIDTH**2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An agent and the folder of its training."""
    tiny = {"width": 8, "depth": 1, "state_width": 8, "states": 8, "critic_width": 8, "batch_size": 16}
    agent, folder = entroflow.SACISFM("Pendulum-v1", learning_starts=100, **tiny), tmp_path_factory.mktemp("run")
    return agent.learn(200, log=folder / "agent", evaluate_every=200, evaluation_episodes=1), folder / "agent"


def test_what_is_told_of_a_known_q():
    """Entropies, KL and means of Q are those of quadrature and of the Gaussian."""
    config = Config(Gaussian(width=4, depth=1), Quadratic(width=4, depth=1))
    box = Box(np.array([-2.0]), np.array([2.0]))
    sizes = {"obs_size": 2, "action_space": box, "temperature": jnp.array(TEMPERATURE), "discount": jnp.array(0.9)}
    state = sac.init(config, jax.random.key(0), **sizes)
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    agent = run.Frozen(config, state, "", obs)
    found = run.compare(agent, state, seed=0)

    grid = jnp.linspace(-2, 2, 4001)[:, None]
    pi, step = sac.policy(config, state), 4 / 4000
    log_prob = jax.vmap(lambda obs: jax.vmap(lambda action: pi.log_prob(obs, action))(grid[1:-1]))(agent.looked_at(0))
    q = jax.vmap(lambda action: config.critic.q(None, None, action))(grid[1:-1])
    target = jax.scipy.stats.norm.logpdf(grid[1:-1, 0], CENTRE, WIDTH)
    log_prob, q, target = (np.asarray(part, np.float64) for part in (log_prob, q, target))
    density = np.exp(log_prob)
    error = 4 / math.sqrt(run.STATES * run.DRAWS)  # of a mean with deviation one, four times
    assert found["temperature"] == pytest.approx(TEMPERATURE)
    assert found["entropy"] == pytest.approx(float(np.mean(-np.sum(density * log_prob, 1) * step)), abs=error)
    kl = np.sum(density * (log_prob - target), 1) * step
    assert found["kl"] == pytest.approx(float(np.mean(kl)), rel=0.1) and found["kl"] > 0.2
    assert found["kl_median"] == pytest.approx(float(np.median(kl)), rel=0.3)
    assert found["q"] == pytest.approx(float(np.mean(np.sum(density * q, 1) * step)), rel=0.1)
    gaussian = 0.5 * math.log(2 * math.pi * math.e)
    assert found["target_entropy"] == pytest.approx(gaussian + math.log(WIDTH), abs=0.02)
    assert found["target_q"] == pytest.approx(3.0 - TEMPERATURE / 2, abs=0.01)
    assert found["largest_q"] == pytest.approx(3.0, abs=1e-3)
    narrower = math.exp(-1 - gaussian) / WIDTH  # the width of a Gaussian whose entropy is −d, in widths
    assert found["sharpness"] == pytest.approx(TEMPERATURE * narrower**2, rel=0.05)


def test_draws_of_exp_q():
    """Mean and deviation of the Gaussian."""
    config = Config(Gaussian(width=4, depth=1), Quadratic(width=4, depth=1))
    sizes = {"obs_size": 2, "temperature": jnp.array(TEMPERATURE), "discount": jnp.array(0.9)}
    box = Box(np.array([-2.0]), np.array([2.0]))
    state = sac.init(config, jax.random.key(0), action_space=box, **sizes)
    keys = jax.random.split(jax.random.key(1), 1000)
    draws = jax.vmap(lambda key: run.soft_greedy(config, state, key, jnp.zeros(2), 512))(keys)
    assert float(draws.mean()) == pytest.approx(CENTRE, abs=4 * WIDTH / math.sqrt(1000))
    assert float(draws.std()) == pytest.approx(WIDTH, rel=0.1)


def test_runs(trained, tmp_path, monkeypatch):
    """A training's folder in, two tables out; an agent that is not asked for, and none, are refused."""
    for name, value in {"STATES": 2, "DRAWS": 4, "GRID": 64, "CHOICE": 16, "EPISODES": 1, "UPDATES": 3}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run, "CHANGES", {run.PLAYED: {}, "64 candidates": {"candidates": 64}})
    given = ["--trained", str(trained[1]), "--out", str(tmp_path / "out")]
    assert run.main([*given, "--refit", "agent"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (row,), (refit, wider) = found["agents"], found["refits"]
    assert row["temperature"] == refit["temperature"] == wider["temperature"], "the temperature stands still"
    assert row["target_entropy"] == refit["target_entropy"], "and so does the critic"
    assert len({row["q"], refit["q"], wider["q"]}) == 3, "the actors have learned, each its own way"
    assert all(len(row[name]) == 1 and row[name][0] < 0 for name in ("drawn", "best", "target"))
    assert "drawn" in refit and "drawn" not in wider
    assert (tmp_path / "out" / "table.md").read_text() == run.tables(found)
    assert run.main([*given, "--refit", "other"]) == 2
    assert run.main(given[2:]) == 2


def test_the_policy_learns_from_what_was_remembered(trained):
    """The states are those of the checkpoint's memory, to which the last step has yet to be added."""
    agent, folder = trained
    frozen = run.read(folder)
    assert frozen.obs.shape == (199, 3) and frozen.task == "Pendulum-v1"
    assert dataclasses.asdict(frozen.config) == dataclasses.asdict(agent.config)
    np.testing.assert_array_equal(frozen.state.actor.last.weight, agent.state.actor.last.weight)
