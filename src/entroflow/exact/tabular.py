"""Soft value iteration on a table, and the decision problems that are linear (Todorov, 2006).

    V(s) = α log Σ_a w(s, a) exp( [ r(s, a) + γ Σ_s' P(s'|s, a) V(s') ] / α )

with weights w: those of a quadrature, ones for a sum over actions, or the probabilities of a policy from which leaving
costs α KL. Where the rows of P sum to less than one, the return may end. NumPy and SciPy, float64.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.sparse.linalg import spsolve

from entroflow import checks


@dataclass(frozen=True, eq=False)
class Table:
    """A decision problem of S states and A actions at each.

    Attributes:
        reward: r(s, a).
        transition: P, sparse, (S·A, S); row s·A + a holds what follows s and a.
        log_weights: log w, (S, A) or (1, A).
    """

    reward: Float[np.ndarray, "S A"]
    transition: Any
    log_weights: Float[np.ndarray, "_ A"]

    def q(self, value: Float[np.ndarray, " S"], discount: float) -> Float[np.ndarray, "S A"]:
        """Q(s, a) where the next state's soft value is known.

        Args:
            value: V(s').
            discount: γ.

        Returns:
            The action values.
        """
        return self.reward + discount * (self.transition @ value).reshape(self.reward.shape)

    def backup(self, value: Float[np.ndarray, " S"], temperature: float, discount: float) -> Float[np.ndarray, " S"]:
        """One application of the soft Bellman operator, a contraction by γ in the largest difference.

        Args:
            value: V(s').
            temperature: α.
            discount: γ.

        Returns:
            V(s).
        """
        scaled = self.q(value, discount) / temperature + self.log_weights
        largest = scaled.max(axis=1)
        return temperature * (largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1)))


class Iterated(NamedTuple):
    """What value iteration found."""

    values: Float[np.ndarray, "stages S"]
    """V at times 0, 1, … of a finite horizon, or one row for all times."""
    bound: float
    """V is as near as this to the table's fixed point; 0 for a finite horizon, which needs no iteration."""


def iterate(
    table: Table,
    *,
    temperature: float,
    discount: float,
    horizon: int | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 20_000,
) -> Iterated:
    """Soft value iteration, between bounds (MacQueen, 1966) that close in as fast as states are mixed.

    For TV − V between c and C, the fixed point lies between TV + cγ/(1−γ) and TV + Cγ/(1−γ), since T(V + c) = TV + γc.
    Where the return may end, γc is an upper bound of what c > 0 adds, and c, C are to enclose zero.

    Args:
        table: the problem.
        temperature: α.
        discount: γ in [0, 1); in [0, 1] for a finite horizon, or where the return ends from everywhere.
        horizon: number of steps, after which the value is zero; None: the return goes on.
        tolerance: how near to the fixed point to come; without discount the last change.
        max_iterations: it stops with an error when it has not come there by then.

    Returns:
        The values.

    Raises:
        ValueError: if α is not positive or γ not in [0, 1].
        RuntimeError: if the iteration does not converge.
    """
    checks.positive_number("temperature", temperature)
    checks.number("discount", discount, "a number in [0, 1]", "pass for example 0.99", holds=lambda x: 0 <= x <= 1)
    value = np.zeros(len(table.reward))
    if horizon is not None:
        values = [value]
        for _ in range(horizon):
            values.insert(0, table.backup(values[0], temperature, discount))
        return Iterated(np.stack(values), 0.0)
    ends = bool(table.transition.sum(axis=1).min() < 1 - 1e-9)
    factor = discount / (1 - discount) if discount < 1 else 1.0
    for _ in range(max_iterations):
        following = table.backup(value, temperature, discount)
        change = following - value
        low, high = change.min(), change.max()
        if ends or discount == 1:
            low, high = min(low, 0.0), max(high, 0.0)
        value = following
        if factor * (high - low) / 2 <= tolerance:
            middle = factor * (low + high) / 2 if discount < 1 else 0.0
            return Iterated(value[None] + middle, float(factor * (high - low) / 2))
    raise RuntimeError(f"soft value iteration has not converged in {max_iterations} steps")


def linearly_solvable(
    passive: Any, reward: Float[np.ndarray, " S"], temperature: float, ends: Bool[np.ndarray, " S"]
) -> Float[np.ndarray, " S"]:
    """The value of a first-exit problem in which states are chosen at the price α KL(chosen‖passive): one linear solve.

    z = exp(V/α) obeys z(s) = exp(r(s)/α) Σ_s' p(s'|s) z(s'), and z = exp(r/α) where the return ends. The best choice of
    the next state is p(s'|s) z(s') normalised. Any number of states; sparse matrices are welcome.

    Args:
        passive: (S, S) probabilities p(s'|s) of what happens without control, dense or sparse.
        reward: r(s), for being there once.
        temperature: α.
        ends: where the return ends; of every other state, such a one can be reached.

    Returns:
        V(s).

    Raises:
        ValueError: if exp(V/α) leaves the range of numbers, or is not positive.

    Example:
        >>> corridor = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
        >>> linearly_solvable(corridor, np.array([-1.0, -1.0, 0.0]), 1.0, np.array([False, False, True])).round(3)
        array([-2.623, -1.623,  0.   ])
    """
    alpha = checks.positive_number("temperature", temperature)
    level = reward[ends].max(initial=-np.inf)  # z is one where the end is best
    with np.errstate(over="ignore"):
        weight = np.exp(np.where(ends, reward - level, reward) / alpha)
    between = sparse.diags_array(np.where(ends, 0.0, weight)) @ sparse.csr_array(passive)
    z = np.asarray(spsolve(sparse.csc_array(sparse.eye_array(len(reward)) - between), np.where(ends, weight, 0.0)))
    if not (np.isfinite(z) & (z > 0)).all():
        given = f"exp(V/{alpha:g}) that is not a positive number everywhere"
        raise checks.error("temperature", given, "a value within reach of an end", "raise it, or check what ends")
    return alpha * np.log(z) + level
