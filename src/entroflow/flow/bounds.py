"""Action spaces: maps from the flow's unbounded latent u ∈ R^d to actions and back, with log-determinant.

log π(a|s) = log π_u(u|s) − log |det ∂a/∂u|. The spaces' arrays are constants: no gradient reaches them.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from ..checks import error, positive_int

CLIP = 1e-6  # of the box's half-width, kept away from the bounds by `Box.from_action`


@runtime_checkable
class ActionSpace(Protocol):
    """A smooth one-to-one map between R^d and the actions."""

    @property
    def size(self) -> int:
        """Number of components d."""
        ...

    def to_action(self, latent: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the action of a latent."""
        ...

    def from_action(self, action: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the latent of an action."""
        ...

    def log_det(self, latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log |det ∂a/∂u| at a latent."""
        ...

    def contains(self, action: Float[Array, " d"]) -> Bool[Array, ""]:
        """Return whether an action is one of the space, bounds included."""
        ...


class Unbounded(eqx.Module):
    """All of R^d, by the affine map a = center + scale ∘ u.

    Args:
        size: number of components d.
        center: action at u = 0, a number or shape (d,).
        scale: action's change for a unit change of u, positive, a number or shape (d,).

    Raises:
        ValueError: for a size below one, or a centre or scale that is not finite, not positive or of another shape.

    Example:
        >>> space = Unbounded(2, center=1.0, scale=np.array([1.0, 2.0]))
        >>> space.to_action(jnp.array([0.0, 3.0])), f"{space.log_det(jnp.zeros(2)):.3f}"
        (Array([1., 7.], dtype=float32), '0.693')
    """

    center: Float[Array, " d"]
    scale: Float[Array, " d"]

    def __init__(self, size: int, center: ArrayLike = 0.0, scale: ArrayLike = 1.0):
        positive_int("size", size)
        self.center = _vector("center", center, size)
        self.scale = _vector("scale", scale, size)
        if _known(self.scale) and not np.all(np.asarray(self.scale) > 0):
            raise error("scale", f"{np.asarray(self.scale)}", "positive numbers", "pass for example 1.0")

    @property
    def size(self) -> int:
        """Number of components d."""
        return self.center.shape[-1]

    def to_action(self, latent: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return center + scale ∘ u."""
        return jax.lax.stop_gradient(self.center) + jax.lax.stop_gradient(self.scale) * latent

    def from_action(self, action: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return (a − center) / scale."""
        return (action - jax.lax.stop_gradient(self.center)) / jax.lax.stop_gradient(self.scale)

    def contains(self, action: Float[Array, " d"]) -> Bool[Array, ""]:
        """Return that every action is one of the space."""
        return jnp.all(jnp.isfinite(action))

    def log_det(self, latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Σ log scale, the same at every latent."""
        del latent
        return jnp.sum(jnp.log(jax.lax.stop_gradient(self.scale)))


class Box(eqx.Module):
    """The box low < a < high, by a = centre + half-width ∘ tanh(u).

    Args:
        low: lower bounds, shape (d,).
        high: upper bounds, shape (d,).

    Raises:
        ValueError: if the bounds are not finite vectors of one shape with low < high everywhere.

    Example:
        >>> box = Box(np.array([-1.0, 0.0]), np.array([1.0, 4.0]))
        >>> box.to_action(jnp.zeros(2)), box.from_action(jnp.array([0.0, 2.0]))
        (Array([0., 2.], dtype=float32), Array([0., 0.], dtype=float32))
    """

    low: Float[Array, " d"]
    high: Float[Array, " d"]

    def __init__(self, low: ArrayLike, high: ArrayLike):
        size = np.size(low)
        self.low, self.high = _vector("low", low, size), _vector("high", high, size)
        if _known(self.low) and _known(self.high) and not np.all(np.asarray(self.low) < np.asarray(self.high)):
            given = f"low = {np.asarray(self.low)} and high = {np.asarray(self.high)}"
            raise error("bounds", given, "low < high in every component", "swap them, or drop constant components")

    @property
    def size(self) -> int:
        """Number of components d."""
        return self.low.shape[-1]

    def to_action(self, latent: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return centre + half-width ∘ tanh(u), never outside of the box, not even by rounding."""
        center, half_width = self._center_and_half_width()
        action = center + half_width * jnp.tanh(latent)
        return jnp.clip(action, jax.lax.stop_gradient(self.low), jax.lax.stop_gradient(self.high))

    def from_action(self, action: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return artanh((a − centre) / half-width), of an action moved to at least 1e-6 half-widths from the bounds.

        At a bound the latent is infinite, and close to it rounding has lost it: keep the latent where it must be exact.
        """
        center, half_width = self._center_and_half_width()
        return jnp.arctanh(jnp.clip((action - center) / half_width, -1 + CLIP, 1 - CLIP))

    def log_det(self, latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Σ_i [log h_i + 2 (log 2 − u_i − softplus(−2 u_i))], h the half-width.

        This form of log(1 − tanh²) neither overflows nor cancels, however large |u| is.
        """
        _, half_width = self._center_and_half_width()
        return jnp.sum(jnp.log(half_width) + 2 * (jnp.log(2.0) - latent - jax.nn.softplus(-2 * latent)))

    def contains(self, action: Float[Array, " d"]) -> Bool[Array, ""]:
        """Return whether an action is in the box, bounds included."""
        return jnp.all((self.low <= action) & (action <= self.high))

    def _center_and_half_width(self) -> tuple[Array, Array]:
        low, high = jax.lax.stop_gradient(self.low), jax.lax.stop_gradient(self.high)
        return 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low


def _vector(name: str, value: ArrayLike, size: int) -> Float[Array, " d"]:
    """Return the value as a vector of finite floats, a number repeated."""
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != size):
        raise error(name, f"shape {array.shape}", f"shape ({size},)", "give every action component one number")
    if _known(array) and not np.all(np.isfinite(np.asarray(array))):
        raise error(name, f"{np.asarray(array)}", "finite numbers", "use Unbounded for actions without bounds")
    return jnp.broadcast_to(array, (size,))


def _known(array: Array) -> bool:
    """Whether the values can be looked at, which they cannot while JAX traces."""
    return not isinstance(array, Tracer)
