"""What holds of every member of the family of exact answers, for random plants in random units."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import linalg

from entroflow import lqr
from entroflow.lqr import Plant, design

from .test_lqr_design import designed, in_units, matrices, plants, units


def stage(plant: Plant, P: np.ndarray) -> tuple[np.ndarray, float]:
    """Cost and cost-to-go of (x, u) as a quadratic form and a constant; a rate in continuous time."""
    A, B, n = plant.A, plant.B, len(plant.A)
    form = np.block([[plant.Q, plant.cross], [plant.cross.T, plant.R]])
    pairs = [np.hstack(pair) for pair in plant.multiplicative] + ([] if plant.continuous else [np.hstack([A, B])])
    weight = 1.0 if plant.continuous else plant.discount
    form = form + weight * sum((pair.T @ P @ pair for pair in pairs), 0 * form)
    if plant.continuous:
        drift = np.vstack([P @ np.hstack([A, B]), np.zeros((len(form) - n, len(form)))])
        form = form + drift + drift.T
    return form, plant.offset + weight * float(np.sum(P * plant.noise_cov))


def soft_minimum(plant: Plant, form: np.ndarray, constant: float) -> tuple[np.ndarray, float]:
    """−α log ∫ exp(−(form + constant)/α) du as a form in x and a constant."""
    n, alpha = len(plant.A), plant.temperature
    least = form[:n, :n] - form[:n, n:] @ np.linalg.solve(form[n:, n:], form[n:, :n])
    return least, constant + alpha / 2 * float(np.linalg.slogdet(form[n:, n:] / (np.pi * alpha))[1])


def close(found: np.ndarray, expected: np.ndarray, sizes: np.ndarray, tolerance: float = 1e-8) -> None:
    """Equal matrices, in units in which states have the size that `sizes`, a cost matrix, says."""
    unit = np.sqrt(np.diag(sizes))
    assert np.abs((found - expected) / np.outer(unit, unit)).max() < tolerance


@given(plants(), st.data())
def test_gain_and_relative_value_solve_the_soft_bellman_equation(given: dict[str, Any], data: st.DataObject) -> None:
    """V + g = −α log ∫ exp(−(c + γ E V′)/α) du, at discount 1 and below, in both kinds of time; g is the soft average.

    V = xᵀPx is relative to V(0), which below discount 1 is g times the duration.
    """
    for parts in (given, in_units(given, *data.draw(units(given)))):
        found = designed(parts)
        plant, P, g = found.plant, found.cost_matrix, found.cost.soft_average
        least, constant = soft_minimum(plant, *stage(plant, P))
        close(least, plant.rate * P if plant.continuous else P, P)
        scale = abs(found.cost.average) + plant.temperature * (1 + abs(found.cost.entropy))
        assert abs(constant - g) < 1e-8 * scale
        if plant.discount < 1:
            start = float(np.sum(P * plant.initial_cov))
            assert found.cost.soft_total == pytest.approx(start + g * plant.duration, rel=1e-9, abs=1e-9 * scale)


@given(plants(), st.integers(1, 6), st.data())
def test_every_step_of_a_finite_horizon(given: dict[str, Any], steps: int, data: st.DataObject) -> None:
    """Its residual, in any units; sweeps of Lemma 1 end there after H; without noise it is the risk-seeking cost."""
    given = {**given, "continuous": False, "dt": None}
    plant = designed(given).plant
    x, u, c = data.draw(units(given))
    root = data.draw(matrices(len(plant.A), len(plant.A)))
    last = root @ root.T
    found = lqr.finite_horizon(plant, steps, last)
    total, sizes = 0.0, found.cost_matrices[0]
    for time in reversed(range(steps)):
        following = found.cost_matrices[time + 1]
        least, constant = soft_minimum(plant, *stage(plant, following))
        assert np.abs(least - found.cost_matrices[time]).max() < 1e-9 * np.abs(least).max()
        total += plant.discount**time * constant
    start = float(np.sum(sizes * plant.initial_cov))
    scale = abs(start) + abs(found.cost.average) + plant.temperature * (steps + abs(found.cost.entropy))
    assert abs(found.cost.soft_total - start - total) < 1e-9 * scale
    other = lqr.finite_horizon(design(**in_units(given, x, u, c)).plant, steps, last * np.outer(x, x) / c)
    np.testing.assert_allclose(other.gains * u[:, None] / x, found.gains, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(other.covariances * np.outer(u, u), found.covariances, rtol=1e-6, atol=1e-9)

    gains, before = 0 * found.gains, np.inf
    for sweep in range(1, steps + 1):  # evaluate the policy, then improve every step of it
        P, improved = last, []
        for gain in gains[::-1]:
            form, push = stage(plant, P)[0], np.vstack([np.eye(len(plant.A)), -gain])
            improved.insert(0, np.linalg.solve(form[len(P) :, len(P) :], form[len(P) :, : len(P)]))
            P = push.T @ form @ push
        cost = float(np.trace(P))
        assert cost <= before * (1 + 1e-9) + 1e-12
        gains, before = np.stack(improved), cost
        np.testing.assert_allclose(gains[steps - sweep], found.gains[steps - sweep], rtol=1e-6, atol=1e-8)
    if not plant.multiplicative:
        quiet = replace(plant, noise_cov=0 * plant.Q, discount=1.0, initial_cov=np.ones_like(plant.Q), offset=0.0)
        expected = lqr.finite_horizon(quiet, steps, last).cost.soft_total
        scale = abs(expected) + steps * plant.temperature
        assert abs(lqr.risk_seeking_cost(quiet, np.ones(len(x)), steps, last) - expected) < 1e-8 * scale


@given(plants(), st.data())
def test_tracking_is_the_regulator_of_one_more_state(given: dict[str, Any], data: st.DataObject) -> None:
    """With the constant 1 as a state: gain and offset, cost, and Lemma 1, whose step stays there; in any units."""
    given = {**given, "dt": None}
    found, n = designed(given), len(given["A"])
    plant, r = found.plant, data.draw(matrices(n, 1))[:, 0]
    v = data.draw(matrices(len(plant.R), 1))[:, 0]
    assume(found.plant.continuous or abs(found.poles[0]) < 0.9)
    tracker = lqr.track(found, r, v)
    x, u, c = data.draw(units(given))
    other = lqr.track(design(**in_units(given, x, u, c)), r / x, v / u)
    np.testing.assert_allclose(
        other.offset * u, tracker.offset, rtol=1e-5, atol=1e-6 * (1 + np.abs(tracker.offset).max())
    )

    below = lambda matrix: np.vstack([matrix, np.zeros((1, matrix.shape[1]))])  # noqa: E731
    wide = lambda a, b: below(np.column_stack([a, a @ r + b @ v]))  # noqa: E731
    A = wide(plant.A, plant.B)
    A[:n, n] -= 0 if plant.continuous else r
    A[n, n] = not plant.continuous
    square = lambda matrix: linalg.block_diag(matrix, 0.0)  # noqa: E731
    start = np.asarray(square(plant.initial_cov)) + np.outer([*-r, 1], [*-r, 1])
    parts = {"A": A, "B": below(plant.B), "Q": square(plant.Q), "cross": below(plant.cross), "initial_cov": start}
    parts |= {"noise_cov": square(plant.noise_cov)}
    pairs = tuple((wide(a, b), below(b)) for a, b in plant.multiplicative)
    if plant.discount == 1:  # the constant never decays: look from far away
        if plant.continuous:
            return
        K = lqr.finite_horizon(replace(plant, **parts, multiplicative=pairs), 300).gains[0]
    else:
        settings = {"temperature": plant.temperature, "discount": plant.discount, "continuous": plant.continuous}
        whole = design(**parts, R=plant.R, multiplicative=pairs, **settings)
        K = whole.gain
        assert tracker.cost == pytest.approx(whole.cost.total, rel=1e-6)
        affine = np.column_stack([tracker.gain, v + tracker.gain @ r - tracker.offset])
        step = whole.policy_iteration_step(affine)
        np.testing.assert_allclose(step.K, affine, rtol=1e-6, atol=1e-6 * np.abs(affine).max())
        np.testing.assert_allclose(step.covariance, tracker.covariance, rtol=1e-7, atol=1e-9)
    offset = v + K[:, :n] @ r - K[:, n]
    np.testing.assert_allclose(tracker.offset, offset, rtol=1e-6, atol=1e-6 * (1 + np.abs(offset).max()))


@given(plants(), st.data())
def test_the_filter_solves_its_equation_and_its_price_is_its_own(given: dict[str, Any], data: st.DataObject) -> None:
    """Kalman's residual in any units; the cost of (x, x̂) together is the regulator's plus the estimate's."""
    parts = {key: given[key] for key in given if key not in ("multiplicative", "dt")} | {"discount": 1.0}
    parts["noise_cov"] = given["noise_cov"] + 0.1 * np.eye(len(given["A"]))
    full, n = designed(parts), len(given["A"])
    x, u, c = data.draw(units(parts))
    C, root = data.draw(matrices(2, n)), data.draw(matrices(2, 2))
    V = root @ root.T + 0.1 * np.eye(2)
    try:
        found = lqr.observe(full, C, V)
    except ValueError as refusal:
        assume("not stabilisable" not in str(refusal))
        raise
    plant, E, L = full.plant, found.error_cov, found.filter_gain
    assume(np.abs(E).max() < 1e3)
    A, B, K, S, W = plant.A, plant.B, found.gain, found.covariance, plant.noise_cov
    if plant.continuous:
        np.testing.assert_allclose(L @ V, E @ C.T, rtol=1e-7, atol=1e-8)
        assert np.abs(A @ E + E @ A.T + W - L @ V @ L.T).max() < 1e-8 * (1 + np.abs(A @ E).max())
        closed, drive = np.block([[A - B @ K, B @ K], [0 * A, A - L @ C]]), np.block([[W, W], [W, W + L @ V @ L.T]])
        X = linalg.solve_continuous_lyapunov(closed, -drive)
    else:
        seen = A @ E @ A.T + W
        np.testing.assert_allclose(L @ (C @ seen @ C.T + V), seen @ C.T, rtol=1e-7, atol=1e-8)
        D = np.eye(n) - L @ C
        assert np.abs(D @ seen - E).max() < 1e-8 * (1 + np.abs(seen).max())
        closed = np.block([[A - B @ K, B @ K], [0 * A, D @ A]])
        spread = np.block([[W, W @ D.T], [D @ W, D @ W @ D.T + L @ V @ L.T]])
        X = linalg.solve_discrete_lyapunov(closed, spread + np.asarray(linalg.block_diag(B @ S @ B.T, 0 * A)))
    states, mixed, error = X[:n, :n], X[:n, n:], X[n:, n:]  # of x and x − x̂
    inputs = np.block([[np.eye(n), np.zeros((n, n))], [-K, K]])  # (x, u) less exploration
    joint = inputs @ np.block([[states, mixed], [mixed.T, error]]) @ inputs.T + np.asarray(linalg.block_diag(0 * A, S))
    cost = float(np.sum(np.block([[plant.Q, plant.cross], [plant.cross.T, plant.R]]) * joint))
    np.testing.assert_allclose(error, E, rtol=1e-6, atol=1e-8)
    assert full.cost.average + found.estimation == pytest.approx(cost, rel=1e-6)
    other = lqr.observe(design(**in_units(parts, x, u, c)), C * x, V)
    np.testing.assert_allclose(other.error_cov * np.outer(x, x), E, rtol=1e-6, atol=1e-8)
    assert other.estimation * c == pytest.approx(found.estimation, rel=1e-6, abs=1e-10)


