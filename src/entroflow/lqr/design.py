"""Design a stochastic linear controller in one call."""

import contextlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.controller import Design
from entroflow.lqr.matrices import symmetric
from entroflow.lqr.plant import Plant
from entroflow.lqr.riccati import solve
from entroflow.lqr.sampling import sampled


def design(
    A: Any,
    B: ArrayLike | None = None,
    Q: ArrayLike | None = None,
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
        A: (n, n) state matrix; or a StateSpace of python-control or SciPy in the place of A and B:
            `design(system, Q, R, …)`.
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
        multiplicative: pairs (A_j, B_j) of noise ξ_j (A_j x + B_j u), of independent ξ_j of variance one.

    Returns:
        The design, with `gain`, `covariance`, `poles` and `cost`; it can `plot`, `simulate` and be saved (`to_json`).

    Raises:
        ValueError: for a matrix of the wrong shape or sign, a number that cannot be, a plant that no gain stabilises.

    Example:
        >>> controller = design([[1, 0.1], [0, 1]], [0.005, 0.1], [[1, 0], [0, 1]], 0.1, temperature=0.5)
        >>> controller.gain.round(2), controller.covariance.round(2), round(controller.cost.exploration, 6)
        (array([[2.59, 3.44]]), array([[1.67]]), 0.25)
    """
    if not isinstance(continuous, bool | np.bool_):  # "no" would be true
        raise checks.error("continuous", repr(continuous), "True or False", "pass continuous=True for dx/dt = Ax + Bu")
    if all(hasattr(A, part) for part in ("A", "B", "C", "D", "dt")):  # python-control's or SciPy's StateSpace
        costs = [part for part in (B, Q, R) if part is not None]
        if len(costs) > 2:
            raise checks.error("B", "an input matrix beside a system", "(system, Q, R)", "leave B out")
        dt = _time_step(0 if hasattr(A, "to_discrete") else A.dt, continuous, dt)  # SciPy tells kinds by their class
        A, B, Q, R = A.A, A.B, *costs, *[None] * (2 - len(costs))
    elif not (np.isscalar(A) or hasattr(A, "__array__") or isinstance(A, Sequence)):  # such as a TransferFunction
        remedy = "convert it by control.ss(system) or system.to_ss(), or pass its A, B, Q and R"
        raise checks.error("system", f"a {type(A).__name__}", "a state-space system, or a matrix A", remedy)
    if lacking := [name for name, part in {"B": B, "Q": Q, "R": R}.items() if part is None]:
        raise checks.error(lacking[-1], "none", "one", "pass (A, B, Q, R), or (system, Q, R)")
    n = len(_matrix("A", A, (None, None), "one row and one column per state"))
    A = _matrix("A", A, (n, n), "one row and one column per state")
    B = _matrix("B", B, (n, None), "one row per state of A, one column per input")
    d = B.shape[1]
    sizes = f"A has {n} states and B {d} inputs"
    square = lambda name, given, size: symmetric(name, _matrix(name, given, (size, size), sizes), name == "R")  # noqa: E731
    Q, R, nothing = square("Q", Q, n), square("R", R, d), np.zeros((n, n))
    N = _matrix("cross", np.zeros((n, d)) if cross is None else cross, (n, d), sizes)
    symmetric("the cost [Q cross; cross.T R]", np.block([[Q, N], [N.T, R]]))
    W = square("noise_cov", nothing if noise_cov is None else noise_cov, n)
    X = square("initial_cov", np.eye(n) if initial_cov is None else initial_cov, n)
    alpha = checks.positive_number("temperature", temperature)
    holds = lambda x: 0 <= x <= 1 and (x > 0 or not continuous)  # noqa: E731
    low = "above 0" if continuous else "of at least 0"
    gamma = checks.number("discount", discount, f"a number {low} and at most 1", "pass for example 1", holds=holds)
    step = None if dt is None else checks.positive_number("dt", dt, "pass the time between two samples")
    matrix = lambda given, size: _matrix("multiplicative", given, (n, size), sizes)  # noqa: E731
    listed = list(multiplicative) if isinstance(multiplicative, Sequence) else [multiplicative]
    if wrong := [pair for pair in listed if not isinstance(pair, Sequence) or len(pair) != 2]:
        raise checks.error("multiplicative", repr(wrong[0]), "pairs (A_j, B_j)", "pass for example [(A_1, B_1)]")
    pairs = tuple((matrix(a, n), matrix(b, d)) for a, b in listed)
    given = plant = Plant(A, B, Q, R, N, W, X, alpha, gamma, bool(continuous), step, pairs)
    if continuous and step is not None:
        if pairs:
            expected, remedy = "additive noise alone", "leave dt out, or pass a discrete-time plant"
            raise checks.error("multiplicative", "noise to be sampled by dt", expected, remedy)
        plant = sampled(given, step)
    return Design(plant, given, solve(plant))


def load_design(path: str | Path, **changes: Any) -> Design:
    """Design from a JSON file of the arguments of `design`: A, B, Q, R and temperature, the others if they are there.

    Args:
        path: the file; what `Design.to_json` wrote is designed again.
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


def _time_step(own: Any, continuous: bool, dt: Any) -> Any:
    """The time step of such a system: 0 for a continuous one, None or True for one that is not known."""
    kinds = "a discrete-time system", "a continuous-time system"
    if own is not None and (own == 0) != continuous:
        remedy = "leave continuous=True out" if continuous else "pass continuous=True, and dt to sample it"
        raise checks.error("system", kinds[not continuous], kinds[continuous], remedy)
    if own is None or own is True or own == 0 or dt is None or dt == own:
        return own if dt is None and own is not True and own != 0 else dt
    raise checks.error("dt", f"{dt} for a system of time step {own}", "the system's own", "leave it out")


def _matrix(name: str, value: Any, shape: tuple[int | None, int | None], meaning: str) -> Float[np.ndarray, "r c"]:
    """A matrix; a number is one of one entry, and a list of numbers a column, or a row where one row is asked for."""
    with contextlib.suppress(ValueError):  # rows of unequal length, refused below
        if np.ndim(value) == 0:
            value = [[value]]
        elif np.ndim(value) == 1 and (1 in shape or name == "B"):
            value = [list(value)] if shape[0] == 1 else [[entry] for entry in value]
    return np.asarray(checks.finite_array(name, value, shape, meaning))
