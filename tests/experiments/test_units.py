"""Learning in other units: what is drawn, and what was found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.lqr import systems
from experiments import frame
from experiments.units import run

ROWS = frame.read_rows(run.HERE / "results.csv")


@pytest.mark.parametrize("name", run.SYSTEMS)
def test_a_draw_is_the_same_system(name):
    """Every state, action and the reward in a unit of its own, and the optimum that of the system."""
    lqr, units = run.drawn(name, 0)
    sizes = np.array([*units.state, *units.action, units.reward])
    assert len(set(sizes)) == len(sizes) and sizes.min() >= 1e-4 and sizes.max() <= 1e4
    own, there = systems.get(name).optimal(run.ALPHA), lqr.optimal(run.ALPHA / units.reward)
    np.testing.assert_allclose(there.K * units.action[:, None] / units.state, own.K, rtol=1e-9, atol=1e-12)
    assert there.standard_return * units.reward == pytest.approx(own.standard_return, rel=1e-9)


class Linear(eqx.Module):
    """N(−Ks, LLᵀ)."""

    K: jax.Array
    L: jax.Array
    obs_units, noise_shape = None, (2,)

    def sample(self, key, obs, noise_scale=1.0):
        return self.push(obs, noise_scale * jax.random.normal(key, (2,)))

    def push(self, obs, noise):
        return self.L @ noise - self.K @ obs

    def push_and_log_prob(self, obs, noise):
        return self.push(obs, noise), jnp.float32(0)


def test_the_optimum_has_no_error_in_its_own_units():
    """It is that of the units of the draw; twice its spread is three times its covariance too much."""
    lqr, units = run.drawn("coupled", 0)
    optimum = lqr.optimal(run.ALPHA / units.reward)
    parts = (jnp.float32(part) for part in (optimum.K, np.linalg.cholesky(optimum.covariance)))
    exact = Linear(*parts)
    found = run.in_own_units(exact, lqr, "coupled", units)
    assert found["mean_error_relative"] < 2e-3 and found["covariance_error_relative"] < 5e-3
    wide = run.in_own_units(Linear(exact.K, 2 * exact.L), lqr, "coupled", units)
    assert wide["mean_error_relative"] < 5e-3
    assert wide["covariance_error_relative"] == pytest.approx(3.0, rel=5e-3)


def test_the_committed_errors_are_as_small_as_they_are_to_be():
    """In the units of the draw, and in those of the system's author."""
    assert {row["system"] for row in ROWS} == set(run.SYSTEMS)
    for row in ROWS:
        for part, most in run.ERRORS.items():
            assert float(row[f"{part}_error"]) <= most and float(row[f"own_{part}_error"]) <= most


def test_the_committed_table_is_that_of_the_committed_rows():
    """To the letter."""
    assert run.table(ROWS) == (run.HERE / "table.md").read_text()
