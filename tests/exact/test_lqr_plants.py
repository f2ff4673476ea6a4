"""Textbook plants in units of their own and in others, against closed forms and the doubling algorithm.

Those of `tests/data/plants.json` have their sources there. CAREX and DAREX are the collections of Benner, Laub and
Mehrmann (TU Chemnitz-Zwickau 1995), with the solutions that these give.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entroflow.lqr import design

TABLE = json.loads((Path(__file__).parents[1] / "data" / "plants.json").read_text())["plants"]


def symmetric_solution(A: Any, q: float, r: float, discrete: bool) -> np.ndarray:
    """P for a symmetric A, B = I, Q = qI and R = rI, eigenvalue by eigenvalue."""
    values, vectors = np.linalg.eigh(A)
    if discrete:
        half = (q - r + r * values**2) / 2
        roots = half + np.sqrt(half**2 + q * r)
    else:
        roots = r * values + np.sqrt((r * values) ** 2 + q * r)
    return (vectors * roots) @ vectors.T


def quadrotor() -> tuple[Any, ...]:
    """About hover: positions, angles and their rates; thrust and three torques."""
    mass, inertia, g = 0.5, np.array([2.3e-3, 2.3e-3, 4e-3]), 9.81
    A, B = np.zeros((12, 12)), np.zeros((12, 4))
    A[:6, 6:], A[6, 4], A[7, 3] = np.eye(6), g, -g
    B[8, 0], B[9:, 1:] = 1 / mass, np.diag(1 / inertia)
    return A, B, np.diag([1.0] * 6 + [0.1] * 6), np.diag([0.1, 10, 10, 10])


RING = -2 * np.eye(12) + np.roll(np.eye(12), 1, axis=0) + np.roll(np.eye(12), -1, axis=0)
NEAR = np.array([[1 + 1e-7, 1], [1, 1 + 1e-7]])
PETKOV = np.array([[16.0, 10, -2], [10, 13, -8], [-2, -8, 7]]) / 9
EYE, WHOLE = np.eye, np.array([[9.0, 6], [6, 4]])
FAST = [[np.sqrt(2000001) / 1e6, 1], [1, np.sqrt(2000001)]]

# Solutions of plants of the table, and plants with theirs.
KNOWN = {
    "CAREX 1": [[2, 1], [1, 2]],
    "CAREX 2": (1 + np.sqrt(2)) * WHOLE,
    "DAREX 1": (1 + np.sqrt(5)) / 2 * WHOLE,
    "DAREX 5": [[1, 2], [2, 2 + np.sqrt(5)]],
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "CAREX 9": (True, [[0, 1e6], [0, 0]], [[0], [1]], EYE(2), [[1]], FAST),
    "CAREX 10": (True, NEAR, EYE(2), EYE(2), EYE(2), symmetric_solution(NEAR, 1, 1, False)),
    "CAREX 16, twelve vehicles": (True, RING, EYE(12), EYE(12), EYE(12), symmetric_solution(RING, 1, 1, False)),
    "DAREX 13": (False, PETKOV, EYE(3), 1e6 * EYE(3), 1e6 * EYE(3), symmetric_solution(PETKOV, 1e6, 1e6, True)),
    "DAREX 15, of twenty": (False, EYE(20, k=1), EYE(20)[:, -1:], EYE(20), [[1]], np.diag(np.arange(1, 21))),
    "quadrotor": (True, *quadrotor(), None),
}
PLANTS = {p["name"]: (p["continuous"], *(p[key] for key in "ABQR"), KNOWN.get(p["name"])) for p in TABLE} | OTHERS
del PLANTS["CAREX 8"]  # R is within 1e-6 of singular, and the doubling algorithm knows P to 1e-9 only


def doubled(A: np.ndarray, B: np.ndarray, Q: np.ndarray, R: np.ndarray, continuous: bool) -> np.ndarray:
    """P by the structure-preserving doubling algorithm (Chu, Fan, Lin and Wang 2004), the library's second resort."""
    one, G = np.eye(len(A)), B @ np.linalg.solve(R, B.T)
    if continuous:  # Cayley's transform
        shift = 0.5 * np.linalg.norm(A, 2) + 1
        inverse = np.linalg.inv(A - shift * one)
        W = A - shift * one + G @ inverse.T @ Q
        inner = np.linalg.inv(W)
        A, G, Q = (one + 2 * shift * inner, 2 * shift * inner @ G @ inverse.T, 2 * shift * inner.T @ Q @ inverse)
    for _ in range(60):
        middle = np.linalg.solve(one + G @ Q, np.hstack([A, G]))
        A, G, Q = A @ middle[:, : len(A)], G + A @ middle[:, len(A) :] @ A.T, Q + A.T @ Q @ middle[:, : len(A)]
    return Q


