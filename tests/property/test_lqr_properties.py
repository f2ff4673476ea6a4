"""What holds for every solvable system, not only for those of the catalogue."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from entroflow.lqr import LQR
from experiments.plants.horizon import finite_horizon_return

temperatures = st.floats(0.05, 5.0)


def matrices(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    """Matrices with entries in [−1, 1] on a grid, so that no example stands at the edge of being solvable."""
    entries = st.integers(-8, 8).map(lambda k: k / 8)
    return hnp.arrays(np.float64, (rows, columns), elements=entries)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments for systems of one to three states and one or two actions, about half of them unstable."""
    n, d = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    A, B = draw(matrices(n, n)), draw(matrices(n, d))
    Q, R, W, X = (root @ root.T for root in (draw(matrices(size, size)) for size in (n, d, n, n)))
    Q, R = Q + 0.1 * np.eye(n), R + 0.1 * np.eye(d)
    return dict(A=A, B=B, Q=Q, R=R, noise_cov=W, initial_cov=X, discount=draw(st.just(0.0) | st.floats(0.01, 0.97)))


def solvable(problem: dict[str, Any]) -> LQR:
    """The system, if it has an optimum of moderate size; built outside the strategy, which must not see beartype."""
    try:
        lqr = LQR(**problem)
    except ValueError as refusal:
        assume("stabilisable" not in str(refusal))
        raise
    assume(np.abs(lqr.optimal(1.0).P).max() < 1e4)
    return lqr


@given(problems(), temperatures)
def test_optimum_is_the_fixed_point_of_policy_iteration(problem: dict[str, Any], temperature: float) -> None:
    """One exact step of soft policy iteration leaves the optimum where it is."""
    lqr = solvable(problem)
    optimum = lqr.optimal(temperature)
    step = lqr.policy_iteration_step(optimum.K, temperature)
    np.testing.assert_allclose(step.K, optimum.K, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(step.covariance, optimum.covariance, rtol=1e-7, atol=1e-12)


@given(problems())
def test_json_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, problem: dict[str, Any]) -> None:
    """A system written to JSON and read back is the same to the last bit."""
    lqr = solvable(problem)
    path: Path = tmp_path_factory.getbasetemp() / "round_trip.json"
    path.write_text(json.dumps(lqr.to_dict()))
    assert LQR.from_json(path).to_dict() == lqr.to_dict()


