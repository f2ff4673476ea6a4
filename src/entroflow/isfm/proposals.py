"""Proposals μ(·|s): where the candidates of policy improvement come from.

Candidates live in the flow's latent space u ∈ R^d, where the regression takes place, and the density is that of the
latent. The importance ratio π_new/μ is the same in u and in the action space, so nothing is lost, and no bounded
action ever has to be inverted. A proposal that is naturally written over actions maps them with
`action_space.from_action` and adds `action_space.log_det` to its log-density.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..checks import positive_number
from ..flow import FlowPolicy


@runtime_checkable
class Proposal(Protocol):
    """A distribution over latents that can be sampled and whose density is known: all that ISFM asks of it."""

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int
    ) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
        """Draw candidates for one state.

        Args:
            key: random key.
            obs: observation s, shape (n,).
            n: number N of candidates.

        Returns:
            N latents u_i in exchangeable order, shape (N, d), and log μ_u(u_i|s), shape (N,). Where the latents are
            not independent draws of one distribution, the density is that of the mixture they come from.
        """
        ...


class CurrentPolicy(eqx.Module):
    """The paper's proposal: the current policy, μ = π_k."""

    policy: FlowPolicy

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int
    ) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
        """Draw N latents of the policy with their log-densities, shapes (N, d) and (N,)."""
        return jax.vmap(self.policy.sample_latent_and_log_prob, in_axes=(0, None))(jax.random.split(key, n), obs)


class Broadened(eqx.Module):
    """The current policy with its noise x_0 scaled up, with the exact density of what that gives.

    Args:
        policy: the current policy.
        noise_scale: standard deviation of the noise, above 1 to explore more widely than the policy, shape ().

    Raises:
        ValueError: if the noise scale is not a positive number.
    """

    policy: FlowPolicy
    noise_scale: Float[Array, ""]

    def __init__(self, policy: FlowPolicy, noise_scale: Float[ArrayLike, ""]):
        self.policy = policy
        if not isinstance(noise_scale, Tracer):
            positive_number("noise_scale", noise_scale, "pass a number above 1, such as 1.5")
        self.noise_scale = jnp.asarray(noise_scale, policy.obs_mean.dtype)

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int
    ) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
        """Draw N latents of the broadened policy with their log-densities, shapes (N, d) and (N,)."""
        draw = jax.vmap(self.policy.sample_latent_and_log_prob, in_axes=(0, None, None))
        return draw(jax.random.split(key, n), obs, self.noise_scale)
