"""Divergence tr ∂v/∂x of a velocity field: closed form, exact by Jacobian-vector products, or Hutchinson's estimate.

A method is a value that `FlowPolicy` takes as an argument: given a velocity field, the context of a state and a key,
it returns a function of (x, τ) that gives the velocity and its divergence. What the functions have in common:

Args:
    field: a field f, from shape (d,) to (d,).
    x: the point, shape (d,).
    probes: independent vectors ε with E[ε εᵀ] = I, shape (p, d).

Returns:
    f(x), shape (d,), and its divergence or the unbiased estimate, shape ().
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..checks import choice, error, positive_int
from .velocity import VelocityAndDivergence, VelocityField


def exact_divergence(
    field: Callable[[Array], Array], x: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Return f(x) and tr ∂f/∂x by d Jacobian-vector products, exact for any differentiable field.

    Example:
        >>> exact_divergence(lambda x: x**3, jnp.array([1.0, 2.0]))
        (Array([1., 8.], dtype=float32), Array(15., dtype=float32))
    """
    velocity, jvp = jax.linearize(field, x)
    return velocity, jnp.trace(jax.vmap(jvp)(jnp.eye(x.shape[0], dtype=x.dtype)))


def hutchinson_divergence(
    field: Callable[[Array], Array], x: Float[Array, " d"], probes: Float[Array, "p d"]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Return f(x) and Hutchinson's estimate of tr ∂f/∂x: the mean over the probes ε of εᵀ (∂f/∂x) ε."""
    velocity, jvp = jax.linearize(field, x)
    return velocity, jnp.mean(jnp.sum(probes * jax.vmap(jvp)(probes), axis=1))


@runtime_checkable
class DivergenceMethod(Protocol):
    """A way to get the divergence of a velocity field along one trajectory."""

    def __call__(self, velocity: VelocityField, context: Any, key: PRNGKeyArray | None) -> VelocityAndDivergence:
        """Return (x, τ) ↦ (v, tr ∂v/∂x); whatever is random is drawn here, once per trajectory."""
        ...


@dataclass(frozen=True)
class ExactJVP:
    """The exact divergence of any velocity field, by one Jacobian-vector product per dimension."""

    def __call__(self, velocity: VelocityField, context: Any, key: PRNGKeyArray | None) -> VelocityAndDivergence:
        """Return the field with `exact_divergence`."""
        del key
        return lambda x, time: exact_divergence(lambda y: velocity(y, time, context), x)


@dataclass(frozen=True)
class Hutchinson:
    """Hutchinson's unbiased estimate, with probes drawn once per trajectory (Grathwohl et al., *FFJORD*, 2019).

    Args:
        probes: number of probes; the standard error falls with its square root.
        distribution: of a probe's components, "rademacher" (least variance) or "gaussian".

    Raises:
        ValueError: for fewer than one probe or an unknown distribution.
    """

    probes: int = 1
    distribution: str = "rademacher"

    def __post_init__(self):
        positive_int("probes", self.probes)
        choice("distribution", self.distribution, ("rademacher", "gaussian"))

    def __call__(self, velocity: VelocityField, context: Any, key: PRNGKeyArray | None) -> VelocityAndDivergence:
        """Draw the probes and return the field with `hutchinson_divergence`."""
        if key is None:
            raise error(
                "key",
                "None",
                "a random key for Hutchinson's estimate",
                "pass key=jax.random.key(0); give a policy that is asked without, as ISFM does, ExactJVP()",
            )
        draw = jax.random.rademacher if self.distribution == "rademacher" else jax.random.normal
        shape = (self.probes, velocity.action_size)

        def with_divergence(x: Array, time: Array) -> tuple[Array, Array]:
            probes = draw(key, shape, x.dtype)
            return hutchinson_divergence(lambda y: velocity(y, time, context), x, probes)

        return with_divergence
