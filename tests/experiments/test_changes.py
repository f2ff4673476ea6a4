"""The critics of the changes against what is known in closed form; a tiny training, stopped and gone on with."""

import dataclasses
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from entroflow.moments import Moments, standard
from entroflow.rl import Critic, Experience
from entroflow.storage import keeping
from experiments import frame
from experiments.changes import report, run
from experiments.changes.critics import FORGETS, SMOOTHING, Network, Variant, hl_gauss, project

SUPPORT = jnp.linspace(-5.0, 5.0, 21)
HALF = 0.25  # width of a bin
C51 = {"projection": "distribution", "norm": "batch", "support": (-50.0, 50.0)}


def test_hl_gauss_is_the_mass_of_a_gaussian_in_every_bin():
    """By SciPy's distribution function; the mean stays where the ends are far, and beyond them the end is learned."""
    values = np.array([-1.3, 0.0, 2.2])
    edges = np.linspace(-5 - HALF, 5 + HALF, 22)
    wanted = np.diff(norm.cdf(edges, values[:, None], SMOOTHING * 2 * HALF), axis=1)
    found = np.asarray(hl_gauss(jnp.asarray(values, jnp.float32), SUPPORT))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found @ np.asarray(SUPPORT), values, atol=2e-3)
    ends = np.asarray(hl_gauss(jnp.array([-9.0, 9.0]), SUPPORT))
    assert ends.argmax(axis=1).tolist() == [0, 20] and np.allclose(ends.sum(axis=1), 1)


def test_projection_divides_every_probability_among_two_atoms():
    """Between atoms by nearness, at one to it alone, beyond the ends to the end."""
    found = np.asarray(project(jnp.array([[0.125, 1.0, 7.0]]), jnp.array([[0.5, 0.2, 0.3]]), SUPPORT))[0]
    wanted = np.zeros(21)
    wanted[[10, 11, 12, 20]] = 0.375, 0.125, 0.2, 0.3
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def learned(variant, scale):
    """Return a critic's state after 400 steps in one state, where a = ±½ pays scale (10 a ± 5), by a coin."""

    def step(state, i):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i.astype(int)), 2)
        action = jnp.where(jax.random.bernoulli(keys[0], 0.5, (64, 1)), 0.5, -0.5)
        reward = scale * (10 * action[:, 0] + jnp.where(jax.random.bernoulli(keys[1], 0.5, (64,)), 5.0, -5.0))
        obs, units = jnp.zeros((64, 1)), standard(1)
        # The next action is the same one: Q(a) = 10 a / (1 − ½).
        experience = Experience(obs, action, obs, action, lambda q: reward + 0.5 * q, None, units, i, None)
        return variant.update(state, experience)

    state = variant.init(jax.random.split(jax.random.key(0)), standard(1), 1, None)
    return jax.lax.scan(step, state, jnp.arange(400.0))


@pytest.mark.parametrize(
    ("settings", "scales"),
    [({"support": (-50.0, 50.0)}, (1.0,)), (C51, (1.0,)), ({"atoms": 1}, (1.0, 1000.0))],
    ids=["HL-Gauss", "batch norm, C51", "number"],
)
def test_q_of_one_state_whose_returns_are_known(settings, scales):
    """A number is learned as well where rewards are 1000 times larger (so α means what it meant)."""
    variant = Variant(width=16, depth=1, rate=3e-3, target_rate=0.05, ensemble="mean", **settings)
    assert isinstance(variant, Critic)
    make = jax.jit(lambda scale: learned(variant, scale))
    value = jax.jit(lambda state, a: variant.q(state, jnp.zeros(1), a))
    for scale in scales:
        state, metrics = make(scale)
        q = [float(value(state, jnp.array([a]))) / scale for a in (-0.5, 0.5)]
        np.testing.assert_allclose(q, [-10, 10], atol=1.0)
        assert metrics["outside"][-1] == 0 and abs(metrics["critic_error"][-50:].mean() / scale - 5) < 1


