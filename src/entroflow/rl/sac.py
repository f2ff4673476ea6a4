"""Soft actor-critic (Algorithm 2): one pure update, for any actor and any critic.

    repeat
        roll out π_θ, store (s, a, r, s', terminated)                                       loop_jax.py, loop_gym.py
        policy improvement: one gradient step of the actor toward exp(Q/α)/Z                               actors/
        policy evaluation: one step of the critic toward y = r + γ (1 − terminated) V(s')                 critics/
        temperature: one gradient step toward a target entropy, if one is set

With the actor `Flow` this is SAC-ISFM, with `Gaussian` plain SAC; all else is shared.

The soft value V(s') is either Q(s', a') − α log π(a'|s') of one action drawn there, or that of a network, as in the
first soft actor-critic (Haarnoja et al. 2018a, equation 5). The network's targets are the values that policy
improvement finds at its own states, so that a critic update draws no actions at all: it can afford batches many times
larger, which is what limits accuracy where α is small against the noise.

`init` and `update` are pure functions of one run. Runs with other seeds, temperatures or discounts are a `vmap` away.
What the functions have in common:

Args:
    config: settings.
    state: state of one run.
    obs: observations, shape (n,), of improvement (b, n).
    batch: transitions, leaves of shape (batch_size, ...).
    key: random key.
    action: action a, shape (d,).
    average: whether to take the running average of the network instead of the one that is being trained.
    obs_size: number of components of an observation.
    action_space: map from latents to actions.
    temperature: entropy weight α > 0, at first.
    discount: discount γ in [0, 1).
    update_policy: whether to improve the policy, too. Without, V(s') has to come from actions.
    values: states, shape (b, n), and estimates of their soft values, shape (b,), for a critic that learns V.

Returns:
    The next state and the metrics; of `improve_policy` between them the states with the soft values of the policy
    before the step, shapes (b, n) and (b,).
"""

import dataclasses
import functools
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .. import optimise
from ..checks import error
from ..flow import ActionSpace, Unbounded
from ..moments import Moments, forgetting_rate, settled, standard
from ..types import Transition
from .actors import Goal
from .config import Config
from .critics import Experience, VCritic
from .soft_bellman import credible, soft_target, soft_value, temperature_loss

BLOCK = 1024  # states whose values are computed at once
Metrics = dict[str, Float[Array, ""]]
Values = tuple[Float[Array, "b n"], Float[Array, " b"]]  # states, and soft values of the policy at them


class State(eqx.Module):
    """Everything that an update reads and writes.

    Attributes:
        actor: the policy's network, as trained.
        actor_average: its running average, with which the agent acts in the end.
        action_space: map from latents to actions; its units follow the data where actions are unbounded.
        critic: state of the critic.
        actor_optimiser: state of the actor's optimiser.
        temperature_optimiser: state of the optimiser of log α.
        obs_units: moments of observations.
        log_temperature: log of the entropy weight α.
        discount: discount γ.
        step: updates made.
    """

    actor: Any
    actor_average: Any
    action_space: ActionSpace
    critic: Any
    actor_optimiser: optax.OptState
    temperature_optimiser: optax.OptState
    obs_units: Moments
    log_temperature: Float[Array, ""]
    discount: Float[Array, ""]
    step: Float[Array, ""]

    @property
    def temperature(self) -> Float[Array, ""]:
        """The entropy weight α."""
        return jnp.exp(self.log_temperature)


def policy(config: Config, state: State, *, average: bool = False) -> Any:
    """Return the policy of a state: a `FlowPolicy`, or what the actor makes."""
    network = state.actor_average if average else state.actor
    found = config.actor.policy(network, state.action_space, state.obs_units, state.temperature)
    solver = getattr(config.actor, "acting_solver", None) if average else None
    return found if solver is None else found.with_solver(solver)


