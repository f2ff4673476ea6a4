"""Bad systems, arguments and files: one clear ValueError that names what is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entroflow import checks
from entroflow.lqr import LQR, design, systems

GOOD = systems.get("coupled").to_dict()
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("A", [[1.0, 2.0]], "A: got shape (1, 2), expected finite numbers in an array of shape (1, 1)"),
        ("A", [1.0, 2.0], "A: got shape (2,)"),
        ("A", 1.0, "A: got shape ()"),
        ("A", [], "A: got shape (0,)"),
        ("A", [[1.0, 2.0], [3.0]], "A: got rows of unequal length"),
        ("A", [[1.0, "2"], [0.0, 1.0]], "an entry of A: got '2', expected a finite number"),
        ("A", [[1.0, True], [0.0, 1.0]], "an entry of A: got True"),
        ("A", [[1.0, None], [0.0, 1.0]], "an entry of A: got None"),
        ("A", [[1.0, NAN], [0.0, 1.0]], "an entry of A: got nan"),
        ("A", [[1.0, 10**400], [0.0, 1.0]], "an entry of A: got 1000"),
        ("B", np.array([[INF], [0.0]]), "an entry of B: got inf"),
        ("B", [[1.0], [0.0], [0.0]], "B: got shape (3, 1), expected finite numbers in an array of shape (2, any)"),
        ("Q", np.eye(3), "Q: got shape (3, 3)"),
        ("Q", [[1.0, 0.5], [0.0, 1.0]], "Q: got entries that differ by 0.5 across the diagonal"),
        ("Q", np.diag([1.0, -1e-3]), "Q: got a smallest eigenvalue of -0.001, expected a positive semidefinite"),
        ("R", [[1.0]], "R: got shape (1, 1)"),
        ("R", np.diag([1.0, 0.0]), "R: got a smallest eigenvalue of 0, expected a positive definite"),
        ("R", -np.eye(2), "R: got a smallest eigenvalue of -1, expected a positive definite"),
        ("noise_cov", -np.eye(2), "noise_cov: got a smallest eigenvalue of -1, expected a positive semidefinite"),
        ("initial_cov", [[1.0, 2.0], [2.0, 1.0]], "initial_cov: got a smallest eigenvalue of -1"),
        ("discount", 1.0, "discount: got 1.0, expected a number in [0, 1)"),
        ("discount", -0.1, "discount: got -0.1"),
        ("discount", NAN, "discount: got nan"),
        ("name", 3, "name: got 3, expected a text"),
    ],
)
def test_bad_field_is_named(key: str, value: Any, message: str) -> None:
    """Every bad field is refused with its name, what was given and what was expected."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        LQR.from_dict({**GOOD, key: value})


@pytest.mark.parametrize(
    ("A", "B", "message"),
    [
        ([[1.2, 0.0], [0.0, 0.5]], [[0.0], [1.0]], r"A, B: got a mode of size 1\.138 .*not stabilisable"),
        ([[1.2, 1.0], [0.0, 1.2]], [[1.0], [0.0]], "A, B: .*not stabilisable"),
        ([[0.0, 1.2], [-1.2, 0.0]], [[0.0], [0.0]], "A, B: .*not stabilisable"),
    ],
)
def test_unstabilisable_system_is_refused(A: list[list[float]], B: list[list[float]], message: str) -> None:
    """A growing mode that no action reaches, real, repeated or complex, is refused whatever the unit of actions."""
    for unit in (1e-12, 1.0, 1e12):
        with pytest.raises(ValueError, match=message):
            LQR(A, unit * np.array(B), np.eye(2), [[1.0]], np.eye(2), np.eye(2), 0.9)


def test_reachable_growth_is_accepted_in_any_unit() -> None:
    """A growing mode reached only through its neighbour is stabilisable, however small the unit of the action."""
    for unit in (1e-12, 1.0, 1e12):
        B = unit * np.array([[0.0], [1.0]])
        lqr = LQR([[1.2, 1.0], [0.0, 1.2]], B, np.eye(2), [[unit**2]], np.eye(2), np.eye(2), 0.9)
        assert np.isfinite(lqr.optimal(1.0).standard_return)


def test_decaying_mode_need_not_be_reachable() -> None:
    """Stabilisable is weaker than controllable: a mode that √γ makes decay may be out of reach."""
    LQR([[1.02, 0.0], [0.0, 0.5]], [[0.0], [1.0]], np.eye(2), [[1.0]], np.eye(2), np.eye(2), 0.9).optimal(1.0)