@given(problems(), temperatures, st.floats(0.01, 100.0))
def test_change_of_action_unit(problem: dict[str, Any], temperature: float, c: float) -> None:
    """With actions counted in units c times smaller, K grows by c, Σ by c², the entropy by d log c."""
    lqr = solvable(problem)
    scaled = LQR(lqr.A, lqr.B / c, lqr.Q, lqr.R / c**2, lqr.noise_cov, lqr.initial_cov, lqr.discount)
    before, after = lqr.optimal(temperature), scaled.optimal(temperature)
    shift = len(lqr.R) * np.log(c)
    np.testing.assert_allclose(after.P, before.P, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(after.K, c * before.K, rtol=1e-6, atol=1e-8 * c)
    np.testing.assert_allclose(after.covariance, c**2 * before.covariance, rtol=1e-6, atol=1e-10 * c**2)
    assert after.entropy == pytest.approx(before.entropy + shift, rel=1e-6, abs=1e-6)
    assert after.standard_return == pytest.approx(before.standard_return, rel=1e-6)
    gained = temperature * shift / (1 - lqr.discount)
    assert after.soft_return == pytest.approx(before.soft_return + gained, rel=1e-6, abs=1e-5)


@given(problems(), temperatures, st.integers(1, 30))
def test_change_of_state_coordinates(problem: dict[str, Any], temperature: float, horizon: int) -> None:
    """Returns, action covariance and the finite horizon do not depend on the coordinates of the state."""
    lqr = solvable(problem)
    n = len(lqr.A)
    T = np.eye(n) + 0.5 * np.triu(np.ones((n, n)))
    inverse = np.linalg.inv(T)
    other = LQR(
        T @ lqr.A @ inverse,
        T @ lqr.B,
        inverse.T @ lqr.Q @ inverse,
        lqr.R,
        T @ lqr.noise_cov @ T.T,
        T @ lqr.initial_cov @ T.T,
        lqr.discount,
    )
    before, after = lqr.optimal(temperature), other.optimal(temperature)
    np.testing.assert_allclose(after.K @ T, before.K, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(after.covariance, before.covariance, rtol=1e-6, atol=1e-10)
    assert after.soft_return == pytest.approx(before.soft_return, rel=1e-6, abs=1e-6)
    returns = [
        finite_horizon_return(system, optimum.K, optimum.covariance, temperature, horizon)
        for system, optimum in ((lqr, before), (other, after))
    ]
    assert returns[0].standard_return == pytest.approx(returns[1].standard_return, rel=1e-6, abs=1e-9)
    assert returns[0].soft_return == pytest.approx(returns[1].soft_return, rel=1e-6, abs=1e-6)


@given(
    problems(),
    st.sampled_from(["A", "B", "Q", "R", "noise_cov", "initial_cov"]),
    st.sampled_from(["nan", "row", "text", "asymmetric", "negative"]),
)
def test_spoiled_matrix_is_named(problem: dict[str, Any], key: str, fault: str) -> None:
    """Whatever the system, one spoiled matrix is refused with its name at the front of the message."""
    lqr = solvable(problem)
    given_system: dict[str, Any] = lqr.to_dict()
    matrix = np.array(given_system[key])
    rows: Any = matrix.tolist()
    if fault == "nan":
        rows[-1][0] = float("nan")
    elif fault == "row":
        rows = [*rows, [0.0] * (matrix.shape[1] + 1)]
    elif fault == "text":
        rows[0][-1] = str(rows[0][-1])
    elif fault == "asymmetric":
        assume(key not in "AB" and len(matrix) > 1)
        rows[0][1] += 1.0
    else:
        assume(key not in "AB")
        rows = (matrix - (1 + np.linalg.norm(matrix)) * np.eye(len(matrix))).tolist()
    with pytest.raises(ValueError, match=f"^(an entry of )?{key}: "):
        LQR.from_dict({**given_system, key: rows})


@st.composite
def units(draw: st.DrawFn, count: int) -> np.ndarray:
    """Sizes between 1e-6 and 1e6."""
    return 10.0 ** np.array(draw(st.lists(st.floats(-6, 6), min_size=count, max_size=count)))


def verdict(problem: dict[str, Any]) -> LQR | str:
    """The system, or what is wrong with it: the words that are about it, not about a number."""
    try:
        return LQR(**problem)
    except ValueError as refusal:
        return next(word for word in ("not stabilisable", "not detectable", "definite") if word in str(refusal))


@given(problems(), st.booleans(), st.data())
def test_no_verdict_and_no_answer_depends_on_units(problem: dict[str, Any], hidden: bool, data: st.DataObject) -> None:
    """With every state, action and the reward in a unit of its own: the same verdict, and answers that transform."""
    n, d = problem["B"].shape
    if hidden:  # states that cost nothing
        root = data.draw(matrices(n, n))
        problem["Q"] = root @ root.T
    x, u = (data.draw(units(count)) for count in (n, d))
    c = float(data.draw(units(1))[0])
    states, actions = np.outer(x, x), np.outer(u, u)
    changed = dict(A=problem["A"] * x / x[:, None], B=problem["B"] * u / x[:, None], discount=problem["discount"])
    changed |= dict(Q=problem["Q"] * states / c, R=problem["R"] * actions / c)
    changed |= {key: problem[key] / states for key in ("noise_cov", "initial_cov")}
    lqr, other = verdict(problem), verdict(changed)
    if isinstance(lqr, str):
        assert other == lqr
        return
    assert isinstance(other, LQR), f"{other} in other units"
    before = lqr.optimal(1.0)
    assume(np.abs(before.P).max() < 1e4)
    after, back = other.optimal(1.0 / c), u[:, None] / x
    step = other.policy_iteration_step(after.K, 1.0 / c)
    for K in (after.K, step.K):
        np.testing.assert_allclose(K * back, before.K, rtol=1e-6, atol=1e-6 * np.abs(before.K).max())
    np.testing.assert_allclose(after.P / states * c, before.P, rtol=1e-6, atol=1e-6 * np.abs(before.P).max())
    np.testing.assert_allclose(after.covariance * actions, before.covariance, rtol=1e-6, atol=1e-8)
    assert after.entropy + np.log(u).sum() == pytest.approx(before.entropy, abs=1e-6)
    assert after.standard_return * c == pytest.approx(before.standard_return, rel=1e-6)
    assert lqr.in_units(x, u, c).to_dict() == other.to_dict()
