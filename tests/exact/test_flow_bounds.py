"""Action spaces: log-determinants, inverses, and numbers at and beyond the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box, Unbounded

SPACES = {
    "unbounded": Unbounded(3, center=jnp.array([1.0, 0.0, -2.0]), scale=jnp.array([0.5, 2.0, 3.0])),
    "box": Box(jnp.array([-1.0, 0.0, -3.0]), jnp.array([1.0, 5.0, -2.0])),
}


@pytest.mark.parametrize("name", SPACES)
def test_log_det_is_that_of_the_jacobian(name):
    """log_det is log|det| of the map's Jacobian by automatic differentiation."""
    space = SPACES[name]
    latents = jax.random.normal(jax.random.key(1), (20, 3))
    jacobians = jax.vmap(jax.jacfwd(space.to_action))(latents)
    expected = jnp.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(jax.vmap(space.log_det)(latents), expected, rtol=1e-5, atol=2e-5)


def test_unbounded_is_affine():
    """The default map is the identity; otherwise a = center + scale ∘ u."""
    latent = jnp.array([0.5, -1.0])
    np.testing.assert_array_equal(Unbounded(2).to_action(latent), latent)
    action = Unbounded(2, center=1.0, scale=2.0).to_action(latent)
    np.testing.assert_allclose(action, [2.0, -1.0])


def test_box_is_safe_at_and_beyond_the_bounds():
    """Extreme latents stay inside of the box, with finite log-determinants; bounds have finite latents."""
    box = Box(jnp.array([-0.1, 0.3]), jnp.array([0.3, 0.9]))
    for value in (10.0, -10.0, 1e4, -1e4, 1e30):
        latent = jnp.full((2,), value)
        action = box.to_action(latent)
        assert bool(jnp.all((box.low <= action) & (action <= box.high)))
        assert bool(jnp.isfinite(box.log_det(latent)))
        assert bool(jnp.all(jnp.isfinite(jax.grad(box.log_det)(latent))))
    for action in (box.low, box.high, box.high + 1.0):
        latent = box.from_action(action)
        assert bool(jnp.all(jnp.isfinite(latent)))
        assert float(jnp.max(jnp.abs(latent))) > 7.0


def test_box_log_det_far_out_follows_its_asymptote():
    """For large |u| the derivative of h tanh(u) is 4 h exp(−2|u|), where 1 − tanh² would round to zero."""
    box = Box(jnp.array([-2.0]), jnp.array([2.0]))
    for u in (15.0, -15.0):
        np.testing.assert_allclose(box.log_det(jnp.array([u])), np.log(4 * 2.0) - 30.0, rtol=1e-6)


def test_bounds_take_no_gradient():
    """The spaces' arrays are constants: no gradient reaches them."""
    latent = jnp.array([0.3, -0.4, 1.0])
    for space in SPACES.values():

        def total(space):
            action = space.to_action(latent)
            return jnp.sum(action) + space.log_det(latent) + jnp.sum(space.from_action(0.9 * action))

        for gradient in jax.tree.leaves(jax.grad(total)(space)):
            np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0])), "low < high"),
        (lambda: Box(jnp.array([0.0]), jnp.array([jnp.inf])), "use Unbounded"),
        (lambda: Box(jnp.array([jnp.nan]), jnp.array([1.0])), "finite"),
        (lambda: Box(jnp.array([0.0, 0.0]), jnp.array([1.0, 1.0, 1.0])), "shape"),
        (lambda: Box(jnp.zeros((2, 2)), jnp.ones((2, 2))), "shape"),
        (lambda: Unbounded(0), "above 0"),
        (lambda: Unbounded(2, scale=0.0), "positive"),
        (lambda: Unbounded(2, center=jnp.zeros(3)), "shape"),
    ],
)
def test_bad_spaces_are_refused(make, message):
    """Impossible action spaces are refused with a sentence that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        make()
