"""What ISFM asks of a proposal: to be sampled with its density.

Candidates live in the flow's latent space u ∈ R^d, where the regression takes place, and the density is that of the
latent. The importance ratio π_new/μ is the same in u and in the action space, so nothing is lost, and no bounded
action ever has to be inverted. A proposal that is naturally written over actions maps them with
`action_space.from_action` and adds `action_space.log_det` to its log-density.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...flow import FlowPolicy

QFunction = Callable[[Array, Array], Array]
WithLogProbs = tuple[Float[Array, "N d"], Float[Array, " N"]]  # N latents


@runtime_checkable
class Proposal(Protocol):
    """A distribution over latents that can be sampled with its density: all that ISFM asks of it.

    One of your own is any object with the method below. With `log_prob` it can also be part of a `MixtureProposal`.
    Heavy tails in two dimensions, for example:

        class HeavyTails(eqx.Module):
            scale: float

            def log_prob(self, obs, latent):
                return jnp.sum(jax.scipy.stats.logistic.logpdf(latent, scale=self.scale))

            def sample_and_log_prob(self, key, obs, n):
                latents = self.scale * jax.random.logistic(key, (n, 2))
                return latents, jax.vmap(self.log_prob, in_axes=(None, 0))(obs, latents)

    to be used as `improve(..., propose=lambda policy, q, temperature: HeavyTails(2.0))` or, so that good policies are
    not forgotten, with `defensive(policy, HeavyTails(2.0), 0.2)`; and as `SACISFM(..., proposal=...)` likewise.
    """

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int) -> WithLogProbs:
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


@runtime_checkable
class DensityProposal(Proposal, Protocol):
    """A proposal whose density is known at every latent, not only where it sampled."""

    def log_prob(self, obs: Float[Array, " n"], latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log μ_u(u|s) of a given latent.

        Args:
            obs: observation s, shape (n,).
            latent: latent u, shape (d,).

        Returns:
            The log-density, shape ().
        """
        ...


@runtime_checkable
class Propose(Protocol):
    """Makes the proposal of one improvement step."""

    def __call__(self, policy: FlowPolicy, q_function: QFunction, temperature: Float[ArrayLike, ""], /) -> Proposal:
        """Return the proposal.

        Args:
            policy: current policy π_k.
            q_function: soft action value, (s, a) ↦ Q(s, a), shapes (n,), (d,) and ().
            temperature: entropy weight α, shape ().

        Returns:
            The proposal, for all states.
        """
        ...
