"""Importance weights of candidates: log-space, normalisations, tempering and diagnostics.

For candidates u_i ~ μ the weight of policy improvement is (9)  log w_i = Q(s, a_i)/α − log μ(a_i|s). All functions take
the N log-weights of one state. Weights are data for the regression: no gradient passes through them. What cannot be
weighed is counted as a fault: compiled programs cannot raise errors. What the functions have in common:

Args:
    log_weights: log w_i, shape (N,).
    log_constant: the same at all states, shape ().
    latents: candidates, shape (N, d).
    log_proposal: their log-densities under the proposal, shape (N,).
    q: Q at them, shape (N,).

Returns:
    The weights, shape (N,), or what else they say.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from ..checks import error

BISECTIONS = 24  # the tempering exponent is found to 2⁻²⁴


@runtime_checkable
class Normalisation(Protocol):
    """Makes weights of the N log-weights of a state: one of `NORMALISATIONS`, or a function of your own."""

    def __call__(self, log_weights: Float[Array, " N"], /) -> Float[Array, " N"]:
        """Return the weights, without a gradient, shape (N,)."""
        ...


def log_mean_exp(log_weights: Float[Array, " N"]) -> Float[Array, ""]:
    """Return log of the mean of exp, for log-weights log Ẑ(s), an estimate of log ∫ exp(Q(s,a)/α) da."""
    return jax.nn.logsumexp(log_weights) - jnp.log(log_weights.shape[0])


def self_normalised(log_weights: Float[Array, " N"]) -> Float[Array, " N"]:
    """Return weights that sum to one: Z(s) cancels state by state, at a bias of order 1/N.

    Example:
        >>> self_normalised(jnp.log(jnp.array([1.0, 1.0, 2.0]))).round(2)
        Array([0.25, 0.25, 0.5 ], dtype=float32)
    """
    return jax.nn.softmax(jax.lax.stop_gradient(log_weights))


def state_normalised(log_weights: Float[Array, " N"]) -> Float[Array, " N"]:
    """Return w_i / (N Ẑ(s)), where each half of the candidates is divided by the other half's Ẑ(s).

    The weights of a state are right up to a common factor, unlike those of self-normalising. Its mean exceeds one,
    since E[1/Ẑ] > 1/Z; below some 64 candidates it varies without bounds (`experiments/theorem2` measures it).

    Raises:
        ValueError: for an odd number of candidates.

    Example:
        >>> state_normalised(jnp.log(jnp.array([1.0, 1.0, 2.0, 2.0]))).round(3)  # the halves' Ẑ are 1 and 2
        Array([0.125, 0.125, 0.5  , 0.5  ], dtype=float32)
    """
    n = log_weights.shape[0]
    if n % 2:
        raise error("candidates", f"{n}", "an even number for normalising by state", "use one more candidate")
    halves = jax.lax.stop_gradient(log_weights).reshape(2, n // 2)
    log_z = jax.vmap(log_mean_exp)(halves)[::-1]
    return jnp.exp(halves - log_z[:, None]).reshape(n) / n


def raw(log_weights: Float[Array, " N"], log_constant: Float[ArrayLike, ""] = 0.0) -> Float[Array, " N"]:
    """Return w_i / (N exp(log_constant)).

    With one constant for all states this makes the unbiased loss (7), times Z(s).

    Example:
        >>> raw(jnp.log(jnp.array([1.0, 3.0]))).round(2)
        Array([0.5, 1.5], dtype=float32)
    """
    return jnp.exp(jax.lax.stop_gradient(log_weights - log_constant)) / log_weights.shape[0]


NORMALISATIONS: dict[str, Normalisation] = {"self": self_normalised, "state": state_normalised, "raw": raw}


class Diagnostics(NamedTuple):
    """How far the proposal μ is from the target π_new, as told by N log-weights; every field has shape ().

    Attributes:
        ess: effective sample size over N, (Σw)² / (N Σw²), from 1/N (one candidate has all the weight) to 1.
        renyi_2: Rényi divergence D_2(π_new‖μ) = log E_μ[(π_new/μ)²].
        renyi_4: Rényi divergence D_4(π_new‖μ) = ⅓ log E_μ[(π_new/μ)⁴], the one of the error bound (Theorem 2).
        log_z: log Ẑ(s) = log mean w.
        max_weight: the largest self-normalised weight.
        kl: Kullback–Leibler divergence KL(μ‖π_new) = log Ẑ − mean log w. With μ = π, α (log Ẑ − kl) is the mean of
            Q − α log π, an unbiased estimate of the policy's soft value V(s).
    """

    ess: Float[Array, ""]
    renyi_2: Float[Array, ""]
    renyi_4: Float[Array, ""]
    log_z: Float[Array, ""]
    max_weight: Float[Array, ""]
    kl: Float[Array, ""]


def diagnose(log_weights: Float[Array, " N"]) -> Diagnostics:
    """Compute the diagnostics of N log-weights.

    The divergences are estimates from the same N candidates: they cannot exceed log N and (4/3) log N.

    Example:
        >>> found = diagnose(jnp.array([0.0, 0.0, -100.0, -100.0]))  # two of four candidates have all the weight
        >>> f"{found.ess:.2f}, {found.renyi_2:.2f}, {found.max_weight:.2f}"
        '0.50, 0.69, 0.50'
    """
    log_weights = jax.lax.stop_gradient(log_weights)
    log_z = log_mean_exp(log_weights)
    log_ratio = log_weights - log_z  # log π_new/μ
    renyi_2 = log_mean_exp(2 * log_ratio)
    renyi_4 = log_mean_exp(4 * log_ratio) / 3
    max_weight = jnp.exp(jnp.max(log_ratio)) / log_weights.shape[0]
    return Diagnostics(jnp.exp(-renyi_2), renyi_2, renyi_4, log_z, max_weight, -jnp.mean(log_ratio))


def temper(
    log_target_over_policy: Float[Array, " N"],
    log_policy_over_proposal: Float[Array, " N"],
    ess_floor: Float[ArrayLike, ""],
) -> tuple[Float[Array, " N"], Float[Array, ""]]:
    """Take the longest step from policy to target whose effective sample size stays above a floor.

    The target of one improvement step becomes π_β ∝ π_k^{1−β} exp(βQ/α), with β ∈ (0, 1] and the log-weights
    β (Q/α − log π_k) + (log π_k − log μ). Every β has the same fixed point. Bisection on the N log-weights finds the
    largest; with μ = π_k, where the effective sample size falls from N as β grows, it is the exact answer. Another
    proposal starts below N at β = 0, and the floor is relative to where it starts, so that every step leads somewhere.

    Args:
        log_target_over_policy: Q/α − log π_k at the candidates, shape (N,).
        log_policy_over_proposal: log π_k − log μ at the candidates, zero if the policy proposes, shape (N,).
        ess_floor: least effective sample size as a fraction of that at β = 0, which is N if the policy proposes; in
            (0, 1), where zero always gives β = 1.

    Returns:
        The tempered log-weights, shape (N,), and β, shape ().

    Example:
        >>> steep = 10.0 * jnp.arange(8.0)
        >>> log_weights, beta = temper(steep, jnp.zeros(8), 0.5)
        >>> f"{diagnose(steep).ess:.2f} to {diagnose(log_weights).ess:.2f} at beta = {beta:.2f}"
        '0.13 to 0.50 at beta = 0.05'
    """
    slope, offset = jax.lax.stop_gradient((log_target_over_policy, log_policy_over_proposal))

    floor = ess_floor * diagnose(offset).ess

    def admissible(beta: Array) -> Array:
        return diagnose(beta * slope + offset).ess >= floor

    def bisect(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        good = admissible(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    one = jnp.ones((), slope.dtype)
    low, _ = jax.lax.fori_loop(0, BISECTIONS, bisect, (jnp.zeros_like(one), one))
    beta = jnp.where(admissible(one), one, low)
    return beta * slope + offset, beta


class Faults(NamedTuple):
    """Shares of the candidates that cannot be weighed; both are zero when all is well.

    Attributes:
        proposal: share of the candidates that are not finite, or whose log-density under their own proposal is not,
            shape ().
        q: share of the other candidates whose Q is not finite, shape ().
    """

    proposal: Float[Array, "*steps"]
    q: Float[Array, "*steps"]


def find_faults(latents: Float[Array, "N d"], log_proposal: Float[Array, " N"], q: Float[Array, " N"]) -> Faults:
    """Count the candidates of one state that cannot be weighed; a candidate's first fault is the one that counts."""
    bad_proposal = ~(jnp.all(jnp.isfinite(latents), axis=1) & jnp.isfinite(log_proposal))
    bad_q = ~bad_proposal & ~jnp.isfinite(q)
    return Faults(jnp.mean(bad_proposal, dtype=latents.dtype), jnp.mean(bad_q, dtype=latents.dtype))


