"""SAC-ISFM: soft actor-critic with a flow policy improved by importance sampling flow matching (Algorithm 2).

    repeat
        roll out π_θ, store (s, a, r, s', terminated)                                               loop_jax.py
        policy improvement: one gradient step on Σ_i w_i ‖v_θ − (x_1,i − x_0)‖², with
            candidates x_1,i ~ π_k(·|s),   log w_i = Q_target(s, x_1,i)/α − log π_k(x_1,i|s)
        policy evaluation: one gradient step on (V(s) − mean_i [Q_target(s, x_1,i) − α log π_k(x_1,i|s)])² and one on
            (Q(s, a) − y)²,   y = r + γ (1 − terminated) V(s')

The state value V is learned as in the first soft actor-critic (Haarnoja et al. 2018a, equation 5). Its targets are
means over the candidates that policy improvement draws anyway, so that a critic update samples no next actions at
all: it can afford batches many times larger, which is what limits accuracy where α is small against the noise.

`init` and `update` are pure functions of one run. Runs with other seeds, temperatures or discounts are a `vmap` away.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ..flow import ActionSpace, FlowPolicy, RungeKutta, Solver, Unbounded, VelocityNetwork
from ..isfm import Candidates, Diagnostics, Schedule, Target, at_size, descend, follow, improvement, move, optimiser
from ..types import Transition
from .critic import Critic
from .soft_bellman import soft_target, soft_value_from_weights
from .units import Moments, forgetting_rate, join, standard

MIDPOINT_4 = RungeKutta("midpoint", 4)
BLOCK = 1024  # transitions that pass through a critic at once


@dataclass(frozen=True)
class Config:
    """Settings of SAC-ISFM; shapes and schedules, the same for all runs of a program.

    Attributes:
        updates: number of updates that the run will make; the schedules end there.
        policy_width: width of the velocity network.
        policy_depth: layers of the velocity network that read the state.
        solver: integrator of the policy's ODE while training.
        critic_width: width of the critics.
        critic_depth: hidden layers of the critics.
        critics: number of critics.
        critic_value: value of the ensemble: "mean", or "min" against overestimation (which biases Q).
        batch_size: transitions per critic update.
        policy_batch_size: states per policy update, at most `batch_size`.
        candidates: candidates N per state, a number or a schedule such as `Adaptive()`.
        pairs: pairs (x_0, τ) per candidate.
        ess_floor: least ESS/N of the candidates' weights; below, the improvement step is shortened (tempering).
        target: what the velocity is regressed on, "pair", "posterior" or "stein" (see `isfm_loss`).
        critic_rate: peak learning rate of the critics (Muon; warm-up, then cosine to zero).
        policy_rate: peak learning rate of the velocity network (likewise).
        critic_warmup: fraction of the updates over which the critics' learning rate rises to its peak.
        policy_warmup: the same for the velocity network, longer, so that the policy does not follow untrained critics.
        target_rate: rate at which the target critics follow the critics at first.
        final_target_rate: the same at the end, small to average the critics over many batches.
        policy_average: fraction of the updates so far over which the acting policy's parameters are averaged.
        recent: fraction of the transitions so far, counted from the newest, that batches are drawn from.
    """

    updates: int
    policy_width: int = 32
    policy_depth: int = 1
    solver: Solver = MIDPOINT_4
    critic_width: int = 64
    critic_depth: int = 2
    critics: int = 1
    critic_value: Literal["mean", "min"] = "mean"
    batch_size: int = 4096
    policy_batch_size: int = 64
    candidates: Schedule = 8
    pairs: int = 2
    ess_floor: float = 0.3
    target: Target = "pair"
    critic_rate: float = 5e-3
    policy_rate: float = 1e-2
    critic_warmup: float = 0.02
    policy_warmup: float = 0.1
    target_rate: float = 0.1
    final_target_rate: float = 0.01
    policy_average: float = 0.1
    recent: float = 0.6


class State(eqx.Module):
    """Everything that an update reads and writes.

    Attributes:
        velocity: the policy's velocity field, as trained.
        velocity_average: its running average, with which the agent acts in the end.
        action_space: map from the flow's latent to actions; its units follow the data where actions are unbounded.
        q: ensemble of critics of (s, a), leaves of shape (critics, ...).
        q_target: their running average.
        v: critic of s.
        velocity_optimiser: state of the velocity's optimiser.
        q_optimiser: states of the optimisers of q.
        v_optimiser: state of the optimiser of v.
        obs_units: moments of observations.
        action_units: moments of actions.
        value_units: moments of the critics' targets, the unit of their outputs.
        temperature: entropy weight α.
        discount: discount γ.
        step: updates made.
        ess: running average of ESS/N, by which a schedule chooses the number of candidates.
    """

    velocity: VelocityNetwork
    velocity_average: VelocityNetwork
    action_space: ActionSpace
    q: Critic
    q_target: Critic
    v: Critic
    velocity_optimiser: optax.OptState
    q_optimiser: optax.OptState
    v_optimiser: optax.OptState
    obs_units: Moments
    action_units: Moments
    value_units: Moments
    temperature: Float[Array, ""]
    discount: Float[Array, ""]
    step: Float[Array, ""]
    ess: Float[Array, ""]


Metrics = dict[str, Float[Array, ""]]


def policy(config: Config, state: State, *, average: bool = False) -> FlowPolicy:
    """Return the flow policy of a state: the one being trained, or its running average."""
    return FlowPolicy(
        state.velocity_average if average else state.velocity,
        state.action_space,
        solver=config.solver,
        obs_mean=state.obs_units.mean,
        obs_scale=state.obs_units.scale,
    )


def q_value(config: Config, state: State, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
    """Return the target critics' Q(s, a), in the units of the return."""
    inputs = join(state.obs_units, state.action_units).normalise(jnp.concatenate([obs, action]))
    values = eqx.filter_vmap(lambda critic: critic(inputs))(state.q_target)
    value = jnp.mean(values) if config.critic_value == "mean" else jnp.min(values)
    return state.value_units.restore(value)