def distance(found: np.ndarray, expected: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """The largest difference by the largest entry, both in units of their own."""
    weight = np.sqrt(np.outer(rows, 1 / columns))
    return float(np.abs((found - expected) * weight).max() / (np.abs(expected * weight).max() or 1.0))


@pytest.mark.parametrize("name", PLANTS)
def test_textbook_plants_in_any_units(name: str) -> None:
    """P is the closed form, or the doubling algorithm's, and gain and covariance follow, to 1e-9; so in other units."""
    continuous, *matrices, exact = PLANTS[name]
    A, B, Q, R = (np.array(matrix, float) for matrix in matrices)
    P = doubled(A, B, Q, R, continuous) if exact is None else np.array(exact, float)
    M = R if continuous else R + B.T @ P @ B
    K = np.linalg.solve(M, B.T @ P if continuous else B.T @ P @ A)
    covariance, states, inputs = 0.35 * np.linalg.inv(M), np.where(np.diag(P) > 0, np.diag(P), 1.0), np.diag(M)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    other = 10 ** rng.uniform(-4, 4, len(A)), 10 ** rng.uniform(-4, 4, len(R)), 10 ** rng.uniform(-4, 4)
    for x, u, c in ((np.ones(len(A)), np.ones(len(R)), 1.0), other):
        plant = A * x / x[:, None], B * u / x[:, None], Q * np.outer(x, x) / c, R * np.outer(u, u) / c
        found = design(*plant, temperature=0.7 / c, continuous=continuous)
        assert distance(found.cost_matrix * c / np.outer(x, x), P, 1 / states, states) < 1e-9
        assert distance(found.gain * u[:, None] / x, K, inputs, states) < 1e-9
        assert distance(found.covariance * np.outer(u, u), covariance, inputs, 1 / inputs) < 1e-9


def test_closed_forms_belong_to_plants_of_the_table() -> None:
    """No solution is left unused by a name that is not there."""
    assert KNOWN.keys() <= {plant["name"] for plant in TABLE}


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("share", [1e-6, 1e-10, 1e-14, 1e-18])
def test_a_cheap_growing_mode_beside_a_dear_one(share: float, continuous: bool) -> None:
    """P solves the Riccati equation and stabilises, as one matrix alone does; if nothing mixes them, mode by mode."""
    growth, Q, one = np.array([0.2, 0.3]), np.diag([1.0, share]), np.eye(2)
    A, B = np.diag(growth) if continuous else one + np.diag(growth), np.array([[1.0, 1.0], [1.0, 2.0]])
    found = design(A, B, Q, one, temperature=1.0, continuous=continuous)
    P, K = found.cost_matrix, found.gain
    change = A.T @ P + P @ A - P @ B @ K if continuous else A.T @ P @ (A - B @ K) - P
    np.testing.assert_allclose(Q + change, 0, atol=1e-12)
    np.testing.assert_allclose(B.T @ P if continuous else B.T @ P @ (A - B @ K), K, rtol=1e-10)
    assert (found.poles[0].real if continuous else abs(found.poles[0])) < -0.01 + (not continuous)
    half = (np.diag(Q) - 1 + np.diag(A) ** 2) / 2
    alone = growth + np.sqrt(growth**2 + np.diag(Q)) if continuous else half + np.sqrt(half**2 + np.diag(Q))
    apart = design(A, B, Q, B.T @ B, temperature=1.0, continuous=continuous)
    np.testing.assert_allclose(apart.cost_matrix, np.diag(alone), rtol=1e-9, atol=1e-12)