def check_faults(faults: Faults) -> None:
    """Raise if candidates could not be weighed; call it on what a compiled program returns.

    `draw_candidates` and `fit` do so themselves. While JAX traces, nothing happens.

    Args:
        faults: from `Candidates.faults` or `FitMetrics.faults`; the last axis, if there is one, is that of the steps.

    Raises:
        ValueError: that names what is not finite, the proposal's density or Q, and the first step where it is not.
    """
    if any(isinstance(share, Tracer) for share in faults):
        return
    proposal, q = (np.atleast_1d(np.asarray(share)) for share in faults)
    steps = np.flatnonzero(((proposal > 0) | (q > 0)).reshape(-1, proposal.shape[-1]).any(axis=0))
    if steps.size == 0:
        return
    step, several = steps[0], proposal.size > 1
    where = f" at step {step}" if several else ""
    if (share := proposal[..., step].max()) > 0:
        given = f"a sample or its log-density that is not finite for {share:.2g} of its candidates{where}"
        remedy = "return the density of what was drawn; if it is the policy's own, lower the learning rate"
        raise error("proposal", given, "finite numbers wherever it samples", remedy)
    given = f"values that are not finite at {q[..., step].max():.2g} of the candidates{where}"
    remedy = "return a large negative number for actions that are to be avoided"
    raise error("q_function", given, "finite numbers wherever the proposal samples", remedy)
