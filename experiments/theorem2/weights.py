"""Bias and variance of the three weight normalisations, against exact values.

The ISFM loss, its gradient and expectations such as the mean are all of the form Σ_i w_i f(x_i), linear in the
weights. With f tabulated, many independent sets of N candidates cost little, and what they are compared with, the
integral of π_new f, is exact. The noise (x_0, τ) is held fixed, 256 pairs shared by all candidates: what is left is
the error of the weights.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import norm

from entroflow.flow import FlowPolicy
from entroflow.isfm import NORMALISATIONS, isfm_loss, log_mean_exp, raw, stratified_times

MEAN, SD, LOG_Z = 1.0, 0.5, 2.0  # of the target exp(LOG_Z) N(MEAN, SD²)
NODES = np.linspace(-6.0, 6.0, 241)  # of the table; linear in between
PAIRS = 256
WEIGHTS = NORMALISATIONS | {"raw": partial(raw, log_constant=LOG_Z)}  # the true constant: equation (7) as it stands
RELATIVE_RANK = 1e-6  # directions of the gradient that are smaller than this are left out


def log_target(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return Q/α = LOG_Z + log N(x; MEAN, SD²)."""
    return LOG_Z + jax.scipy.stats.norm.logpdf(x, MEAN, SD)


class Table(NamedTuple):
    """Functions f at the nodes, one column each.

    Attributes:
        moments: 1, x and x², shape (nodes, 3).
        loss: the ISFM loss of one candidate, shape (nodes, 1).
        gradient: its gradient in an orthonormal basis that holds all of it, shape (nodes, r).
    """

    moments: Float[np.ndarray, "nodes 3"]
    loss: Float[np.ndarray, "nodes 1"]
    gradient: Float[np.ndarray, "nodes r"]


def tabulate(policy: FlowPolicy) -> Table:
    """Tabulate the functions for a policy with one action component and an observation of zeros."""
    times = stratified_times(jax.random.key(0), 1, PAIRS)
    obs = jnp.zeros_like(policy.obs_units.mean)

    def value(policy: FlowPolicy, x: Float[Array, ""]) -> Float[Array, ""]:
        return isfm_loss(policy, jax.random.key(1), obs, x[None, None], jnp.ones(1), times)

    def both(x: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, " p"]]:
        loss, gradient = jax.value_and_grad(value)(policy, x)
        return loss, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient.velocity)])

    losses, gradients = jax.jit(lambda nodes: jax.lax.map(both, nodes, batch_size=16))(jnp.asarray(NODES, jnp.float32))
    left, sizes, _ = np.linalg.svd(np.asarray(gradients, np.float64), full_matrices=False)
    kept = sizes > RELATIVE_RANK * sizes[0]
    moments = np.stack([NODES**0, NODES, NODES**2], axis=1)
    return Table(moments, np.asarray(losses, np.float64)[:, None], left[:, kept] * sizes[kept])


def exact_shares() -> Float[np.ndarray, " nodes"]:
    """Return the target's probabilities of the nodes, by linear binning: π_new's integral of any tabulated f."""
    x = np.linspace(NODES[0], NODES[-1], 400_001)
    density = norm.pdf(x, MEAN, SD)
    return _binned(x[None], density[None] / density.sum())[0]


class Errors(NamedTuple):
    """What many sets of N candidates say; relative to the exact value's norm, but for log Z and the moments.

    Attributes:
        loss_bias: of the loss.
        loss_sd: its standard deviation over the sets.
        gradient_bias: norm of the gradient's bias; its estimate's noise is subtracted, and what is below is zero.
        gradient_sd: root of the trace of the gradient's covariance.
        turning_bias: the part of the gradient's bias that is at a right angle to the gradient. The rest makes steps
            longer or shorter and does not move the minimum.
        noise: standard error of `gradient_bias` before the subtraction.
        total_mean: mean of Σ w.
        total_sd: its standard deviation.
        mean: mean E[Σ w x] / E[Σ w] of the distribution to which steps on fresh sets lead.
        variance: its variance.
        log_z_bias: bias of log Ẑ, the same for all normalisations.
        log_z_sd: its standard deviation.
    """

    loss_bias: float
    loss_sd: float
    gradient_bias: float
    gradient_sd: float
    turning_bias: float
    noise: float
    total_mean: float
    total_sd: float
    mean: float
    variance: float
    log_z_bias: float
    log_z_sd: float


