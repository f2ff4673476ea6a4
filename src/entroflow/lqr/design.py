"""Design a stochastic linear controller in one call, and look at what it does.

Control's words and reinforcement learning's: the cost J, to be minimised, is minus the return; u = −Kx + exploration is
the policy N(−Kx, Σ); α is the temperature, paid per nat of the input's entropy; xᵀPx + constant is minus the value.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr import plant as plants
from entroflow.lqr import responses
from entroflow.lqr.answers import LinearGaussian
from entroflow.lqr.matrices import gaussian_entropy, symmetric, units
from entroflow.lqr.plant import Plant
from entroflow.lqr.responses import Response, Simulation
from entroflow.lqr.riccati import evaluate, improve, solve, stabilises
from entroflow.lqr.sampling import sampled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Cost(NamedTuple):
    """What a controller costs: E Σ γ^t cost_t = control + duration × (noise + exploration), the total, by its causes.

    In continuous time the sum is an integral, and a rate is per unit of time. At discount 1 the duration is infinite;
    the average cost is what counts, and control is the relative value: what starting there costs beside the average.
    """

    control: float
    """tr(P X_0): bringing the initial states, of covariance X_0, to rest."""
    noise: float
    """γ tr(P W) per step: making good for the noise."""
    exploration: float
    """tr(Σ M) per step: the input's randomness, with all that it leads to; α d/2 at the optimum."""
    entropy: float
    """The input's entropy in nats."""
    temperature: float
    """α."""
    duration: float
    """1/(1−γ) steps."""

    @property
    def average(self) -> float:
        """Noise + exploration: at discount 1 the average cost per step."""
        return self.noise + self.exploration

    @property
    def soft_average(self) -> float:
        """The same less α × entropy, minus the soft average reward: what the optimum minimises at discount 1."""
        return self.average - self.temperature * self.entropy

    @property
    def total(self) -> float:
        """The expected cost J, minus the standard return."""
        return self.control + (self.duration * self.average if self.average else 0.0)

    @property
    def soft_total(self) -> float:
        """The same less α × entropy, minus the soft return: what the optimum minimises."""
        return self.control + (self.duration * self.soft_average if self.soft_average else 0.0)


@dataclass(frozen=True, eq=False)
class Design:
    """The optimal controller u ~ N(−gain x, covariance) of a plant, made by `design`.

    Attributes:
        plant: what it was made for.
        given: the plant as given, before it was sampled.
        cost_matrix: (n, n) matrix P of the cost-to-go.
    """

    plant: Plant
    given: Plant
    cost_matrix: Float[np.ndarray, "n n"]

    @cached_property
    def gain(self) -> Float[np.ndarray, "d n"]:
        """K, which does not depend on α."""
        return improve(self.plant, self.cost_matrix)[0]

    @cached_property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Σ = (α/2) M⁻¹."""
        inverse = np.linalg.inv(improve(self.plant, self.cost_matrix)[1])
        return self.plant.temperature / 4 * (inverse + inverse.T)

    @cached_property
    def poles(self) -> Complex[np.ndarray, " n"]:
        """Eigenvalues of A − BK, the slowest first."""
        poles = np.linalg.eigvals(self.plant.A - self.plant.B @ self.gain).astype(complex)
        return poles[np.argsort(-(np.real(poles) if self.plant.continuous else np.abs(poles)), kind="stable")]

    @cached_property
    def cost(self) -> Cost:
        """What the controller costs, by cause."""
        return self._cost(self.cost_matrix, self.covariance)

    def cost_of(self, gain: ArrayLike, covariance: ArrayLike) -> Cost:
        """What another controller costs on the same plant.

        Args:
            gain: (d, n) gain, stabilising.
            covariance: (d, d) covariance of the input.

        Returns:
            Its cost, by cause.

        Raises:
            ValueError: if it does not stabilise the plant, or a shape is wrong.
        """
        d = len(self.plant.R)
        covariance = checks.finite_array("covariance", covariance, (d, d), "one row and one column per input")
        return self._cost(self._evaluate(gain), symmetric("covariance", covariance))

    def policy_iteration_step(self, gain: ArrayLike) -> LinearGaussian:
        """One exact step of soft policy iteration (Lemma 1) from a stabilising gain, whatever its covariance."""
        P = self._evaluate(gain)
        return LinearGaussian(improve(self.plant, P)[0], Design(self.plant, self.given, P).covariance)

    def to_gaussian_policy(self) -> LinearGaussian:
        """The controller as the policy N(−Kx, Σ)."""
        return LinearGaussian(self.gain, self.covariance)

    def response(self, x0: ArrayLike | None = None, steps: int | None = None, step: float | None = None) -> Response:
        """Mean and standard deviation of states and inputs from a given state, see `responses.response`."""
        return responses.response(self.plant, *self.to_gaussian_policy(), x0, steps, step)

    def simulate(
        self,
        x0: ArrayLike | None = None,
        steps: int | None = None,
        trajectories: int = 100,
        seed: int = 0,
        step: float | None = None,
    ) -> Simulation:
        """Random trajectories of the closed loop, see `responses.simulate`."""
        return responses.simulate(self.plant, *self.to_gaussian_policy(), x0, steps, trajectories, seed, step)

    def plot(self, x0: ArrayLike | None = None, steps: int | None = None, step: float | None = None) -> "Figure":
        """Response with bands, inputs, poles and the input's covariance, see `Design.response`."""
        from entroflow.lqr.design_figure import design_figure  # Matplotlib takes long to load

        response = self.response(x0, steps, step)
        unit = "step" if self.plant.dt is None and not self.plant.continuous else "time"
        return design_figure(response, self.poles, self.covariance, unit, self.plant.continuous)

    def to_json(self, path: str | Path | None = None) -> str:
        """The plant as given and the controller as JSON text, written to a file if one is named; see `from_json`."""
        result = {"gain": self.gain, "covariance": self.covariance, "cost_matrix": self.cost_matrix}
        found = {key: value.tolist() for key, value in result.items()}
        text = json.dumps({**self.given.to_dict(), "design": found}, indent=1)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path, **changes: Any) -> "Design":
        """Design from a file of the arguments of `design`: A, B, Q and R, the others if they are there.

        Args:
            path: the file; what `to_json` wrote is designed again.
            **changes: arguments that replace the file's, such as a temperature.

        Returns:
            The design.

        Raises:
            ValueError: with the file's name, for what is wrong with it.
        """
        given = {**checks.json_object(path), **changes}
        given.pop("design", None)
        try:
            for key in given:
                checks.choice("key", key, [field.name for field in fields(Plant) if field.name != "offset"])
            if missing := [key for key in ("A", "B", "Q", "R", "temperature") if key not in given]:
                raise checks.error("design", f"no {', '.join(missing)}", "a plant and a price", "add what is missing")
            return design(**given)
        except ValueError as failure:
            raise ValueError(f"{path}: {failure}") from None

    def _cost(self, P: np.ndarray, covariance: np.ndarray) -> Cost:
        plant = self.plant
        noise = (1.0 if plant.continuous else plant.discount) * float(np.sum(P * plant.noise_cov)) + plant.offset
        exploration = float(np.sum(covariance * improve(plant, P)[1]))
        control, entropy = float(np.sum(P * plant.initial_cov)), gaussian_entropy(covariance)
        return Cost(control, noise, exploration, entropy, plant.temperature, plant.duration)

    def _evaluate(self, gain: ArrayLike) -> np.ndarray:
        """The cost matrix of another gain, in units of this design's."""
        K = checks.finite_array("gain", gain, self.plant.B.T.shape, "one row per input, one column per state")
        if not stabilises(self.plant, K):
            expected = "one under which the discounted second moments decay"
            raise checks.error("gain", "one that does not stabilise the plant", expected, "start from the design's")
        x = 1 / units(self.cost_matrix)
        scaled = self.plant.in_units(x, np.ones(len(K)))
        return evaluate(scaled, K * x) / np.outer(x, x)


