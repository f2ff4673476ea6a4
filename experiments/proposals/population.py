"""The population proposal: policy samples moved up the critic and jittered (population Monte Carlo, Cappé et al. 2004).

    u_i = m_i + σ ∘ ξ_i,    m_i = u_i' + ½ σ² ∘ ∇_u [ Q(s, a(u))/α + log |det ∂a/∂u| ] at u_i' ~ π_k,

a Langevin step toward the target's density over latents (where actions are latents, it is ε ∇_a Q with ε = σ²/2α), with
the deterministic-mixture density

    μ(u|s) = (1/N) Σ_j N(u; m_j, diag σ²).

Given the parents u_i', every kernel gives one candidate: exact importance sampling by stratified draws from μ. It
needs no log π_k, but N² kernel values and one gradient of Q, and is worth its cost while the policy is wider than its
target; it does not find modes that are far. It won nothing for agents (`experiments/ablations`), and is no part of the
library any more: a proposal of one's own, as `SACISFM(env, proposal=PopulationProposal)`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from entroflow.checks import error, positive_number
from entroflow.flow import FlowPolicy
from entroflow.isfm import QFunction

REACH = 1.0  # no candidate is moved further than this many kernel widths: steep critics do not throw it past the mode


class PopulationProposal(eqx.Module):
    """Policy samples moved up the critic and jittered, with the density of the mixture of kernels.

    Args:
        policy: the current policy.
        q_function: soft action value, (s, a) ↦ Q(s, a), shapes (n,), (d,) and (), differentiable in a.
        temperature: entropy weight α > 0, shape ().
        width: the kernels' standard deviation σ as a fraction of the policy samples' own, component by component;
            N^(−1/(d+4)) (Scott's rule) if not given.

    Raises:
        ValueError: if temperature or width are not positive.
    """

    policy: FlowPolicy
    q_function: QFunction
    temperature: Float[Array, ""]
    width: float | None = eqx.field(static=True)

    def __init__(
        self,
        policy: FlowPolicy,
        q_function: QFunction,
        temperature: Float[ArrayLike, ""],
        width: float | None = None,
    ):
        if not isinstance(temperature, Tracer):
            positive_number("temperature", temperature)
        self.policy, self.q_function = policy, q_function
        self.temperature = jnp.asarray(temperature, policy.obs_units.mean.dtype)
        self.width = None if width is None else positive_number("width", width)

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int
    ) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
        """Draw latents with the log-density of the mixture of kernels, see `Proposal.sample_and_log_prob`."""
        if n < 2:
            raise error("candidates", f"{n}", "at least 2 for a population", "its spread is that of its members")
        space = self.policy.action_space
        parent_key, jitter_key = jax.random.split(key)
        parents = jax.vmap(self.policy.sample_latent, in_axes=(0, None))(jax.random.split(parent_key, n), obs)
        width = n ** (-1 / (space.size + 4)) if self.width is None else self.width
        sd = width * jnp.std(parents, axis=0)

        def log_target(latent: Array) -> Array:
            return self.q_function(obs, space.to_action(latent)) / self.temperature + space.log_det(latent)

        def move(parent: Array) -> Array:
            steps = 0.5 * sd * jax.grad(log_target)(parent)  # in kernel widths
            return parent + sd * steps / jnp.maximum(1.0, jnp.linalg.norm(steps) / REACH)

        centers = jax.vmap(move)(parents)
        latents = centers + jax.vmap(jnp.multiply, in_axes=(0, None))(jax.random.normal(jitter_key, centers.shape), sd)

        def log_prob(latent: Array) -> Array:
            kernels = jax.vmap(lambda center: jnp.sum(jax.scipy.stats.norm.logpdf((latent - center) / sd)))(centers)
            return jax.nn.logsumexp(kernels) - jnp.log(n) - jnp.sum(jnp.log(sd))

        return latents, jax.vmap(log_prob)(latents)
