"""Soft policy iteration on LQR: the start, exact iterates by Lemma 1, gain and covariance of a flow, distances."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import linalg

from entroflow.commands.lqr.evaluate import normal_points
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import CurrentPolicy, FitConfig
from entroflow.lqr import LQR, LinearGaussian
from entroflow.moments import Moments

from .figures import Shown, trajectories_figure

TIMIDITY = 10.0  # the start is the optimum of a problem whose actions cost this many times more
STATES, SAMPLES = 128, 1024  # from which a flow's gain and covariance are found
BATCH = 64  # states per gradient step
# The narrow start asks for such steps: four would get its variance wrong by 2 % while training, 1 % when measured.
TRAINING_SOLVER, MEASURING_SOLVER = RungeKutta("midpoint", 6), RungeKutta("rk4", 8)


class LinearFit(NamedTuple):
    """The linear Gaussian policy N(−K s, covariance) nearest to a policy.

    Attributes:
        K: gain of the least-squares regression of the actions' means on the states, shape (d, n).
        covariance: covariance of the actions at one state, averaged over the states, shape (d, d).
        mean_residual: covariance of what the regression leaves of the means, zero for a linear policy, shape (d, d).
    """

    K: Float[Array, "d n"]
    covariance: Float[Array, "d d"]
    mean_residual: Float[Array, "d d"]


class LQRProblem:
    """Max-entropy LQR. The parameters that determine a policy's soft Q are the matrix of its quadratic form."""

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

    def start(self, temperature: float) -> LinearGaussian:
        """Return π_0: the optimum for actions that cost ten times more, hence timid in mean and in exploration."""
        lqr = self.lqr
        parts = lqr.A, lqr.B, lqr.Q, TIMIDITY * lqr.R, lqr.noise_cov, lqr.initial_cov, lqr.discount
        optimum = LQR(*parts).optimal(temperature)
        return LinearGaussian(optimum.K, optimum.covariance)

    def start_parameters(self, temperature: float) -> Float[np.ndarray, "m m"]:
        """Return the parameters of a Q whose improved policy is π_0."""
        return gaussian_q(*self.start(temperature), temperature)

    def exact(self, temperature: float, iterations: int) -> list[LinearGaussian]:
        """Return the exact trajectory π_0, …, π_iterations (Lemma 1)."""
        policies = [self.start(temperature)]
        for _ in range(iterations):
            policies.append(self.lqr.policy_iteration_step(policies[-1].K, temperature))
        return policies

    # --- flow policies --------------------------------------------------------------------------------------------

    def units(self, temperature: float) -> dict[str, Float[np.ndarray, " _"]]:
        """Return the units of states and actions, which stay the same through all iterations.

        States: standard deviations under the discounted state distribution of π_0. Actions: those of exp(r/α), which
        no improved policy exceeds, since M_P ≥ R.
        """
        K, covariance = self.start(temperature)
        closed, discount = self.lqr.A - self.lqr.B @ K, self.lqr.discount
        spread = self.lqr.B @ covariance @ self.lqr.B.T + self.lqr.noise_cov
        source = (1 - discount) * self.lqr.initial_cov + discount * spread
        visited = np.sqrt(np.diag(linalg.solve_discrete_lyapunov(np.sqrt(discount) * closed, source)).clip(0))
        action = np.sqrt(temperature / 2 * np.diag(np.linalg.inv(self.lqr.R)))
        return {"obs_scale": np.where(visited > 0, visited, 1.0), "action_scale": action}

    def policy(self, key: PRNGKeyArray, units: dict[str, Array]) -> FlowPolicy:
        """Return an untrained flow policy."""
        size, inputs = self.lqr.B.shape
        space = Unbounded(inputs, scale=units["action_scale"])
        velocity = VelocityNetwork(size, inputs, width=32, depth=1, key=key)
        return FlowPolicy(
            velocity, space, solver=TRAINING_SOLVER, obs_units=Moments(jnp.zeros(size), units["obs_scale"])
        )

    def propose(self, policy: FlowPolicy) -> CurrentPolicy:
        """Return where candidates come from: the paper's proposal."""
        return CurrentPolicy(policy)

    def observe(self, policy: FlowPolicy, key: PRNGKeyArray) -> Float[Array, "b n"]:
        """Draw states, as wide as visited ones, but uncorrelated, so that all directions count."""
        return jax.random.normal(key, (BATCH, self.lqr.B.shape[0])) * policy.obs_units.scale[None]

    def q(self, parameters: Float[Array, "m m"], obs: Float[Array, " n"], action: Float[Array, " d"]) -> Array:
        """Return Q(s, a)."""
        return quadratic_q(parameters, obs, action)

    def measure(self, policy: FlowPolicy) -> LinearFit:
        """Return what is known of a flow policy."""
        return fit_linear(policy.with_solver(MEASURING_SOLVER), self.states * policy.obs_units.scale[None], self.points)

    def evaluate(self, measured: LinearFit, temperature: float) -> Float[np.ndarray, "m m"]:
        """Return the parameters of the policy's soft Q (Lemma 1).

        Raises:
            ValueError: if the policy does not stabilise the system.
        """
        return self.lqr.soft_q(measured.K, measured.covariance, temperature).matrix

    # --- comparison -----------------------------------------------------------------------------------------------

    def compare(
        self, temperature: float, measured: LinearFit, exact: LinearGaussian, previous: LinearFit | None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Compare a flow with the exact policy of the same iteration: numbers, and what else results.json keeps."""
        optimum = self.lqr.optimal(temperature)
        step = exact if previous is None else self.lqr.policy_iteration_step(previous.K, temperature)
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

    def picture(self, measured: LinearFit) -> None:
        """Return what `figures` needs of a policy beyond its record: nothing."""

    def figures(self, iterates: list[dict[str, Any]], pictures: Any) -> Iterator[tuple[str, Figure]]:
        """Draw the problem's own figures."""
        del pictures
        yield "trajectories", trajectories_figure(f"soft policy iteration: {self.name}", iterates)


def distance(value: ArrayLike, exact: Float[np.ndarray, "a b"]) -> float:
    """Return ‖value − exact‖/‖exact‖ in the Frobenius norm, NaN where the exact matrix is zero."""
    size = np.linalg.norm(exact)
    return float(np.linalg.norm(np.asarray(value) - exact) / size) if size > 0 else math.nan


def fit_linear(policy: FlowPolicy, states: Float[Array, "m n"], points: Float[Array, "k d"]) -> LinearFit:
    """Find the gain and the covariance of a flow policy from its actions.

    Args:
        policy: the policy.
        states: states at which to look.
        points: standard normal noise x_0, from which the actions at every state are made.

    Returns:
        The fit.
    """

    def moments(state: Array) -> tuple[Array, Array]:
        actions = jax.vmap(policy.push, in_axes=(None, 0))(state, points)
        mean = jnp.mean(actions, axis=0)
        centred = actions - mean[None]
        return mean, centred.T @ centred / points.shape[0]

    means, covariances = jax.vmap(moments)(states)
    solution = jnp.linalg.lstsq(states, means)[0]
    residual = means - states @ solution
    return LinearFit(-solution.T, jnp.mean(covariances, axis=0), residual.T @ residual / states.shape[0])


def quadratic_q(matrix: Float[Array, "m m"], obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
    """Return Q(s, a) = −[s; a]ᵀ matrix [s; a], Lemma 1 without its constant, which no improvement depends on."""
    x = jnp.concatenate([obs, action])
    return -x @ matrix @ x


def gaussian_q(
    K: Float[np.ndarray, "d n"], covariance: Float[np.ndarray, "d d"], temperature: float
) -> Float[np.ndarray, "m m"]:
    """Return the matrix of the quadratic Q for which exp(Q/α)/Z is N(−K s, covariance).

    Args:
        K: gain.
        covariance: covariance of the actions, positive definite.
        temperature: entropy weight α > 0.
    """
    deviation = np.hstack([K, np.eye(len(K))])  # of the action from its mean, a + K s
    return temperature / 2 * deviation.T @ np.linalg.solve(covariance, deviation)
