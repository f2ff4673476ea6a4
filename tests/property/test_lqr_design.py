"""What holds for every plant that can be controlled, in discrete and continuous time and in any units."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from entroflow.lqr import Design, design, load_design


def matrices(rows: int, columns: int) -> st.SearchStrategy[np.ndarray]:
    """Matrices with entries in [−1, 1] on a grid, so that no example stands at the edge of being solvable."""
    return hnp.arrays(np.float64, (rows, columns), elements=st.integers(-8, 8).map(lambda k: k / 8))


@st.composite
def plants(draw: st.DrawFn) -> dict[str, Any]:
    """One to three states, one or two inputs, with cross term and noise, additive and of both parts; half unstable."""
    n, d = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    root, noise, start = draw(matrices(n + d, n + d)), draw(matrices(n, n)), draw(matrices(n, n))
    joint = root @ root.T + 0.1 * np.eye(n + d)
    given = dict(A=draw(matrices(n, n)), B=draw(matrices(n, d)), Q=joint[:n, :n], R=joint[n:, n:], cross=joint[:n, n:])
    given |= dict(noise_cov=noise @ noise.T, initial_cov=start @ start.T, continuous=draw(st.booleans()))
    given |= dict(temperature=draw(st.floats(0.05, 5.0)), discount=draw(st.just(1.0) | st.floats(0.3, 0.99)))
    if draw(st.booleans()):
        given["multiplicative"] = [(draw(matrices(n, n)) / 8, draw(matrices(n, d)) / 8)]
    elif given["continuous"] and draw(st.booleans()):
        given["dt"] = draw(st.floats(0.01, 1.0))
    return given


def designed(given: dict[str, Any]) -> Design:
    """The controller, if there is one and its costs are of moderate size."""
    try:
        found = design(**given)
    except ValueError as refusal:
        assume("not stabilisable" not in str(refusal) and "can be borne" not in str(refusal))
        raise
    assume(np.abs(found.cost_matrix).max() < 1e4)
    return found


@st.composite
def units(draw: st.DrawFn, given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Sizes of states, inputs and cost between 1e-4 and 1e4."""
    count = len(given["A"]) + len(given["R"]) + 1
    sizes = 10.0 ** np.array(draw(st.lists(st.floats(-4, 4), min_size=count, max_size=count)))
    return sizes[: len(given["A"])], sizes[len(given["A"]) : -1], float(sizes[-1])


def in_units(given: dict[str, Any], x: np.ndarray, u: np.ndarray, c: float) -> dict[str, Any]:
    """The same plant, with states, inputs and cost of these sizes counted as one."""
    moves = lambda a, b: (np.asarray(a) * x / x[:, None], np.asarray(b) * u / x[:, None])  # noqa: E731
    A, B = moves(given["A"], given["B"])
    changed = given | dict(A=A, B=B, Q=given["Q"] * np.outer(x, x) / c, R=given["R"] * np.outer(u, u) / c)
    changed |= dict(cross=given["cross"] * np.outer(x, u) / c, temperature=given["temperature"] / c)
    changed |= {key: given[key] / np.outer(x, x) for key in ("noise_cov", "initial_cov")}
    return changed | (
        {"multiplicative": [moves(*pair) for pair in given["multiplicative"]]} if "multiplicative" in given else {}
    )


def residual(found: Design) -> float:
    """By how much the Riccati equation fails, relative to P, in units in which its diagonal is one."""
    plant, P, K = found.plant, found.cost_matrix, found.gain
    A, B, N, pairs = plant.A, plant.B, plant.cross, plant.multiplicative
    weight = 1.0 if plant.continuous else plant.discount
    M = plant.R + weight * sum((b.T @ P @ b for _, b in pairs), np.zeros_like(plant.R))
    S = N.T + weight * sum((b.T @ P @ a for a, b in pairs), np.zeros_like(N.T))
    left = plant.Q + weight * sum((a.T @ P @ a for a, _ in pairs), np.zeros_like(P))
    if plant.continuous:
        S, left = S + B.T @ P, left + A.T @ P + P @ A + np.log(plant.discount) * P
    else:
        M, S, left = M + weight * B.T @ P @ B, S + weight * B.T @ P @ A, left + weight * A.T @ P @ A - P
    size = np.sqrt(np.diag(P))
    width = np.sqrt(np.diag(M))
    assert np.abs((M @ K - S) / width[:, None] / size).max() < 1e-9 * max(1, np.abs(S / width[:, None] / size).max())
    squares = np.outer(width, width)
    exact = plant.temperature / 2 * np.linalg.inv(M / squares)
    np.testing.assert_allclose(found.covariance * squares, exact, rtol=1e-9, atol=1e-9 * exact.max())
    return float(np.abs((left - S.T @ K) / np.outer(size, size)).max())


@given(plants(), st.data())
def test_the_equation_is_solved_in_any_units(given: dict[str, Any], data: st.DataObject) -> None:
    """The residual is below 1e-9, in the plant's units and in others, where the answers are the same."""
    found = designed(given)
    x, u, c = data.draw(units(given))
    other = design(**in_units(given, x, u, c))
    assert residual(found) < 1e-9 and residual(other) < 1e-9
    P, size = other.cost_matrix * c / np.outer(x, x), np.sqrt(np.diag(found.cost_matrix))
    assert np.abs((P - found.cost_matrix) / np.outer(size, size)).max() < 1e-7
    np.testing.assert_allclose(other.cost.control * c, found.cost.control, rtol=1e-7)
    np.testing.assert_allclose(other.cost.noise * c, found.cost.noise, rtol=1e-7, atol=1e-12)
    assert other.cost.exploration * c == pytest.approx(found.plant.temperature * len(u) / 2, rel=1e-9)
    assert other.cost.entropy + np.log(u).sum() == pytest.approx(found.cost.entropy, abs=1e-6)


@given(plants())
def test_no_step_of_policy_iteration_does_harm(given: dict[str, Any]) -> None:
    """From the gain for inputs ten times dearer a step lowers the soft cost, to the optimum's at best (Lemma 1)."""
    found, start = designed(given), designed(given | {"R": 10 * given["R"]}).gain
    step = found.policy_iteration_step(start)
    costs = [found.cost_of(start, found.covariance), found.cost_of(*step), found.cost]
    totals = [cost.soft_average if found.plant.discount == 1 else cost.soft_total for cost in costs]
    assert totals[0] >= totals[1] - 1e-7 * abs(totals[1]) and totals[1] >= totals[2] - 1e-7 * abs(totals[2])
    again = found.policy_iteration_step(found.gain)
    np.testing.assert_allclose(again.K, found.gain, rtol=1e-7, atol=1e-9)


@given(plants())
def test_what_is_written_is_designed_again(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> None:
    """To the last bit, sampled plants too."""
    found = designed(given)
    path: Path = tmp_path_factory.getbasetemp() / "design.json"
    path.write_text(found.to_json())
    again = load_design(path)
    np.testing.assert_array_equal(again.gain, found.gain)
    assert again.to_json() == found.to_json()