def v_value(state: State, obs: Float[Array, " n"]) -> Float[Array, ""]:
    """Return V(s), in the units of the return."""
    return state.value_units.restore(state.v(state.obs_units.normalise(obs)))


def init(
    config: Config,
    key: PRNGKeyArray,
    *,
    obs_size: int,
    action_space: ActionSpace,
    temperature: Float[Array, ""],
    discount: Float[Array, ""],
) -> State:
    """Make the state of a run that has made no update."""
    policy_key, q_key, v_key = jax.random.split(key, 3)
    size = action_space.size
    velocity = VelocityNetwork(obs_size, size, width=config.policy_width, depth=config.policy_depth, key=policy_key)
    make = functools.partial(Critic, width=config.critic_width, depth=config.critic_depth)
    q = eqx.filter_vmap(lambda key: make(obs_size + size, key=key))(jax.random.split(q_key, config.critics))
    v = make(obs_size, key=v_key)
    return State(
        velocity=velocity,
        velocity_average=velocity,
        action_space=action_space,
        q=q,
        q_target=q,
        v=v,
        velocity_optimiser=optimiser(config.policy_rate, config.policy_warmup, config.updates).init(
            cast(optax.Params, velocity)
        ),
        q_optimiser=jax.vmap(_critic_optimiser(config).init)(q),
        v_optimiser=_critic_optimiser(config).init(cast(optax.Params, v)),
        obs_units=standard(obs_size),
        action_units=standard(size),
        value_units=standard(),
        temperature=temperature,
        discount=discount,
        step=jnp.zeros(()),
        ess=jnp.zeros(()),
    )


def update(config: Config, state: State, batch: Transition, key: PRNGKeyArray) -> tuple[State, Metrics]:
    """Make one step of policy improvement and one of policy evaluation.

    Args:
        config: settings.
        state: state of one run.
        batch: transitions, leaves of shape (batch_size, ...).
        key: random key.

    Returns:
        The next state and the metrics.
    """
    # States that are next states of the batch, for there the soft value is needed.
    obs = batch.next_obs[: config.policy_batch_size]
    state, values, policy_metrics = improve_policy(config, state, obs, key)
    state, critic_metrics = evaluate_policy(config, state, batch, obs, values)
    return dataclasses.replace(state, step=state.step + 1), policy_metrics | critic_metrics


def improve_policy(
    config: Config, state: State, obs: Float[Array, "b n"], key: PRNGKeyArray
) -> tuple[State, Float[Array, " b"], Metrics]:
    """Policy improvement: one gradient step of the velocity field on the ISFM loss, equations (7) and (9).

    Args:
        config: settings.
        state: state of one run.
        obs: states to improve the policy at, shape (b, n).
        key: random key.

    Returns:
        The next state, the soft values of the policy before the step at these states, shape (b,), and the metrics.
    """
    pi = policy(config, state)

    def improve(n: int) -> tuple[tuple[Array, VelocityNetwork], Array, Diagnostics, Array]:
        candidates, loss = improvement(
            pi,
            key,
            obs,
            functools.partial(q_value, config, state),
            state.temperature,
            candidates=n,
            pairs=config.pairs,
            ess_floor=config.ess_floor,
            target=config.target,
        )
        found = jax.value_and_grad(loss)(state.velocity)
        return found, jnp.mean(candidates.beta), candidates.diagnostics, _variance(candidates)

    (found, beta, diagnostics, variance), size = at_size(config.candidates, state.ess, improve)
    muon = optimiser(config.policy_rate, config.policy_warmup, config.updates)
    error, velocity, velocity_optimiser = descend(muon, lambda _: found, state.velocity, state.velocity_optimiser)
    values = soft_value_from_weights(diagnostics.log_z, diagnostics.kl, state.temperature)
    mean = jax.tree.map(jnp.mean, diagnostics)
    state = dataclasses.replace(
        state,
        velocity=velocity,
        velocity_average=move(state.velocity_average, velocity, 1 / (1 + config.policy_average * state.step)),
        action_space=_follow_width(config, state, variance),
        velocity_optimiser=velocity_optimiser,
        ess=follow(state.ess, state.step, mean),
    )
    return state, values, {"policy_loss": error, "candidates": size, "beta": beta} | mean._asdict()


