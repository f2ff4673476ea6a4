"""Flow policies: log-densities against closed forms, total mass, and what is shared or held constant."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal

from entroflow.flow import (
    AdaptiveSolver,
    Box,
    ClosedForm,
    ExactJVP,
    FlowPolicy,
    Hutchinson,
    RungeKutta,
    Unbounded,
    VelocityNetwork,
)
from entroflow.moments import Moments, standard

A = np.array([[0.6, -0.9], [0.4, 0.3]])  # trace 0.9, not symmetric, not normal
B = np.array([[0.5, -0.2, 0.1], [0.3, 0.8, -0.6]])
OBS = np.array([0.4, -1.1, 0.7])


class LinearField(eqx.Module):
    """v(x, τ, s) = 2τ (A x + B s), which carries x to e^A x + A⁻¹(e^A − 1) B s whatever the way of the time."""

    a: jax.Array
    b: jax.Array
    obs_size: int = eqx.field(static=True, default=3)
    action_size: int = eqx.field(static=True, default=2)

    def condition(self, obs):
        return self.b @ obs

    def __call__(self, x, time, context):
        return 2 * time * (self.a @ x + context)

    def with_divergence(self, x, time, context):
        return self(x, time, context), 2 * time * jnp.trace(self.a)


def linear_gaussian(noise_scale=1.0):
    """The exact distribution of the linear field's latent, by the matrix exponential."""
    mean = np.linalg.solve(A, (expm(A) - np.eye(2)) @ B @ OBS)
    return multivariate_normal(mean, noise_scale**2 * expm(A) @ expm(A).T)


def linear_policy(space, **options):
    return FlowPolicy(LinearField(jnp.asarray(A), jnp.asarray(B)), space, **options)


def strong_policy(space, seed=1, **options):
    """A policy far from a normal distribution: a small network with large parameters."""
    key = jax.random.key(seed)
    network = VelocityNetwork(2, space.size, width=8, depth=1, key=key)
    leaves, structure = jax.tree.flatten(network)
    keys = jax.random.split(key, len(leaves))
    leaves = [0.35 * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return FlowPolicy(jax.tree.unflatten(structure, leaves), space, **options)


@pytest.mark.parametrize(
    ("solver", "divergence", "tolerance"),
    [
        (RungeKutta("rk4", 32), ClosedForm(), 1e-6),
        (RungeKutta("midpoint", 64), ExactJVP(), 1e-3),
        (AdaptiveSolver(1e-9, 1e-9), ClosedForm(), 1e-8),
        # The mean over probes of a linear field's form is exact for the probes of a Rademacher pair only on average;
        # its antisymmetric part never counts, so that one Gaussian probe must be wrong and 20,000 nearly right.
        (RungeKutta("rk4", 32), Hutchinson(20_000, "gaussian"), 0.05),
    ],
    ids=["rk4", "midpoint with JVPs", "adaptive", "Hutchinson"],
)
def test_log_density_of_a_linear_field_is_gaussian(solver, divergence, tolerance):
    """Forward and backward, log π is the Gaussian of the matrix exponential; the trace is not zero."""
    with jax.enable_x64(True):
        space = Unbounded(2, center=jnp.array([1.0, -2.0]), scale=jnp.array([0.5, 3.0]))
        policy = linear_policy(space, solver=solver, divergence=divergence)
        key, obs = jax.random.key(0), jnp.asarray(OBS)
        action, forward = eqx.filter_jit(policy.sample_and_log_prob)(key, obs)
        backward = jax.jit(lambda action: policy.log_prob(obs, action, key=key))(action)
        latent = (np.asarray(action) - np.array([1.0, -2.0])) / np.array([0.5, 3.0])
        expected = linear_gaussian().logpdf(latent) - np.log(0.5 * 3.0)
        np.testing.assert_allclose([forward, backward], expected, rtol=0, atol=tolerance)
        sampled = eqx.filter_jit(policy.sample)(key, obs)
        np.testing.assert_allclose(sampled, action, rtol=0, atol=1e-8)


def test_solver_density_is_that_of_the_solver_s_own_map():
    """Two coarse steps make an affine map of the noise, whose Gaussian is met where equation (6) is well off."""
    with jax.enable_x64(True):
        policy, obs = linear_policy(Unbounded(2), solver=RungeKutta("midpoint", 2)), jnp.asarray(OBS)
        center = np.asarray(policy.push(obs, jnp.zeros(2)))
        matrix = np.stack([np.asarray(policy.push(obs, e)) - center for e in jnp.eye(2)], axis=1)
        action, found = eqx.filter_jit(policy.sample_and_solver_log_prob)(jax.random.key(0), obs)
        exact = multivariate_normal(center, matrix @ matrix.T).logpdf(action)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-10)
        np.testing.assert_allclose(action, policy.sample(jax.random.key(0), obs), rtol=0, atol=1e-12)
        assert abs(policy.sample_and_log_prob(jax.random.key(0), obs)[1] - exact) > 0.01


