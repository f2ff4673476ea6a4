"""Mixtures of proposals, the defensive mixture among them.

    μ(u|s) = Σ_k ω_k μ_k(u|s),    log weight of every candidate = Q/α − log μ  (the balance heuristic: Veach and Guibas
                                  1995; Owen and Zhou 2000),

whichever component a candidate came from. With (1 − ε) policy + ε broad no weight exceeds exp(Q/α) / (ε · broad): what
the policy has forgotten is found again, and what broad proposals waste is at most a share ε of the candidates.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import error, number
from ...flow import FlowPolicy
from .policy import CurrentPolicy
from .protocol import DensityProposal, Proposal, WithLogProbs


class MixtureProposal(eqx.Module):
    """A mixture of proposals with fixed weights; candidates are allotted to the components by stratified sampling.

    Component k gives n ω_k of n candidates, rounded down or up at random so that its expected share is ω_k exactly.
    That leaves every estimate unbiased and never increases its variance. Candidates come in random order, so that
    halves of them are alike. (The two halves of `state_normalised` are then not quite independent.)

    Args:
        components: the proposals μ_k, all with a `log_prob`.
        weights: their probabilities ω_k, numbers that sum to one.

    Raises:
        ValueError: if the weights are no probabilities of the components, or a component has no `log_prob`.

    Example:
        >>> from entroflow.isfm import GaussianProposal
        >>> narrow, wide = GaussianProposal([0.0], 1.0), GaussianProposal([0.0], 9.0)
        >>> mixture = MixtureProposal([narrow, wide], [0.75, 0.25])
        >>> f"{mixture.log_prob(jnp.zeros(3), jnp.zeros(1)):.3f}"
        '-1.101'
    """

    components: tuple[DensityProposal, ...]
    weights: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, components: Sequence[Proposal], weights: Sequence[float | np.floating]):
        if not components or len(components) != len(weights):
            given = f"{len(weights)} weights and {len(components)} components"
            raise error("mixture", given, "as many weights as components", "give each component one weight")
        known: list[DensityProposal] = []
        for component in components:
            if not isinstance(component, DensityProposal):
                given, expected = f"{type(component).__name__}, which has no log_prob", "proposals with a log_prob"
                raise error("a component of the mixture", given, expected, "leave it out, or give it one")
            known.append(component)
        numbers = [number("a weight of the mixture", weight) for weight in weights]
        if min(numbers) < 0 or abs(sum(numbers) - 1) > 1e-6:
            expected = "numbers in [0, 1] that sum to 1"
            raise error("weights of the mixture", f"{numbers}", expected, "divide them by their sum")
        self.components = tuple(part for part, weight in zip(known, numbers, strict=True) if weight > 0)
        self.weights = tuple(weight for weight in numbers if weight > 0)

    def log_prob(self, obs: Float[Array, " n"], latent: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log Σ_k ω_k μ_k(u|s), see `DensityProposal.log_prob`."""
        return self._join(jnp.stack([component.log_prob(obs, latent) for component in self.components]))

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"], n: int) -> WithLogProbs:
        """Draw latents in random order with the mixture's log-density, see `Proposal.sample_and_log_prob`."""
        draw_key, count_key, order_key = jax.random.split(key, 3)
        keys = jax.random.split(draw_key, len(self.components))
        sizes, counts = _allot(count_key, self.weights, n)  # a component draws `sizes`, of which `counts` are kept

        latents, log_probs, kept = [], [], []
        for k, component in enumerate(self.components):
            drawn, own = component.sample_and_log_prob(keys[k], obs, sizes[k])
            each = [
                own if other is component else jax.vmap(other.log_prob, in_axes=(None, 0))(obs, drawn)
                for other in self.components
            ]
            latents.append(drawn)
            log_probs.append(jax.vmap(self._join)(jnp.stack(each, axis=1)))
            kept.append(jnp.arange(sizes[k]) < counts[k])

        ranks = jnp.where(jnp.concatenate(kept), jax.random.uniform(order_key, (sum(sizes),)), 2.0)
        chosen = jnp.argsort(ranks)[:n]
        return jnp.concatenate(latents)[chosen], jnp.concatenate(log_probs)[chosen]

    def _join(self, log_probs: Float[Array, " k"]) -> Float[Array, ""]:
        return jax.nn.logsumexp(log_probs + jnp.log(jnp.asarray(self.weights, log_probs.dtype)))


def defensive(policy: FlowPolicy, broad: Proposal, epsilon: float | np.floating) -> MixtureProposal:
    """Return the defensive mixture (1 − ε) policy + ε broad (Hesterberg 1995).

    Args:
        policy: the current policy.
        broad: a proposal that covers what the policy may miss, such as `UniformProposal` or `BroadenedPolicy`.
        epsilon: share ε of the candidates that come from it, in [0, 1].

    Returns:
        The mixture.

    Raises:
        ValueError: if ε is not in [0, 1], or the broad proposal has no `log_prob`.
    """
    share = number("epsilon", epsilon, "a number in [0, 1]", "pass for example 0.1", holds=lambda x: 0 <= x <= 1)
    return MixtureProposal([CurrentPolicy(policy), broad], [1 - share, share])


def _allot(key: PRNGKeyArray, weights: tuple[float, ...], n: int) -> tuple[list[int], Array]:
    """Return the most that each component may have to give, and what each of them gives, in sum n.

    What is left after rounding down is shared out by systematic sampling.
    """
    shares = [n * weight for weight in weights]
    shares = [round(share) if abs(share - round(share)) < 1e-6 else share for share in shares]
    least = [math.floor(share) for share in shares]
    ends = np.cumsum([share - floor for share, floor in zip(shares, least, strict=True)])
    ends[-1] = n - sum(least)
    ends = jnp.asarray(ends, jnp.float32)
    reached = jnp.minimum(jnp.floor(ends + jax.random.uniform(key)), ends[-1]).at[-1].set(ends[-1])
    extra = jnp.diff(reached, prepend=jnp.zeros(1, jnp.float32))
    return [max(1, math.ceil(share)) for share in shares], jnp.asarray(least) + extra.astype(int)