def test_statistics_of_batches_come_from_replay_and_targets_alone():
    """A step moves them toward those of (s, a) and (s', a') in one batch; one candidate's Q knows nothing of others.

    Nor does Q change with its units: the learning rate is next to nothing here.
    """
    variant, keys = Variant(width=4, atoms=1, norm="batch", rate=1e-9), jax.random.split(jax.random.key(0), 6)
    state = variant.init(keys[:2], standard(2), 1, None)
    obs, action, next_obs, next_action = (
        jax.random.normal(key, (8, n)) for key, n in zip(keys[2:], (2, 1) * 2, strict=True)
    )
    target = lambda q: 0.9 * q + 50 * obs[:, 0]  # noqa: E731
    experience = Experience(obs, action, next_obs, next_action, target, None, standard(2), jnp.float32(500), None)
    state = dataclasses.replace(state, q=jax.vmap(Network.with_unit_rows)(state.q))
    after = jax.jit(lambda state: variant.update(state, experience)[0])(state)
    joint = np.vstack([np.hstack([obs, action]), np.hstack([next_obs, next_action])])
    for member in range(2):
        np.testing.assert_allclose(after.statistics[0][0][member], FORGETS * joint.mean(axis=0), rtol=1e-4, atol=1e-6)
        wanted = 1 + FORGETS * (joint.var(axis=0) - 1)
        np.testing.assert_allclose(after.statistics[0][1][member], wanted, rtol=1e-4)
    q = jax.jit(jax.vmap(lambda action: variant.policy_q(after, obs[0], action)))
    moved = dataclasses.replace(after, q=state.q, value_units=state.value_units)
    assert float(after.value_units.scale) > 1.1
    assert float(variant.policy_q(after, obs[0], action[0])) == pytest.approx(
        float(variant.policy_q(moved, obs[0], action[0])), rel=1e-4
    )
    near, far = (float(q(jnp.array([[0.3], [other]]))[0]) for other in (0.0, 1e4))
    assert near == pytest.approx(far, rel=1e-5)
    assert abs(near - float(q(jnp.array([[1.0]]))[0])) > 1e-3


def test_a_steady_critic_stays_what_it_was_when_its_inputs_units_move():
    """Far units of observations and actions after a step that learns next to nothing: Q is the same."""
    variant, keys = Variant(width=4, support=(-5.0, 5.0), steady=True, rate=1e-9), jax.random.split(jax.random.key(0))
    state, obs, action = variant.init(keys, standard(2), 1, None), jnp.full((8, 2), 0.3), jnp.linspace(5.0, 7.0, 8)
    units = Moments(jnp.array([3.0, -1.0]), jnp.array([0.5, 2.0]))
    experience = Experience(obs, action[:, None], obs, action[:, None], lambda q: q, None, units, jnp.float32(10), None)
    both = jax.jit(
        lambda state: [variant.policy_q(s, obs[0], jnp.ones(1)) for s in (state, variant.update(state, experience)[0])]
    )
    before, after = map(float, both(state))
    assert after == pytest.approx(before, rel=1e-3) and abs(before) > 1e-3


def test_a_change_that_is_stopped_goes_on_within_its_cell(tmp_path, monkeypatch):
    """As if it had not been: the same rows but for seconds; the table names what was run."""
    settings = {"width": 4, "depth": 1, "state_width": 4, "states": 2, "candidates": 2, "pathwise": 0.0}
    settings |= {"batch_size": 4, "learning_starts": 10, "action_candidates": 2, "critic": Variant(width=4, depth=1)}
    monkeypatch.setattr(keeping, "SHARE", math.inf)
    sizes = {"EVERY": 20, "EPISODES": 1, "SAVE_EVERY": 10, "CHANGES": {"tiny": settings}}
    sizes["PLAN"] = [run.Cell("tiny", "Pendulum-v1", 3, 40)]
    for name, value in sizes.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run.Training, "evaluate", lambda self, *_, **__: [{"return": float(self.step)}])
    assert run.main(["--out", str(tmp_path / "whole")]) == 0

    advance, calls = run.Training.advance, []

    def stopped(self, steps):
        calls.append(self.step)
        if calls == [0, 10, 20]:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, steps)

    monkeypatch.setattr(run.Training, "advance", stopped)
    command = ["--out", str(tmp_path / "out")]
    assert run.main(command) == 128 + signal.SIGTERM and run.main([*command, "--resume"]) == 0
    assert calls == [0, 10, 20, 30]
    found = [frame.read_rows(tmp_path / name / "results.csv") for name in ("whole", "out")]
    assert [{**row, "seconds": ""} for row in found[0]] == [{**row, "seconds": ""} for row in found[1]]
    assert [row["step"] for row in found[0]] == ["20", "40"] and "width=4" in found[0][0]["settings"]


def test_tables_say_one_seed_or_the_range_of_several():
    """And nothing of marks that were not reached; what was learned is that at the end."""
    row = {"task": "Hopper-v5", "change": "new", "seed": 0, "step": 10_000, "best of 16": 100.0, "drawn": 50.0}
    (line,) = [line for line in report.returns([row]).splitlines() if ", new" in line]
    assert line == "| Hopper-v5, new | 1 | – | – | 100 | 50 | – | – | – | – |"
    several = [row, row | {"seed": 1, "drawn": 70.0}]
    (line,) = [line for line in report.returns(several).splitlines() if ", new" in line]
    assert line == "| Hopper-v5, new | 2 | – | – | 100 [100, 100] | 60 [50, 70] | – | – | – | – |"
    row |= dict.fromkeys(("q", "critic_error", "entropy", "temperature", "ess", "beta"), 0.5)
    (line,) = [line for line in report.learned([row, row | {"step": 15_000, "q": 2}]).splitlines() if ", new" in line]
    assert line == "| Hopper-v5, new | 0 | 15,000 | 2 | 0.5 | 0.5 | 0.5 | 0.5 | 0.5 |"
