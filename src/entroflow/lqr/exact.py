"""Exact answers for max-entropy LQR (Section IV of the paper): Theorem 3, Lemma 1 and the return of any linear policy.

    s' = A s + B a + w,   E w = 0,   E[w wᵀ] = W,   reward r(s, a) = −(sᵀQs + 2sᵀNa + aᵀRa),   s_0 ~ N(0, initial_cov)

The discount γ turns the infinite-horizon problem into the undiscounted one of (√γ A, √γ B). Throughout
M_P = R + γ BᵀPB. NumPy and SciPy in float64; no JAX.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.answers import Evaluation, LinearGaussian, Optimum, Quadratic
from entroflow.lqr.matrices import gaussian_entropy, spectral_radius, symmetric
from entroflow.lqr.plant import Plant
from entroflow.lqr.riccati import check_solvable, evaluate_beside, improve, solve_discrete

_MATRICES = ("A", "B", "Q", "R", "noise_cov", "initial_cov", "cross")


@dataclass(frozen=True, init=False, eq=False)
class LQR:
    """A discounted linear-quadratic problem with Gaussian noise, checked on construction.

    Attributes:
        A: (n, n) state matrix.
        B: (n, d) input matrix.
        Q: (n, n) state cost, symmetric positive semidefinite.
        R: (d, d) action cost, symmetric positive definite.
        noise_cov: (n, n) covariance W of the process noise, positive semidefinite.
        initial_cov: (n, n) covariance of the initial state, whose mean is zero, positive semidefinite.
        discount: γ in [0, 1).
        name: what tables and figures call the system.
        cross: (n, d) cross term N, zero if not given, with which the cost is to stay positive semidefinite.

    Raises:
        ValueError: for a matrix of another shape or sign, or a system that no policy stabilises.

    Example:
        >>> lqr = LQR([[1.0]], [[1.0]], [[1.0]], [[1.0]], noise_cov=[[0.1]], initial_cov=[[1.0]], discount=0.9)
        >>> lqr.optimal(temperature=0.5).K.round(3)
        array([[0.588]])
    """

    A: Float[np.ndarray, "n n"]
    B: Float[np.ndarray, "n d"]
    Q: Float[np.ndarray, "n n"]
    R: Float[np.ndarray, "d d"]
    noise_cov: Float[np.ndarray, "n n"]
    initial_cov: Float[np.ndarray, "n n"]
    discount: float
    name: str
    cross: Float[np.ndarray, "n d"]

    def __init__(
        self,
        A: ArrayLike,
        B: ArrayLike,
        Q: ArrayLike,
        R: ArrayLike,
        noise_cov: ArrayLike,
        initial_cov: ArrayLike,
        discount: SupportsFloat,
        name: str = "custom",
        cross: ArrayLike | None = None,
    ):
        square = "one row and one column per state"
        n = len(checks.finite_array("A", A, (None, None), square))
        A = checks.finite_array("A", A, (n, n), square)
        B = checks.finite_array("B", B, (n, None), "one row per state of A, one column per action")
        d = B.shape[1]
        state, action = f"one row and one column for each of A's {n} states", f"one for each of B's {d} actions"
        N = checks.finite_array("cross", np.zeros((n, d)) if cross is None else cross, (n, d), state)
        of_states = {"Q": Q, "noise_cov": noise_cov, "initial_cov": initial_cov}
        matrices = {key: symmetric(key, checks.finite_array(key, of_states[key], (n, n), state)) for key in of_states}
        R = symmetric("R", checks.finite_array("R", R, (d, d), action), definite=True)
        symmetric("the cost [Q cross; cross.T R]", np.block([[matrices["Q"], N], [N.T, R]]))
        matrices |= {"A": A, "B": B, "R": R, "cross": N}
        for key, matrix in matrices.items():
            matrix.setflags(write=False)
            object.__setattr__(self, key, matrix)
        object.__setattr__(self, "discount", checks.discount("discount", discount))
        object.__setattr__(self, "name", name)
        check_solvable(self._plant)

    @cached_property
    def _plant(self) -> Plant:
        """The same as a plant; a design's temperature has no say in what is asked of it here."""
        given = self.A, self.B, self.Q, self.R, self.cross, self.noise_cov, self.initial_cov
        return Plant(*given, temperature=1.0, discount=self.discount, continuous=False, dt=None)

    @classmethod
    def from_json(cls, path: str | Path) -> "LQR":
        """Read a system from a JSON file, see `from_dict`; a `ValueError` names the file and what is wrong with it."""
        given = checks.json_object(path)
        try:
            return cls.from_dict(given)
        except ValueError as failure:
            raise ValueError(f"{path}: {failure}") from None

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "LQR":
        """Build a system from its constructor's arguments, lists of rows for matrices; other keys are refused."""
        checks.kind("system", given, Mapping, "a dictionary", "pass what LQR.to_dict returned")
        known, optional = [field.name for field in fields(cls)], ("name", "cross")
        expected = f"the keys {', '.join(known)} (of which {' and '.join(optional)} are optional)"
        if unknown := sorted(set(given) - set(known)):
            raise checks.error("system", f"the unknown key {unknown[0]!r}", expected, "remove or rename it")
        if missing := [key for key in known if key not in given and key not in optional]:
            raise checks.error("system", f"no {', '.join(missing)}", expected, "add what is missing")
        there, rows = [key for key in _MATRICES if key in given], "write it as a list of rows"
        matrices = {key: checks.finite_array(key, given[key], (None, None), rows) for key in there}
        name = given.get("name", "custom")
        if not isinstance(name, str):
            raise checks.error("name", repr(name), "a text", "pass for example 'custom'")
        return cls(**matrices, discount=checks.discount("discount", given["discount"]), name=name)

    def to_dict(self) -> dict[str, Any]:
        """The system as plain lists and numbers, ready for JSON and for `from_dict`."""
        matrices = {key: getattr(self, key).tolist() for key in _MATRICES if key != "cross" or self.cross.any()}
        return {**matrices, "discount": self.discount, "name": self.name}

    def in_units(self, state: ArrayLike, action: ArrayLike, reward: float = 1.0) -> "LQR":
        """The same system, counted in other units.

        Args:
            state: (n,) sizes of states that are to count as one.
            action: (d,) sizes of actions.
            reward: size of rewards.

        Returns:
            The system in these units.

        Raises:
            ValueError: for a wrong shape or number.
        """
        x = checks.finite_array("state", state, (len(self.A),), "one size per state")
        u = checks.finite_array("action", action, (len(self.R),), "one size per action")
        reward = checks.positive_number("reward", reward)
        scaled = self._plant.in_units(x, u)
        costs = {key: getattr(scaled, key) / reward for key in ("Q", "R", "cross")}
        return replace(self, **{key: getattr(scaled, key) for key in _MATRICES} | costs)

    def optimal(self, temperature: SupportsFloat) -> Optimum:
        """The optimal max-entropy policy for α > 0 (Theorem 3): Σ* = (α/2) M_P⁻¹, and K* does not depend on α.

        Example:
            >>> from entroflow.lqr import systems
            >>> optimum = systems.get("double_integrator").optimal(temperature=0.5)
            >>> optimum.K.round(2), optimum.covariance.round(2)
            (array([[1.89, 3.06]]), array([[1.76]]))
        """
        K, covariance = self._improve(self._riccati, temperature)
        value = self.evaluate(K, covariance, temperature)
        return Optimum(K, value.P, covariance, value.standard_return, value.soft_return, gaussian_entropy(covariance))

    @cached_property
    def _riccati(self) -> Float[np.ndarray, "n n"]:
        return solve_discrete(self._plant, self.name)

    def policy_iteration_step(self, K: ArrayLike, temperature: SupportsFloat) -> LinearGaussian:
        """One exact step of soft policy iteration (Lemma 1): K₊ = M⁻¹(γ BᵀP_K A + Nᵀ), Σ₊ = (α/2) M⁻¹, M = M_{P_K}.

        The current policy's covariance does not matter; for the arguments see `LQR.evaluate`.
        """
        return self._improve(self._value_matrix(self.checked_gain(K)), temperature)

    def _improve(self, P: Float[np.ndarray, "n n"], temperature: SupportsFloat) -> LinearGaussian:
        """The policy exp(Q/α)/Z for the soft Q whose next-state value is −sᵀPs + constant."""
        alpha, (K, M) = checks.positive_number("temperature", temperature), improve(self._plant, P)
        inverse = np.linalg.inv(M)
        return LinearGaussian(K, alpha / 4 * (inverse + inverse.T))

    def evaluate(self, K: ArrayLike, covariance: ArrayLike, temperature: SupportsFloat) -> Evaluation:
        """Value and expected returns of the policy N(−K s, covariance).

        P = Q − NK − KᵀNᵀ + KᵀRK + γ(A−BK)ᵀP(A−BK), and V(s) = −sᵀPs − [tr(Σ M_P) + γ tr(PW) − α H] / (1−γ) with
        the entropy H = ½ log det(2πeΣ); the standard return leaves H out. A singular covariance has entropy −∞.

        Args:
            K: (d, n) gain with √γ(A − BK) stable.
            covariance: (d, d) covariance of the action.
            temperature: entropy weight α > 0.

        Returns:
            P and the returns expected over s_0 ~ N(0, initial_cov).

        Raises:
            ValueError: if √γ(A − BK) is not stable, or an argument is not what it must be.
        """
        alpha, gamma = checks.positive_number("temperature", temperature), self.discount
        P, Sigma = self._value_matrix(self.checked_gain(K)), self.checked_covariance(covariance)
        per_step = np.sum(Sigma * improve(self._plant, P)[1]) + gamma * np.sum(P * self.noise_cov)
        standard = -float(np.sum(P * self.initial_cov) + per_step / (1 - gamma))
        return Evaluation(P, standard, standard + alpha * gaussian_entropy(Sigma) / (1 - gamma))

    def soft_value(self, K: ArrayLike, covariance: ArrayLike, temperature: SupportsFloat) -> Quadratic:
        """Soft value V(s) of a policy, (..., n) → (...), entropy at s included; see `LQR.evaluate`."""
        value = self.evaluate(K, covariance, temperature)
        return Quadratic(value.P, value.soft_return + float(np.sum(value.P * self.initial_cov)))

    def soft_q(self, K: ArrayLike, covariance: ArrayLike, temperature: SupportsFloat) -> Quadratic:
        """Soft value Q(s, a) = r(s, a) + γ E[V(s')] (Lemma 1), (..., n), (..., d) → (...); see `LQR.evaluate`."""
        P, constant = self.soft_value(K, covariance, temperature)
        cross = self.cross + self.discount * self.A.T @ P @ self.B
        of_states, of_actions = self.Q + self.discount * self.A.T @ P @ self.A, improve(self._plant, P)[1]
        matrix = np.block([[of_states, cross], [cross.T, of_actions]])
        return Quadratic(matrix, self.discount * (constant - float(np.sum(P * self.noise_cov))))

    def _value_matrix(self, K: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "n n"]:
        """P_K = Q − NK − KᵀNᵀ + KᵀRK + γ(A−BK)ᵀP_K(A−BK), in units of the optimum's."""
        return evaluate_beside(self._plant, K, self.Q + self._riccati)

    def checked_gain(self, K: ArrayLike, stabilising: bool = True) -> Float[np.ndarray, "d n"]:
        """K in float64.

        Args:
            K: (d, n) gain.
            stabilising: whether √γ(A − BK) has to be stable, so that infinite sums exist.

        Returns:
            The gain, (d, n).

        Raises:
            ValueError: if it is not.
        """
        gain = checks.finite_array("K", K, self.B.T.shape, "one row per action, one column per state")
        radius = np.sqrt(self.discount) * spectral_radius(self.A - self.B @ gain)
        if stabilising and not radius < 1:
            given = f"a closed loop sqrt(discount)*(A - B K) of spectral radius {radius:.6g}"
            raise checks.error("K", given, "a radius below 1", "use a stabilising gain such as optimal(temperature).K")
        return gain

    def checked_covariance(self, covariance: ArrayLike) -> Float[np.ndarray, "d d"]:
        """The action covariance as a (d, d) positive semidefinite matrix."""
        given = checks.finite_array("covariance", covariance, self.R.shape, "one row per action")
        return symmetric("covariance", given)
