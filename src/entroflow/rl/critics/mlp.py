"""The default critic: an ensemble of perceptrons with target networks, in units that follow the data."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Key, PRNGKeyArray

from ... import optimise
from ...fields import Count, Layers, Positive, PositiveShare, Share, check_fields
from ...flow.velocity import linear_layers
from ...moments import Moments, forgetting_rate, join, settled, standard
from .protocol import Experience, Metrics

BLOCK = 1024  # transitions that pass through a network at once


class MLPCriticState(eqx.Module):
    """What the critic has learned.

    Attributes:
        q: networks of (s, a), leaves of shape (members, ...).
        q_target: their running averages.
        v: network of s; None where soft values come from actions.
        q_optimiser: states of the optimisers of q.
        v_optimiser: state of the optimiser of v.
        obs_units: moments of observations, in which the networks see them.
        action_units: moments of actions.
        value_units: moments of the targets, the unit of the networks' outputs.
    """

    q: "MLP"
    q_target: "MLP"
    v: "MLP | None"
    q_optimiser: optax.OptState
    v_optimiser: optax.OptState | None
    obs_units: Moments
    action_units: Moments
    value_units: Moments


@dataclass(frozen=True)
class MLPCritic:
    """Settings of the default critic.

    Attributes:
        width: width of each hidden layer.
        depth: number of hidden layers.
        layer_norm: whether to normalise the hidden layers.
        members: number of networks of Q.
        ensemble: what they say together: their "mean", or their "min" against overestimation (which biases Q).
        soft_value: V(s') from an "action" drawn at s', or from a "network".
        improve_on: which networks the policy is improved on, the slow "target" or the "online" ones.
        rate: learning rate; its peak in a planned training.
        warmup: fraction of a planned training over which it rises.
        target_rate: rate at which the target networks follow the others, at first.
        final_target_rate: the same at the end of a planned training, small to average over many batches.

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    width: Count = 256
    depth: Layers = 2
    layer_norm: bool = True
    members: Count = 2
    ensemble: Literal["mean", "min"] = "min"
    soft_value: Literal["action", "network"] = "action"
    improve_on: Literal["target", "online"] = "online"
    rate: Positive = 3e-4
    warmup: Share = 0.02
    target_rate: PositiveShare = 0.005
    final_target_rate: PositiveShare = 0.005

    def __post_init__(self):
        check_fields(self)

    @property
    def learns_v(self) -> bool:
        """Whether soft values come from a network."""
        return self.soft_value == "network"

    def init(self, keys: Key[Array, "2"], obs_units: Moments, action_size: int, updates: int | None) -> MLPCriticState:
        """Make the state of a critic that has learned nothing, see `Critic.init`."""
        obs_size = obs_units.mean.shape[0]
        make = functools.partial(MLP, width=self.width, depth=self.depth, layer_norm=self.layer_norm)
        members = jax.random.split(keys[0], self.members)
        q = eqx.filter_vmap(lambda key: make(obs_size + action_size, key=key))(members)
        v = make(obs_size, key=keys[1]) if self.learns_v else None
        optimiser = optimise.optimiser(self.rate, self.warmup, updates)
        return MLPCriticState(
            q=q,
            q_target=q,
            v=v,
            q_optimiser=jax.vmap(optimiser.init)(q),
            v_optimiser=None if v is None else optimiser.init(cast(optax.Params, v)),
            obs_units=obs_units,
            action_units=standard(action_size),
            value_units=standard(),
        )

    def q(self, state: MLPCriticState, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Q(s, a) of the target networks, in the units of the return, see `Critic.q`."""
        return self._value(state, state.q_target, obs, action)

    def policy_q(self, state: MLPCriticState, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Q(s, a) of the networks that `improve_on` names, see `Critic.q`."""
        return self._value(state, state.q_target if self.improve_on == "target" else state.q, obs, action)

    def v(self, state: MLPCriticState, obs: Float[Array, " n"]) -> Float[Array, ""]:
        """Return V(s) of the network, in the units of the return, see `Critic.q`."""
        assert state.v is not None
        return state.value_units.restore(state.v(state.obs_units.normalise(obs)))

    def update(self, state: MLPCriticState, experience: Experience) -> tuple[MLPCriticState, Metrics]:
        """Make one gradient step of every network, see `Critic.update`.

        The metrics are "critic_error", the root mean squared error before the step in units of the return, "q", the
        mean target, and "v", the mean known value.
        """
        next_q = None
        if experience.next_action is not None:
            next_q = jax.vmap(functools.partial(self.q, state))(experience.next_obs, experience.next_action)
        targets = experience.target(next_q)
        state = self._follow_data(state, experience, targets)
        descend = functools.partial(optimise.descend, optimise.optimiser(self.rate, self.warmup, experience.updates))

        inputs = jax.vmap(functools.partial(inputs_of, state))(experience.obs, experience.action)
        normal = jax.vmap(state.value_units.normalise)(targets)
        errors, gradients = jax.vmap(_squared_error(inputs, normal))(state.q)
        q, q_optimiser = jax.vmap(descend)(gradients, state.q, state.q_optimiser)
        metrics = {"critic_error": jnp.sqrt(jnp.mean(errors)) * state.value_units.scale, "q": jnp.mean(targets)}
        q_target = optimise.follow(state.q_target, q, self._target_rate(experience.step, experience.updates))
        state = dataclasses.replace(state, q=q, q_target=q_target, q_optimiser=q_optimiser)
        if state.v is None:
            return state, metrics

        assert experience.values is not None, "the network V learns from every policy improvement"
        obs, values = experience.values
        inputs, normal = jax.vmap(state.obs_units.normalise)(obs), jax.vmap(state.value_units.normalise)(values)
        _, gradient = _squared_error(inputs, normal)(state.v)
        v, v_optimiser = descend(gradient, state.v, cast(optax.OptState, state.v_optimiser))
        return dataclasses.replace(state, v=v, v_optimiser=v_optimiser), metrics | {"v": jnp.mean(values)}

    def _value(self, state: MLPCriticState, networks: "MLP", obs: Array, action: Array) -> Float[Array, ""]:
        inputs = inputs_of(state, obs, action)
        values = eqx.filter_vmap(lambda network: network(inputs))(networks)
        return state.value_units.restore(jnp.mean(values) if self.ensemble == "mean" else jnp.min(values))

    def _follow_data(
        self, state: MLPCriticState, experience: Experience, targets: Float[Array, " b"]
    ) -> MLPCriticState:
        """Bring the units up to date; the networks stay the functions that they were."""
        rate, obs = forgetting_rate(experience.step, settled(experience.updates)), experience.obs_units
        action = state.action_units.update(experience.action, rate)
        value = state.value_units.update(targets, rate)
        inputs, outputs = (join(state.obs_units, state.action_units), join(obs, action)), (state.value_units, value)
        convert = jax.vmap(lambda network: network.change_units(inputs, outputs))
        return dataclasses.replace(
            state,
            q=convert(state.q),
            q_target=convert(state.q_target),
            v=None if state.v is None else state.v.change_units((state.obs_units, obs), outputs),
            obs_units=obs,
            action_units=action,
            value_units=value,
        )

    def _target_rate(self, step: Float[Array, ""], updates: int | None) -> Float[ArrayLike, ""]:
        """Fall geometrically from `target_rate` to `final_target_rate` in a planned training."""
        if updates is None:
            return self.target_rate
        return self.target_rate * (self.final_target_rate / self.target_rate) ** (step / updates)


class MLP(eqx.Module):
    """A perceptron from a normalised input (s, or s and a joined) to a normalised value.

    Its activations are smooth, since the policy follows the critic's curvature.

    Args:
        input_size: number of inputs i.
        width: width of each hidden layer.
        depth: number of hidden layers.
        layer_norm: whether to normalise each hidden layer before its activation, which keeps Q from growing without
            bounds where there are no data (Ball et al. 2023).
        key: random key of the initial parameters.
    """

    layers: tuple[eqx.nn.Linear, ...]
    layer_norm: bool = eqx.field(static=True)

    def __init__(self, input_size: int, *, width: int, depth: int, layer_norm: bool = False, key: PRNGKeyArray):
        self.layer_norm = layer_norm
        self.layers = linear_layers((input_size, *[width] * depth, 1), key)

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, ""]:
        """Return the value, normalised, shape ()."""
        for layer in self.layers[:-1]:
            x = _affine(layer, x)
            x = jax.nn.silu(jax.nn.standardize(x) if self.layer_norm else x)
        return _affine(self.layers[-1], x)[0]

    def change_units(self, inputs: tuple[Moments, Moments], outputs: tuple[Moments, Moments]) -> "MLP":
        """Return the network that is the same function as before when its units change from old to new.

        Only the first and the last layer change, so that nothing jumps while the units follow the data (Pop-Art, van
        Hasselt et al. 2016, for inputs as well as outputs).

        Args:
            inputs: old and new moments of the input.
            outputs: old and new moments of the value.

        Returns:
            The network in the new units.
        """
        (old, new), first = inputs, self.layers[0]
        assert first.bias is not None
        bias = first.bias + first.weight @ ((new.mean - old.mean) / old.scale)
        parts = bias, first.weight * (new.scale / old.scale)[None], last_in_units(self.layers[-1], *outputs)
        return eqx.tree_at(lambda mlp: (mlp.layers[0].bias, mlp.layers[0].weight, mlp.layers[-1]), self, parts)


def last_in_units(last: eqx.nn.Linear, old: Moments, new: Moments) -> eqx.nn.Linear:
    """Return the last layer of a network that says the same when the unit of its values changes."""
    assert last.bias is not None
    ratio = old.scale / new.scale
    parts = ratio * last.weight, ratio * last.bias + (old.mean - new.mean) / new.scale
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), last, parts)


