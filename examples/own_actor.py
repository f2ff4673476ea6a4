"""An actor of one's own: a Gaussian with a linear mean and one width at all states, as the optimum of LQR is.

    python examples/own_actor.py

`ActorDefaults` improves it along the gradient of Q; `loss_and_gradient` would do so in another way.
"""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
from jax import Array

import entroflow
from entroflow import flow, moments
from entroflow.lqr import systems
from entroflow.rl import ActorDefaults
from entroflow.rl.actors import GaussianPolicy


class LinearNetwork(eqx.Module):
    """A linear map and one logarithm for every action component."""

    mean: eqx.nn.Linear
    log_std: Array

    def __call__(self, obs: Array) -> tuple[Array, Array]:
        """Return mean and log standard deviation."""
        return self.mean(obs), self.log_std


@dataclass(frozen=True)
class Linear(ActorDefaults):
    """An `entroflow.rl.Actor`."""

    def network(self, obs_size: int, action_size: int, *, key: Array) -> LinearNetwork:
        """Make what is learned."""
        return LinearNetwork(eqx.nn.Linear(obs_size, action_size, key=key), jnp.zeros(action_size))

    def policy(
        self, network: LinearNetwork, action_space: flow.ActionSpace, obs_units: moments.Moments, temperature: Array
    ) -> GaussianPolicy:
        """Return the policy: this one, or anything with the methods of `entroflow.rl.DensityPolicy`."""
        return GaussianPolicy(network, action_space, obs_units)


def main(steps: int = 4000, folder: str = "out/own_actor") -> tuple[Array, Array]:
    """Train on LQR, save and load; print gain and variances beside the optimum's and return them."""
    settings = {"target_entropy": None, "temperature": 0.5, "discount": 0.9, "normalise_obs": False, "rate": 3e-3}
    entroflow.SAC("entroflow.envs:entroflow/LQR-v0", actor=Linear(), **settings).learn(steps).save(folder)
    policy, exact = entroflow.load(folder, actor=Linear()).policy, systems.get("coupled").optimal(0.5)
    unit, network = policy.action_space.scale, policy.network
    found = -unit[:, None] * network.mean.weight, (unit * jnp.exp(network.log_std)) ** 2
    print(f"K = {found[0].round(3).ravel()}, optimal {exact.K.round(3).ravel()}")
    print(f"variances {found[1].round(3)}, optimal {exact.covariance.diagonal().round(3)}")
    return found


if __name__ == "__main__":
    main()
