"""Soft policy iteration on LQR: the start, the exact trajectory by Lemma 1, and the flow's distance from it."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import linalg

from ...commands.lqr.evaluate import normal_points
from ...flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from ...isfm import CurrentPolicy, FitConfig
from ...lqr import LQR, LinearGaussian
from ...rl.spi import LinearFit, fit_linear, gaussian_q, quadratic_q
from .figures import Shown, trajectories_figure

TIMIDITY = 10.0  # the start is the optimum of a problem whose actions cost this many times more
STATES, SAMPLES = 128, 1024  # from which a flow's gain and covariance are found
BATCH = 64  # states per gradient step
# The narrow start asks for such steps: four would get its variance wrong by 2 % while training, 1 % when measured.
TRAINING_SOLVER, MEASURING_SOLVER = RungeKutta("midpoint", 6), RungeKutta("rk4", 8)


class LQRProblem:
    """Max-entropy LQR, as a `Problem` of the study. A policy's soft Q is given by the matrix of its quadratic form."""

    config = FitConfig(steps=800, candidates=16, pairs=2, target="stein")
    shown = (
        Shown("gain K", "gain_error", "exact_gain_to_optimum"),
        Shown("covariance Σ", "covariance_error", "exact_covariance_to_optimum"),
    )

    def __init__(self, lqr: LQR):
        self.lqr, self.name = lqr, lqr.name
        size, inputs = lqr.B.shape
        self.description = f"{size} states, {inputs} inputs"
        self.states = jnp.asarray(normal_points(STATES, size))
        self.points = jnp.asarray(normal_points(SAMPLES, inputs))

    def document(self) -> dict[str, Any]:
        """What results.json says about the problem."""
        return {"system": self.lqr.to_dict(), "start": {"action_cost_factor": TIMIDITY}}

    # --- exact ----------------------------------------------------------------------------------------------------

    def start(self, alpha: float) -> LinearGaussian:
        """Return π_0: the optimum for actions that cost ten times more, hence timid in mean and in exploration."""
        lqr = self.lqr
        parts = lqr.A, lqr.B, lqr.Q, TIMIDITY * lqr.R, lqr.noise_cov, lqr.initial_cov, lqr.discount
        optimum = LQR(*parts).optimal(alpha)
        return LinearGaussian(optimum.K, optimum.covariance)

    def start_parameters(self, alpha: float) -> Float[np.ndarray, "m m"]:
        """Return the parameters of a Q whose improved policy is π_0."""
        return gaussian_q(*self.start(alpha), alpha)

    def exact(self, alpha: float, iterations: int) -> list[LinearGaussian]:
        """Return the exact trajectory π_0, …, π_iterations (Lemma 1)."""
        policies = [self.start(alpha)]
        for _ in range(iterations):
            policies.append(self.lqr.policy_iteration_step(policies[-1].K, alpha))
        return policies

    # --- flow policies --------------------------------------------------------------------------------------------

    def units(self, alpha: float) -> dict[str, Float[np.ndarray, " _"]]:
        """Return the units of states and actions, which stay the same through all iterations.

        States: standard deviations under the discounted state distribution of π_0. Actions: those of exp(r/α), which
        no improved policy exceeds, since M_P ≥ R.
        """
        K, covariance = self.start(alpha)
        closed, discount = self.lqr.A - self.lqr.B @ K, self.lqr.discount
        spread = self.lqr.B @ covariance @ self.lqr.B.T + self.lqr.noise_cov
        source = (1 - discount) * self.lqr.initial_cov + discount * spread
        visited = np.sqrt(np.diag(linalg.solve_discrete_lyapunov(np.sqrt(discount) * closed, source)).clip(0))
        action = np.sqrt(alpha / 2 * np.diag(np.linalg.inv(self.lqr.R)))
        return {"obs_scale": np.where(visited > 0, visited, 1.0), "action_scale": action}

    def policy(self, key: PRNGKeyArray, units: dict[str, Array]) -> FlowPolicy:
        """Return an untrained flow policy."""
        size, inputs = self.lqr.B.shape
        space = Unbounded(inputs, scale=units["action_scale"])
        velocity = VelocityNetwork(size, inputs, width=32, depth=1, key=key)
        return FlowPolicy(velocity, space, solver=TRAINING_SOLVER, obs_scale=units["obs_scale"])

    def propose(self, policy: FlowPolicy) -> CurrentPolicy:
        """Return where candidates come from: the paper's proposal."""
        return CurrentPolicy(policy)

    def observe(self, policy: FlowPolicy, key: PRNGKeyArray) -> Float[Array, "b n"]:
        """Draw states, as wide as visited ones, but uncorrelated, so that all directions count."""
        return jax.random.normal(key, (BATCH, self.lqr.B.shape[0])) * policy.obs_scale[None]

    def q(self, parameters: Float[Array, "m m"], obs: Float[Array, " n"], action: Float[Array, " d"]) -> Array:
        """Return Q(s, a)."""
        return quadratic_q(parameters, obs, action)

    def measure(self, policy: FlowPolicy) -> LinearFit:
        """Return what is known of a flow policy."""
        return fit_linear(policy.with_solver(MEASURING_SOLVER), self.states * policy.obs_scale[None], self.points)

    def evaluate(self, measured: LinearFit, alpha: float) -> Float[np.ndarray, "m m"]:
        """Return the parameters of the policy's soft Q (Lemma 1).

        Raises:
            ValueError: if the policy does not stabilise the system.
        """
        return self.lqr.soft_q(measured.K, measured.covariance, alpha).matrix

    # --- comparison -----------------------------------------------------------------------------------------------

    def compare(
        self, alpha: float, measured: LinearFit, exact: LinearGaussian, previous: LinearFit | None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Compare a flow with the exact policy of the same iteration: numbers, and what else results.json keeps."""
        optimum = self.lqr.optimal(alpha)
        step = exact if previous is None else self.lqr.policy_iteration_step(previous.K, alpha)
        numbers = {
            "gain_error": distance(measured.K, exact.K),
            "covariance_error": distance(measured.covariance, exact.covariance),
            "gain_step_error": distance(measured.K, step.K),
            "covariance_step_error": distance(measured.covariance, step.covariance),
            "mean_residual": float(np.sqrt(np.trace(measured.mean_residual) / np.trace(measured.covariance))),
            "gain_to_optimum": distance(measured.K, optimum.K),
            "covariance_to_optimum": distance(measured.covariance, optimum.covariance),
            "exact_gain_to_optimum": distance(exact.K, optimum.K),
            "exact_covariance_to_optimum": distance(exact.covariance, optimum.covariance),
        }
        kept = {
            "K": measured.K,
            "covariance": measured.covariance,
            "exact_K": exact.K,
            "exact_covariance": exact.covariance,
        }
        return numbers, kept

    def figures(self, iterates: list[dict[str, Any]], measured: Any) -> Iterator[tuple[str, Figure]]:
        """Draw the problem's own figures."""
        del measured
        yield "trajectories", trajectories_figure(f"soft policy iteration: {self.name}", iterates)


def distance(value: ArrayLike, exact: Float[np.ndarray, "a b"]) -> float:
    """Return ‖value − exact‖/‖exact‖ in the Frobenius norm, NaN where the exact matrix is zero."""
    size = np.linalg.norm(exact)
    return float(np.linalg.norm(np.asarray(value) - exact) / size) if size > 0 else math.nan
