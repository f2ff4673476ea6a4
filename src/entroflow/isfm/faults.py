"""What went wrong with candidates, by name: compiled programs cannot raise errors, but they can count."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..checks import error


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
    """Count the candidates of one state that cannot be weighed; a candidate's first fault is the one that counts.

    Args:
        latents: candidates, shape (N, d).
        log_proposal: their log-densities under the proposal, shape (N,).
        q: Q at them, shape (N,).

    Returns:
        The shares, shape ().
    """
    bad_proposal = ~(jnp.all(jnp.isfinite(latents), axis=1) & jnp.isfinite(log_proposal))
    bad_q = ~bad_proposal & ~jnp.isfinite(q)
    return Faults(jnp.mean(bad_proposal, dtype=latents.dtype), jnp.mean(bad_q, dtype=latents.dtype))


def check_faults(faults: Faults) -> None:
    """Raise if candidates could not be weighed; call it on what a compiled program returns.

    `draw_candidates` and `fit` do so themselves when they are not compiled by their caller. While JAX traces, nothing
    happens.

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