def q_value(config: Config, state: State, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
    """Return Q(s, a), by which targets are made and actions chosen, in the units of the return, shape ()."""
    return config.critic.q(state.critic, obs, action)


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

    Raises:
        ValueError: if a network of the actor or the critic is no tree of arrays.
    """
    keys = jax.random.split(key, 3)
    actor = config.actor.network(obs_size, action_space.size, key=keys[0])
    _check_arrays(f"network of {config.actor.name}", actor)
    units = standard(obs_size, limit=config.obs_limit if config.normalise_obs else None)
    critic = config.critic.init(keys[1:], units, action_space.size, config.updates)
    _check_arrays(f"state of {type(config.critic).__name__}", critic)
    real = jnp.result_type(float)  # the precision that JAX is set to
    log_temperature = jnp.log(temperature.astype(real))
    return State(
        actor=actor,
        actor_average=actor,
        action_space=action_space,
        critic=critic,
        actor_optimiser=actor_optimiser(config).init(actor),
        temperature_optimiser=_temperature_optimiser(config).init(log_temperature),
        obs_units=units,
        log_temperature=log_temperature,
        discount=discount.astype(real),
        step=jnp.zeros(()),
    )


def update(
    config: Config, state: State, batch: Transition, key: PRNGKeyArray, *, update_policy: bool = True
) -> tuple[State, Metrics]:
    """Make one step of policy improvement, one of policy evaluation, and one of the temperature."""
    improve_key, evaluate_key = jax.random.split(key)
    values, metrics = None, {}
    if update_policy:
        state, values, metrics = improve_policy(config, state, batch.obs[: config.actor.states], improve_key)
    state, more = evaluate_policy(config, state, batch, evaluate_key, values)
    return dataclasses.replace(state, actor_average=_averaged(config, state), step=state.step + 1), metrics | more


def improve_policy(
    config: Config, state: State, obs: Float[Array, "b n"], key: PRNGKeyArray
) -> tuple[State, Values, Metrics]:
    """Policy improvement: one gradient step of the actor."""
    actor = config.actor
    q_function = functools.partial(config.critic.policy_q, state.critic)
    goal = Goal(obs, q_function, state.temperature)
    found = actor.loss_and_gradient(policy(config, state), state.actor, key, goal)
    network, optimiser_state = optimise.descend(
        actor_optimiser(config), found.gradient, state.actor, state.actor_optimiser
    )
    state = dataclasses.replace(
        state,
        actor=network,
        action_space=_follow_width(config, state, found.variance),
        actor_optimiser=optimiser_state,
    )
    return state, (obs, found.values), {"policy_loss": found.loss} | found.metrics


def evaluate_policy(
    config: Config, state: State, batch: Transition, key: PRNGKeyArray, values: Values | None = None
) -> tuple[State, Metrics]:
    """Policy evaluation: one step of the critic toward the target of equation (1), and one of the temperature."""
    reward, terminated = config.reward_scale * batch.reward, batch.terminated.astype(batch.reward.dtype)
    backup = functools.partial(soft_target, reward, state.discount, terminated)
    critic, actions, metrics = config.critic, None, {}
    if critic.learns_v:
        next_values = jax.lax.map(
            functools.partial(cast(VCritic, critic).v, state.critic), batch.next_obs, batch_size=BLOCK
        )
        target = lambda _: backup(next_values)  # noqa: E731
    else:
        actions, log_prob, entropy = _act(config, state, batch.next_obs, key)
        bonus = log_prob if config.entropy_in_target else None
        target = lambda q: backup(q if bonus is None else soft_value(q, bonus, state.temperature))  # noqa: E731
        metrics = {"entropy": entropy, "temperature": state.temperature}

    obs_units = state.obs_units
    if config.normalise_obs:
        obs_units = obs_units.update(batch.obs, forgetting_rate(state.step, settled(config.updates)))
    experience = Experience(
        batch.obs, batch.action, batch.next_obs, actions, target, values, obs_units, state.step, config.updates
    )
    learned, found = critic.update(state.critic, experience)
    state = dataclasses.replace(state, critic=learned, obs_units=obs_units)
    if config.target_entropy is not None:
        state = _steer_temperature(config, state, metrics["entropy"], config.target_entropy)
    return state, found | metrics


def _act(
    config: Config, state: State, obs: Float[Array, "b n"], key: PRNGKeyArray
) -> tuple[Float[Array, "b d"], Float[Array, " b"] | None, Float[Array, ""]]:
    """Return actions of the policy, their log π where it is known, and the entropy that the temperature follows."""
    pi, keys = policy(config, state), jax.random.split(key, obs.shape[0])
    if not config.actor.has_density:
        return jax.vmap(pi.sample)(keys, obs), None, pi.exploration_entropy()
    actions, log_prob = jax.vmap(pi.sample_and_log_prob)(keys, obs)
    log_prob = credible(log_prob, state.action_space)
    return actions, log_prob, -jnp.mean(log_prob)


def _steer_temperature(config: Config, state: State, entropy: Float[Array, ""], target_entropy: float) -> State:
    """Make one gradient step of log α toward the target entropy."""
    gradient = jax.grad(temperature_loss)(state.log_temperature, entropy, target_entropy)
    log_temperature, optimiser_state = optimise.descend(
        _temperature_optimiser(config), gradient, state.log_temperature, state.temperature_optimiser
    )
    return dataclasses.replace(state, log_temperature=log_temperature, temperature_optimiser=optimiser_state)


def _averaged(config: Config, state: State) -> Any:
    """Return the actor's average after an update, whether it improved the policy or not: its window is of updates."""
    if config.actor.average == 0:
        return state.actor
    return optimise.follow(state.actor_average, state.actor, 1 / (1 + config.actor.average * state.step))


def _follow_width(config: Config, state: State, variance: Float[Array, " d"] | None) -> ActionSpace:
    """Let the unit of unbounded actions follow the target policy's own width.

    Near width one the flow is almost a translation, which few solver steps integrate accurately.
    """
    space = state.action_space
    if variance is None or not isinstance(space, Unbounded):
        return space
    begun = state.step >= (config.actor.warmup + getattr(config.actor, "rest", 0.0)) * (config.updates or 0)
    rate = jnp.where(begun, forgetting_rate(state.step, settled(config.updates)), 0.0)
    change = jnp.clip(variance, 0.1, 10.0) ** (rate / 2)  # few candidates may say anything at first
    return Unbounded(space.size, space.center, space.scale * change)


def _check_arrays(name: str, tree: Any) -> None:
    """Raise if a tree holds what is no array, such as an activation function."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not eqx.is_array(leaf):
            given = f"{leaf!r} at {jax.tree_util.keystr(path)}"
            raise error(name, given, "arrays alone", "make it a static field, eqx.field(static=True)")


def actor_optimiser(config: Config) -> optax.GradientTransformation:
    """Return the optimiser of the policy's network."""
    return optimise.optimiser(
        config.actor.rate, config.actor.warmup, config.updates, getattr(config.actor, "rest", 0.0)
    )


def _temperature_optimiser(config: Config) -> optax.GradientTransformation:
    return optax.adam(config.temperature_rate)
