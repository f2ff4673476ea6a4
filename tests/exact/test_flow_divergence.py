"""Divergences: closed form, Jacobian-vector products and Hutchinson agree."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Hutchinson, VelocityNetwork, exact_divergence, hutchinson_divergence


def strong_network(key, action_size=3, width=8):
    """A network whose flow is far from the identity: every parameter scaled up, the shrunk ones most."""
    network = VelocityNetwork(2, action_size, width=width, depth=1, key=key)
    return jax.tree.map(lambda leaf: 3.0 * jax.random.normal(key, leaf.shape) / leaf.shape[-1] ** 0.5, network)


@pytest.fixture(scope="module")
def fields():
    """Velocity and divergence at many points and times, by closed form and by automatic differentiation."""
    network = strong_network(jax.random.key(3))
    points = jax.random.normal(jax.random.key(4), (50, 3))
    times = jax.random.uniform(jax.random.key(5), (50,))
    obs = jax.random.normal(jax.random.key(6), (50, 2))

    @jax.jit
    @jax.vmap
    def evaluate(x, time, s):
        context = network.condition(s)
        velocity = lambda y: network(y, time, context)  # noqa: E731
        jacobian = jax.jacrev(velocity)(x)
        closed = network.with_divergence(x, time, context)
        basis = jnp.sqrt(3.0) * jnp.eye(3)
        return velocity(x), jacobian, closed, exact_divergence(velocity, x), hutchinson_divergence(velocity, x, basis)

    return evaluate(points, times, obs)


def test_all_divergences_are_the_trace_of_the_jacobian(fields):
    """The closed form, the sum of JVPs and Hutchinson with the scaled basis as probes are tr ∂v/∂x."""
    velocity, jacobian, *estimates = fields
    trace = jnp.trace(jacobian, axis1=1, axis2=2)
    assert float(jnp.std(trace)) > 1.0  # the test would not see much otherwise
    for value, divergence in estimates:
        np.testing.assert_allclose(value, velocity, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(divergence, trace, rtol=1e-4, atol=1e-4)


def test_network_starts_near_the_identity_flow():
    """A new network moves points of a standard normal by little, so that the first policy is nearly N(0, I)."""
    network = VelocityNetwork(2, 3, width=32, depth=2, key=jax.random.key(0))
    obs, x = jax.random.normal(jax.random.key(1), (100, 2)), jax.random.normal(jax.random.key(2), (100, 3))
    velocity = jax.vmap(lambda s, x: network(x, jnp.float32(0.5), network.condition(s)))(obs, x)
    assert float(jnp.max(jnp.abs(velocity))) < 0.05


def test_state_and_time_interact():
    """Even the shift c3 alone, without the layers in x, is no sum of a function of the state and one of the time."""
    network = eqx.tree_at(lambda n: n.last.weight, strong_network(jax.random.key(7)), jnp.zeros((3, 8)))
    velocity = lambda s, t: network(jnp.zeros(3), jnp.float32(t), network.condition(jnp.full((2,), s)))  # noqa: E731
    mixed = velocity(1.0, 1.0) - velocity(1.0, 0.0) - velocity(0.0, 1.0) + velocity(0.0, 0.0)
    assert float(jnp.max(jnp.abs(mixed))) > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hutchinson(probes=0), "probes"),
        (lambda: Hutchinson(distribution="uniform"), "rademacher"),
        (lambda: VelocityNetwork(2, 1, width=0, key=jax.random.key(0)), "width"),
        (lambda: VelocityNetwork(2, 0, key=jax.random.key(0)), "action_size"),
        (lambda: VelocityNetwork(0, 1, key=jax.random.key(0)), "obs_size"),
        (lambda: VelocityNetwork(2, 1, depth=0, key=jax.random.key(0)), "depth"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    """Impossible sizes and unknown names are refused with a sentence that names them."""
    with pytest.raises(ValueError, match=message):
        make()
