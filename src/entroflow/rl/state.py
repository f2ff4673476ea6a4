"""The state of soft actor-critic: what it holds, how it begins, and the functions that it stands for, π, Q and V."""

import functools
from typing import Any, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..flow import ActionSpace
from ..isfm import optimiser
from ..moments import Moments, standard
from .config import Config
from .critic import Critic


class State(eqx.Module):
    """Everything that an update reads and writes.

    Attributes:
        actor: the policy's network, as trained.
        actor_average: its running average, with which the agent acts in the end.
        action_space: map from latents to actions; its units follow the data where actions are unbounded.
        q: ensemble of critics of (s, a), leaves of shape (critics, ...).
        q_target: their running average.
        v: critic of s; None where soft values come from actions.
        actor_optimiser: state of the actor's optimiser.
        q_optimiser: states of the optimisers of q.
        v_optimiser: state of the optimiser of v.
        temperature_optimiser: state of the optimiser of log α.
        obs_units: moments of observations.
        action_units: moments of actions.
        value_units: moments of the critics' targets, the unit of their outputs.
        log_temperature: log of the entropy weight α.
        discount: discount γ.
        step: updates made.
        ess: running average of ESS/N, by which a schedule chooses the number of candidates.
    """

    actor: Any
    actor_average: Any
    action_space: ActionSpace
    q: Critic
    q_target: Critic
    v: Critic | None
    actor_optimiser: optax.OptState
    q_optimiser: optax.OptState
    v_optimiser: optax.OptState | None
    temperature_optimiser: optax.OptState
    obs_units: Moments
    action_units: Moments
    value_units: Moments
    log_temperature: Float[Array, ""]
    discount: Float[Array, ""]
    step: Float[Array, ""]
    ess: Float[Array, ""]

    @property
    def temperature(self) -> Float[Array, ""]:
        """The entropy weight α."""
        return jnp.exp(self.log_temperature)


def policy(config: Config, state: State, *, average: bool = False) -> Any:
    """Return the policy of a state: the one being trained, or its running average."""
    network = state.actor_average if average else state.actor
    return config.actor.policy(network, state.action_space, state.obs_units, state.temperature)


def q_value(
    config: Config,
    state: State,
    obs: Float[Array, " n"],
    action: Float[Array, " d"],
    critics: Literal["target", "online"] = "target",
) -> Float[Array, ""]:
    """Return Q(s, a) of the target critics or the online ones, in the units of the return."""
    inputs = q_inputs(state, obs, action)
    ensemble = state.q_target if critics == "target" else state.q
    values = eqx.filter_vmap(lambda critic: critic(inputs))(ensemble)
    value = jnp.mean(values) if config.critic_value == "mean" else jnp.min(values)
    return state.value_units.restore(value)


def q_inputs(state: State, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, " n+d"]:
    """Return what the critics Q see of a state and an action."""
    return jnp.concatenate([state.obs_units.normalise(obs), state.action_units.normalise(action)])


def v_value(state: State, obs: Float[Array, " n"]) -> Float[Array, ""]:
    """Return V(s) of the network, in the units of the return."""
    assert state.v is not None
    return state.value_units.restore(state.v(state.obs_units.normalise(obs)))


def best_of(
    config: Config, state: State, key: PRNGKeyArray, obs: Float[Array, " n"], candidates: int
) -> Float[Array, " d"]:
    """Return the best by Q of a number of actions that the policy draws, shape (d,); of one, a draw of the policy."""
    pi = policy(config, state, average=True)
    actions = jax.vmap(pi.sample, in_axes=(0, None))(jax.random.split(key, candidates), obs)
    if candidates == 1:
        return actions[0]
    values = jax.vmap(functools.partial(q_value, config, state), in_axes=(None, 0))(obs, actions)
    return actions[jnp.argmax(values)]


def init(
    config: Config,
    key: PRNGKeyArray,
    *,
    obs_size: int,
    action_space: ActionSpace,
    temperature: Float[Array, ""],
    discount: Float[Array, ""],
) -> State:
    """Make the state of a run that has made no update.

    Args:
        config: settings.
        key: random key of the initial parameters.
        obs_size: number of components of an observation.
        action_space: map from latents to actions.
        temperature: entropy weight α > 0, at first.
        discount: discount γ in [0, 1).

    Returns:
        The state.
    """
    actor_key, q_key, v_key = jax.random.split(key, 3)
    actor = config.actor.network(obs_size, action_space.size, key=actor_key)
    make = functools.partial(Critic, width=config.critic_width, depth=config.critic_depth, layer_norm=config.layer_norm)
    q = eqx.filter_vmap(lambda key: make(obs_size + action_space.size, key=key))(
        jax.random.split(q_key, config.critics)
    )
    v = make(obs_size, key=v_key) if config.soft_value == "network" else None
    log_temperature = jnp.log(temperature)
    return State(
        actor=actor,
        actor_average=actor,
        action_space=action_space,
        q=q,
        q_target=q,
        v=v,
        actor_optimiser=actor_optimiser(config).init(actor),
        q_optimiser=jax.vmap(critic_optimiser(config).init)(q),
        v_optimiser=None if v is None else critic_optimiser(config).init(cast(optax.Params, v)),
        temperature_optimiser=temperature_optimiser(config).init(log_temperature),
        obs_units=standard(obs_size, limit=config.obs_limit if config.normalise_obs else None),
        action_units=standard(action_space.size),
        value_units=standard(),
        log_temperature=log_temperature,
        discount=discount,
        step=jnp.zeros(()),
        ess=jnp.zeros(()),
    )


def actor_optimiser(config: Config) -> optax.GradientTransformation:
    """Return the optimiser of the policy."""
    return _optimiser(config, config.actor.rate, config.actor.warmup)


def critic_optimiser(config: Config) -> optax.GradientTransformation:
    """Return the optimiser of the critics."""
    return _optimiser(config, config.critic_rate, config.critic_warmup)


def temperature_optimiser(config: Config) -> optax.GradientTransformation:
    """Return the optimiser of log α."""
    return optax.adam(config.temperature_rate)


def _optimiser(config: Config, rate: float, warmup: float) -> optax.GradientTransformation:
    return optax.adam(rate) if config.updates is None else optimiser(rate, warmup, config.updates)
