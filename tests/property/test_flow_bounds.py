"""Action spaces, for any bounds and latents."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from entroflow.flow import Box

numbers = st.floats(-100.0, 100.0, width=32)
latents = st.lists(st.floats(-5.0, 5.0, width=32), min_size=2, max_size=2)


@jax.jit
def round_trip(low, high, latent):
    box = Box(low, high)
    action = box.to_action(latent)
    return action, box.from_action(action)


@given(low=st.lists(numbers, min_size=2, max_size=2), side=st.floats(0.125, 100.0, width=32), latent=latents)
def test_box_round_trip(low, side, latent):
    """A latent comes back from its action, up to what rounding took near the bounds; the action is in the box."""
    low, latent = jnp.array(low, jnp.float32), jnp.array(latent, jnp.float32)
    high = low + jnp.float32(side)
    action, returned = round_trip(low, high, latent)
    assert bool(jnp.all((low <= action) & (action <= high)))
    # One rounding of the action, in half-widths, is amplified by the inverse's slope cosh²(u).
    rounding = 4 * np.finfo(np.float32).eps * (1 + (np.abs(low) + np.abs(high)) / side)
    slack = rounding * np.cosh(np.asarray(latent, np.float64)) ** 2
    trusted = slack < 0.2
    assert np.all(np.abs(returned - latent)[trusted] <= 2 * slack[trusted] + 1e-5)


@given(latent=latents)
def test_reflecting_the_latent_reflects_the_action(latent):
    """The map is odd about the centre of a symmetric box."""
    latent, low = jnp.array(latent, jnp.float32), jnp.array([-2.0, -0.5])
    there, back = round_trip(low, -low, latent)[0], round_trip(low, -low, -latent)[0]
    np.testing.assert_allclose(there, -back, rtol=1e-6, atol=1e-6)
