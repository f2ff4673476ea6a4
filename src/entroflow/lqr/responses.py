"""What a linear controller u ~ N(−Kx, Σ) does: exact means and deviations over time, and random trajectories."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import linalg

from entroflow import checks
from entroflow.lqr.answers import LinearGaussian
from entroflow.lqr.matrices import matrix_root
from entroflow.lqr.plant import Plant
from entroflow.lqr.riccati import moments
from entroflow.lqr.sampling import integral

State = ArrayLike | None
Step = float | None


class Response(NamedTuple):
    """Mean and standard deviation of states and inputs over time."""

    time: Float[np.ndarray, "t"]
    """Times, in steps if the time between two is not known."""
    state_mean: Float[np.ndarray, "t n"]
    """E x."""
    input_mean: Float[np.ndarray, "t d"]
    """E u."""
    state_std: Float[np.ndarray, "t n"]
    """Deviations of the states."""
    input_std: Float[np.ndarray, "t d"]
    """Deviations of the inputs, exploration included."""


class Simulation(NamedTuple):
    """Simulated trajectories."""

    time: Float[np.ndarray, "states"]
    """As in `Response`."""
    states: Float[np.ndarray, "states trajectories n"]
    """One more than the inputs."""
    inputs: Float[np.ndarray, "steps trajectories d"]
    """u."""
    costs: Float[np.ndarray, "steps trajectories"]
    """xᵀQx + 2xᵀNu + uᵀRu, per step or per unit of time."""


def respond(plant: Plant, policy: LinearGaussian, x0: State, steps: int | None, step: Step) -> Response:
    """Mean and standard deviation of states and inputs, exact.

    Args:
        plant: the plant.
        policy: gain and covariance.
        x0: (n,) initial state; None: one standard deviation of each.
        steps: number of steps; None: about five time constants of the slowest pole.
        step: their length, in continuous time; None: the time constants fill the steps.

    Returns:
        The response at steps + 1 times.

    Raises:
        ValueError: for a number that is not positive, or a state of the wrong shape.
    """
    K, covariance = policy
    closed = plant.A - plant.B @ K
    steps, step = _steps(plant, closed, steps, step)
    physical, mean = replace(plant, discount=1.0), _state(plant, x0)
    n, alone = len(mean), not plant.multiplicative  # then the spread does not depend on the mean
    spread = plant.noise_cov + sum((b @ covariance @ b.T for _, b in physical.squares[1]), 0 * plant.noise_cov)
    flow = np.block([[moments(physical, K), spread.reshape(-1, 1)], [np.zeros((1, n * n)), np.eye(1)]])
    if plant.continuous:
        flow[-1, -1] = 0
        flow, closed = linalg.expm(flow * step), linalg.expm(closed * step)
    means, seconds = [mean], [np.append(np.outer(mean, mean) * (not alone), 1.0)]
    for _ in range(steps):
        means.append(closed @ means[-1])
        seconds.append(flow @ seconds[-1])
    means, squares = np.stack(means), np.stack(seconds)[:, :-1].reshape(-1, n, n)
    covariances = squares if alone else squares - np.einsum("ti,tj->tij", means, means)
    inputs = K @ covariances @ K.T + covariance
    deviations = [np.sqrt(np.maximum(np.diagonal(X, axis1=1, axis2=2), 0)) for X in (covariances, inputs)]
    return Response(step * np.arange(steps + 1), means, -means @ K.T, *deviations)


def run(
    plant: Plant, policy: LinearGaussian, x0: State, steps: int | None, trajectories: int, seed: int, step: Step
) -> Simulation:
    """Trajectories under Gaussian noise.

    In continuous time states move as under the average of the inputs, as in exploratory control: exactly, at the chosen
    times, at which the inputs are drawn.

    Args:
        plant: the plant.
        policy: gain and covariance.
        x0: (n,) initial state; None: drawn from N(0, initial_cov).
        steps: as in `respond`.
        trajectories: how many.
        seed: of the random numbers.
        step: as in `respond`.

    Returns:
        States, inputs and costs.

    Raises:
        ValueError: for a number that is not positive, or multiplicative noise in continuous time.
    """
    (K, covariance), _ = policy, checks.positive_int("trajectories", trajectories)
    closed, rng = plant.A - plant.B @ K, np.random.default_rng(checks.seed("seed", seed))
    steps, step = _steps(plant, closed, steps, step)
    normal = lambda size: rng.standard_normal((trajectories, size))  # noqa: E731
    n, d = plant.B.shape
    x = normal(n) @ matrix_root(plant.initial_cov).T if x0 is None else np.tile(_state(plant, x0), (trajectories, 1))
    noise, root = plant.noise_cov, matrix_root(covariance)
    if plant.continuous:
        if plant.multiplicative:
            expected, remedy = "additive noise alone", "ask for the response, which is exact"
            raise checks.error("multiplicative", "noise in continuous time", expected, remedy)
        transposed, noise = integral(closed.T, noise, step)
        closed = transposed.T
    shake, states, inputs = matrix_root(noise), [x], []
    for _ in range(steps):
        u = -x @ K.T + normal(d) @ root.T
        x = x @ closed.T if plant.continuous else x @ plant.A.T + u @ plant.B.T
        for a, b in plant.multiplicative:
            x = x + normal(1) * (states[-1] @ a.T + u @ b.T)
        x = x + normal(n) @ shake.T
        states.append(x)
        inputs.append(u)
    both = np.concatenate([np.stack(states[:-1]), np.stack(inputs)], axis=-1)
    weight = np.block([[plant.Q, plant.cross], [plant.cross.T, plant.R]])
    costs = np.einsum("tmi,ij,tmj->tm", both, weight, both) + plant.offset
    return Simulation(step * np.arange(steps + 1), np.stack(states), np.stack(inputs), costs)


def _state(plant: Plant, x0: State) -> Float[np.ndarray, " n"]:
    value = np.sqrt(np.diag(plant.initial_cov)) if x0 is None else np.atleast_1d(np.asarray(x0, object))
    return checks.finite_array("x0", value, (len(plant.A),), "one number per state")


def _steps(plant: Plant, closed: np.ndarray, steps: int | None, step: Step) -> tuple[int, float]:
    """How many steps of which length."""
    poles = np.linalg.eigvals(closed)
    if plant.continuous:
        steps, slowest = checks.positive_int("steps", 200 if steps is None else steps), np.abs(poles.real).min()
        return steps, checks.positive_number("step", 5 / max(slowest, 1e-9) / steps if step is None else step)
    if step is not None:
        raise checks.error("step", f"{step}", "none in discrete time", "pass dt to design")
    usual = int(np.clip(-5 / np.log(np.clip(np.abs(poles).max(), 1e-9, 1 - 1e-9)), 10, 500))
    return checks.positive_int("steps", usual if steps is None else steps), plant.dt or 1.0
