"""CrossQ's critic with a categorical head: the preset crossq whose critic predicts a distribution over fixed atoms.

python -m experiments.mujoco.categorical even HalfCheetah-v5 50000 OUT

"even" atoms take targets as HL-Gauss does (Farebrother et al. 2024), "spread" ones, which grow from zero like exp,
those next to them (two-hot). Either way a target is the mean of what is to be predicted, and Q the mean of what is.
"""

import dataclasses
import functools
import sys
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float, Key

import entroflow
from entroflow import optimise
from entroflow.flow.velocity import linear_layers
from entroflow.moments import Moments, forgetting_rate, settled
from entroflow.rl import CrossQ, Experience
from entroflow.rl.critics import BatchNormMLP, CrossQState
from entroflow.rl.critics.mlp import inputs_of

WIDTH = 0.75  # standard deviation of HL-Gauss, in distances of atoms


@dataclass(frozen=True)
class Categorical(CrossQ):
    """CrossQ's critic over atoms in numbers of the return, which hold those of HalfCheetah-v5."""

    atoms: Literal["even", "spread"] = "even"

    @property
    def values(self) -> Float[np.ndarray, " atoms"]:
        """The atoms."""
        if self.atoms == "even":
            return np.linspace(-250, 1250, 151, dtype=np.float32)
        exponents = np.linspace(-7.6, 7.6, 129, dtype=np.float32)
        return np.sign(exponents) * np.expm1(np.abs(exponents))

    def project(self, target: Float[Array, ""]) -> Float[Array, " atoms"]:
        """Return probabilities of the atoms whose mean is a target; one beyond them counts as the last."""
        atoms = jnp.asarray(self.values)
        target = jnp.clip(target, atoms[0], atoms[-1])
        if self.atoms == "even":
            step = atoms[1] - atoms[0]
            edges = jnp.append(atoms - step / 2, atoms[-1] + step / 2)
            parts = jnp.diff(erf((edges - target) / (jnp.sqrt(2.0) * WIDTH * step)))
            return parts / jnp.sum(parts)
        i = jnp.clip(jnp.searchsorted(atoms, target, side="right") - 1, 0, len(atoms) - 2)
        above = (target - atoms[i]) / (atoms[i + 1] - atoms[i])
        return (1 - above) * jax.nn.one_hot(i, len(atoms)) + above * jax.nn.one_hot(i + 1, len(atoms))

    def init(self, keys: Key[Array, "2"], obs_units: Moments, action_size: int, updates: int | None) -> CrossQState:
        """Begin near zero: the last layer has an output for every atom, and those near zero are likely."""
        state = super().init(keys, obs_units, action_size, updates)
        sizes = (obs_units.mean.shape[0] + action_size, *[self.width] * self.depth, len(self.values))
        far = np.arange(len(self.values)) - np.argmin(np.abs(self.values))
        bias = jnp.asarray(np.maximum(-(far**2) / 18, -6.0), jnp.float32)

        def head(key: Key[Array, ""]) -> eqx.nn.Linear:
            return eqx.tree_at(lambda layer: layer.bias, linear_layers(sizes, key)[-1], bias)

        heads = jax.vmap(head)(jax.random.split(keys[0], self.members))
        q = eqx.tree_at(lambda q: q.layers[-1], state.q, heads)
        return dataclasses.replace(state, q=q, q_optimiser=self._optimiser.init(q))

    def q(self, state: CrossQState, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return the mean, the smaller of both networks'."""
        inputs = inputs_of(state, obs, action)[None]
        each = eqx.filter_vmap(lambda network, known: self._mean(_logits(network, inputs, known)[0]))
        return jnp.min(each(state.q, state.statistics))

    policy_q = q

    def update(self, state: CrossQState, experience: Experience) -> tuple[CrossQState, dict[str, Any]]:
        """Make one step down the cross entropy; the last layer makes whole ones."""
        read = jax.vmap(functools.partial(inputs_of, state))
        pairs = read(experience.obs, experience.action), read(experience.next_obs, experience.next_action)
        both = jnp.concatenate(pairs)

        def loss(q: BatchNormMLP) -> tuple[Float[Array, ""], Any]:
            logits, statistics = eqx.filter_vmap(lambda network: _logits(network, both))(q)
            now, after = jnp.split(logits, 2, axis=1)
            targets = experience.target(jax.lax.stop_gradient(jnp.min(self._mean(after), axis=0)))
            likely = jax.vmap(self.project)(targets)
            entropies = -jnp.mean(jnp.sum(likely[None] * jax.nn.log_softmax(now), axis=-1), axis=1)
            errors = jnp.mean((self._mean(now) - targets[None]) ** 2)
            return jnp.where(experience.step > 0, 1.0, 0.0) * jnp.sum(entropies), (targets, errors, statistics)

        (_, (targets, error, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(state.q)
        q, q_optimiser = optimise.descend(self._optimiser, gradient, state.q, state.q_optimiser)
        rate = forgetting_rate(experience.step, settled(experience.updates))
        forgetting = jnp.maximum(self.forgetting, 1 / jnp.maximum(experience.step, 1))
        state = dataclasses.replace(
            state,
            q=q,
            statistics=optimise.follow(state.statistics, statistics, forgetting),
            q_optimiser=q_optimiser,
            obs_units=experience.obs_units,
            action_units=state.action_units.update(experience.action, rate),
        )
        return state, {"critic_error": jnp.sqrt(error), "q": jnp.mean(targets)}

    def _mean(self, logits: Float[Array, "... atoms"]) -> Float[Array, "..."]:
        return jax.nn.softmax(logits) @ self.values


def _logits(network: BatchNormMLP, x: Float[Array, "b i"], known: Any = None) -> tuple[Float[Array, "b atoms"], Any]:
    """Return what every output of the last layer says, and the batch's statistics."""
    last = jax.tree.map(lambda part: part[:, None], network.layers[-1])
    one = lambda row: eqx.tree_at(lambda q: q.layers[-1], network, row)(x, known)  # noqa: E731
    return jax.vmap(one, out_axes=(1, None))(last)


def train(atoms: str, environment: str, steps: int, out: str) -> None:
    """Train seed 0 with the preset crossq and such a critic; `out` holds the run."""
    critic = Categorical(atoms=atoms)  # type: ignore[arg-type]
    agent = entroflow.SACISFM(environment, preset="crossq", critic=critic, seed=0, verbose=1)
    agent.learn(steps, log=out, evaluate_every=5000, evaluation_episodes=5)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
