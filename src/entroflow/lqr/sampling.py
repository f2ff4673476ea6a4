"""The exact zero-order hold: a continuous-time plant seen at samples, its input held in between.

Dynamics, noise and the cost between the samples are integrated by matrix exponentials (Van Loan, IEEE Trans. Autom.
Control 1978), over intervals so short that nothing cancels, which are then doubled.
"""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy import linalg

from entroflow import checks
from entroflow.lqr.matrices import units
from entroflow.lqr.plant import Plant


def sampled(plant: Plant, dt: float) -> Plant:
    """The discrete-time plant whose cost per step is ∫_0^dt e^{−ρt} (cost − α entropy) dt, if all noise is additive.

    Its temperature is the price for a nat held during one step.
    """
    n, d = plant.B.shape
    _, (x, _) = linalg.matrix_balance(plant.A, permute=False, separate=True)
    moved = plant.B / x[:, None]
    u = 1 / units(moved.T @ moved)
    scaled, rate = plant.in_units(x, u), plant.rate
    held = np.block([[scaled.A, scaled.B], [np.zeros((d, n + d))]])
    cost = np.block([[scaled.Q, scaled.cross], [scaled.cross.T, scaled.R]])
    with np.errstate(over="ignore", invalid="ignore"):
        joint = integral(held - rate / 2 * np.eye(n + d), cost, dt)[1]
        step = integral(held, 0 * cost, dt)[0]
    if not (np.isfinite(joint).all() and np.isfinite(step).all()):
        given, expected = f"{dt:g}, in which the plant grows beyond all numbers", "a time between two samples"
        raise checks.error("dt", given, expected, "pass a shorter one")
    noise = integral(scaled.A.T, scaled.noise_cov, dt)[1]
    # What the noise of time s costs until the next sample is weighed by ∫_s^dt e^{−ρt} dt = φ(dt) − φ(s).
    phi = dt if rate == 0 else -math.expm1(-rate * dt) / rate
    pair = np.block([[scaled.A, np.eye(n)], [np.zeros((n, n)), scaled.A - rate * np.eye(n)]])
    both = integral(pair, np.kron([[1.0, 0.0], [0.0, 0.0]], scaled.Q), dt)[1]
    later = phi * both[:n, :n] - (both[:n, n:] + both[n:, :n]) / 2
    found = {"A": step[:n, :n], "B": step[:n, n:], "Q": joint[:n, :n], "cross": joint[:n, n:], "R": joint[n:, n:]}
    settings = {"temperature": plant.temperature * phi, "discount": math.exp(-rate * dt), "dt": dt}
    offset = float(np.sum(later * scaled.noise_cov))
    fresh = replace(scaled, **found, noise_cov=noise, offset=offset, continuous=False, **settings)
    return fresh.in_units(1 / x, 1 / u)


def integral(
    F: Float[np.ndarray, "n n"], C: Float[np.ndarray, "n n"], t: float
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """e^{Ft} and ∫_0^t e^{Fᵀs} C e^{Fs} ds, C symmetric."""
    n, size = len(F), np.abs(C).max() or 1.0
    doublings = max(0, math.ceil(math.log2(max(np.linalg.norm(F, 1) * t, 1e-300))))
    block = linalg.expm(np.block([[-F.T, C / size], [np.zeros((n, n)), F]]) * (t / 2**doublings))
    step = block[n:, n:]
    total = step.T @ block[:n, n:]
    for _ in range(doublings):
        total, step = total + step.T @ total @ step, step @ step
    return step, size * (total + total.T) / 2