def measure(
    table: Table, name: str, n: int, repeats: int, generator: np.random.Generator, proposal_sd: float = 1.0
) -> Errors:
    """Draw many sets of N candidates from N(0, proposal_sd²), weigh them and compare with the exact values.

    Args:
        table: what is averaged.
        name: "self", "state" or "raw" (with the true log Z for its constant).
        n: candidates N of a set.
        repeats: number of sets.
        generator: source of randomness.
        proposal_sd: the proposal's standard deviation; 1 is that of an untrained flow.

    Returns:
        The errors.
    """
    x = proposal_sd * generator.standard_normal((repeats, n))
    log_weights = _log_weights(jnp.asarray(x, jnp.float32), jnp.float32(proposal_sd))
    weights = np.asarray(jax.jit(jax.vmap(WEIGHTS[name]))(log_weights), np.float64)
    shares, exact = _binned(x, weights), exact_shares()
    moments = shares @ table.moments
    mean, square = moments.mean(axis=0)[1:] / moments[:, 0].mean()
    loss, exact_loss = (shares @ table.loss)[:, 0], float(exact @ table.loss[:, 0])
    gradients, gradient = shares @ table.gradient, exact @ table.gradient
    size = float(np.linalg.norm(gradient))
    bias = gradients.mean(axis=0) - gradient
    spread = gradients.var(axis=0)
    along = gradient / size
    turning = bias - along * (along @ bias)
    noise, turning_noise = spread.sum() / repeats, (spread.sum() - np.var(gradients @ along)) / repeats
    log_z = np.asarray(jax.jit(jax.vmap(log_mean_exp))(log_weights), np.float64)
    return Errors(
        loss_bias=loss.mean() / exact_loss - 1,
        loss_sd=loss.std() / exact_loss,
        gradient_bias=np.sqrt(max(bias @ bias - noise, 0.0)) / size,
        gradient_sd=np.sqrt(spread.sum()) / size,
        turning_bias=np.sqrt(max(turning @ turning - turning_noise, 0.0)) / size,
        noise=np.sqrt(noise) / size,
        total_mean=moments[:, 0].mean(),
        total_sd=moments[:, 0].std(),
        mean=mean,
        variance=square - mean**2,
        log_z_bias=log_z.mean() - LOG_Z,
        log_z_sd=log_z.std(),
    )


@jax.jit
def _log_weights(x: Float[Array, "repeats N"], sd: Float[Array, ""]) -> Float[Array, "repeats N"]:
    return log_target(x) - jax.scipy.stats.norm.logpdf(x, 0.0, sd)


def _binned(x: Float[np.ndarray, "sets N"], weights: Float[np.ndarray, "sets N"]) -> Float[np.ndarray, "sets nodes"]:
    """Share every weight between the two nodes next to its point, so that Σ w f(x) becomes shares @ f."""
    place = np.clip((x - NODES[0]) / (NODES[1] - NODES[0]), 0, len(NODES) - 1 - 1e-9)
    node = place.astype(int)
    upper = weights * (place - node)
    index = node + len(NODES) * np.arange(len(x))[:, None]
    count = len(NODES) * len(x)
    lower_part = np.bincount(index.ravel(), (weights - upper).ravel(), count)
    upper_part = np.bincount(index.ravel() + 1, upper.ravel(), count)
    return (lower_part + upper_part).reshape(len(x), len(NODES))