@given(plants(), st.floats(0.01, 0.5), st.data())
def test_two_samples_are_one_of_twice_the_time(given: dict[str, Any], dt: float, data: st.DataObject) -> None:
    """Held dynamics, noise, cost, price and what noise costs in between compose, in any units."""
    given = {**given, "continuous": True, "dt": dt}
    given.pop("multiplicative", None)
    try:
        one, two = (design(**given | {"dt": time}).plant for time in (dt, 2 * dt))
    except ValueError as refusal:
        assume("not stabilisable" not in str(refusal) and "cannot reach" not in str(refusal))
        raise
    n, d = one.B.shape
    step = np.block([[one.A, one.B], [np.zeros((d, n)), np.eye(d)]])
    form = lambda plant: np.block([[plant.Q, plant.cross], [plant.cross.T, plant.R]])  # noqa: E731
    np.testing.assert_allclose(np.hstack([two.A, two.B]), (step @ step)[:n], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(form(two), form(one) + one.discount * step.T @ form(one) @ step, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(two.noise_cov, one.A @ one.noise_cov @ one.A.T + one.noise_cov, rtol=1e-9, atol=1e-11)
    assert two.offset == pytest.approx(
        (1 + one.discount) * one.offset + one.discount * np.sum(one.Q * one.noise_cov), rel=1e-8, abs=1e-12
    )
    assert two.temperature == pytest.approx((1 + one.discount) * one.temperature, rel=1e-12)
    x, u, c = data.draw(units(given))
    other = design(**in_units(given, x, u, c)).plant
    np.testing.assert_allclose(other.A * x[:, None] / x, one.A, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(other.Q * c / np.outer(x, x), one.Q, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(other.noise_cov * np.outer(x, x), one.noise_cov, rtol=1e-8, atol=1e-11)
