"""Solvers and the density of trained policies, a tiny size of it."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box, FlowPolicy, RungeKutta
from experiments.solvers import run

RATE = 1.5


class Growing(eqx.Module):
    """The field v = 1.5 x, whose flow multiplies by e^1.5."""

    obs_size: int = eqx.field(static=True, default=1)
    action_size: int = eqx.field(static=True, default=1)

    def condition(self, obs):
        return obs

    def __call__(self, x, time, context):
        return RATE * x

    def with_divergence(self, x, time, context):
        return RATE * x, jnp.float32(RATE)


def test_errors_of_a_linear_field(monkeypatch):
    """Euler's steps multiply by 1.75² instead of e^1.5; the density that comes with a draw misses just that."""
    monkeypatch.setattr(run, "SOLVERS", {"euler": RungeKutta("euler", 2)})
    policy = FlowPolicy(Growing(), Box(np.array([-2.0]), np.array([2.0])))
    agent = type("Agent", (), {"policy": policy})
    found = run.measure(agent, np.zeros((3, 1), np.float32), "euler")
    factor = (1 + RATE / 2) ** 2
    gap = RATE - np.log(factor)  # log det of the differential equation less that of the steps
    assert found["error"] == pytest.approx(gap, abs=1e-5) and found["error_worst"] == pytest.approx(gap, abs=1e-4)
    noise = np.asarray(jax.random.normal(jax.random.key(0), (3, run.DRAWS, 1)))
    squares = noise**2 / 2 * (1 - (factor / np.exp(RATE)) ** 2)
    assert found["ode"] == pytest.approx(np.mean(np.abs(squares - gap)), rel=1e-4)
    assert found["entropy"] == pytest.approx(gap, abs=1e-5), "the density that is told is too low, the entropy too high"


def test_runs(tmp_path, monkeypatch):
    """It trains, measures each solver, and writes the table."""
    tiny = {"width": 8, "depth": 1, "state_width": 8, "critic_width": 8, "batch_size": 16, "learning_starts": 100}
    sizes = {"TASKS": {"Pendulum-v1": 20}, "SETTINGS": tiny | {"states": 8}, "STATES": 2, "DRAWS": 4, "GRID": 101}
    sizes |= {"SOLVERS": {"rk4": RungeKutta("rk4", 2)}, "ROUNDS": 2, "REFERENCE": RungeKutta("rk4", 16)}
    for name, value in sizes.items():
        monkeypatch.setattr(run, name, value)
    assert run.main(["--out", str(tmp_path / "out")]) == 0
    row = json.loads((tmp_path / "out" / "results.json").read_text())["solvers"][0]
    assert row["mass"] == pytest.approx(1, abs=0.01) and row["again_worst"] < 1e-3 and row["256 draws"] > 0
    assert "| Pendulum-v1 | rk4 |" in (tmp_path / "out" / "table.md").read_text()
    trained = tmp_path / "out" / "agents" / "Pendulum-v1"
    assert run.main(["--trained", str(trained), "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())["solvers"][0]
    assert {name: again[name] for name in ("mass", "error", "again")} == {
        name: row[name] for name in ("mass", "error", "again")
    }