def test_growing_mode_without_cost_is_refused() -> None:
    """Where a growing mode costs nothing, the optimum does not stabilise it and infinite returns make no sense."""
    with pytest.raises(ValueError, match="A, Q: got a mode of size 1.897 that costs nothing"):
        LQR([[2.0]], [[1.0]], [[0.0]], [[1.0]], [[1.0]], [[1.0]], 0.9)
    A, B = np.array([[1.5, 1.0], [0.0, 0.5]]), [[1.0], [1.0]]
    with pytest.raises(ValueError, match="costs nothing"):  # growth along the first state, cost on the second only
        LQR(A, B, np.diag([0.0, 1.0]), [[1.0]], np.eye(2), np.eye(2), 0.9)
    LQR(A.T, B, np.diag([0.0, 1.0]), [[1.0]], np.eye(2), np.eye(2), 0.9).optimal(1.0)


@pytest.mark.parametrize(
    ("Q", "R", "state", "action", "gain"),
    [
        ((1e10, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.1, 0.70039704)),
        ((1.0, 1.0), (1.0, 1.0), (1e-3, 1e3), (1.0, 1.0), (0.70039704, 0.70039704)),
        ((1.0, 1.0), (1.0, 1e-12), (1.0, 1.0), (1.0, 1.0), (0.70039704, 1.1)),
        ((1.0, 1.0), (1.0, 1.0), (1e-8, 1e8), (1e6, 1e-6), (0.70039704, 0.70039704)),
        ((1.0, 1e-14), (1.0, 1e-14), (1.0, 1.0), (1.0, 1.0), (0.70039704, 0.70039704)),
    ],
)
def test_any_units_are_accepted(Q: Any, R: Any, state: Any, action: Any, gain: Any) -> None:
    """Costs, states and actions of sizes far apart are no reason to refuse a system; gains are python-control's."""
    state, action, one = np.array(state), np.array(action), np.eye(2)
    A, B = 1.1 * one, one * action / state[:, None]
    covariance = one / np.outer(state, state)
    Q, R = np.diag(Q) * np.outer(state, state), np.diag(R) * np.outer(action, action)
    K = LQR(A, B, Q, R, covariance, covariance, 0.99).optimal(1.0).K * action[:, None] / state
    np.testing.assert_allclose(K, np.diag(gain), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("unit", 10.0 ** np.arange(-9, 13, 3))
def test_a_cost_is_semidefinite_in_all_units_or_in_none(unit: float) -> None:
    """A state that costs nothing by itself cannot cost anything beside others; what is but rounding may be there."""
    units, rest = np.outer([unit, 1.0], [unit, 1.0]), {key: GOOD[key] for key in GOOD if key != "Q"}
    for matrix in ([[0, 1], [1, 5]], [[0, -1e-3], [-1e-3, 5]], [[1, 2], [2, 3]]):
        for name in ("Q", "noise_cov", "initial_cov"):
            with pytest.raises(ValueError, match=f"^{name}: got a smallest eigenvalue of -"):
                LQR.from_dict(GOOD | {name: matrix * units})
        with pytest.raises(ValueError, match="^Q: got a smallest eigenvalue of -"):
            design(GOOD["A"], GOOD["B"], matrix * units, np.eye(2), temperature=1.0)
    for matrix in ([[0, 0], [0, 5]], [[1, 2], [2, 4 - 1e-12]], [[0, 0], [0, 1e-30]], [[1 / 9, 1 / 3], [1 / 3, 1]]):
        LQR.from_dict(rest | {"Q": matrix * units})
    kept = LQR.from_dict(rest | {"Q": [[-3e-17, 1e-16], [1e-16, 1.0]]}).in_units([unit, 1.0], [1.0, 1.0])
    np.testing.assert_array_equal(kept.Q, np.diag([0.0, 1.0]))


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, NAN, INF])
def test_bad_temperature_is_refused(temperature: float) -> None:
    """Every method that takes a temperature refuses one that is not positive and finite."""
    lqr = systems.get("coupled")
    K, covariance = np.zeros((2, 2)), np.eye(2)
    calls = (
        lambda: lqr.optimal(temperature),
        lambda: lqr.policy_iteration_step(K, temperature),
        lambda: lqr.evaluate(K, covariance, temperature),
    )
    for call in calls:
        with pytest.raises(ValueError, match="^temperature: got "):
            call()


def test_bad_policy_is_refused() -> None:
    """A gain that does not stabilise, a wrong shape and a bad covariance are named."""
    lqr = systems.get("unstable")
    idle, identity = np.zeros((3, 3)), np.eye(3)
    with pytest.raises(ValueError, match=r"^K: got a closed loop .* spectral radius 1\.20999"):
        lqr.evaluate(idle, identity, 1.0)
    with pytest.raises(ValueError, match="^K: got a closed loop"):
        lqr.policy_iteration_step(idle, 1.0)
    with pytest.raises(ValueError, match=r"^K: got shape \(2, 3\)"):
        lqr.evaluate(np.zeros((2, 3)), identity, 1.0)
    with pytest.raises(ValueError, match="^covariance: got a smallest eigenvalue of -1"):
        lqr.evaluate(identity, -identity, 1.0)


