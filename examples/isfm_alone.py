"""Importance sampling flow matching alone: fit a flow to exp(Q/α)/Z for a Q of your own, sample it, ask its density.

    python examples/isfm_alone.py

Here Q has four hills in the plane, whose tops carry 10, 20, 30 and 40 % of the mass of exp(Q/α).
"""

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import FitConfig, improve

TEMPERATURE = 0.5  # α
TOPS = jnp.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
SHARES = jnp.array([0.1, 0.2, 0.3, 0.4])
WIDTH = 0.4


def q_function(obs: Array, action: Array) -> Array:
    """Q(s, a), the same at every state; any function that JAX can trace will do, and constants in it cancel."""
    del obs
    squares = jnp.sum((action[None] - TOPS) ** 2, axis=1)
    return TEMPERATURE * jax.nn.logsumexp(jnp.log(SHARES) - squares / (2 * WIDTH**2))


def train(steps: int) -> FlowPolicy:
    """Fit a flow at one state, s = 0, by weighted regression on its own samples: equations (7) and (9)."""
    velocity = VelocityNetwork(obs_size=1, action_size=2, width=64, key=jax.random.key(0))
    policy, config = FlowPolicy(velocity, Unbounded(2)), FitConfig(steps=steps, candidates=256)
    policy, _ = improve(config, policy, jax.random.key(1), lambda key: jnp.zeros((1, 1)), q_function, TEMPERATURE)
    return policy.with_solver(RungeKutta("rk4", 16))


def main(steps: int = 1000) -> tuple[np.ndarray, float]:
    """Print the shares of the four hills among samples, and the mass of exp(log π) on a grid; return both."""
    policy, obs = train(steps), jnp.zeros(1)
    actions = jax.vmap(policy.sample, (0, None))(jax.random.split(jax.random.key(2), 20_000), obs)
    nearest = jnp.argmin(jnp.sum((actions[:, None] - TOPS[None]) ** 2, axis=2), axis=1)
    shares = np.bincount(nearest, minlength=4) / len(actions)

    ticks = jnp.linspace(-4.0, 4.0, 101)
    grid = jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    density = jnp.exp(jax.vmap(policy.log_prob, (None, 0))(obs, grid))
    mass = float(jnp.sum(density) * (ticks[1] - ticks[0]) ** 2)
    print(f"shares of the hills: {shares.round(3)}, exact {np.asarray(SHARES)}; mass of exp(log π): {mass:.4f}")
    return shares, mass


if __name__ == "__main__":
    tyro.cli(main)
