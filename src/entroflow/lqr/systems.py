"""A catalogue of named systems, each with a known optimum. All initial states have mean zero."""

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import linalg

from entroflow import checks
from entroflow.lqr.design import load_design
from entroflow.lqr.exact import LQR


def double_integrator() -> LQR:
    """A unit mass on a line, pushed by one force: position and velocity, time step 0.1, discount 0.95."""
    A, B = [[1.0, 0.1], [0.0, 1.0]], [[0.005], [0.1]]
    return LQR(A, B, np.eye(2), [[0.1]], 0.01 * np.eye(2), np.eye(2), 0.95, "double_integrator")


def coupled() -> LQR:
    """Two coupled stable states with one action each, whose optimal actions are correlated; discount 0.9."""
    A, B = [[0.9, 0.2], [-0.1, 0.8]], [[0.5, 0.1], [0.0, 0.4]]
    return LQR(A, B, np.eye(2), 0.5 * np.eye(2), 0.01 * np.eye(2), np.eye(2), 0.9, "coupled")


def unstable() -> LQR:
    """Three machines that heat their neighbours, one cooler each; two modes grow even when discounted by 0.95.

    Open-loop modes 1.241, 1.1 and 0.959: the chain of Dean et al. (Found. Comput. Math. 2020), further from stability.
    """
    A = [[1.1, 0.1, 0.0], [0.1, 1.1, 0.1], [0.0, 0.1, 1.1]]
    return LQR(A, np.eye(3), np.eye(3), np.eye(3), 0.01 * np.eye(3), np.eye(3), 0.95, "unstable")


def cartpole() -> LQR:
    """A cart-pole about its upright, unstable equilibrium: four states, one action, discount 0.97.

    State: cart position (m), cart velocity (m/s), pole angle (rad), angular velocity (rad/s); action: force in units
    of 10 N. Cart 1 kg, pole 0.1 kg and 1 m long, no friction (Barto, Sutton and Anderson 1983, linearised), 20 Hz.
    """
    gravity, cart, pole, half_length, force_unit = 9.81, 1.0, 0.1, 0.5, 10.0
    inertia = half_length * (4 / 3 - pole / (cart + pole))
    tilt, push = gravity / inertia, -1 / ((cart + pole) * inertia)
    reaction = pole * half_length / (cart + pole)
    F = np.array([[0, 1, 0, 0], [0, 0, -reaction * tilt, 0], [0, 0, 0, 1], [0, 0, tilt, 0]])
    G = force_unit * np.array([[0], [1 / (cart + pole) - reaction * push], [0], [push]])
    A, B = _sampled(F, G, 0.05)
    Q = np.diag([1.0, 0.1, 10.0, 0.1])
    return LQR(A, B, Q, [[1.0]], 1e-4 * np.eye(4), 0.01 * np.eye(4), 0.97, "cartpole")


def mass_spring() -> LQR:
    """Two unit masses between two walls, joined by springs, one force on each: four states, two actions, discount 0.95.

    State: two positions, then two velocities. Spring constant 2, damping 0.2, time step 0.2.
    """
    stiffness, damping = np.array([[4.0, -2.0], [-2.0, 4.0]]), 0.2 * np.eye(2)
    F = np.block([[np.zeros((2, 2)), np.eye(2)], [-stiffness, -damping]])
    G = np.vstack([np.zeros((2, 2)), np.eye(2)])
    A, B = _sampled(F, G, 0.2)
    Q = np.diag([1.0, 1.0, 0.1, 0.1])
    return LQR(A, B, Q, 0.1 * np.eye(2), 0.01 * np.eye(4), np.eye(4), 0.95, "mass_spring")


CATALOGUE: dict[str, Callable[[], LQR]] = {
    build.__name__: build for build in (double_integrator, coupled, unstable, cartpole, mass_spring)
}


def get(name: str) -> LQR:
    """The named system of `CATALOGUE`; a `ValueError` lists the names if there is none.

    Example:
        >>> get("coupled").A
        array([[ 0.9,  0.2],
               [-0.1,  0.8]])
    """
    remedy = "choose one of these or pass a .json file"
    return CATALOGUE[checks.choice("system", name, CATALOGUE, remedy)]()


def load(system: str | PathLike[str] | LQR) -> LQR:
    """A system given as itself, as a name of the catalogue, or as a path that ends in .json or contains a folder.

    The file holds the arguments of `LQR`, or is what `Design.to_json` wrote. Of a sampled plant what the noise costs
    between two samples (`Plant.offset`), which no controller changes, is left out.
    """
    if isinstance(system, LQR):
        return system
    checks.kind("system", system, str | PathLike, "an LQR, a name or the path of a file", "pass for example 'coupled'")
    path = Path(fspath(system))
    if isinstance(system, str) and path.suffix.lower() != ".json" and len(path.parts) <= 1:
        return get(system)
    if "temperature" not in checks.json_object(path):
        return LQR.from_json(path)
    plant = load_design(path).plant
    if plant.continuous or plant.multiplicative or plant.discount == 1:
        expected = "a plant in discrete time, a discount below 1 and no multiplicative noise"
        raise checks.error(str(path), "a design of which none is learned yet", expected, "design such a plant")
    matrices = plant.A, plant.B, plant.Q, plant.R, plant.noise_cov, plant.initial_cov
    return LQR(*matrices, plant.discount, path.stem, plant.cross)


def _sampled(
    F: Float[np.ndarray, "n n"], G: Float[np.ndarray, "n d"], step: float
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n d"]]:
    """A and B of s' = As + Ba for ds/dt = Fs + Ga with the action held for one time step, by one matrix exponential."""
    n, d = G.shape
    joint = linalg.expm(step * np.block([[F, G], [np.zeros((d, n + d))]]))
    return joint[:n, :n], joint[:n, n:]
