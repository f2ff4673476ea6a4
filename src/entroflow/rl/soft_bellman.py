"""The soft Bellman equation. The signs of entropy and reward live here and nowhere else.

(1)  (T^π Q)(s, a) = r(s, a) + γ E_{s', a'~π(·|s')} [ Q(s', a') − α log π(a'|s') ].

What the functions have in common:

Args:
    q: soft action values Q(s, a).
    log_prob: log π(a|s) of the same actions.
    temperature: entropy weight α.
    draw: draws an action with its log-density, (key, s) ↦ (a, log π(a|s)); gradients are to reach the policy in it.
    key: random key.
    obs: states, shape (b, n).
    q_function: soft action value, (s, a) ↦ Q(s, a).
    action_space: the space of the actions, in whose units their density is.
    log_z: log Ẑ(s) of candidates drawn from π and weighted for π_new = exp(Q/α)/Z.
    kl: their estimate of KL(π‖π_new).
    reward: r(s, a).
    discount: γ in [0, 1).
    terminated: one where the return ends with this transition. A time limit does not end it.
    next_value: estimate of the soft value of s'.
    log_temperature: log α.
    entropy: H, in nats.
    target_entropy: H̄, in nats.

Returns:
    One number for each action or state.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..flow import ActionSpace
from ..isfm import QFunction

CREDIBLE = 30.0  # nats for each component of an action
Draw = Callable[[PRNGKeyArray, Array], tuple[Array, Array]]


def credible(log_prob: Float[Array, "*batch"], action_space: ActionSpace) -> Float[Array, "*batch"]:
    """Return log π within 30 nats for each component, around −log of the box's half-widths, or of the space's units.

    It is what critics' targets and the temperature hear of log π; what candidates say of the soft value, from which a
    network of V learns, is taken as it is. A drawn action is less likely than that once in e³⁰ draws, and one more
    likely lies within 10⁻¹³ of the box of its neighbours: farther out a solver has failed. It does at single states
    whose field is stiff, with millions of nats, which no critic, temperature or average would get over. No gradient
    passes.
    """
    usual = -action_space.log_det(jnp.zeros(action_space.size))
    most = CREDIBLE * action_space.size
    return jnp.clip(log_prob, usual - most, usual + most)


def soft_value(
    q: Float[Array, "*batch"], log_prob: Float[Array, "*batch"], temperature: Float[ArrayLike, ""]
) -> Float[Array, "*batch"]:
    """Return Q(s, a) − α log π(a|s), whose mean over a ~ π is the soft value V(s).

    At the fixed point π = exp(Q/α)/Z it is V(s) = α log Z(s) for every single action: close to the optimum the choice
    of the action adds no noise.

    Example:
        >>> float(soft_value(jax.numpy.array(1.0), jax.numpy.array(-2.0), 0.5))
        2.0
    """
    return q - temperature * log_prob


def pathwise_values(
    draw: Draw,
    key: PRNGKeyArray,
    obs: Float[Array, "b n"],
    q_function: QFunction,
    temperature: Float[Array, ""],
    action_space: ActionSpace | None = None,
) -> Float[Array, " b"]:
    """Return Q(s, a) − α log π(a|s) of one reparameterised action at each state (Haarnoja et al. 2018b, equation 9).

    They carry the pathwise gradient: through the action, into the policy that drew it. On average they are
    −α KL(π‖exp(Q/α)/Z) + α log Z. With the action space given, log π is `credible`.
    """
    actions, log_prob = jax.vmap(draw)(jax.random.split(key, obs.shape[0]), obs)
    if action_space is not None:
        log_prob = credible(log_prob, action_space)
    return soft_value(jax.vmap(q_function)(obs, actions), log_prob, temperature)


def soft_value_from_weights(
    log_z: Float[Array, "*batch"], kl: Float[Array, "*batch"], temperature: Float[ArrayLike, ""]
) -> Float[Array, "*batch"]:
    """Return V(s) = α (log Z(s) − KL(π‖π_new)), the mean of Q − α log π over a policy's own candidates."""
    return (log_z - kl) * temperature


def soft_target(
    reward: Float[Array, "*batch"],
    discount: Float[ArrayLike, ""],
    terminated: Float[Array, "*batch"],
    next_value: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Return r + γ (1 − terminated) V(s'), one sample of equation (1): what to regress Q(s, a) on.

    Example:
        >>> soft_target(jax.numpy.ones(2), 0.5, jax.numpy.array([0.0, 1.0]), jax.numpy.full(2, 10.0))
        Array([6., 1.], dtype=float32)
    """
    return reward + discount * (1 - terminated) * next_value


def temperature_loss(
    log_temperature: Float[Array, ""], entropy: Float[Array, ""], target_entropy: float
) -> Float[Array, ""]:
    """Return log α · (H − H̄), whose gradient step raises α while the entropy H = −mean log π is below its target H̄.

    The form of Haarnoja et al. 2018b, equation 18, with log α in place of α, as everyone computes it.

    Example:
        >>> entropy = jax.numpy.array(-4.0)  # below its target: α is to rise
        >>> float(jax.grad(temperature_loss)(jax.numpy.array(0.0), entropy, -2.0))
        -2.0
    """
    return log_temperature * (jax.lax.stop_gradient(entropy) - target_entropy)
