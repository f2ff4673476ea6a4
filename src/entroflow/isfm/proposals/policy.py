"""Proposals that are the current policy, as it is or broadened."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...checks import positive_number
from ...flow import FlowPolicy
from .protocol import QFunction, WithLogProbs


class CurrentPolicy(eqx.Module):
    """The paper's proposal: the current policy, μ = π_k."""

    policy: FlowPolicy

    def log_prob(self, obs: Float[Array, " n"], latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log π_u(u|s) of a given latent, by integrating backwards, see `DensityProposal.log_prob`."""
        return self.policy.latent_log_prob(obs, latent)

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int) -> WithLogProbs:
        """Draw latents of the policy with their log-densities, see `Proposal.sample_and_log_prob`."""
        return jax.vmap(self.policy.sample_latent_and_log_prob, in_axes=(0, None))(jax.random.split(key, n), obs)


def current_policy(policy: FlowPolicy, q_function: QFunction, temperature: Float[ArrayLike, ""]) -> CurrentPolicy:
    """Propose with the current policy: what stands where none is given, see `Propose.__call__`."""
    del q_function, temperature
    return CurrentPolicy(policy)


class BroadenedPolicy(eqx.Module):
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
        self.noise_scale = jnp.asarray(noise_scale, policy.obs_units.mean.dtype)

    def log_prob(self, obs: Float[Array, " n"], latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return the log-density of a given latent, by integrating backwards, see `DensityProposal.log_prob`."""
        return self.policy.latent_log_prob(obs, latent, self.noise_scale)

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int) -> WithLogProbs:
        """Draw latents of the broadened policy with their log-densities, see `Proposal.sample_and_log_prob`."""
        draw = jax.vmap(self.policy.sample_latent_and_log_prob, in_axes=(0, None, None))
        return draw(jax.random.split(key, n), obs, self.noise_scale)
