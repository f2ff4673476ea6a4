"""Proposals that know nothing of the policy: Gaussian, and uniform over a box of actions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...checks import error
from ...flow import ActionSpace, Box
from .protocol import WithLogProbs


class GaussianProposal(eqx.Module):
    """A Gaussian over latents, N(mean, covariance), the same at every state.

    Args:
        mean: its mean, shape (d,).
        covariance: its covariance matrix, shape (d, d), the variances of its components, shape (d,), or one variance.

    Raises:
        ValueError: if the covariance is not a positive definite matrix of the mean's size, or a number is not finite.

    Example:
        >>> proposal = GaussianProposal([0.0, 1.0], 4.0)
        >>> f"{proposal.log_prob(jnp.zeros(3), jnp.array([0.0, 1.0])):.3f}"  # -log(8 pi)
        '-3.224'
    """

    mean: Float[Array, " d"]
    factor: Float[Array, "d d"]

    def __init__(self, mean: ArrayLike | list[float], covariance: ArrayLike | list):
        dtype = jnp.result_type(float)
        self.mean = jnp.asarray(mean, dtype)
        if self.mean.ndim != 1:
            raise error("mean", f"shape {self.mean.shape}", "a vector", "give every action component one number")
        size = self.mean.shape[0]
        matrix = jnp.asarray(covariance, dtype)
        if matrix.ndim < 2 and matrix.shape in ((), (size,)):
            matrix = jnp.diag(jnp.broadcast_to(matrix, (size,)))
        if matrix.shape != (size, size):
            expected = f"shape ({size}, {size}), ({size},) or ()"
            raise error("covariance", f"shape {matrix.shape}", expected, "give it the size of the mean")
        if not isinstance(self.mean, Tracer) and not np.isfinite(np.asarray(self.mean)).all():
            raise error("mean", f"{np.asarray(mean)}", "finite numbers", "pass for example zeros")
        if not isinstance(matrix, Tracer):
            values = np.asarray(matrix, np.float64)
            symmetric = np.isfinite(values).all() and np.abs(values - values.T).max() <= 1e-5 * np.abs(values).max()
            if not symmetric or np.linalg.eigvalsh(values).min() <= 0:
                expected = "a symmetric, positive definite matrix"
                raise error("covariance", f"{values.tolist()}", expected, "pass variances above 0, such as 1.0")
        self.factor = jnp.linalg.cholesky(matrix)

    def log_prob(self, obs: Float[Array, " n"], latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log N(u; mean, covariance), see `DensityProposal.log_prob`."""
        del obs
        noise = solve_triangular(self.factor, latent - self.mean, lower=True)
        log_scale = jnp.sum(jnp.log(jnp.diag(self.factor)))
        return jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - log_scale

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int) -> WithLogProbs:
        """Draw latents with their log-densities, see `Proposal.sample_and_log_prob`."""
        noise = jax.random.normal(key, (n, self.mean.shape[0]), self.mean.dtype)
        latents = jax.vmap(lambda noise: self.mean + self.factor @ noise)(noise)
        return latents, jax.vmap(self.log_prob, in_axes=(None, 0))(obs, latents)


class UniformProposal(eqx.Module):
    """Actions uniform in a box, with the density of their latents.

    In a `Box` the latents are those of `Box.from_action`: one action component in a million lies too close to a bound
    to be told from it and is moved.

    Args:
        action_space: map from latents to actions.
        low: lower bounds of the actions, a number or shape (d,); the action space's own if not given.
        high: upper bounds.

    Raises:
        ValueError: if there are no bounds, they are reversed or not finite, or they exceed the action space's own.

    Example:
        >>> proposal = UniformProposal(Box(-np.ones(2), np.ones(2)))
        >>> f"{proposal.log_prob(jnp.zeros(3), jnp.zeros(2)):.3f}"  # -log 4
        '-1.386'
    """

    action_space: ActionSpace
    low: Float[Array, " d"]
    high: Float[Array, " d"]

    def __init__(
        self,
        action_space: ActionSpace,
        low: ArrayLike | list[float] | None = None,
        high: ArrayLike | list[float] | None = None,
    ):
        own = (action_space.low, action_space.high) if isinstance(action_space, Box) else (None, None)
        low, high = (given if given is not None else bound for given, bound in zip((low, high), own, strict=True))
        if low is None or high is None:
            given, expected = f"low = {low} and high = {high}", "both, for an action space without bounds"
            raise error("bounds", given, expected, "state the box of actions to draw from")
        dtype, shape = jnp.result_type(float), (action_space.size,)
        box = Box(*(jnp.broadcast_to(jnp.asarray(bound, dtype), shape) for bound in (low, high)))
        self.action_space, self.low, self.high = action_space, box.low, box.high
        if isinstance(action_space, Box) and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self)):
            # In NumPy: within a compiled program JAX's comparison of constants is none.
            below = np.asarray(box.low) < np.asarray(action_space.low)
            above = np.asarray(box.high) > np.asarray(action_space.high)
            if np.any(below | above):
                given = f"low = {np.asarray(box.low)} and high = {np.asarray(box.high)}"
                expected = f"a box inside of {np.asarray(action_space.low)} to {np.asarray(action_space.high)}"
                raise error("bounds", given, expected, "no action exists outside of the action space")

    def log_prob(self, obs: Float[Array, " n"], latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log μ_u(u); −∞ if the action is outside of the bounds, see `DensityProposal.log_prob`."""
        del obs
        action = self.action_space.to_action(latent)
        inside = jnp.all((self.low <= action) & (action <= self.high))
        return jnp.where(inside, self._log_density(latent), -jnp.inf)

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int) -> WithLogProbs:
        """Draw latents with their log-densities, see `Proposal.sample_and_log_prob`."""
        del obs
        shares = jax.random.uniform(key, (n, self.low.shape[0]), self.low.dtype)
        actions = jax.vmap(lambda share: self.low + (self.high - self.low) * share)(shares)
        latents = jax.vmap(self.action_space.from_action)(actions)
        # Not `log_prob`: there and back again, rounding may carry an action across a bound.
        return latents, jax.vmap(self._log_density)(latents)

    def _log_density(self, latent: Float[Array, " d"]) -> Float[Array, ""]:
        return self.action_space.log_det(latent) - jnp.sum(jnp.log(self.high - self.low))