def test_solver_density_agrees_with_diffrax_in_a_box():
    """With fine steps it is the density of the ODE, the box's map included."""
    with jax.enable_x64(True):
        space = Box(jnp.array([-1.0, -2.0]), jnp.array([1.0, 3.0]))
        policy = strong_policy(space, solver=RungeKutta("rk4", 64))
        key, obs = jax.random.key(3), jnp.array([0.4, -1.1])
        action, found = eqx.filter_jit(policy.sample_and_solver_log_prob)(key, obs)
        exact_action, exact = eqx.filter_jit(policy.with_solver(AdaptiveSolver(1e-10, 1e-10)).sample_and_log_prob)(
            key, obs
        )
        np.testing.assert_allclose(action, exact_action, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)


def test_noise_scale_broadens_with_its_exact_density():
    """Scaling the noise scales the covariance; zero gives the centre."""
    with jax.enable_x64(True):
        policy = linear_policy(Unbounded(2), solver=RungeKutta("rk4", 32))
        obs = jnp.asarray(OBS)
        latent, forward = eqx.filter_jit(policy.sample_latent_and_log_prob)(jax.random.key(1), obs, 1.7)
        backward = policy.latent_log_prob(obs, latent, 1.7)
        expected = linear_gaussian(noise_scale=1.7).logpdf(latent)
        np.testing.assert_allclose([forward, backward], expected, rtol=0, atol=1e-6)
        center = policy.sample(jax.random.key(2), obs, 0.0)
        np.testing.assert_allclose(center, linear_gaussian().mean, atol=1e-6)


def test_network_density_agrees_with_diffrax():
    """For a network far from linear, fixed steps, JVPs and Diffrax at 1e-8 give the same density, both ways."""
    with jax.enable_x64(True):
        policy = strong_policy(Box(jnp.array([-1.0, -2.0]), jnp.array([1.0, 3.0])), solver=AdaptiveSolver(1e-8, 1e-8))
        key, obs = jax.random.key(4), jnp.array([0.3, -0.8])
        action, reference = eqx.filter_jit(policy.sample_and_log_prob)(key, obs)
        np.testing.assert_allclose(eqx.filter_jit(policy.log_prob)(obs, action), reference, atol=1e-6)
        fixed = policy.with_solver(RungeKutta("rk4", 128))
        jvp = FlowPolicy(policy.velocity, policy.action_space, solver=fixed.solver, divergence=ExactJVP())
        for other in (fixed, jvp):
            other_action, log_prob = eqx.filter_jit(other.sample_and_log_prob)(key, obs)
            np.testing.assert_allclose(other_action, action, atol=1e-6)
            np.testing.assert_allclose(log_prob, reference, atol=1e-6)


def no_divergence(velocity, context, key):
    """A wrong divergence method: none."""
    return lambda x, time: (velocity(x, time, context), jnp.zeros(()))


