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
candidates, and for a Q without jumps. A candidate's own F comes from the others, of all states: with its own score in
it the mean would no longer be zero, by about 1/N.

What the functions have in common:

Args:
    latents: candidates of the state, shape (N, d).
    weights: their weights, up to a factor, shape (N,).
    x1: the pair's candidate, one of the latents, shape (d,).
    x0: the pair's noise, shape (d,).
    time: flow time τ in [0, 1), shape (). At many points single precision wants it away from 1.
    control: Stein's control variate; none if not given.
    scores: ∇ log π_new at the candidates of a batch of states, shape (b, N, d).
    share: one at states where the scores are those of the target, zero elsewhere, shape (b,).

Returns:
    What to regress the velocity at x_τ on, shape (d,).
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

RegressionTarget = Literal["pair", "posterior", "stein"]
TARGETS = ("pair", "posterior", "stein")
LEAST_FISHER = 0.01  # a target ten times as wide as the noise; keeps a flat Q from dividing by zero at τ = 0


class Control(NamedTuple):
    """What Stein's control variate needs to know of the candidates of one state.

    Attributes:
        scores: ∇ log π_new at the candidates, shape (N, d).
        fisher: F, for each candidate from the others, shape (N, d).
        share: one to use the control variate at this state, zero not to, shape ().
    """

    scores: Float[Array, "*batch N d"]
    fisher: Float[Array, "*batch N d"]
    share: Float[Array, "*batch"]


def stein_control(scores: Float[Array, "b N d"], weights: Float[Array, "b N"], share: Float[Array, " b"]) -> Control:
    """Prepare the control variate at a batch of states: its data, leaves with a leading axis b."""
    counts = (share[:, None] * weights)[..., None]
    squares = counts * scores**2
    others = jnp.sum(squares, axis=(0, 1), keepdims=True) - squares
    count = jnp.sum(counts, axis=(0, 1), keepdims=True) - counts
    return Control(scores, others / jnp.maximum(count, jnp.finfo(count.dtype).tiny), share)


def posterior_target(
    latents: Float[Array, "N d"],
    weights: Float[Array, " N"],
    x1: Float[Array, " d"],
    x0: Float[Array, " d"],
    time: Float[Array, ""],
    control: Control | None = None,
) -> Float[Array, " d"]:
    """Average x_1 − x_0 over all candidates of a state that may have led to the same x_τ.

    Example:
        >>> latents, time = jnp.array([[-1.0], [1.0]]), jnp.array(0.0)
        >>> posterior_target(latents, jnp.array([0.5, 0.5]), latents[1], jnp.zeros(1), time)  # both may have led to x_0
        Array([0.], dtype=float32)
    """
    noises = x0[None] + time / (1 - time) * (x1[None] - latents)
    log_weights = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
    posterior = jax.nn.softmax(log_weights - 0.5 * jnp.sum(noises**2, axis=1))
    target = posterior @ latents - posterior @ noises
    if control is None:
        return target
    fisher = jnp.maximum(control.fisher, LEAST_FISHER)
    controls = (time * noises + (1 - time) * control.scores) / (time**2 + (1 - time) ** 2 * fisher)
    return target + control.share * (posterior @ controls)
