"""A linear plant with a quadratic cost, as control engineers write it down: what all designs start from.

    x' = A x + B u + w   or, in continuous time,   dx = (A x + B u) dt + dw,   cost xᵀQx + 2xᵀNu + uᵀRu

w has the covariance W per step or per unit of time. Multiplicative noise adds ξ_j (A_j x + B_j u) for independent ξ_j
of mean zero and variance one, per step or per unit of time. α is the price that the design pays per nat of entropy.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

Pair = tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n d"]]


@dataclass(frozen=True, eq=False)
class Plant:
    """A plant and its cost, which `design` has checked; for the fields see `design`.

    Attributes:
        discount: γ per step, or e^{−ρ} per unit of time.
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

    def stage_cost(self, K: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "n n"]:
        """The matrix of the cost of u = −Kx: Q − NK − KᵀNᵀ + KᵀRK."""
        return self.Q - self.cross @ K - K.T @ self.cross.T + K.T @ self.R @ K

    def in_units(self, state: Float[np.ndarray, " n"], action: Float[np.ndarray, " d"]) -> "Plant":
        """The same plant, with states and inputs of these sizes counted as one, see `LQR.in_units`."""
        x, u = state, action
        (A, B), *pairs = [(a * x / x[:, None], b * u / x[:, None]) for a, b in ((self.A, self.B), *self.multiplicative)]
        Q, R, N = self.Q * np.outer(x, x), self.R * np.outer(u, u), self.cross * np.outer(x, u)
        W, X = self.noise_cov / np.outer(x, x), self.initial_cov / np.outer(x, x)
        changed = {"cross": N, "noise_cov": W, "initial_cov": X, "multiplicative": tuple(pairs)}
        return replace(self, A=A, B=B, Q=Q, R=R, **changed)

    def to_dict(self) -> dict[str, Any]:
        """The arguments of `design` as plain lists and numbers."""
        given = {key: getattr(self, key) for key in Plant.__dataclass_fields__ if key != "offset"}
        given["multiplicative"] = [[part.tolist() for part in pair] for pair in self.multiplicative]
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in given.items()}