def cells(space, points, reach=12.0):
    """Nodes and volumes of cells that fill the action space, shapes (points^d, d) and (points^d,).

    In a box the cells become finer towards the bounds, where a density may pile up.
    """
    edges = np.linspace(-reach, reach, points + 1)
    if isinstance(space, Box):
        edges = np.tanh(edges / 2)  # in units of the half-width; the bounds are within 1e-5 of the last edges
        centers, half_widths = np.asarray(space.low + space.high) / 2, np.asarray(space.high - space.low) / 2
    else:
        centers, half_widths = np.zeros(space.size), np.ones(space.size)
    axes = [center + half * (edges[1:] + edges[:-1]) / 2 for center, half in zip(centers, half_widths, strict=True)]
    sides = [half * np.diff(edges) for half in half_widths]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, space.size)
    volumes = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, space.size).prod(axis=1)
    return jnp.asarray(nodes, jnp.float32), volumes


@pytest.mark.parametrize(
    ("space", "points"),
    [
        (Unbounded(1), 1000),
        (Unbounded(2), 160),
        (Box(jnp.array([-1.0]), jnp.array([2.0])), 1000),
        (Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, 3.0])), 160),
    ],
    ids=["line", "plane", "interval", "rectangle"],
)
def test_density_integrates_to_one(space, points):
    """The density of a strongly nonlinear policy has total mass one over its action space."""
    policy = strong_policy(space, solver=RungeKutta("rk4", 16))
    without = FlowPolicy(policy.velocity, space, solver=policy.solver, divergence=no_divergence)
    actions, volumes = cells(space, points)
    obs = jnp.array([0.5, -0.5])
    log_probs = jax.jit(jax.vmap(lambda a: jnp.stack([policy.log_prob(obs, a), without.log_prob(obs, a)])))(actions)
    mass, wrong = volumes @ np.exp(np.asarray(log_probs, np.float64))
    np.testing.assert_allclose(mass, 1.0, atol=5e-3)
    assert abs(wrong - 1.0) > 0.05  # without the divergence it is not: the test can fail


def test_log_prob_at_and_beyond_the_bounds():
    """On a bound and close to it the log-density is finite, beyond it −∞, and no gradient is NaN."""
    policy = strong_policy(Box(jnp.array([-1.0]), jnp.array([2.0])))
    obs = jnp.array([0.5, -0.5])
    value_and_grad = jax.jit(jax.vmap(jax.value_and_grad(lambda action: policy.log_prob(obs, action))))
    values, gradients = value_and_grad(jnp.array([[-5.0], [-1.0], [-1.0 + 1e-7], [2.0], [2.0 + 1e-6], [7.0]]))
    assert jnp.isneginf(values).tolist() == [True, False, False, False, True, True]
    assert bool(jnp.all(jnp.isfinite(values[1:4])) & jnp.all(jnp.isfinite(gradients)))


def test_observations_are_normalised():
    """The network sees (obs − mean) / scale."""
    raw = strong_policy(Unbounded(1))
    mean, scale = jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])
    scaled = FlowPolicy(raw.velocity, raw.action_space, obs_units=Moments(mean, scale))
    obs = jnp.array([0.3, 0.9])
    expected = raw.sample(jax.random.key(0), obs)
    np.testing.assert_allclose(scaled.sample(jax.random.key(0), mean + scale * obs), expected, rtol=1e-5)


def test_far_observations_are_brought_to_the_limit():
    """With a limit of two, what is five standard deviations away is seen as two."""
    raw = strong_policy(Unbounded(1))
    units = Moments(jnp.zeros(2), jnp.array([3.0, 0.5]), limit=2.0)
    limited = FlowPolicy(raw.velocity, raw.action_space, obs_units=units)
    expected = raw.sample(jax.random.key(0), jnp.array([-2.0, 0.9]))
    np.testing.assert_allclose(limited.sample(jax.random.key(0), jnp.array([-15.0, 0.45])), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="limit: got -1.0"):
        FlowPolicy(raw.velocity, raw.action_space, obs_units=standard(2, limit=-1.0))


