"""How good a policy is on LQR: returns on given noise, and the moments of its actions where it goes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...envs.lqr import LQREnv
from ...lqr.simulate import Noise
from ...rl.actors import NoiseDensityPolicy

BLOCK = 16384  # actions drawn at once


class LQREvaluation(NamedTuple):
    """What `evaluate` measures: of the actions at some states mean, covariance and average −log π(a|s)."""

    standard_return: Float[Array, ""]  # discounted, without entropy, averaged over the trajectories
    states: Float[Array, "m n"]
    mean: Float[Array, "m d"]
    covariance: Float[Array, "m d d"]
    entropy: Float[Array, ""]


def evaluate(
    env: LQREnv,
    policy: NoiseDensityPolicy,
    discount: Float[Array, ""],
    noise: Noise,
    visits: Int[Array, " m"],
    points: Float[Array, "k d"],
) -> LQREvaluation:
    """Run a policy on given noise, then look at its actions at some of the states that it visited.

    The region that truncates training episodes plays no role. `visits` are counted along the trajectories of step 0
    first; `points` are standard normal noise, from which the actions at the visited states are made.
    """

    def step(states: Float[Array, "T n"], draws: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        process, action_noise = draws
        actions = jax.vmap(policy.push)(states, action_noise)
        following = jax.vmap(env.drift)(states, actions) + process
        return following, (states, jax.vmap(env.reward)(states, actions, following))

    draws = jnp.asarray(noise.process), jnp.asarray(noise.action)
    _, (states, rewards) = jax.lax.scan(step, jnp.asarray(noise.initial_states), draws)
    powers = discount ** jnp.arange(rewards.shape[0], dtype=rewards.dtype)
    visited = states.reshape(-1, states.shape[-1])[visits]

    def moments(state: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        actions, log_probs = jax.vmap(policy.push_and_log_prob, in_axes=(None, 0))(state, points)
        mean = jnp.mean(actions, axis=0)
        centred = actions - mean[None]
        return mean, centred.T @ centred / points.shape[0], -jnp.mean(log_probs)

    # In blocks that fit the cache, since all the samples of all states at once would not.
    mean, covariance, entropy = jax.lax.map(moments, visited, batch_size=max(1, BLOCK // points.shape[0]))
    return LQREvaluation(powers @ jnp.mean(rewards, axis=1), visited, mean, covariance, jnp.mean(entropy))


def normal_points(count: int, size: int) -> Float[np.ndarray, "k d"]:
    """Return standard normal points spread more evenly than random ones (Sobol's sequence, scrambled).

    As noise they make means and covariances of actions far more accurate than random draws of the same number, which
    is to be a power of two.
    """
    from scipy.stats import norm, qmc  # half a second, which nothing on the screen needs to wait for

    uniform = qmc.Sobol(size, rng=0).random(count)
    return norm.ppf(uniform).astype(np.float32)
