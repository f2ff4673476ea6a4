"""Theorem 2's finite sets of weighted candidates, and the targets and proposals whose distances are known.

A target is a product of d equal mixtures of Gaussians on the line. Its flow carries each component of the noise by
itself and in order, x ↦ F⁻¹(Φ(x)), which is also the optimal map: pushing the same noise through a learned flow and
through this map compares the two distributions without the error of independent samples. NumPy, float64; the
candidates' use in ISFM is `Resampled`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import logsumexp
from scipy.stats import norm, qmc, uniform

from ..distances import sample_w2

GRID = 40_001  # points of the quadrature and of the quantile function's table
REACH = 12.0  # of the grid, in standard deviations to either side


class Mixture(NamedTuple):
    """The target: a product of `size` equal mixtures of Gaussians on the line.

    Attributes:
        size: dimension d.
        weights: probabilities of the k parts, which sum to one.
        means: their means.
        sds: their standard deviations.
    """

    size: int
    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]

    def log_prob(self, x: Float[np.ndarray, "*batch d"]) -> Float[np.ndarray, "*batch"]:
        """Return log π_new, the sum over the components."""
        return np.asarray(self._line_log_prob(x).sum(axis=-1))

    def quantile(self, shares: Float[np.ndarray, "*batch d"]) -> Float[np.ndarray, "*batch d"]:
        """Return F⁻¹ of every component, exact to about 1e-6."""
        grid = self.grid()
        return np.interp(shares, norm.cdf(grid[:, None], self.means, self.sds) @ np.asarray(self.weights), grid)

    def grid(self) -> Float[np.ndarray, " g"]:
        """Return points of one component that hold all of its mass and of its neighbourhood."""
        reach = REACH * max(self.sds)
        return np.linspace(min(self.means) - reach, max(self.means) + reach, GRID)

    def renyi(self, order: float, proposal: "Line") -> float:
        """Return D_order(π_new‖μ) for a proposal of independent equal components, by quadrature on the grid.

        Right only where the integral converges and its mass lies on the grid.
        """
        grid = self.grid()
        log_p, log_q = self._line_log_prob(grid), proposal.logpdf(grid)
        inside = np.isfinite(log_q)
        terms = (order * log_p + (1 - order) * log_q)[inside]
        return float(self.size * (logsumexp(terms) + np.log(grid[1] - grid[0])) / (order - 1))

    def _line_log_prob(self, x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return np.asarray(logsumexp(norm.logpdf(x[..., None], self.means, self.sds), axis=-1, b=self.weights))


@runtime_checkable
class Line(Protocol):
    """A distribution on the line, a frozen one of `scipy.stats`; a proposal has independent components of it."""

    def logpdf(self, x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the log-density."""
        ...

    def rvs(self, size: tuple[int, ...], random_state: np.random.Generator) -> Float[np.ndarray, "*shape"]:
        """Draw samples."""
        ...


def normal(mean: float, sd: float) -> Line:
    """Return N(mean, sd²)."""
    return cast(Line, norm(mean, sd))


def box(low: float, high: float) -> Line:
    """Return the uniform distribution from low to high."""
    return cast(Line, uniform(low, high - low))


class Resampled(eqx.Module):
    """A finite weighted set as a proposal: candidates drawn from it again with probabilities equal to its weights.

    With Q = 0 all of them weigh the same, so that every step of `fit` is one of stochastic gradient descent on the
    empirical risk of the N weighted candidates, with fresh x_0 and τ. (The log-density is that relative to the
    empirical distribution, zero.)

    Attributes:
        latents: the set, padded to a common capacity, shape (capacity, d).
        cumulative: cumulative weights, one from the last candidate on, shape (capacity,).
    """

    latents: Float[Array, "*runs capacity d"]
    cumulative: Float[Array, "*runs capacity"]

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int
    ) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
        """Draw n members of the set."""
        del obs
        shares = jax.random.uniform(key, (n,), self.cumulative.dtype)
        return self.latents[jnp.searchsorted(self.cumulative, shares, side="right")], jnp.zeros_like(shares)


def resampled(
    latents: Float[np.ndarray, "runs N d"], log_weights: Float[np.ndarray, "runs N"], capacity: int
) -> Resampled:
    """Pad the weighted sets of several runs to one capacity, so that one program serves every N."""
    runs, n, d = latents.shape
    points, cumulative = np.zeros((runs, capacity, d), np.float32), np.ones((runs, capacity), np.float32)
    points[:, :n] = latents
    cumulative[:, : n - 1] = np.cumsum(weights_of(log_weights), axis=1)[:, :-1]
    return Resampled(jnp.asarray(points), jnp.asarray(cumulative))


def weights_of(log_weights: Float[np.ndarray, "*runs N"]) -> Float[np.ndarray, "*runs N"]:
    """Return the weights of (9), self-normalised: on one fixed set the normalisations differ by a constant only."""
    return np.exp(log_weights - logsumexp(log_weights, axis=-1, keepdims=True))


def exact_set(target: Mixture, n: int) -> Float[np.ndarray, "n d"]:
    """Return n evenly spread samples of the target: what the network is fitted to for its own floor."""
    return target.quantile(norm.cdf(noise_points(n, target.size)))


def noise_points(n: int, d: int) -> Float[np.ndarray, "n d"]:
    """Return n evenly spread points of N(0, I): midpoint quantiles on the line, Sobol points (n = 2^k) otherwise."""
    shares = (np.arange(n)[:, None] + 0.5) / n if d == 1 else qmc.Sobol(d, rng=np.random.default_rng(0)).random(n)
    return norm.ppf(np.clip(shares, 1e-9, 1 - 1e-9))


def set_w2_squared(
    points: Float[np.ndarray, " N"], log_weights: Float[np.ndarray, " N"], target: Mixture, quantiles: int = 65_536
) -> float:
    """Return W_2² between N weighted points on the line and the target: what the candidates know, with no network."""
    order = np.argsort(points)
    cumulative = np.cumsum(weights_of(log_weights)[order])
    shares = (np.arange(quantiles) + 0.5) / quantiles
    nearest = order[np.minimum(np.searchsorted(cumulative, shares), len(points) - 1)]
    return float(np.mean((points[nearest] - target.quantile(shares)) ** 2))


def flow_w2_squared(pushed: Float[np.ndarray, "n d"], noise: Float[np.ndarray, "n d"], target: Mixture) -> float:
    """Return W_2² between what a flow makes of the noise points and what the target's own map makes of them."""
    return sample_w2(pushed, target.quantile(norm.cdf(noise))) ** 2


def slope(x: Float[np.ndarray, " tasks"]) -> Callable[..., Float[np.ndarray, "*batch"]]:
    """Return the statistic (..., seeds, tasks) ↦ (...): the least-squares slope in x of the seeds' mean logarithm."""
    centred = x - x.mean()

    def statistic(values: Float[np.ndarray, "*batch seeds tasks"]) -> Float[np.ndarray, "*batch"]:
        return np.asarray(np.log(values).mean(axis=-2) @ centred / (centred @ centred))

    return statistic
