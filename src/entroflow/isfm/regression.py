"""What the velocity is regressed on: x_1 − x_0, or something of the same mean at every (x_τ, τ) and less variance.

A pair (x_1, x_0) leads through the point x_τ = τ x_1 + (1−τ) x_0, and so would every other candidate of the state,
with another noise x_0,j = x_0 + τ/(1−τ) (x_1 − x_1,j). Given x_τ, candidate j has the probability

    p_j ∝ w_j N(x_0,j; 0, I),

and Σ_j p_j (x_1,j − x_0,j) is the exact marginal velocity of the weighted candidates (Rao–Blackwell). It needs no
further network call, but N² P probabilities for N candidates and P pairs each.

Stein's identity adds a control variate. For x_1 ~ π_new, τ x_0 + (1−τ) ∇ log π_new(x_1) has zero mean at every x_τ,
since its two parts are τ(1−τ) times two expressions of the score of x_τ, from the noise and from the target. In

    x_1 − x_0 + [τ x_0 + (1−τ) ∇ log π_new(x_1)] / [τ² + (1−τ)² F],   F = E (∂ log π_new)² in each component,

the factor makes all noise cancel where π_new is Gaussian with independent components. That asks for ∇_a Q at the
candidates, and for a Q without jumps.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Target = Literal["pair", "posterior", "stein"]
TARGETS = ("pair", "posterior", "stein")
LEAST_FISHER = 0.01  # a target ten times as wide as the noise; keeps a flat Q from dividing by zero at τ = 0


def posterior_target(
    latents: Float[Array, "N d"],
    weights: Float[Array, " N"],
    x1: Float[Array, " d"],
    x0: Float[Array, " d"],
    time: Float[Array, ""],
    scores: Float[Array, "N d"] | None = None,
    share: Float[Array, ""] | None = None,
) -> Float[Array, " d"]:
    """Average x_1 − x_0 over all candidates of a state that may have led to the same x_τ.

    Args:
        latents: candidates of the state, shape (N, d).
        weights: their weights, up to a factor, shape (N,).
        x1: the pair's candidate, one of the latents, shape (d,).
        x0: the pair's noise, shape (d,).
        time: flow time τ in [0, 1), shape ().
        scores: ∇ log π_new at the candidates, for the control variate; none if not given, shape (N, d).
        share: share of the control variate, one if not given, shape ().

    Returns:
        What to regress the velocity at (x_τ, τ) on, shape (d,).
    """
    noises = jax.vmap(lambda latent: x0 + time / (1 - time) * (x1 - latent))(latents)
    log_weights = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
    posterior = jax.nn.softmax(log_weights - 0.5 * jnp.sum(noises**2, axis=1))
    noise = posterior @ noises
    target = posterior @ latents - noise
    if scores is None:
        return target
    fisher = jnp.maximum(weights @ scores**2 / jnp.sum(weights), LEAST_FISHER)
    control = (time * noise + (1 - time) * (posterior @ scores)) / (time**2 + (1 - time) ** 2 * fisher)
    return target + (control if share is None else share * control)
