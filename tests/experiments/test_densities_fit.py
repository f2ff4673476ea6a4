"""How densities are learned and judged at one state: regression targets, paths, errors of log Z and of modes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.isfm import Control
from experiments.densities import fit as densities_fit
from experiments.densities import run as densities_study
from experiments.densities.targets import double_well, two_moons

CONFIG = densities_fit.Config(points=24, times=6, width=8)


def test_regression_is_onto_the_weighted_sets_velocity(key):
    """The target at x_τ is Σ p_i (x_1,i − x_τ)/(1 − τ), p_i ∝ w_i N(x_τ; τ x_1,i, (1−τ)² I), and half of Stein's
    control variate, computed term by term."""
    latents = jax.random.normal(key, (40, 2))
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(1), (40,)))
    scores = jax.random.normal(jax.random.key(5), (40, 2))
    fisher = weights @ scores**2
    control = Control(scores, jnp.broadcast_to(fisher, (40, 2)), jnp.float32(0.5))
    x, times, wanted = densities_fit.regression(CONFIG, jax.random.key(2), latents, weights, control)
    x, times, u = np.asarray(x, np.float64), np.asarray(times, np.float64)[:, None, None], np.asarray(latents)
    assert x.shape == (6, 4, 2) and np.all(np.diff(times.ravel()) > 0)
    noises = (x[:, :, None] - times[..., None] * u) / (1 - times[..., None])
    kernel = np.asarray(weights) * np.exp(-0.5 * np.sum(noises**2, axis=-1))
    posterior = kernel / kernel.sum(axis=-1, keepdims=True)
    expected = np.sum(posterior[..., None] * (u - x[:, :, None]), axis=2) / (1 - times)
    scores = np.asarray(scores, np.float64)
    controls = times[..., None] * noises + (1 - times[..., None]) * scores
    fisher = np.asarray(fisher, np.float64)
    expected += 0.5 * np.sum(posterior[..., None] * controls, axis=2) / (times**2 + (1 - times) ** 2 * fisher)
    np.testing.assert_allclose(wanted, expected, rtol=1e-3, atol=1e-3)


def test_regression_keeps_the_mean_of_the_usual_target(key):
    """Over many points, the mean of the targets is E[x_1] − E[x_0], and points at τ have mean τ E[x_1]: 5 s.e."""
    latents = 1.5 + jax.random.normal(key, (30, 2))
    weights = jax.nn.softmax(2 * latents[:, 0])
    config = densities_fit.Config(points=20_000, times=20)
    x, times, wanted = densities_fit.regression(config, jax.random.key(3), latents, weights)
    mean = np.asarray(weights @ latents)
    for values, expected in [(wanted, np.ones((20, 1)) * mean), (x, np.asarray(times)[:, None] * mean)]:
        errors = np.abs(np.asarray(values).mean(axis=1) - expected)
        assert np.all(errors < 5 * np.asarray(values).std(axis=1) / np.sqrt(1000) + 1e-5)


def test_only_layers_that_read_the_state_are_not_trained(key):
    """Training starts from a new policy but for the fixed layers, and every other leaf of the velocity moves."""
    config, target = dataclasses.replace(CONFIG, candidates=32, reuse=2, solver_steps=2), double_well()
    state = densities_fit.start(config, target, 3, key)
    assert state.velocity.state_layers is None
    after, _ = densities_fit.advance(config, target, 3, state, jnp.int32(3))
    before, after = (densities_fit.with_velocity(config, target, s.velocity).velocity for s in (state, after))
    jax.tree.map(np.testing.assert_array_equal, before.state_layers, after.state_layers)
    for part in ("first", "second", "last", "time_layers"):
        pairs = zip(jax.tree.leaves(getattr(before, part)), jax.tree.leaves(getattr(after, part)), strict=True)
        assert all(np.any(a != b) for a, b in pairs)


def test_paths_lead_from_noise_to_samples(key):
    """Paths begin at the noise and end where the policy pushes it, in units of the target."""
    policy = densities_fit.new_policy(CONFIG, double_well(), key)
    velocity = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(key, leaf.shape), policy.velocity)
    policy = dataclasses.replace(policy, velocity=velocity).with_solver(densities_study.SOLVER)
    noises = jax.random.normal(jax.random.key(4), (5, 2))
    paths = densities_fit.paths(policy, noises)
    np.testing.assert_allclose(paths[0], jax.vmap(policy.action_space.to_action)(noises), rtol=1e-6)
    ends = jax.vmap(functools.partial(policy.push, jnp.zeros(1)))(noises)
    np.testing.assert_allclose(paths[-1], ends, rtol=1e-3, atol=1e-3)


def test_a_perfect_sampler_has_no_error():
    """Weights that all equal Z give ESS/N one and no error; weights twice as large an error of log 2."""
    target = double_well()
    perfect = np.full(densities_study.ESTIMATE * densities_study.REPETITIONS, target.log_z)
    found = densities_study.accuracy(target, perfect)
    assert found["ess"] == pytest.approx(1.0) and found["log_z_error"] == pytest.approx(0.0, abs=1e-12)
    off = densities_study.accuracy(target, perfect + np.log(2))
    assert off["ess"] == pytest.approx(1.0) and off["kl"] == pytest.approx(-np.log(2))
    assert off["log_z_error"] == pytest.approx(np.log(2)) == off["log_z_error_all"]


def test_errors_of_log_z_do_not_cancel_between_estimates():
    """One estimate too high and one too low have a mean absolute error, and half the weights ESS/N of a half."""
    target, half = double_well(), densities_study.ESTIMATE * densities_study.REPETITIONS // 2
    found = densities_study.accuracy(target, target.log_z + np.repeat([0.1, -0.1], half))
    assert found["log_z_error"] == pytest.approx(0.1)
    assert abs(found["log_z_error_all"]) < 0.01
    lost = densities_study.accuracy(target, target.log_z + np.tile([0.0, -800.0], half))
    assert lost["ess"] == pytest.approx(0.5) and lost["log_z_error"] == pytest.approx(np.log(2))


def test_mode_error_is_the_mass_in_the_wrong_mode():
    """Samples in one mode only: the error is the other mode's weight; targets without modes have none."""
    target = double_well()
    assert target.modes is not None and target.mode_weights is not None
    found = densities_study.mode_error(target, np.repeat(target.modes[1:], 50, axis=0))
    assert found["mode_error"] == pytest.approx(target.mode_weights[0])
    np.testing.assert_array_equal(found["mode_weights"], [0, 1])
    assert densities_study.mode_error(two_moons(), np.zeros((5, 2)))["mode_error"] is None
