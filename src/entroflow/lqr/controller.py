"""A designed controller: what it is, what it costs, what it does.

Control's words and reinforcement learning's: the cost J, to be minimised, is minus the return; u = −Kx + exploration is
the policy N(−Kx, Σ); α is the temperature, paid per nat of the input's entropy; xᵀPx + constant is minus the value.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from entroflow import checks, files
from entroflow.lqr.answers import LinearGaussian
from entroflow.lqr.matrices import gaussian_entropy, symmetric
from entroflow.lqr.plant import Plant
from entroflow.lqr.responses import Response, Simulation, State, Step, respond, run
from entroflow.lqr.riccati import evaluate_beside, improve, stabilises

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
    """γ tr(P W) per step: making good for the noise; of a sampled plant with what it costs between two samples."""
    exploration: float
    """tr(Σ M) per step: the input's randomness, with all that it leads to; α d/2 at the optimum."""
    entropy: float
    """The input's entropy in nats."""
    temperature: float
    """α."""
    duration: float
    """1/(1−γ) steps."""

    def __repr__(self) -> str:
        """Say what the sum is and what it consists of; at discount 1 that is the average cost per step."""
        each = f"noise {self.noise:.4g} + exploration {self.exploration:.4g}"
        randomness = f"entropy {self.entropy:.4g} nats at α = {self.temperature:g}"
        if np.isinf(self.duration):
            return f"<Cost(average={self.average:.6g}): {each}, control {self.control:.4g}, {randomness}>"
        sums = f"control {self.control:.4g} + {self.duration:.4g} × ({each})"
        return f"<Cost(total={self.total:.6g}): {sums}, {randomness}>"

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

    def __repr__(self) -> str:
        """Say what it is: price, discount and gain."""
        gain = np.array2string(self.gain, precision=4, suppress_small=True).replace("\n", "")
        given = f"temperature={self.plant.temperature:g}, discount={self.plant.discount:g}"
        return f"<Design({given}): {'continuous' if self.plant.continuous else 'discrete'} time, K = {gain}>"

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
        covariance = checks.finite_array("covariance", covariance, self.plant.R.shape, "one row per input")
        return self._cost(self._evaluate(gain), symmetric("covariance", covariance))

    def policy_iteration_step(self, gain: ArrayLike) -> LinearGaussian:
        """One exact step of soft policy iteration (Lemma 1) from a stabilising gain, whatever its covariance."""
        P = self._evaluate(gain)
        return LinearGaussian(improve(self.plant, P)[0], Design(self.plant, self.given, P).covariance)

    def to_gaussian_policy(self) -> LinearGaussian:
        """The controller as the policy N(−Kx, Σ)."""
        return LinearGaussian(self.gain, self.covariance)

    def response(self, x0: State = None, steps: int | None = None, step: Step = None) -> Response:
        """Mean and standard deviation of states and inputs from a given state, see `respond`."""
        return respond(self.plant, self.to_gaussian_policy(), x0, steps, step)

    def simulate(
        self,
        x0: State = None,
        steps: int | None = None,
        trajectories: int = 100,
        seed: int = 0,
        step: Step = None,
    ) -> Simulation:
        """Random trajectories of the closed loop, see `lqr.responses.run`."""
        return run(self.plant, self.to_gaussian_policy(), x0, steps, trajectories, seed, step)

    def plot(self, x0: State = None, steps: int | None = None, step: Step = None) -> "Figure":
        """Response with bands, inputs, poles and the input's covariance, see `respond`; scripts `.savefig` it."""
        from entroflow.lqr.design_figure import design_figure  # Matplotlib takes long to load

        response = self.response(x0, steps, step)
        unit = "step" if self.plant.dt is None and not self.plant.continuous else "time"
        return design_figure(response, self.poles, self.covariance, unit, self.plant.continuous)

    def to_json(self, path: str | Path | None = None) -> str:
        """The plant as given and the controller as JSON text, in a file if one is named; see `load_design`."""
        found = {key: getattr(self, key).tolist() for key in ("gain", "covariance", "cost_matrix")}
        text = json.dumps({**self.given.to_dict(), "design": found}, indent=1)
        if path is not None:
            path = Path(checks.kind("path", path, str | PathLike, "the path of a file", "pass a text"))
            with checks.reachable(path, "a file that can be written"):
                files.replace(path, text)
        return text

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
            expected = "one under which discounted second moments decay"
            raise checks.error("gain", "one that does not stabilise the plant", expected, "start from the design's")
        return evaluate_beside(self.plant, K, self.cost_matrix)


def designed(given: Any) -> Design:
    """What is given, if it is a design."""
    return checks.kind("design", given, Design, "a design", "pass what lqr.design(…) returns")


def plant_of(given: Any) -> Plant:
    """The plant of a design, or a plant itself."""
    plant = given.plant if isinstance(given, Design) else given
    return checks.kind("plant", plant, Plant, "a design, or its plant", "pass what lqr.design(…) returns")
