"""The fits of the study of Theorem 2: one state, a small flow, a fixed number of gradient steps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import BroadenedPolicy, FitConfig, GaussianProposal, improve

from . import weights as weighing
from .data import Resampled

WIDTH, STATES, BATCH = 32, 8, 16  # of the network; a step sees STATES × BATCH pairs (x_0, τ)
FEW = 8  # candidates per state where they are new in every step
SOLVER = RungeKutta("rk4", 16)


def untrained(key: PRNGKeyArray, d: int) -> FlowPolicy:
    """Return a flow close to the identity, the start of every fit."""
    return FlowPolicy(VelocityNetwork(1, d, width=WIDTH, depth=1, key=key), Unbounded(d), solver=SOLVER)


def learn(steps: int, key: PRNGKeyArray, candidates: Resampled) -> FlowPolicy:
    """Minimise the empirical risk of one weighted set by a number of gradient steps."""
    init_key, fit_key = jax.random.split(key)
    config = FitConfig(steps=steps, candidates=BATCH, pairs=1, ess_floor=0.0)
    policy, _ = improve(
        config,
        untrained(init_key, candidates.latents.shape[-1]),
        fit_key,
        lambda _: jnp.zeros((STATES, 1)),
        lambda _, action: jnp.zeros((), action.dtype),
        1.0,
        propose=lambda *_: candidates,
    )
    return policy


def learn_afresh(steps: int, key: PRNGKeyArray, normalisation: Int[Array, ""]) -> FlowPolicy:
    """Fit the Gaussian target of `weights` with FEW new candidates from N(0, 1) per state and step.

    Args:
        steps: gradient steps.
        key: random key.
        normalisation: the place of the weights' normalisation among `weights.WEIGHTS`, shape ().

    Returns:
        The fitted policy.
    """
    init_key, fit_key = jax.random.split(key)
    config = FitConfig(steps=steps, candidates=FEW, pairs=1, ess_floor=0.0)
    policy, _ = improve(
        config,
        untrained(init_key, 1),
        fit_key,
        lambda _: jnp.zeros((STATES * BATCH // FEW, 1)),
        lambda _, action: weighing.log_target(action[0]),
        1.0,
        propose=lambda *_: GaussianProposal([0.0], 1.0),
        normalise=lambda log_weights: jnp.stack([f(log_weights) for f in weighing.WEIGHTS.values()])[normalisation],
    )
    return policy


def push(policy: FlowPolicy, noise: Float[Array, "points d"]) -> Float[Array, "points d"]:
    """Return what the policy makes of given noise."""
    return jax.vmap(policy.push, in_axes=(None, 0))(jnp.zeros(1), noise)


def draw(
    policy: FlowPolicy, key: PRNGKeyArray, noise_scale: Float[Array, ""], n: int
) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
    """Draw candidates from the policy, its noise scaled, with their log-densities."""
    return BroadenedPolicy(policy, noise_scale).sample_and_log_prob(key, jnp.zeros(1), n)