def inputs_of(state: Any, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, " n+d"]:
    """Return what the networks of Q see of a state and an action, by a critic's state with both units."""
    return jnp.concatenate([state.obs_units.normalise(obs), state.action_units.normalise(action)])


def _squared_error(
    inputs: Float[Array, "b i"], targets: Float[Array, " b"]
) -> Callable[[MLP], tuple[Float[Array, ""], MLP]]:
    """Return a network's mean squared error and its gradient, summed over blocks whose activations fit the cache."""
    size = targets.shape[0]
    blocks = size // BLOCK if size % BLOCK == 0 else 1
    parts = inputs.reshape(blocks, -1, inputs.shape[1]), targets.reshape(blocks, -1)

    def error(network: MLP, inputs: Array, targets: Array) -> Float[Array, ""]:
        return jnp.mean((jax.vmap(network)(inputs) - targets) ** 2) / blocks

    def error_and_gradient(network: MLP) -> tuple[Float[Array, ""], MLP]:
        def add(total: tuple[Array, MLP], part: tuple[Array, Array]) -> tuple[tuple[Array, MLP], None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(error)(network, *part)), None

        zero = jnp.zeros((), targets.dtype), jax.tree.map(jnp.zeros_like, network)
        return jax.lax.scan(add, zero, parts)[0]

    return error_and_gradient


def _affine(layer: eqx.nn.Linear, x: Float[Array, " i"]) -> Float[Array, " o"]:
    """Return W x + b, written so that under `vmap` the batch axis leads, which is faster."""
    assert layer.bias is not None
    return x @ layer.weight.T + layer.bias
