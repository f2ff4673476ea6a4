"""How many candidates an improvement step draws: a fixed number, or one that follows the diagnostics.

The paper's Remark 1 leaves an adaptive number to future work. The error of a self-normalised estimate goes with
1/√(effective sample size), and Theorem 2 bounds the policy's by exp(¾ D_4)/√N; both ask for more candidates the further
the target is from the proposal. The schedule's error budget is a number of effective candidates,

    N · ESS/N ≥ budget,

where ESS/N is a running average over steps and states: a Rényi divergence of order 2 in place of 4, since an estimate
of D_4 from N candidates cannot exceed (4/3) log N and is far noisier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..checks import error
from ..fields import Count, Positive, check_fields, checked

T = TypeVar("T")
SIZES = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class AdaptiveCandidates:
    """A schedule of the number of candidates: the smallest size N with N · ESS/N ≥ budget, or the largest.

    Attributes:
        budget: effective candidates that a state must have.
        sizes: the numbers to choose from, increasing; a program is compiled for each.

    Raises:
        ValueError: for a budget that is not positive, or sizes that do not increase or start below 2.

    Example:
        >>> schedule = AdaptiveCandidates(budget=4.0)
        >>> schedule.sizes[schedule.choose(jnp.array(0.3))]  # 8 candidates are worth 2.4, 16 are worth 4.8
        16
    """

    budget: Positive = 4.0
    sizes: tuple[int, ...] = SIZES

    def __post_init__(self):
        check_fields(self)
        sizes = tuple(checked("sizes", size, Count) for size in self.sizes)
        if not sizes or sizes[0] < 2 or list(sizes) != sorted(set(sizes)):
            raise error("sizes", f"{self.sizes}", "whole numbers of at least 2, increasing", "pass for example (4, 8)")
        object.__setattr__(self, "sizes", sizes)

    def choose(self, ess: Float[Array, ""]) -> Int[Array, ""]:
        """Return which of the sizes the next step is to have, given the running average of ESS/N, at first zero."""
        enough = jnp.asarray(self.sizes[:-1], ess.dtype) * ess >= self.budget
        return jnp.sum(~enough, dtype=jnp.int32)


@runtime_checkable
class Schedule(Protocol):
    """A rule for the number of candidates: `AdaptiveCandidates`, or one of your own."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers to choose from."""
        ...

    def choose(self, ess: Float[Array, ""]) -> Int[Array, ""]:
        """Return which of the sizes the next step is to have, given the running average of ESS/N."""
        ...


def at_size(schedule: int | Schedule, ess: Float[Array, ""], step: Callable[[int], T]) -> tuple[T, Float[Array, ""]]:
    """Make an improvement step with as many candidates as the schedule says.

    Only the chosen size is computed. Under `vmap` JAX would compute all of them: go over runs with `jax.lax.map`.

    Args:
        schedule: a number of candidates, or a rule that chooses one.
        ess: running average of ESS/N, from `running_ess`, shape ().
        step: the step, N ↦ results whose shapes do not depend on N.

    Returns:
        The results, and N, shape ().
    """
    if isinstance(schedule, int):
        return step(schedule), jnp.asarray(schedule, ess.dtype)
    index = schedule.choose(ess)
    results = jax.lax.switch(index, [partial(step, n) for n in schedule.sizes])
    return results, jnp.asarray(schedule.sizes, ess.dtype)[index]
