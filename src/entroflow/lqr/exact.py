"""Exact answers for max-entropy LQR (Section IV of the paper): Theorem 3, Lemma 1 and the return of any linear policy.

    s' = A s + B a + w,   E w = 0,   E[w wᵀ] = W,   reward r(s, a) = −(sᵀQs + 2sᵀNa + aᵀRa),   s_0 ~ N(0, initial_cov)

The discount γ turns the infinite-horizon problem into the undiscounted one of (√γ A, √γ B). Throughout
M_P = R + γ BᵀPB. NumPy and SciPy in float64; no JAX.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import linalg

from entroflow import checks
from entroflow.lqr.answers import Evaluation, LinearGaussian, Optimum, Quadratic, Returns
from entroflow.lqr.matrices import (
    doubled,
    gaussian_entropy,
    spectral_radius,
    stage_cost,
    state_units,
    symmetric,
    uncontrollable_mode,
    units,
    without_cross,
)

LARGEST = 1e75  # of a system's numbers in units of its own
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
        self._check_solvable()

    def _check_solvable(self) -> None:
        """Refuse a system whose optimum does not exist or does not stabilise √γ(A − BK)."""
        with np.errstate(all="ignore"):
            _, A, B, Q, R = self._balanced
        if not all(np.abs(part).max() < LARGEST for part in (A, B, Q, R)):  # or not a number
            given, expected = "numbers that overflow within a few steps", "ones to calculate with"
            raise checks.error("A, B, Q, R", given, expected, "make the largest ones smaller")
        expected = "none among the modes of sqrt(discount)*A of size 1 or more"
        sizes = np.linalg.norm(B, axis=0)
        if (mode := uncontrollable_mode(A, B / np.where(sizes > 0, sizes, 1.0))) is not None:
            given = f"a mode of size {mode:.4g} that B cannot reach (not stabilisable)"
            raise checks.error("A, B", given, expected, "change B or lower the discount")
        if (mode := uncontrollable_mode(A.T, Q)) is not None:
            given = f"a mode of size {mode:.4g} that costs nothing (not detectable)"
            raise checks.error("A, Q", given, expected, "give it weight in Q or lower the discount")

    @cached_property
    def _balanced(self) -> tuple[np.ndarray, ...]:
        """What states cost in n steps as `state_units`, and, so weighed, √γ A, √γ B, Q and R without cross term."""
        cost, root, action = self.Q, np.sqrt(self.discount), units(self.R)
        for _ in self.A:
            cost = self.Q + self.discount * self.A.T @ cost @ self.A
        state = state_units(cost, self.A, self.B, self.R)
        A, B = state[:, None] * root * self.A / state, state[:, None] * root * self.B / action
        forms = (self.Q, state, state), (self.R, action, action), (self.cross, state, action)
        Q, R, N = (part / np.outer(*weights) for part, *weights in forms)
        A, Q = without_cross(A, B, Q, R, N)
        return state, A, B, Q, R

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
        A, B = self.A * x / x[:, None], self.B * u / x[:, None]
        Q, R, N = (m * np.outer(*v) / reward for m, *v in ((self.Q, x, x), (self.R, u, u), (self.cross, x, u)))
        W, X = self.noise_cov / np.outer(x, x), self.initial_cov / np.outer(x, x)
        return replace(self, A=A, B=B, Q=Q, R=R, noise_cov=W, initial_cov=X, cross=N)

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
        """P = Q + γAᵀPA − K*ᵀ M_P K*, the discrete algebraic Riccati equation of (√γ A, √γ B).

        By SciPy, or else by doubling, which sees growing modes that are cheap beside others.
        """
        (state, A, B, Q, R), failure = self._balanced, ""
        for solver in (linalg.solve_discrete_are, doubled):
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():  # what overflows does not converge
                    warnings.simplefilter("error", linalg.LinAlgWarning)
                    return self._refined(solver(A, B, Q, R) * np.outer(state, state))
            except (ValueError, linalg.LinAlgWarning) as exception:  # LinAlgError included
                failure = failure or str(exception)
        remedy = "give B and Q entries that are not so small where A grows"
        raise checks.error(self.name, f"'{failure}'", "a Riccati equation that can be solved", remedy)

    def _refined(self, P: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
        """P without its solver's rounding, by policy iteration, whose change of P is the residual."""
        change = np.inf
        for _ in range(10):
            if not np.sqrt(self.discount) * spectral_radius(self.A - self.B @ (K := self._gain(P))) < 1:
                raise ValueError("a gain that does not stabilise")
            previous, last, P = P, change, self._value_matrix(K, P)
            change = np.abs((P - previous) / np.outer(unit := units(self.Q + P), unit)).max()
            if change <= 1e-10 or last <= change <= 1e-8:  # as far as rounding lets it
                return P
        raise ValueError("no convergence to rounding")

    def policy_iteration_step(self, K: ArrayLike, temperature: SupportsFloat) -> LinearGaussian:
        """One exact step of soft policy iteration (Lemma 1): K₊ = M⁻¹(γ BᵀP_K A + Nᵀ), Σ₊ = (α/2) M⁻¹, M = M_{P_K}.

        The current policy's covariance does not matter; for the arguments see `LQR.evaluate`.
        """
        return self._improve(self._value_matrix(self.checked_gain(K), self._riccati), temperature)

    def _improve(self, P: Float[np.ndarray, "n n"], temperature: SupportsFloat) -> LinearGaussian:
        """The policy exp(Q/α)/Z for the soft Q whose next-state value is −sᵀPs + constant."""
        alpha = checks.positive_number("temperature", temperature)
        inverse = np.linalg.inv(self._curvature(P))
        return LinearGaussian(self._gain(P), alpha / 4 * (inverse + inverse.T))

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
        P, Sigma = self._value_matrix(self.checked_gain(K), self._riccati), self.checked_covariance(covariance)
        per_step = np.sum(Sigma * self._curvature(P)) + gamma * np.sum(P * self.noise_cov)
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
        matrix = np.block([[self.Q + self.discount * self.A.T @ P @ self.A, cross], [cross.T, self._curvature(P)]])
        return Quadratic(matrix, self.discount * (constant - float(np.sum(P * self.noise_cov))))

    def state_covariances(self, K: ArrayLike, covariance: ArrayLike, horizon: int) -> Float[np.ndarray, "states n n"]:
        """Covariances of s_0, …, s_H: X₊ = (A−BK) X (A−BK)ᵀ + BΣBᵀ + W; see `LQR.finite_horizon_return`."""
        closed = self.A - self.B @ self.checked_gain(K, stabilising=False)
        spread = self.B @ self.checked_covariance(covariance) @ self.B.T + self.noise_cov
        covariances = [self.initial_cov]
        for _ in range(checks.positive_int("horizon", horizon)):
            covariances.append(closed @ covariances[-1] @ closed.T + spread)
        return np.stack(covariances)

    def finite_horizon_return(
        self, K: ArrayLike, covariance: ArrayLike, temperature: SupportsFloat, horizon: int
    ) -> Returns:
        """What an average over H-step trajectories of N(−K s, covariance) estimates, unlike `evaluate`'s infinite sum.

        Args:
            K: (d, n) gain, stabilising or not.
            covariance: (d, d) covariance of the action.
            temperature: entropy weight α > 0.
            horizon: number of rewards H.

        Returns:
            The expected returns.

        Raises:
            ValueError: if the temperature or the horizon is not positive.
        """
        alpha = checks.positive_number("temperature", temperature)
        K, Sigma = self.checked_gain(K, stabilising=False), self.checked_covariance(covariance)
        covariances = self.state_covariances(K, Sigma, horizon)[:-1]
        weights = self.discount ** np.arange(horizon)
        per_state = stage_cost(self.Q, self.R, self.cross, K)
        standard = -float(weights @ (np.einsum("hij,ij->h", covariances, per_state) + np.sum(self.R * Sigma)))
        return Returns(standard, standard + alpha * gaussian_entropy(Sigma) * float(weights.sum()))

    def _curvature(self, P: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "d d"]:
        """M_P = R + γ BᵀPB, minus half the curvature of Q in the action."""
        return self.R + self.discount * self.B.T @ P @ self.B

    def _gain(self, P: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "d n"]:
        """K = M_P⁻¹(γ BᵀPA + Nᵀ), the action that maximises Q."""
        return np.linalg.solve(self._curvature(P), self.discount * self.B.T @ P @ self.A + self.cross.T)

    def _value_matrix(self, K: Float[np.ndarray, "d n"], size: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
        """P_K = Q − NK − KᵀNᵀ + KᵀRK + γ(A−BK)ᵀP_K(A−BK), a discrete Lyapunov equation, in units of a P like it."""
        unit = state_units(self.Q + size, self.A, self.B, self.R)
        closed = unit[:, None] * np.sqrt(self.discount) * (self.A - self.B @ K) / unit
        cost = stage_cost(self.Q, self.R, self.cross, K) / np.outer(unit, unit)
        P = linalg.solve_discrete_lyapunov(closed.T, cost)
        return (P + P.T) / 2 * np.outer(unit, unit)

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
