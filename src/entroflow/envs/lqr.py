"""Max-entropy LQR as an environment: the same system as `entroflow.lqr.LQR`, in float32 JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from entroflow import checks
from entroflow.envs.functional import FunctionalEnv
from entroflow.lqr import LQR
from entroflow.lqr.matrices import matrix_root

_REGION = 4.0  # standard deviations


class LQREnv(FunctionalEnv):
    """s' = A s + B a + w with w ~ N(0, W), reward −(sᵀQs + 2sᵀNa + aᵀRa), s_0 ~ N(0, initial_cov); s is observed.

    Nothing terminates. An episode is truncated at the time limit and where a coordinate of the state leaves ±`bound`,
    so that an unstable system under an untrained policy does not overflow; as truncation it biases nothing.

    The bound is four standard deviations of what the noise can do by itself: the covariance
    X = initial_cov + time_limit·W, and tr(QX) B R⁻¹Bᵀ for actions that cost as much as such states, carried through
    the dynamics for n − 1 further steps so that every coordinate that can be excited has a positive bound.

    With a gain K and a root L set, an action u stands for the input L u − K s (`entroflow lqr --initial-gain`).

    Args:
        lqr: the system.
        time_limit: length of an episode.

    Raises:
        ValueError: if the time limit is not positive.
    """

    A: Float[Array, "n n"]
    B: Float[Array, "n d"]
    Q: Float[Array, "n n"]
    R: Float[Array, "d d"]
    cross: Float[Array, "n d"] | None
    noise_root: Float[Array, "n n"]
    initial_root: Float[Array, "n n"]
    bound: Float[Array, "n"]
    gain: Float[Array, "d n"] | None
    root: Float[Array, "d d"] | None
    action_low: Float[Array, "d"]
    action_high: Float[Array, "d"]
    time_limit: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)

    def __init__(self, lqr: LQR, time_limit: int = 100):
        checks.kind("lqr", lqr, LQR, "an LQR", "pass for example systems.get('coupled')")
        self.time_limit = checks.positive_int("time_limit", time_limit)
        self.obs_size, d = lqr.B.shape
        self.gain = self.root = None
        self.A, self.B = _float32(lqr.A), _float32(lqr.B)
        self.Q, self.R = _float32(lqr.Q), _float32(lqr.R)
        self.cross = _float32(lqr.cross) if lqr.cross.any() else None
        self.noise_root = _float32(matrix_root(lqr.noise_cov))
        self.initial_root = _float32(matrix_root(lqr.initial_cov))
        self.bound = _float32(_REGION * _spread(lqr, self.time_limit))
        self.action_high = jnp.full(d, jnp.inf, jnp.float32)
        self.action_low = -self.action_high

    def initial(self, key: PRNGKeyArray) -> Float[Array, "n"]:
        """s_0 ~ N(0, initial_cov)."""
        return self.initial_root @ jax.random.normal(key, (self.obs_size,), jnp.float32)

    def drift(self, state: Float[Array, "n"], action: Float[Array, "d"]) -> Float[Array, "n"]:
        """The next state without noise, A s + B a, see `FunctionalEnv.transition`."""
        return self.A @ state + self.B @ self._input(state, action)

    def transition(self, key: PRNGKeyArray, state: Float[Array, "n"], action: Float[Array, "d"]) -> Float[Array, "n"]:
        """The next state, see `FunctionalEnv.transition`."""
        noise = jax.random.normal(key, (self.obs_size,), jnp.float32)
        return self.drift(state, action) + self.noise_root @ noise

    def reward(
        self, state: Float[Array, "n"], action: Float[Array, "d"], next_state: Float[Array, "n"]
    ) -> Float[Array, ""]:
        """The reward, whatever the next state, see `FunctionalEnv.reward`."""
        taken = self._input(state, action)
        cost = state @ self.Q @ state + taken @ self.R @ taken
        return -cost if self.cross is None else -(cost + 2 * state @ self.cross @ taken)

    def out_of_region(self, state: Float[Array, "n"]) -> Bool[Array, ""]:
        """Whether a coordinate is outside ±`bound`, or not a number."""
        return ~jnp.all(jnp.abs(state) <= self.bound)

    def _input(self, state: Float[Array, "n"], action: Float[Array, "d"]) -> Float[Array, "d"]:
        return action if self.gain is None or self.root is None else self.root @ action - self.gain @ state


def _spread(lqr: LQR, time_limit: int) -> Float[np.ndarray, "n"]:
    """Standard deviation per coordinate that the noise can cause; ∞ where nothing moves a coordinate."""
    step = lqr.initial_cov + time_limit * lqr.noise_cov
    step = step + np.sum(lqr.Q * step) * lqr.B @ np.linalg.solve(lqr.R, lqr.B.T)
    total = np.zeros_like(step)
    for _ in range(len(step)):
        total = lqr.A @ total @ lqr.A.T + step
    variance = np.diag(total)
    return np.where(variance > 0, np.sqrt(variance), np.inf)


def _float32(matrix: Float[np.ndarray, "..."]) -> Float[Array, "..."]:
    """A NumPy array as float32."""
    return jnp.asarray(matrix, jnp.float32)
