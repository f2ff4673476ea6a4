"""Solvers: orders of convergence, reversibility, cost, derivatives, and Diffrax as the independent reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import AdaptiveSolver, RungeKutta
from entroflow.flow.integrate import TABLEAUS


def velocity(x, time):
    """A nonlinear, rotating, time-dependent field in the plane."""
    return jnp.stack([jnp.sin(2 * x[1]) + time * x[0], jnp.cos(3 * time) - jnp.tanh(x[0]) * x[1]])


def rate(x, time):
    """Its divergence, by hand."""
    return time - jnp.tanh(x[0])


def with_rate(x, time):
    return velocity(x, time), rate(x, time)


START = np.array([-0.7, -0.4])


@pytest.fixture(scope="module")
def reference():
    """The end point and the integral of the divergence, by Diffrax in double precision."""
    with jax.enable_x64(True):
        point, integral = AdaptiveSolver(1e-10, 1e-10, "tsit5").solve_with_integral(
            velocity, with_rate, jnp.array(START)
        )
    return np.append(point, integral)


@pytest.mark.parametrize(("method", "grading"), [*((method, 1.0) for method in TABLEAUS), ("rk4", 1.5), ("heun", 2.0)])
def test_order_of_convergence(method, grading, reference):
    """The error of point and integral falls with the number of steps at the order of the scheme."""
    steps = [8, 16, 32, 64]
    with jax.enable_x64(True):
        solvers = [RungeKutta(method, n, grading) for n in steps]
        solutions = [solver.solve_with_integral(velocity, with_rate, jnp.array(START)) for solver in solvers]
    errors = [np.linalg.norm(np.append(point, integral) - reference) for point, integral in solutions]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    np.testing.assert_allclose(-slope, TABLEAUS[method].order, atol=0.2)


@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_adaptive_keeps_its_tolerance(method, reference):
    """At a tolerance of 1e-8 both Diffrax schemes agree with the reference to 1e-7, and so does a fine RK4."""
    with jax.enable_x64(True):
        for solver in (AdaptiveSolver(1e-8, 1e-8, method), RungeKutta("rk4", 128)):
            solution = solver.solve_with_integral(velocity, with_rate, jnp.array(START))
            np.testing.assert_allclose(np.append(*solution), reference, rtol=0, atol=1e-7)
            np.testing.assert_allclose(solver.solve(velocity, jnp.array(START)), reference[:2], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "solver", [RungeKutta("midpoint", 64), RungeKutta("rk4", 16), AdaptiveSolver(1e-6, 1e-6)], ids=str
)
def test_backward_undoes_forward(solver):
    """From 1 to 0 the point returns, and the integral changes its sign."""
    end, forward = solver.solve_with_integral(velocity, with_rate, jnp.asarray(START, jnp.float32))
    start, backward = solver.solve_with_integral(velocity, with_rate, end, start=1.0, end=0.0)
    assert abs(float(forward)) > 0.1
    np.testing.assert_allclose(start, START, atol=5e-4)
    np.testing.assert_allclose(backward, -forward, atol=5e-4)


def test_divergence_is_evaluated_only_where_it_counts():
    """Stages without weight in the final sum do not evaluate the rate: one divergence per midpoint step."""
    expected = {"euler": (0, 1), "midpoint": (1, 1), "heun": (0, 2), "rk4": (0, 4)}
    for method, counts in expected.items():
        plain, both = [], []

        def count_velocity(x, time, calls=plain):
            calls.append(time)
            return velocity(x, time)

        def count_both(x, time, calls=both):
            calls.append(time)
            return with_rate(x, time)

        solver = RungeKutta(method, 4)
        jax.make_jaxpr(lambda x, s=solver, a=count_velocity, b=count_both: s.solve_with_integral(a, b, x))(START)
        traces = 1 if len(plain) + len(both) == sum(counts) else 2  # scan may trace its body twice
        assert (len(plain), len(both)) == (traces * counts[0], traces * counts[1])


def test_graded_steps_are_those_of_their_formula():
    """Euler's steps through v = 2τ end at Σ 2 τ_k (τ_{k+1} − τ_k), forward, and backward at − Σ 2 τ_{k+1} (…)."""
    times = 1 - (1 - np.arange(5) / 4) ** 1.5
    solver, line = RungeKutta("euler", 4, grading=1.5), lambda x, time: 2 * time * jnp.ones_like(x)
    there, back = solver.solve(line, jnp.zeros(1)), solver.solve(line, jnp.zeros(1), start=1.0, end=0.0)
    np.testing.assert_allclose(there[0], np.sum(2 * times[:-1] * np.diff(times)), rtol=1e-6)
    np.testing.assert_allclose(back[0], -np.sum(2 * times[1:] * np.diff(times)), rtol=1e-6)


@pytest.mark.parametrize("width", [0.3, 0.1, 0.05])
def test_graded_steps_contract_better(width):
    """From N(0, 1) to N(0, width²) along the straight path the flow multiplies by the width: log of the width is told.

    With as many equal steps the error is more than three times as large.
    """

    def contract(x, time):
        rate = (width**2 * time - (1 - time)) / ((1 - time) ** 2 + (width * time) ** 2)
        return rate * x, rate

    def error(grading):
        solver = RungeKutta("rk4", 6, grading)
        point, integral = solver.solve_with_integral(lambda x, time: contract(x, time)[0], contract, jnp.ones(1))
        assert float(point[0]) > 0
        return max(abs(float(jnp.log(point[0])) - np.log(width)), abs(float(integral) - np.log(width)))

    assert 3 * error(1.5) < error(1.0)


def test_forward_and_reverse_mode_agree():
    """Fixed steps can be differentiated in both modes, with the derivative of the flow: it carries tangents along."""

    def solve(x):
        return jnp.append(*RungeKutta("rk4", 8).solve_with_integral(velocity, with_rate, x))

    x = jnp.asarray(START, jnp.float32)
    forward, reverse = jax.jacfwd(solve)(x), jax.jacrev(solve)(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-5)
    # Liouville: log det of the flow's Jacobian is the integral of the divergence.
    np.testing.assert_allclose(jnp.linalg.slogdet(forward[:2])[1], solve(x)[2], atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RungeKutta("midpoint", 0), "steps"),
        (lambda: RungeKutta("midpiont"), "did you mean 'midpoint'"),
        (lambda: AdaptiveSolver(rtol=0.0), "rtol"),
        (lambda: AdaptiveSolver(atol=-1.0), "atol"),
        (lambda: AdaptiveSolver(method="rk4"), "dopri5"),
        (lambda: AdaptiveSolver(max_steps=0), "max_steps"),
    ],
)
def test_bad_solvers_are_refused(make, message):
    """Impossible solvers are refused with a sentence that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        make()
