"""CrossQ's critic: batch normalisation in place of target networks (Bhatt et al. 2024), in units that follow the data.

(s, a) of the replay and (s', a') of the policy pass through a network together, so that the statistics that normalise
one normalise the other, and the network that learns makes its own targets. Single actions and candidates are judged by
running statistics, which these passes alone move.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ... import optimise
from ...fields import Count, Discount, Layers, Positive, PositiveShare, check_fields
from ...flow.velocity import linear_layers
from ...moments import Moments, forgetting_rate, settled, standard
from .mlp import inputs_of, last_in_units
from .protocol import Experience, Metrics

NARROW = 25.6  # width up to which the last layer makes whole steps

Statistics = tuple[tuple[Float[Array, "..."], Float[Array, "..."]], ...]  # mean and variance of what each layer reads


class CrossQState(eqx.Module):
    """What the critic has learned; for most of it see `MLPCriticState`.

    Attributes:
        q: networks of (s, a), leaves of shape (members, ...).
        statistics: their running statistics.
    """

    q: "BatchNormMLP"
    statistics: Statistics
    q_optimiser: optax.OptState
    obs_units: Moments
    action_units: Moments
    value_units: Moments


@dataclass(frozen=True)
class CrossQ:
    """Settings of CrossQ's critic; its authors update the policy at every third step, `policy_delay=3`.

    Attributes:
        width: width of each hidden layer.
        depth: number of hidden layers.
        members: number of networks.
        ensemble: what they say together: their "mean", or their "min" against overestimation (which biases Q).
        rate: learning rate of Adam.
        momentum: Adam's first one, small since targets move at once.
        forgetting: rate at which running statistics follow those of batches.
        epsilon: added to variances before what varies is divided by their root.

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    width: Count = 256
    depth: Layers = 2
    members: Count = 2
    ensemble: Literal["mean", "min"] = "min"
    rate: Positive = 1e-3
    momentum: Discount = 0.5
    forgetting: PositiveShare = 0.01
    epsilon: Positive = 1e-5

    def __post_init__(self):
        check_fields(self)

    @property
    def learns_v(self) -> bool:
        """Soft values come from actions."""
        return False

    @property
    def _last_share(self) -> float:
        """Share of its step that the last layer makes, so that one step moves values alike at any width.

        It reads numbers of deviation one, each of whose weights Adam moves by the rate: a whole step of 2048 can move
        values by 1.6 of their deviations, and the networks that learn make their own targets. (Output layers of Yang
        et al. 2021, "μP".)
        """
        return min(1.0, NARROW / self.width)

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optimise.limited(optax.adam(self.rate, b1=self.momentum))

    def init(self, keys: Key[Array, "2"], obs_units: Moments, action_size: int, updates: int | None) -> CrossQState:
        """Make the state of a critic that has learned nothing, see `Critic.init`."""
        del updates
        inputs = obs_units.mean.shape[0] + action_size
        make = functools.partial(BatchNormMLP, inputs, width=self.width, depth=self.depth, epsilon=self.epsilon)
        q = eqx.filter_vmap(lambda key: make(key=key))(jax.random.split(keys[0], self.members))
        shapes = [(self.members, size) for size in (inputs, *[self.width] * self.depth)]
        return CrossQState(
            q=q,
            statistics=tuple((jnp.zeros(shape), jnp.ones(shape)) for shape in shapes),
            q_optimiser=self._optimiser.init(q),
            obs_units=obs_units,
            action_units=standard(action_size),
            value_units=standard(),
        )

    def q(self, state: CrossQState, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Q(s, a), in the units of the return, see `Critic.q`."""
        inputs = inputs_of(state, obs, action)[None]
        values = eqx.filter_vmap(lambda network, known: network(inputs, known)[0])(state.q, state.statistics)
        return state.value_units.restore(self._joined(values)[0])

    policy_q = q

    def update(self, state: CrossQState, experience: Experience) -> tuple[CrossQState, Metrics]:
        """Make one gradient step of every network, see `Critic.update`.

        The first batch tells the units only. The metrics are "critic_error", the root mean squared error before the
        step in units of the return, and "q", the mean target.
        """
        assert experience.next_action is not None
        read = jax.vmap(functools.partial(inputs_of, state))
        pairs = read(experience.obs, experience.action), read(experience.next_obs, experience.next_action)
        both, units = jnp.concatenate(pairs), state.value_units

        def loss(q: BatchNormMLP) -> tuple[Float[Array, ""], tuple[Array, Array, Statistics]]:
            values, statistics = eqx.filter_vmap(lambda network: network(both))(q)
            now, after = jnp.split(values, 2, axis=1)
            targets = experience.target(jax.lax.stop_gradient(units.restore(self._joined(after))))
            errors = jnp.mean((now - units.normalise(targets)[None]) ** 2, axis=1)
            begun = jnp.where(experience.step > 0, 1.0, 0.0)
            return begun * jnp.sum(errors), (targets, errors, statistics)

        (_, (targets, errors, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(state.q)
        q, q_optimiser = optimise.descend(self._optimiser, gradient, state.q, state.q_optimiser)
        last = optimise.follow(state.q.layers[-1], q.layers[-1], self._last_share)
        metrics = {"critic_error": jnp.sqrt(jnp.mean(errors)) * units.scale, "q": jnp.mean(targets)}

        rate = forgetting_rate(experience.step, settled(experience.updates))
        value_units = units.update(targets, rate)
        forgetting = jnp.maximum(self.forgetting, 1 / jnp.maximum(experience.step, 1))  # the first had no units yet
        state = dataclasses.replace(
            state,
            q=eqx.tree_at(
                lambda q: q.layers[-1], q, jax.vmap(last_in_units, (0, None, None))(last, units, value_units)
            ),
            statistics=optimise.follow(state.statistics, statistics, forgetting),
            q_optimiser=q_optimiser,
            obs_units=experience.obs_units,
            action_units=state.action_units.update(experience.action, rate),
            value_units=value_units,
        )
        return state, metrics

    def _joined(self, values: Float[Array, "m b"]) -> Float[Array, " b"]:
        return jnp.mean(values, axis=0) if self.ensemble == "mean" else jnp.min(values, axis=0)


class BatchNormMLP(eqx.Module):
    """A perceptron from a batch of normalised inputs to normalised values, what each of its layers reads normalised.

    For the arguments see `MLP`.

    Args:
        epsilon: see `CrossQ`.
    """

    layers: tuple[eqx.nn.Linear, ...]
    gains: tuple[tuple[Array, Array], ...]  # and shifts, of the hidden layers
    epsilon: float = eqx.field(static=True)

    def __init__(self, input_size: int, *, width: int, depth: int, epsilon: float = 1e-5, key: PRNGKeyArray):
        self.epsilon = epsilon
        self.layers = linear_layers((input_size, *[width] * depth, 1), key)
        self.gains = tuple((jnp.ones(width), jnp.zeros(width)) for _ in range(depth))

    def __call__(
        self, x: Float[Array, "b i"], known: Statistics | None = None
    ) -> tuple[Float[Array, " b"], Statistics]:
        """Return the values of a batch.

        Args:
            x: inputs.
            known: the statistics to normalise by; None: the batch's own.

        Returns:
            Values, normalised, shape (b,), and the batch's statistics.
        """
        found = []

        def normalise(x: Array) -> Array:
            found.append((jnp.mean(x, axis=0), jnp.var(x, axis=0)))
            mean, variance = found[-1] if known is None else known[len(found) - 1]
            return (x - mean[None]) * jax.lax.rsqrt(variance + self.epsilon)[None]

        x = normalise(x)
        for layer, (gain, shift) in zip(self.layers[:-1], self.gains, strict=True):
            x = normalise(jax.nn.relu(_affine(layer, x))) * gain[None] + shift[None]
        return _affine(self.layers[-1], x)[:, 0], tuple(found)


def _affine(layer: eqx.nn.Linear, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
    assert layer.bias is not None
    return x @ layer.weight.T + layer.bias[None]
