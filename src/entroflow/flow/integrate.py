"""Solvers for dx/dτ = v(x, τ) together with an integral ∫ ρ(x_τ, τ) dτ along the path.

The integral does not act back on x. Hence an explicit Runge–Kutta step needs the rate ρ only at the stages that enter
its final sum: one divergence per midpoint step, although the step evaluates the velocity twice.

A solver is a value; `FlowPolicy` takes it as an argument. `start` and `end` may come in either order, and integrating
from 1 to 0 undoes, up to the solver's error, what integrating from 0 to 1 did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checks import choice
from ..fields import Count, Positive, check_fields

Velocity = Callable[[Array, Array], Array]
VelocityAndRate = Callable[[Array, Array], tuple[Array, Array]]


class Tableau(NamedTuple):
    """Butcher tableau of an explicit Runge–Kutta scheme with step h.

    Attributes:
        c: times of the stages, τ + c_i h.
        a: rows a_i, which sum up earlier slopes to the stages' points.
        b: weights of the slopes in the final sum.
        order: order of the error.
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int


TABLEAUS = {
    "euler": Tableau((0.0,), ((),), (1.0,), 1),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), 2),
    "heun": Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), 2),
    "rk4": Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
}


@runtime_checkable
class Solver(Protocol):
    """An integrator of one trajectory."""

    def solve(
        self, velocity: Velocity, x: Float[Array, " d"], *, start: float = 0.0, end: float = 1.0
    ) -> Float[Array, " d"]:
        """Return the point that x is carried to.

        Args:
            velocity: (x, τ) ↦ v, shape (d,).
            x: the point at the time `start`, shape (d,).
            start: time of x.
            end: time to integrate to.

        Returns:
            The point at the time `end`, shape (d,).
        """
        ...

    def solve_with_integral(
        self,
        velocity: Velocity,
        velocity_and_rate: VelocityAndRate,
        x: Float[Array, " d"],
        *,
        start: float = 0.0,
        end: float = 1.0,
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Return that point and the integral of the rate along the path from `start` to `end`.

        Args:
            velocity: (x, τ) ↦ v, shape (d,).
            velocity_and_rate: (x, τ) ↦ (v, ρ), shapes (d,) and ().
            x: the point at the time `start`, shape (d,).
            start: time of x.
            end: time to integrate to.

        Returns:
            The point at the time `end`, shape (d,), and the integral, shape ().
        """
        ...


@dataclass(frozen=True)
class RungeKutta:
    """A fixed number of explicit Runge–Kutta steps, in one `lax.scan`; differentiable in both modes.

    The steps begin at τ_k = 1 − (1 − k/n)^p. A flow that makes a sharp density of the noise contracts ever faster,
    until 1 − τ is as small as the density is wide: equal steps, p = 1, are too long there and needlessly short before.

    Args:
        method: "euler" (order 1), "midpoint" or "heun" (order 2, as in the paper) or "rk4" (order 4).
        steps: number of steps n.
        grading: the power p; above one, steps become shorter toward τ = 1.

    Raises:
        ValueError: for an unknown method, fewer than one step, or a power that is not positive.

    Example:
        >>> x = RungeKutta("rk4", steps=8).solve(lambda x, time: -x, jnp.ones(1))
        >>> f"{x[0]:.4f}"  # exp(-1)
        '0.3679'
    """

    method: str = "midpoint"
    steps: Count = 8
    grading: Positive = 1.0

    def __post_init__(self):
        choice("method", self.method, TABLEAUS)
        check_fields(self)

    def solve(
        self, velocity: Velocity, x: Float[Array, " d"], *, start: float = 0.0, end: float = 1.0
    ) -> Float[Array, " d"]:
        """Return the point that x is carried to, see `Solver.solve`."""
        return jax.lax.scan(self._step(velocity, None), (x, None), self._steps(start, end, x))[0][0]

    def solve_with_integral(
        self,
        velocity: Velocity,
        velocity_and_rate: VelocityAndRate,
        x: Float[Array, " d"],
        *,
        start: float = 0.0,
        end: float = 1.0,
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Return that point and the integral of the rate, see `Solver.solve_with_integral`."""
        begun = x, jnp.zeros((), x.dtype)
        return jax.lax.scan(self._step(velocity, velocity_and_rate), begun, self._steps(start, end, x))[0]

    def _step(self, velocity: Velocity, velocity_and_rate: VelocityAndRate | None) -> Callable[..., Any]:
        """Return one step, of the point and of the integral, if there is a rate to integrate."""
        tableau = TABLEAUS[self.method]

        def step(carry: tuple[Array, Any], begins_and_lasts: tuple[Array, Array]) -> tuple[tuple[Array, Any], None]:
            (x, integral), (time, h) = carry, begins_and_lasts
            slopes, increment = [], 0.0
            for c, row, b in zip(tableau.c, tableau.a, tableau.b, strict=True):
                stage = x + h * sum(a * slope for a, slope in zip(row, slopes, strict=True) if a) if any(row) else x
                if b and velocity_and_rate is not None:
                    slope, rate = velocity_and_rate(stage, time + c * h)
                    integral = integral + h * b * rate
                else:
                    slope = velocity(stage, time + c * h)
                increment = increment + b * slope if b else increment
                slopes.append(slope)
            return (x + h * increment, integral), None

        return step

    def _steps(self, start: float, end: float, x: Array) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Return the times at which the steps begin, and their lengths; backwards they are undone one by one."""
        times = min(start, end) + abs(end - start) * (1 - (1 - np.linspace(0, 1, self.steps + 1)) ** self.grading)
        times = times if start < end else times[::-1]
        return jnp.asarray(times[:-1], x.dtype), jnp.asarray(np.diff(times), x.dtype)


@dataclass(frozen=True)
class AdaptiveSolver:
    """Diffrax's embedded Runge–Kutta schemes with error control, for evaluation; differentiable in reverse mode.

    Args:
        rtol: relative tolerance of each step.
        atol: absolute tolerance of each step.
        method: "dopri5" (Dormand and Prince) or "tsit5" (Tsitouras), both of order 5.
        max_steps: number of steps after which the solve is an error.

    Raises:
        ValueError: for an unknown method, a tolerance that is not positive or fewer than one step.

    Example:
        >>> x = AdaptiveSolver(rtol=1e-5).solve(lambda x, time: -x, jnp.ones(1))
        >>> f"{x[0]:.4f}"  # exp(-1)
        '0.3679'
    """

    rtol: Positive = 1e-6
    atol: Positive = 1e-6
    method: str = "dopri5"
    max_steps: Count = 4096

    def __post_init__(self):
        choice("method", self.method, ("dopri5", "tsit5"))
        check_fields(self)

    def solve(
        self, velocity: Velocity, x: Float[Array, " d"], *, start: float = 0.0, end: float = 1.0
    ) -> Float[Array, " d"]:
        """Return the point that x is carried to, see `Solver.solve`."""
        return self._solve(velocity, x, start, end)

    def solve_with_integral(
        self,
        velocity: Velocity,
        velocity_and_rate: VelocityAndRate,
        x: Float[Array, " d"],
        *,
        start: float = 0.0,
        end: float = 1.0,
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Return both, under one error control, see `Solver.solve_with_integral`."""
        del velocity
        return self._solve(lambda y, time: velocity_and_rate(y[0], time), (x, jnp.zeros((), x.dtype)), start, end)

    def _solve(self, rates: Callable[[Any, Array], Any], initial: Any, start: float, end: float) -> Any:
        import diffrax  # here, since it takes a second to import and only this solver needs it

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda time, y, _: rates(y, jnp.asarray(time))),
            diffrax.Dopri5() if self.method == "dopri5" else diffrax.Tsit5(),
            t0=start,
            t1=end,
            dt0=None,
            y0=initial,
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=self.max_steps,
        )
        assert solution.ys is not None
        return jax.tree.map(lambda y: y[0], solution.ys)
