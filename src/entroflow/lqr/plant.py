"""A linear plant with a quadratic cost, as control engineers write it down: what all designs start from.

    x' = A x + B u + w   or, in continuous time,   dx = (A x + B u) dt + dw,   cost xᵀQx + 2xᵀNu + uᵀRu

w has the covariance W per step or per unit of time. Multiplicative noise adds ξ_j (A_j x + B_j u) for independent ξ_j
of mean zero and variance one, per step or per unit of time. α is the price that the design pays per nat of entropy.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.matrices import symmetric

Pair = tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n d"]]


@dataclass(frozen=True, eq=False)
class Plant:
    """A plant and its cost, made by `plant`, which checks them.

    Attributes:
        A: (n, n) state matrix.
        B: (n, d) input matrix.
        Q: (n, n) state cost.
        R: (d, d) input cost.
        cross: (n, d) cross term N.
        noise_cov: (n, n) covariance W.
        initial_cov: (n, n) covariance of the initial state, whose mean is zero.
        temperature: α.
        discount: γ per step, or e^{−ρ} per unit of time.
        continuous: whether time is.
        dt: time between two steps, if known.
        multiplicative: pairs (A_j, B_j).
        offset: cost per step that no input changes: that of the noise between two samples.
    """

    A: Float[np.ndarray, "n n"]
    B: Float[np.ndarray, "n d"]
    Q: Float[np.ndarray, "n n"]
    R: Float[np.ndarray, "d d"]
    cross: Float[np.ndarray, "n d"]
    noise_cov: Float[np.ndarray, "n n"]
    initial_cov: Float[np.ndarray, "n n"]
    temperature: float
    discount: float
    continuous: bool
    dt: float | None
    multiplicative: tuple[Pair, ...] = ()
    offset: float = 0.0

    @property
    def rate(self) -> float:
        """ρ = −log γ."""
        return -float(np.log(self.discount))

    @property
    def duration(self) -> float:
        """The discounted number of steps 1/(1−γ), or length of time 1/ρ; infinite without discount."""
        left = self.rate if self.continuous else 1 - self.discount
        return 1 / left if left > 0 else np.inf

    @property
    def squares(self) -> tuple[float, tuple[Pair, ...]]:
        """A weight, and the pairs (A_j, B_j) whose A_j x + B_j u enter the next value with their squares."""
        return (
            (1.0, self.multiplicative) if self.continuous else (self.discount, ((self.A, self.B), *self.multiplicative))
        )

    def in_units(self, x: Float[np.ndarray, " n"], u: Float[np.ndarray, " d"]) -> "Plant":
        """The same plant, with states and inputs of these sizes counted as one, see `LQR.in_units`."""
        (A, B), *pairs = [(a * x / x[:, None], b * u / x[:, None]) for a, b in ((self.A, self.B), *self.multiplicative)]
        Q, R, N = self.Q * np.outer(x, x), self.R * np.outer(u, u), self.cross * np.outer(x, u)
        W, X = self.noise_cov / np.outer(x, x), self.initial_cov / np.outer(x, x)
        changed = {"cross": N, "noise_cov": W, "initial_cov": X, "multiplicative": tuple(pairs)}
        return replace(self, A=A, B=B, Q=Q, R=R, **changed)

    def to_dict(self) -> dict[str, Any]:
        """The arguments of `plant` as plain lists and numbers."""
        given = {key: getattr(self, key) for key in Plant.__dataclass_fields__ if key != "offset"}
        given["multiplicative"] = [[part.tolist() for part in pair] for pair in self.multiplicative]
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in given.items()}


def plant(
    A: Any,
    B: ArrayLike,
    Q: ArrayLike,
    R: ArrayLike | None = None,
    *,
    temperature: SupportsFloat,
    discount: SupportsFloat = 1.0,
    cross: ArrayLike | None = None,
    noise_cov: ArrayLike | None = None,
    initial_cov: ArrayLike | None = None,
    continuous: bool = False,
    dt: SupportsFloat | None = None,
    multiplicative: Sequence[Any] = (),
) -> Plant:
    """Check a plant and its cost, see `design`."""
    if hasattr(A, "A") and hasattr(A, "B"):  # python-control's StateSpace
        if R is not None:
            raise checks.error("B", "an input matrix beside a system", "(system, Q, R)", "leave B out")
        dt = _time_step(A.dt, continuous, dt)
        A, B, Q, R = A.A, A.B, B, Q
    if R is None:
        raise checks.error("R", "none", "the cost of the inputs", "pass (A, B, Q, R), or (system, Q, R)")
    square = "one row and one column per state"
    A = _matrix("A", A, (None, None), square)
    n = len(A)
    A = _matrix("A", A, (n, n), square)
    B = _matrix("B", B, (n, None), "one row per state of A, one column per input")
    d = B.shape[1]
    state, action = f"one row and one column for each of A's {n} states", f"one for each of B's {d} inputs"
    Q = symmetric("Q", _matrix("Q", Q, (n, n), state))
    R = symmetric("R", _matrix("R", R, (d, d), action), definite=True)
    N = _matrix(
        "cross", np.zeros((n, d)) if cross is None else cross, (n, d), "one row per state, one column per input"
    )
    symmetric("the cost [Q cross; cross.T R]", np.block([[Q, N], [N.T, R]]))
    W = _matrix("noise_cov", np.zeros((n, n)) if noise_cov is None else noise_cov, (n, n), state)
    X = _matrix("initial_cov", np.eye(n) if initial_cov is None else initial_cov, (n, n), state)
    low = "above 0 and at most 1" if continuous else "of at least 0 and at most 1"
    holds = lambda x: 0 <= x <= 1 and (x > 0 or not continuous)  # noqa: E731
    alpha = checks.positive_number("temperature", temperature)
    gamma = checks.number("discount", discount, f"a number {low}", "pass for example 1 or 0.95", holds=holds)
    step = None if dt is None else checks.positive_number("dt", dt, "pass the time between two samples")
    pairs = tuple(
        (_matrix("multiplicative", a, (n, n), state), _matrix("multiplicative", b, (n, d), "the shape of B"))
        for a, b in multiplicative
    )
    W, X = symmetric("noise_cov", W), symmetric("initial_cov", X)
    return Plant(A, B, Q, R, N, W, X, alpha, gamma, bool(continuous), step, pairs)


def _time_step(own: Any, continuous: bool, dt: Any) -> Any:
    """The time step of a python-control system: 0 for a continuous one, None or True for one that is not known."""
    if own is not None and (own == 0) != continuous:
        kinds = "a continuous-time system", "a discrete-time one", "pass continuous=True, and dt to sample it"
        if continuous:
            kinds = "a discrete-time system", "a continuous-time one", "leave continuous=True out"
        raise checks.error("system", *kinds)
    if own is None or own is True or own == 0:
        return dt
    if dt is not None and dt != own:
        raise checks.error("dt", f"{dt} for a system of time step {own}", "the system's own", "leave it out")
    return own


def _matrix(name: str, value: Any, shape: tuple[int | None, int | None], meaning: str) -> Float[np.ndarray, "r c"]:
    """A matrix; a number is one of one entry, and a list of numbers a column, or a row where one row is asked for."""
    with contextlib.suppress(ValueError):  # rows of unequal length, refused below
        if np.ndim(value) == 0:
            value = [[value]]
        elif np.ndim(value) == 1 and (1 in shape or name == "B"):
            value = [list(value)] if shape[0] == 1 else [[entry] for entry in value]
    return np.asarray(checks.finite_array(name, value, shape, meaning))
