"""Soft values that carry the pathwise gradient: through the action, into the policy that drew it."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ..soft_bellman import soft_value
from .protocol import QFunction

Draw = Callable[[PRNGKeyArray, Array], tuple[Array, Array]]


def pathwise_values(
    draw: Draw,
    key: PRNGKeyArray,
    obs: Float[Array, "b n"],
    q_function: QFunction,
    temperature: Float[Array, ""],
) -> Float[Array, " b"]:
    """Return Q(s, a) − α log π(a|s) of one reparameterised action at each state (Haarnoja et al. 2018b, equation 9).

    Args:
        draw: draws an action with its log-density, (key, s) ↦ (a, log π(a|s)); gradients are to reach the policy in it.
        key: random key.
        obs: states, shape (b, n).
        q_function: soft action value, (s, a) ↦ Q(s, a).
        temperature: entropy weight α.

    Returns:
        The values, shape (b,); −α KL(π‖exp(Q/α)/Z) + α log Z on average.
    """

    def value(key: PRNGKeyArray, obs: Float[Array, " n"]) -> Float[Array, ""]:
        action, log_prob = draw(key, obs)
        return soft_value(q_function(obs, action), log_prob, temperature)

    return jax.vmap(value)(jax.random.split(key, obs.shape[0]), obs)
