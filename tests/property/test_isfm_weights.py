"""Weights and losses, for any log-weights and actions values."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import (
    Diagnostics,
    diagnose,
    draw_candidates,
    isfm_loss,
    self_normalised,
    state_normalised,
    stratified_times,
    temper,
)

N = 8
log_weights = st.lists(st.floats(-20.0, 20.0, width=32), min_size=N, max_size=N).map(
    lambda values: jnp.array(values, jnp.float32)
)
shifts = st.floats(-100.0, 100.0, width=32)
floors = st.floats(0.25, 0.96875, width=32)
POLICY = FlowPolicy(
    VelocityNetwork(2, 2, width=8, depth=1, key=jax.random.key(0)), Unbounded(2), solver=RungeKutta("midpoint", 4)
)
OBS = jnp.array([0.3, -0.7])


@jax.jit
def candidates(shift, temperature, seed):
    q = lambda obs, action: jnp.sum(jnp.cos(3 * action) - 0.2 * action**2) + obs[0] * action[1] + shift  # noqa: E731
    return draw_candidates(jax.random.key(seed), POLICY, OBS, q, temperature, n=N)


@given(shift=shifts, temperature=st.floats(0.5, 3.0, width=32), seed=st.integers(0, 100))
def test_a_constant_in_q_changes_nothing(shift, temperature, seed):
    """Adding a constant to Q leaves self-normalised weights alone and moves log Ẑ by constant/α."""
    plain, moved = candidates(0.0, temperature, seed), candidates(shift, temperature, seed)
    np.testing.assert_allclose(moved.weights, plain.weights, rtol=2e-3, atol=1e-6)
    found = moved.diagnostics.log_z - plain.diagnostics.log_z
    np.testing.assert_allclose(found, shift / temperature, rtol=1e-4, atol=1e-3)


summarise = jax.jit(lambda w: (self_normalised(w), state_normalised(w), diagnose(w)))


@given(log_weights)
def test_weights_and_diagnostics_keep_their_ranges(w):
    """Weights are positive, self-normalised ones sum to one, and each diagnostic lies between its limits."""
    own, state, found = summarise(w)
    np.testing.assert_allclose(jnp.sum(own), 1.0, rtol=1e-5)
    assert bool(jnp.all(own >= 0)) and bool(jnp.all(state >= 0))
    lower = Diagnostics(1 / N, 0.0, 0.0, float(jnp.min(w)), 1 / N, 0.0)
    upper = Diagnostics(1.0, np.log(N), np.log(N), float(jnp.max(w)), 1.0, float(jnp.ptp(w)))
    for low, value, high in zip(lower, found, upper, strict=True):
        assert low - 1e-4 <= float(value) <= high + 1e-4
    assert float(found.renyi_4) >= float(found.renyi_2) - 1e-4  # Rényi divergences grow with their order


@given(log_weights, st.permutations(range(N)))
def test_order_of_candidates_does_not_matter(w, order):
    """Permuting candidates permutes their weights and leaves the diagnostics alone."""
    own, _, found = summarise(w)
    permuted, _, found_permuted = summarise(w[jnp.array(order)])
    np.testing.assert_allclose(permuted, own[jnp.array(order)], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found_permuted, found, rtol=1e-4, atol=1e-4)


temper_policy = jax.jit(lambda w, floor: temper(w, jnp.zeros_like(w), floor))


@given(log_weights, floors)
def test_tempering_keeps_its_floor_and_the_order_of_the_weights(w, floor):
    """The floor holds after tempering, and a better candidate never gets a smaller weight than a worse one."""
    tempered, beta = temper_policy(w, floor)
    assert 0 < float(beta) <= 1
    assert float(diagnose(tempered).ess) >= floor - 1e-4
    assert bool(jnp.all(jnp.diff(tempered[jnp.argsort(w)]) >= 0))


@jax.jit
def losses(latents, weights, seed):
    key, times = jax.random.key(seed), stratified_times(jax.random.key(seed + 1), N, 2)
    isfm = jax.value_and_grad(isfm_loss)(POLICY, key, OBS, latents, weights, times)
    noises = jax.random.normal(key, (N, 2, 2))

    def flow_matching(policy):
        """The mean of ‖v(τ x_1 + (1−τ) x_0, τ) − (x_1 − x_0)‖², in the open."""
        errors = []
        for i in range(N):
            for j in range(2):
                x1, x0, time = latents[i], noises[i, j], times[i, j]
                velocity = policy.velocity(time * x1 + (1 - time) * x0, time, policy.condition(OBS))
                errors.append(jnp.sum((velocity - x1 + x0) ** 2))
        return sum(errors) / len(errors)

    return isfm, jax.value_and_grad(flow_matching)(POLICY)


@given(st.lists(st.floats(-3.0, 3.0, width=32), min_size=2 * N, max_size=2 * N), shifts, st.integers(0, 100))
def test_isfm_with_equal_weights_is_flow_matching(values, level, seed):
    """When all candidates are equally good, loss and gradient are those of flow matching."""
    latents = jnp.array(values, jnp.float32).reshape(N, 2)
    isfm, flow_matching = losses(latents, self_normalised(jnp.full((N,), level, jnp.float32)), seed)
    for a, b in zip(jax.tree.leaves(isfm), jax.tree.leaves(flow_matching), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