def evaluate_policy(
    config: Config, state: State, batch: Transition, obs: Float[Array, "b n"], values: Float[Array, " b"]
) -> tuple[State, Metrics]:
    """Policy evaluation: one gradient step of V toward the candidates' soft values and one of Q toward (1).

    Args:
        config: settings.
        state: state of one run.
        batch: transitions, leaves of shape (batch_size, ...).
        obs: states, shape (b, n).
        values: estimates of their soft values, shape (b,).

    Returns:
        The next state and the metrics.
    """
    next_values = jax.lax.map(functools.partial(v_value, state), batch.next_obs, batch_size=BLOCK)
    targets = soft_target(batch.reward, state.discount, batch.terminated.astype(values.dtype), next_values)
    state = _follow_data(config, state, batch, targets)
    descend_critic = functools.partial(descend, _critic_optimiser(config))

    v_inputs = jax.vmap(state.obs_units.normalise)(obs)
    v_targets = jax.vmap(state.value_units.normalise)(values)
    _, v, v_optimiser = descend_critic(_squared_error(v_inputs, v_targets), state.v, state.v_optimiser)

    q_inputs = jax.vmap(join(state.obs_units, state.action_units).normalise)(
        jnp.concatenate([batch.obs, batch.action], axis=1)
    )
    q_targets = jax.vmap(state.value_units.normalise)(targets)
    errors, q, q_optimiser = jax.vmap(functools.partial(descend_critic, _squared_error(q_inputs, q_targets)))(
        state.q, state.q_optimiser
    )
    state = dataclasses.replace(
        state,
        q=q,
        q_target=move(state.q_target, q, _target_rate(config, state.step)),
        v=v,
        q_optimiser=q_optimiser,
        v_optimiser=v_optimiser,
    )
    return state, {"critic_error": jnp.sqrt(jnp.mean(errors)) * state.value_units.scale, "v": jnp.mean(values)}


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
    rate = forgetting_rate(state.step, config.updates / 2)
    obs, action = state.obs_units.update(batch.obs, rate), state.action_units.update(batch.action, rate)
    value = state.value_units.update(targets, rate)
    q_inputs, outputs = (join(state.obs_units, state.action_units), join(obs, action)), (state.value_units, value)
    convert = jax.vmap(lambda critic: critic.change_units(q_inputs, outputs))
    return dataclasses.replace(
        state,
        q=convert(state.q),
        q_target=convert(state.q_target),
        v=state.v.change_units((state.obs_units, obs), outputs),
        obs_units=obs,
        action_units=action,
        value_units=value,
    )


def _variance(candidates: Candidates) -> Float[Array, " d"]:
    """Return the target policy's variance as told by the weighted candidates, averaged over the states."""
    weights = candidates.weights[..., None]
    mean = jnp.sum(weights * candidates.latents, axis=1, keepdims=True)
    squares = jnp.sum(weights * (candidates.latents - mean) ** 2, axis=1)
    return jnp.mean(squares / jnp.maximum(1 - jnp.sum(weights**2, axis=1), 1e-3), axis=0)


def _follow_width(config: Config, state: State, variance: Float[Array, " d"]) -> ActionSpace:
    """Let the unit of unbounded actions follow the target policy's own width.

    Near width one the flow is almost a translation, which few solver steps integrate accurately.
    """
    space = state.action_space
    if not isinstance(space, Unbounded):
        return space
    begun = state.step >= config.policy_warmup * config.updates
    rate = jnp.where(begun, forgetting_rate(state.step, config.updates / 2), 0.0)
    change = jnp.clip(variance, 0.1, 10.0) ** (rate / 2)  # few candidates may say anything at first
    return Unbounded(space.size, space.center, space.scale * change)


def _critic_optimiser(config: Config) -> optax.GradientTransformation:
    return optimiser(config.critic_rate, config.critic_warmup, config.updates)


def _target_rate(config: Config, step: Float[Array, ""]) -> Float[Array, ""]:
    """Fall geometrically from `target_rate` to `final_target_rate`."""
    return config.target_rate * (config.final_target_rate / config.target_rate) ** (step / config.updates)
