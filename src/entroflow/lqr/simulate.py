"""Trajectories of linear Gaussian policies, driven by noise that is drawn beforehand and can be shared."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from entroflow import checks
from entroflow.lqr.exact import LQR
from entroflow.lqr.matrices import matrix_root


class Noise(NamedTuple):
    """Everything random in a set of trajectories, so that two policies can be compared on the same draws."""

    initial_states: Float[np.ndarray, "trajectories n"]
    """s_0."""
    process: Float[np.ndarray, "horizon trajectories n"]
    """w."""
    action: Float[np.ndarray, "horizon trajectories d"]
    """z, standard normal."""


class Trajectories(NamedTuple):
    """Simulated trajectories."""

    states: Float[np.ndarray, "states trajectories n"]
    """s_0, …, s_H: one more than the horizon."""
    actions: Float[np.ndarray, "horizon trajectories d"]
    """a_0, …."""
    rewards: Float[np.ndarray, "horizon trajectories"]
    """r_0, …."""
    discounted_returns: Float[np.ndarray, "trajectories"]
    """Σ γ^h r_h."""


def sample_noise(lqr: LQR, rng: np.random.Generator, trajectories: int, horizon: int) -> Noise:
    """Draw initial states ~ N(0, initial_cov), process noise ~ N(0, W) and standard normal action noise.

    Args:
        lqr: the system.
        rng: source of randomness.
        trajectories: how many trajectories.
        horizon: how many steps each.

    Returns:
        The draws; time is the first axis of `process` and `action`.

    Raises:
        ValueError: for a number that is not positive, or what is not a system or a generator.
    """
    checks.kind("lqr", lqr, LQR, "an LQR", "pass for example systems.get('coupled')")
    checks.kind("rng", rng, np.random.Generator, "a generator", "pass for example np.random.default_rng(0)")
    trajectories = checks.positive_int("trajectories", trajectories)
    n, d = lqr.B.shape
    steps = (checks.positive_int("horizon", horizon), trajectories)
    return Noise(
        rng.standard_normal((trajectories, n)) @ matrix_root(lqr.initial_cov).T,
        rng.standard_normal((*steps, n)) @ matrix_root(lqr.noise_cov).T,
        rng.standard_normal((*steps, d)),
    )


def simulate(lqr: LQR, K: ArrayLike, covariance: ArrayLike, noise: Noise) -> Trajectories:
    """Run the policy a = −K s + Σ^{1/2} z, z the action noise, on given draws.

    Args:
        lqr: the system.
        K: (d, n) gain, stabilising or not.
        covariance: (d, d) covariance Σ of the action, possibly zero.
        noise: initial states, process noise and standard normal action noise.

    Returns:
        States, actions, rewards and discounted returns.

    Raises:
        ValueError: for what is not a system, a policy of it, or draws.

    Example:
        >>> from entroflow.lqr import systems
        >>> lqr = systems.get("coupled")
        >>> noise = sample_noise(lqr, np.random.default_rng(0), trajectories=8, horizon=50)
        >>> best = lqr.optimal(0.5)
        >>> simulate(lqr, best.K, best.covariance, noise).states.shape
        (51, 8, 2)
    """
    checks.kind("lqr", lqr, LQR, "an LQR", "pass for example systems.get('coupled')")
    checks.kind("noise", noise, Noise, "draws", "pass what sample_noise(…) returns")
    gain = lqr.checked_gain(K, stabilising=False)
    root = matrix_root(lqr.checked_covariance(covariance))
    states, actions = [noise.initial_states], []
    for process, z in zip(noise.process, noise.action, strict=True):
        actions.append(-states[-1] @ gain.T + z @ root.T)
        states.append(states[-1] @ lqr.A.T + actions[-1] @ lqr.B.T + process)
    past, taken = np.stack(states[:-1]), np.stack(actions)
    forms = (past, lqr.Q, past), (taken, lqr.R, taken), *([(past, 2 * lqr.cross, taken)] if lqr.cross.any() else [])
    rewards = sum((-np.einsum("hni,ij,hnj->hn", *form) for form in forms), np.zeros(past.shape[:2]))
    discounted = lqr.discount ** np.arange(len(rewards)) @ rewards
    return Trajectories(np.stack(states), taken, rewards, discounted)