def test_policy_is_a_tree_of_arrays_with_constants():
    """Every leaf is an array, so a policy passes through jit and scan; statistics and bounds take no gradient."""
    policy = strong_policy(Box(jnp.array([-1.0]), jnp.array([2.0])))
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(policy))

    def entropy(policy):
        action, log_prob = policy.sample_and_log_prob(jax.random.key(0), jnp.ones(2))
        return jnp.sum(action) - log_prob

    gradient = jax.jit(jax.grad(entropy))(policy)
    for constant in jax.tree.leaves((gradient.action_space, gradient.obs_units)):
        np.testing.assert_array_equal(constant, 0.0)
    for leaf in jax.tree.leaves(gradient.velocity):
        assert bool(jnp.all(jnp.isfinite(leaf))) and float(jnp.max(jnp.abs(leaf))) > 0.0


def dot_shapes(jaxpr):
    """The output shapes of all matrix products in a jaxpr and in the jaxprs within."""
    shapes = [equation.outvars[0].aval.shape for equation in jaxpr.eqns if equation.primitive.name == "dot_general"]
    inner = (
        parameter.jaxpr
        for equation in jaxpr.eqns
        for parameter in equation.params.values()
        if hasattr(parameter, "jaxpr")
    )
    return shapes + [shape for nested in inner for shape in dot_shapes(nested)]


def test_samples_share_the_state_and_states_share_the_trace_matrix():
    """Mapped over 5 states and 6 samples each, what depends on less is computed once, as one product per state."""
    width, states, samples = 7, 5, 11
    policy = FlowPolicy(VelocityNetwork(3, 2, width=width, depth=1, key=jax.random.key(0)), Unbounded(2))

    def draw(keys, obs):
        return jax.vmap(policy.sample_and_log_prob, in_axes=(0, None))(keys, obs)

    keys = jax.random.split(jax.random.key(0), (states, samples))
    jaxpr = jax.make_jaxpr(jax.vmap(draw))(keys, jnp.ones((states, 3))).jaxpr
    shapes = dot_shapes(jaxpr)
    outputs = 4 * width + 2  # of shifts, and as many of gains
    assert shapes.count((width, width)) == 1  # W1 W3, outside of the loop, for all states
    assert not any(np.prod(shape) == states * width**2 for shape in shapes)
    heads = sorted(int(np.prod(shape)) for shape in shapes if np.prod(shape) % outputs == 0)
    assert heads == 4 * [outputs] + 2 * [states * outputs]  # time twice in a midpoint step, state once


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FlowPolicy(LinearField(jnp.eye(2), jnp.ones((2, 3))), Unbounded(3)), "action size"),
        (lambda: linear_policy(Unbounded(2), obs_units=standard(2)), "obs_units"),
        (lambda: linear_policy(Unbounded(2), obs_units=standard(4)), "obs_units"),
        (lambda: linear_policy(Unbounded(2), divergence=Hutchinson()).log_prob(jnp.ones(3), jnp.ones(2)), "key"),
        (
            lambda: linear_policy(Unbounded(2), divergence=Hutchinson()).push_and_log_prob(jnp.ones(3), jnp.ones(2)),
            "key",
        ),
    ],
)
def test_bad_policies_are_refused(call, message):
    """Sizes that do not agree, and an estimate without a key, are refused with a sentence that names them."""
    with pytest.raises(ValueError, match=message):
        call()


def test_points_of_another_precision_are_pushed():
    """They are brought to that of the policy; and there are probes where the divergence is estimated."""
    policy, obs, given = linear_policy(Unbounded(2)), jnp.ones(3), jnp.array([1.0, -2.0], jnp.float16)
    action, log_prob = policy.push_and_log_prob(obs, given)
    np.testing.assert_array_equal(policy.push(obs, given), action)
    np.testing.assert_allclose(policy.log_prob(obs, action), log_prob, atol=0.02)
    assert np.isfinite(policy.latent_log_prob(obs, given))
    estimated = linear_policy(Unbounded(2), divergence=Hutchinson(probes=64))
    found = estimated.push_and_log_prob(obs, jnp.ones(2), key=jax.random.key(0))[1]
    np.testing.assert_allclose(found, policy.push_and_log_prob(obs, jnp.ones(2))[1], atol=0.3)


def test_no_action_is_infinite():
    """Its density is zero."""
    assert linear_policy(Unbounded(2)).log_prob(jnp.ones(3), jnp.array([1.0, jnp.inf])) == -jnp.inf
