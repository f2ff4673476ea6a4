"""Units taken from the data: what the critics see has mean zero and variance one, whatever the task's own units are."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .checks import error

MEMORY = 8  # the moments forget what is older than about a ninth of the time elapsed
SMALLEST = 1e-6  # standard deviation, also over the mean, below which a component does not move: it is rounding


class Moments(eqx.Module):
    """Running mean and standard deviation of a vector, or of a number where d is absent.

    Attributes:
        mean: running mean.
        scale: running standard deviation, positive.
        limit: bound on the absolute value of what is normalised; None: none.

    Raises:
        ValueError: for a limit that is not positive.
    """

    mean: Float[Array, "*d"]
    scale: Float[Array, "*d"]
    limit: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.limit is not None and not self.limit > 0:
            raise error("limit", f"{self.limit}", "a number above 0, or None", "pass a number such as 10.0")

    def update(self, batch: Float[Array, "b *d"], rate: Float[Array, ""]) -> "Moments":
        """Move both toward those of a batch by a rate in [0, 1].

        A component that does not move in the batch keeps its scale, one at first: if it did not, its first movement
        would be millions of standard deviations.
        """
        center, deviation = jnp.mean(batch, axis=0), jnp.std(batch, axis=0)
        moves = deviation > SMALLEST * jnp.maximum(1.0, jnp.abs(center))
        mean = self.mean + rate * (center - self.mean)
        scale = self.scale + rate * (jnp.where(moves, deviation, self.scale) - self.scale)
        return Moments(mean, scale, self.limit)

    def normalise(self, value: Float[Array, "*d"]) -> Float[Array, "*d"]:
        """Return (value − mean) / scale, within the limit."""
        normal = (value - self.mean) / self.scale
        return normal if self.limit is None else jnp.clip(normal, -self.limit, self.limit)

    def restore(self, value: Float[Array, "*d"]) -> Float[Array, "*d"]:
        """Undo `normalise` where no limit was in force."""
        return self.mean + self.scale * value


def standard(*shape: int, limit: float | None = None) -> Moments:
    """Return mean zero and scale one, of a shape."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), limit)


def join(*parts: Moments) -> Moments:
    """Return the moments of vectors put one after the other, without their limits."""
    return Moments(jnp.concatenate([part.mean for part in parts]), jnp.concatenate([part.scale for part in parts]))


def forgetting_rate(step: Float[Array, ""], settled: float) -> Float[Array, ""]:
    """Return the weight (k + 1)/(t + 1 + k), k = 8, of the batch number t, counted from zero, until units are settled.

    Early batches are forgotten, for they stem from an untrained policy; late ones are averaged over an ever longer
    time (polynomial-decay averaging, Shamir and Zhang 2013). Once settled the units stay: a policy whose learning rate
    falls could no longer follow them.
    """
    return jnp.where(step < settled, (MEMORY + 1) / (step + 1 + MEMORY), 0.0)


def settled(updates: int | None) -> float:
    """Return the number of updates after which units no longer change: half of a planned training's."""
    return math.inf if updates is None else updates / 2
