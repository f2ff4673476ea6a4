"""How many candidates an improvement step draws: a fixed number, or one that follows the diagnostics.

The paper's Remark 1 leaves an adaptive number to future work. Ours is the norm test of adaptive stochastic gradient
methods (Byrd et al. 2012): the noise of a step stays below a given share of its length. Near the target the squared
length of a step goes with KL(π_k‖π_new), and the variance of its noise with 1/(N · ESS/N), so that

    noise / signal = 1 / (N · (ESS/N) · KL) ≤ 1 / budget.

Few candidates serve while the policy is far from its target, where any of them shows the way; many once it is near,
where noise is all that is left. Theorem 2 suggests the opposite, many for a large D_4, since it bounds the error of
one fit to one sample, and not that of many small steps, each with new candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..checks import error, positive_int, positive_number
from .weights import Diagnostics

T = TypeVar("T")
SIZES = (4, 8, 16, 32, 64)
MEMORY = 0.05  # weight of the newest step in the running average of (ESS/N) · KL


@dataclass(frozen=True)
class Adaptive:
    """A schedule of the number of candidates: the smallest size N with N · (ESS/N) · KL ≥ budget, or the largest.

    Attributes:
        budget: signal over noise that a step must have.
        sizes: the numbers to choose from, increasing; a program is compiled for each.

    Raises:
        ValueError: for a budget that is not positive, or sizes that do not increase or start below 2.
    """

    budget: float = 0.1
    sizes: tuple[int, ...] = SIZES

    def __post_init__(self):
        positive_number("budget", self.budget)
        sizes = [positive_int("sizes", size) for size in self.sizes]
        if not sizes or sizes[0] < 2 or sizes != sorted(set(sizes)):
            raise error("sizes", f"{self.sizes}", "whole numbers of at least 2, increasing", "pass for example (4, 8)")

    def choose(self, signal: Float[Array, ""]) -> Int[Array, ""]:
        """Return which of the sizes the next step is to have.

        Args:
            signal: running average of (ESS/N) · KL, zero before the first step, shape ().

        Returns:
            The index of the size, shape ().
        """
        enough = jnp.asarray(self.sizes[:-1], signal.dtype) * signal >= self.budget
        return jnp.sum(~enough, dtype=jnp.int32)


Schedule = int | Adaptive


def at_size(schedule: Schedule, signal: Float[Array, ""], improve: Callable[[int], T]) -> tuple[T, Float[Array, ""]]:
    """Make an improvement step with as many candidates as the schedule says.

    Only the chosen size is computed. Under `vmap` JAX would compute all of them: go over runs with `jax.lax.map`.

    Args:
        schedule: a number of candidates, or a rule that chooses one.
        signal: running average of (ESS/N) · KL, from `follow`, shape ().
        improve: the step, N ↦ results whose shapes do not depend on N.

    Returns:
        The results, and N, shape ().
    """
    if isinstance(schedule, int):
        return improve(schedule), jnp.asarray(schedule, signal.dtype)
    index = schedule.choose(signal)
    results = jax.lax.switch(index, [partial(improve, n) for n in schedule.sizes])
    return results, jnp.asarray(schedule.sizes, signal.dtype)[index]


def follow(signal: Float[Array, ""], step: Float[Array, ""], diagnostics: Diagnostics) -> Float[Array, ""]:
    """Return the running average of (ESS/N) · KL after a step.

    Args:
        signal: the average before the step, zero at first, shape ().
        step: number of steps before this one, shape ().
        diagnostics: of the step, averaged over its states, fields of shape ().

    Returns:
        The average, shape ().
    """
    rate = jnp.maximum(MEMORY, 1 / (1 + step))
    return signal + rate * (diagnostics.ess * diagnostics.kl - signal)
