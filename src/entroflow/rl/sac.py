"""Soft actor-critic (Algorithm 2): one pure update, for any actor.

    repeat
        roll out π_θ, store (s, a, r, s', terminated)                                       loop_jax.py, loop_gym.py
        policy improvement: one gradient step of the actor toward exp(Q/α)/Z                               actors/
        policy evaluation: one gradient step on (Q(s, a) − y)²,   y = r + γ (1 − terminated) V(s')
        temperature: one gradient step toward a target entropy, if one is set

With the actor `Flow` this is SAC-ISFM, with `Gaussian` plain SAC; critics, targets, temperature and units are shared.

The soft value V(s') is either Q(s', a') − α log π(a'|s') of one action drawn there, or that of a network, as in the
first soft actor-critic (Haarnoja et al. 2018a, equation 5). The network's targets are the values that policy
improvement finds at its own states, so that a critic update draws no actions at all: it can afford batches many times
larger, which is what limits accuracy where α is small against the noise.

`init` and `update` are pure functions of one run. Runs with other seeds, temperatures or discounts are a `vmap` away.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..flow import ActionSpace, Unbounded
from ..isfm import descend, follow, move
from ..moments import forgetting_rate, join
from ..types import Transition
from .actors import Policy
from .config import Config
from .critic import Critic
from .soft_bellman import soft_target, soft_value, temperature_loss
from .state import (
    State,
    actor_optimiser,
    best_of,
    critic_optimiser,
    init,
    policy,
    q_inputs,
    q_value,
    temperature_optimiser,
    v_value,
)

__all__ = [
    "BLOCK",
    "Config",
    "Metrics",
    "State",
    "best_of",
    "evaluate_policy",
    "improve_policy",
    "init",
    "policy",
    "q_value",
    "update",
    "v_value",
]

BLOCK = 1024  # transitions that pass through a critic at once
Metrics = dict[str, Float[Array, ""]]


def update(
    config: Config, state: State, batch: Transition, key: PRNGKeyArray, *, improve: bool = True
) -> tuple[State, Metrics]:
    """Make one step of policy improvement, one of policy evaluation, and one of the temperature.

    Args:
        config: settings.
        state: state of one run.
        batch: transitions, leaves of shape (batch_size, ...).
        key: random key.
        improve: whether to improve the policy, too. Without, V(s') has to come from actions.

    Returns:
        The next state and the metrics.
    """
    improve_key, evaluate_key = jax.random.split(key)
    known, metrics = None, {}
    if improve:
        obs = batch.obs[: config.actor.states]
        state, values, metrics = improve_policy(config, state, obs, improve_key)
        known = obs, values
    state, more = evaluate_policy(config, state, batch, evaluate_key, known)
    return dataclasses.replace(state, step=state.step + 1), metrics | more


def improve_policy(
    config: Config, state: State, obs: Float[Array, "b n"], key: PRNGKeyArray
) -> tuple[State, Float[Array, " b"], Metrics]:
    """Policy improvement: one gradient step of the actor.

    Args:
        config: settings.
        state: state of one run.
        obs: states to improve the policy at, shape (b, n).
        key: random key.

    Returns:
        The next state, the soft values of the policy before the step at these states, shape (b,), and the metrics.
    """
    actor = config.actor
    q_function = functools.partial(q_value, config, state, critics=config.policy_critic)
    step = actor.improve(policy(config, state), state.actor, key, obs, q_function, state.temperature, state.ess)
    _, network, optimiser_state = descend(
        actor_optimiser(config), lambda _: (step.loss, step.gradient), state.actor, state.actor_optimiser
    )
    state = dataclasses.replace(
        state,
        actor=network,
        actor_average=move(state.actor_average, network, 1 / (1 + actor.average * state.step))
        if actor.average > 0
        else network,
        action_space=_follow_width(config, state, step.variance),
        actor_optimiser=optimiser_state,
        ess=follow(state.ess, state.step, step.metrics["ess"]) if "ess" in step.metrics else state.ess,
    )
    return state, step.values, {"policy_loss": step.loss} | step.metrics


def evaluate_policy(
    config: Config,
    state: State,
    batch: Transition,
    key: PRNGKeyArray,
    known: tuple[Float[Array, "b n"], Float[Array, " b"]] | None = None,
) -> tuple[State, Metrics]:
    """Policy evaluation: one gradient step of Q toward (1), of V toward known values, and of the temperature.

    Args:
        config: settings.
        state: state of one run.
        batch: transitions, leaves of shape (batch_size, ...).
        key: random key, for the actions at the next states.
        known: states, shape (b, n), and estimates of their soft values, shape (b,), for the network V.

    Returns:
        The next state and the metrics.
    """
    next_values, log_prob = _next_values(config, state, batch.next_obs, key)
    reward = config.reward_scale * batch.reward
    targets = soft_target(reward, state.discount, batch.terminated.astype(reward.dtype), next_values)
    state = _follow_data(config, state, batch, targets)
    descend_critic = functools.partial(descend, critic_optimiser(config))

    inputs = jax.vmap(functools.partial(q_inputs, state))(batch.obs, batch.action)
    q_targets = jax.vmap(state.value_units.normalise)(targets)
    errors, q, q_optimiser = jax.vmap(functools.partial(descend_critic, _squared_error(inputs, q_targets)))(
        state.q, state.q_optimiser
    )
    metrics = {"critic_error": jnp.sqrt(jnp.mean(errors)) * state.value_units.scale, "q": jnp.mean(targets)}
    q_target = move(state.q_target, q, _target_rate(config, state.step))
    state = dataclasses.replace(state, q=q, q_target=q_target, q_optimiser=q_optimiser)

    if config.soft_value == "network":
        assert known is not None and state.v is not None, "the network V learns from every policy improvement"
        v_inputs = jax.vmap(state.obs_units.normalise)(known[0])
        v_targets = jax.vmap(state.value_units.normalise)(known[1])
        v_optimiser = cast(optax.OptState, state.v_optimiser)
        _, v, v_optimiser = descend_critic(_squared_error(v_inputs, v_targets), state.v, v_optimiser)
        state = dataclasses.replace(state, v=v, v_optimiser=v_optimiser)
        return state, metrics | {"v": jnp.mean(known[1])}

    assert log_prob is not None
    metrics |= {"entropy": -jnp.mean(log_prob), "temperature": state.temperature}
    if config.target_entropy is not None:
        state = _steer_temperature(config, state, log_prob, config.target_entropy)
    return state, metrics


def _next_values(
    config: Config, state: State, obs: Float[Array, "b n"], key: PRNGKeyArray
) -> tuple[Float[Array, " b"], Float[Array, " b"] | None]:
    """Return estimates of V(s') and, where they stem from actions, the log π of these."""
    if config.soft_value == "network":
        return jax.lax.map(functools.partial(v_value, state), obs, batch_size=BLOCK), None
    pi: Policy = policy(config, state)
    actions, log_prob = jax.vmap(pi.sample_and_log_prob)(jax.random.split(key, obs.shape[0]), obs)
    values = jax.vmap(functools.partial(q_value, config, state))(obs, actions)
    return soft_value(values, log_prob, state.temperature) if config.entropy_in_target else values, log_prob


def _steer_temperature(config: Config, state: State, log_prob: Float[Array, " b"], target_entropy: float) -> State:
    """Make one gradient step of log α toward the target entropy."""
    gradient = jax.value_and_grad(temperature_loss)
    _, log_temperature, optimiser_state = descend(
        temperature_optimiser(config),
        lambda value: gradient(value, log_prob, target_entropy),
        state.log_temperature,
        state.temperature_optimiser,
    )
    return dataclasses.replace(state, log_temperature=log_temperature, temperature_optimiser=optimiser_state)


def _squared_error(
    inputs: Float[Array, "b i"], targets: Float[Array, " b"]
) -> Callable[[Critic], tuple[Float[Array, ""], Critic]]:
    """Return the critic's mean squared error and its gradient, summed over blocks whose activations fit the cache."""
    blocks = _blocks(targets.shape[0])
    parts = inputs.reshape(blocks, -1, inputs.shape[1]), targets.reshape(blocks, -1)

    def error(critic: Critic, inputs: Array, targets: Array) -> Float[Array, ""]:
        return jnp.mean((jax.vmap(critic)(inputs) - targets) ** 2) / blocks

    def error_and_gradient(critic: Critic) -> tuple[Float[Array, ""], Critic]:
        def add(total: tuple[Array, Critic], part: tuple[Array, Array]) -> tuple[tuple[Array, Critic], None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(error)(critic, *part)), None

        zero = jnp.zeros((), targets.dtype), jax.tree.map(jnp.zeros_like, critic)
        return jax.lax.scan(add, zero, parts)[0]

    return error_and_gradient


def _blocks(size: int) -> int:
    """Return into how many blocks of `BLOCK` a batch is divided; one if it does not divide evenly."""
    return size // BLOCK if size % BLOCK == 0 else 1


def _follow_data(config: Config, state: State, batch: Transition, targets: Float[Array, " b"]) -> State:
    """Bring the units up to date; the critics stay the functions that they were."""
    rate = forgetting_rate(state.step, _settled(config))
    obs = state.obs_units.update(batch.obs, rate) if config.normalise_obs else state.obs_units
    action = state.action_units.update(batch.action, rate)
    value = state.value_units.update(targets, rate)
    inputs, outputs = (join(state.obs_units, state.action_units), join(obs, action)), (state.value_units, value)
    convert = jax.vmap(lambda critic: critic.change_units(inputs, outputs))
    return dataclasses.replace(
        state,
        q=convert(state.q),
        q_target=convert(state.q_target),
        v=None if state.v is None else state.v.change_units((state.obs_units, obs), outputs),
        obs_units=obs,
        action_units=action,
        value_units=value,
    )


def _follow_width(config: Config, state: State, variance: Float[Array, " d"] | None) -> ActionSpace:
    """Let the unit of unbounded actions follow the target policy's own width.

    Near width one the flow is almost a translation, which few solver steps integrate accurately.
    """
    space = state.action_space
    if variance is None or not isinstance(space, Unbounded):
        return space
    begun = state.step >= config.actor.warmup * (config.updates or 0)
    rate = jnp.where(begun, forgetting_rate(state.step, _settled(config)), 0.0)
    change = jnp.clip(variance, 0.1, 10.0) ** (rate / 2)  # few candidates may say anything at first
    return Unbounded(space.size, space.center, space.scale * change)


def _settled(config: Config) -> float:
    """Return the number of updates after which units no longer change."""
    return math.inf if config.updates is None else config.updates / 2


def _target_rate(config: Config, step: Float[Array, ""]) -> Float[ArrayLike, ""]:
    """Fall geometrically from `target_rate` to `final_target_rate` in a planned training."""
    if config.updates is None:
        return config.target_rate
    return config.target_rate * (config.final_target_rate / config.target_rate) ** (step / config.updates)