def design(
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
) -> Design:
    """The controller u = −Kx + exploration that minimises E Σ γ^t (xᵀQx + 2xᵀNu + uᵀRu − α entropy of u).

    At discount 1 it minimises the average per step. Numbers stand for matrices of one entry, lists of numbers for
    the columns of a plant with one input.

    Args:
        A: (n, n) state matrix; or a system of python-control, in the place of A and B: `design(system, Q, R, …)`.
        B: (n, d) input matrix.
        Q: (n, n) state cost, positive semidefinite; per unit of time if time is continuous.
        R: (d, d) input cost, positive definite.
        temperature: α, the price per nat of the input's entropy; in continuous time per unit of time.
        discount: γ per step, at most 1; in continuous time e^{−ρ} per unit of time.
        cross: (n, d) cross term N; None: zero.
        noise_cov: (n, n) covariance of the noise, per step or unit of time; None: zero.
        initial_cov: (n, n) covariance of the initial state; None: the identity.
        continuous: whether A and B are those of dx/dt = Ax + Bu.
        dt: with `continuous`, the time for which inputs are held: the plant, its noise and its cost are sampled
            exactly; else the time between two steps, which only names the times of responses.
        multiplicative: pairs (A_j, B_j) of noise ξ_j (A_j x + B_j u), see `plant`.

    Returns:
        The design.

    Raises:
        ValueError: of one sentence, for matrices of the wrong shape or sign, a plant that no gain stabilises, or an
            argument that cannot be.

    Example:
        >>> controller = design([[1, 0.1], [0, 1]], [0.005, 0.1], [[1, 0], [0, 1]], 0.1, temperature=0.5)
        >>> controller.gain.round(2), controller.covariance.round(2), round(controller.cost.exploration, 6)
        (array([[2.59, 3.44]]), array([[1.67]]), 0.25)
    """
    settings = {"temperature": temperature, "discount": discount, "continuous": continuous, "dt": dt}
    matrices = {"cross": cross, "noise_cov": noise_cov, "initial_cov": initial_cov, "multiplicative": multiplicative}
    given = plants.plant(A, B, Q, R, **settings, **matrices)
    solved = given
    if given.continuous and given.dt is not None:
        if given.multiplicative:
            expected, remedy = "additive noise alone", "leave dt out, or pass a discrete-time plant"
            raise checks.error("multiplicative", "noise to be sampled by dt", expected, remedy)
        solved = sampled(given, given.dt)
    return Design(solved, given, solve(solved))