def test_arrays_cannot_be_changed() -> None:
    """A system is frozen, its matrices too: a checked system stays checked."""
    with pytest.raises(ValueError, match="read-only"):
        systems.get("coupled").A[0, 0] = 5.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed JSON"),
        (b"{", "malformed JSON .* at line 1, column 2"),
        (b"[1, 2]", "got a JSON list, expected a JSON object"),
        (b"\xff\xfe{}", "bytes that are not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "system: got no A, B, Q, R, noise_cov, initial_cov, discount"),
        (json.dumps({**GOOD, "gamma": 0.9}).encode(), "system: got the unknown key 'gamma'"),
        (json.dumps({**GOOD, "A": [[1, NAN], [0, 1]]}).encode(), "got NaN, expected finite numbers"),
        (json.dumps({**GOOD, "Q": [[INF, 0], [0, 1]]}).encode(), "got Infinity, expected finite numbers"),
        (json.dumps({**GOOD, "B": "x"}).encode(), "an entry of B: got 'x'"),
        (json.dumps({**GOOD, "B": 1.0}).encode(), r"B: got shape \(\)"),
        (json.dumps({**GOOD, "A": [[1, 2], [3]]}).encode(), "A: got rows of unequal length"),
        (json.dumps({**GOOD, "A": {"rows": 2}}).encode(), "an entry of A: got {'rows': 2}"),
        (json.dumps({**GOOD, "discount": "0.9"}).encode(), "discount: got '0.9'"),
        (json.dumps({**GOOD, "discount": None}).encode(), "discount: got None"),
        (json.dumps({**GOOD, "discount": [0.9]}).encode(), r"discount: got \[0\.9\]"),
        (b'{"A": [[1]], "A": [[2]]}', "the key 'A' twice"),
        (b'{"A": [[1e999]]}', "got 1e999, expected finite numbers"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    """Whatever is wrong with a file, the message starts with the file's name and says what is wrong."""
    path = tmp_path / "system.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}"):
        LQR.from_json(path)


def test_missing_file_and_folder_are_refused_by_name(tmp_path: Path) -> None:
    """A file that is not there and a folder are ValueErrors like any other unreadable system."""
    for path, message in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: got '{message}"):
            LQR.from_json(path)


def test_unknown_system_lists_names_and_suggests_one() -> None:
    """A misspelt name is answered with the catalogue and the nearest name."""
    with pytest.raises(ValueError, match="got 'copled', expected one of double_integrator, .*did you mean 'coupled'"):
        systems.get("copled")
    with pytest.raises(ValueError, match="choose one of these or pass a .json file"):
        systems.load("xyzzy")


def test_load_takes_names_files_and_systems(tmp_path: Path) -> None:
    """One function turns what a user can type, or already has, into a system."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**GOOD, "name": "mine"}))
    mine = systems.load(str(path))
    assert (mine.name, systems.load(path).name, systems.load("cartpole").name) == ("mine", "mine", "cartpole")
    assert systems.load(mine) is mine


def test_load_takes_what_a_design_wrote(tmp_path: Path) -> None:
    """The same optimum, under the file's name; what is not learned yet is refused."""
    path, given = tmp_path / "cart.json", {"temperature": 0.3, "discount": 0.9, "noise_cov": 0.1 * np.eye(2)}
    plant = ([[1, 0.1], [0, 1]], [[0.0], [0.1]], np.eye(2), [[0.2]])
    made = design(*plant, **given)
    made.to_json(path)
    optimum = systems.load(path).optimal(0.3)
    assert systems.load(path).name == "cart"
    np.testing.assert_allclose(optimum.K, made.gain, rtol=1e-9)
    assert optimum.soft_return == pytest.approx(-made.cost.soft_total, rel=1e-9)
    crossed = design(*plant, **given, cross=[[0.1], [0]])
    crossed.to_json(path)
    np.testing.assert_allclose(systems.load(path).optimal(0.3).K, crossed.gain, rtol=1e-9)
    for change in ({"discount": 1}, {"continuous": True}, {"multiplicative": [plant[:2]]}):
        design(*plant, **given | change).to_json(path)
        with pytest.raises(ValueError, match=rf"^{path}: got a design of which none is learned yet"):
            systems.load(path)


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "3", None])
def test_positive_int_takes_nothing_else(value: Any) -> None:
    """Counts are whole and positive; nothing is rounded or converted."""
    with pytest.raises(ValueError, match=f"^seeds: got {re.escape(repr(value))}, expected a whole number above 0"):
        checks.positive_int("seeds", value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), 0.5])
def test_numbers_may_come_from_numpy(value: Any) -> None:
    """NumPy scalars are numbers like Python's."""
    assert checks.positive_number("rate", value) == 0.5
