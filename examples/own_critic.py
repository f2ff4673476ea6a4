"""A critic of one's own: 25 quantiles of the return, of which targets leave out the highest two, as TQC does.

python examples/own_critic.py
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from entroflow import SAC, SACISFM, moments, optimise, rl

State = tuple[eqx.nn.MLP, eqx.nn.MLP, optax.OptState]  # the network, its running average, Adam's state
LEVELS = (jnp.arange(25.0)[None, None] + 0.5) / 25


@dataclass(frozen=True)
class Quantiles:
    """An `entroflow.rl.Critic`; `SACISFM(env, critic=Quantiles(), critic_width=256)` changes a field of it."""

    width: int = 128
    learns_v: bool = False

    def init(self, keys: Array, obs_units: moments.Moments, action_size: int, updates: int | None) -> State:
        """Make what has learned nothing; functions in a network are wrapped, for its leaves are to be arrays."""
        silu, identity = (jax.tree_util.Partial(function) for function in (jax.nn.silu, jax.nn.identity))
        network = eqx.nn.MLP(obs_units.mean.size + action_size, 25, self.width, 2, silu, identity, key=keys[0])
        return network, network, optax.adam(1e-3).init(network)

    def q(self, state: State, obs: Array, action: Array) -> Array:
        """Return Q(s, a)."""
        return jnp.mean(state[0](jnp.concatenate([obs, action])))

    policy_q = q

    def update(self, state: State, experience: rl.Experience) -> tuple[State, dict[str, Array]]:
        """Regress the quantiles on the targets that those at (s', a') make."""
        obs, action, next_obs, next_action, target, *_ = experience
        atoms = jnp.sort(jax.vmap(state[1])(jnp.hstack([next_obs, next_action])))[:, :-2]
        targets = jax.vmap(target, 1, 1)(atoms)  # equation (1), atom by atom

        def loss(network: eqx.nn.MLP) -> Array:
            errors = targets[:, :, None] - jax.vmap(network)(jnp.hstack([obs, action]))[:, None]
            return jnp.mean(jnp.where(errors < 0, LEVELS - 1, LEVELS) * errors)

        error, gradient = jax.value_and_grad(loss)(state[0])
        network, adam = optimise.descend(optax.adam(1e-3), gradient, state[0], state[2])
        return (network, optimise.follow(state[1], network, 0.005), adam), {"critic_error": error}


def main(steps: int = 4000, kind: type[SAC] = SACISFM) -> float:
    """Return the mean return of 10 episodes of Pendulum-v1 after training."""
    return kind("Pendulum-v1", critic=Quantiles(), reward_scale=0.1).learn(steps).evaluate(10).mean


if __name__ == "__main__":
    print(main())
