"""A proposal of one's own: a quarter of the candidates come from heavy tails, the rest from the policy.

    python examples/own_proposal.py

It is sampled with its density, in the latents u, of which `Box` makes actions by tanh; `log_prob` lets it be mixed.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

import entroflow
from entroflow.flow import FlowPolicy
from entroflow.isfm import MixtureProposal, Propose, QFunction, defensive


class HeavyTails(eqx.Module):
    """Independent logistic distributions around zero: an `entroflow.isfm.DensityProposal`."""

    size: int = eqx.field(static=True)
    scale: float = 1.0

    def log_prob(self, obs: Array, latent: Array) -> Array:
        """Return log μ(u|s), here the same at every state."""
        del obs
        return jnp.sum(jax.scipy.stats.logistic.logpdf(latent, scale=self.scale))

    def sample_and_log_prob(self, key: Array, obs: Array, n: int) -> tuple[Array, Array]:
        """Draw n latents with their log-densities, shapes (n, d) and (n,)."""
        latents = self.scale * jax.random.logistic(key, (n, self.size))
        return latents, jax.vmap(self.log_prob, in_axes=(None, 0))(obs, latents)


def tails(policy: FlowPolicy, q_function: QFunction, temperature: Array) -> HeavyTails:
    """Propose from the tails alone; a proposal may also look at the policy, at Q and at α."""
    del q_function, temperature
    return HeavyTails(policy.action_space.size)


def mixed(policy: FlowPolicy, q_function: QFunction, temperature: Array) -> MixtureProposal:
    """Propose from the policy, and a quarter of the candidates from the tails."""
    return defensive(policy, tails(policy, q_function, temperature), 0.25)


def train(proposal: Propose | str, steps: int) -> tuple[float, float]:
    """Train on Pendulum-v1; return ESS/N in the second half and the mean return of 10 episodes."""
    agent, found = entroflow.SACISFM("Pendulum-v1", proposal=proposal, learning_starts=steps // 8), {}
    agent.learn(steps, lambda _, row: found.update(row), log_interval=steps // 2)
    return found["ess"], agent.evaluate(10).mean


def main(steps: int = 4000) -> None:
    """Train with each."""
    for name, proposal in {"policy": "policy", "mixed": mixed, "tails": tails}.items():
        print("{}: ESS/N {:.2f}, return {:.0f}".format(name, *train(proposal, steps)), flush=True)


if __name__ == "__main__":
    main()
