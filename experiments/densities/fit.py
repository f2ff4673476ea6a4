"""ISFM to convergence at a single state: how densities are learned.

With one state, a candidate is cheap to use and dear to make (the flow is integrated forwards for the density of its own
samples, backwards for that of the others). So one set of candidates serves several gradient steps, and each step gets
the most out of it: the regression target at a point x_τ is not one x_1 − x_0 but its mean over all candidates,

    E[x_1 − x_0 | x_τ] = (m − x_τ) / (1 − τ),  m = Σ_i p_i x_1,i,  p_i ∝ w_i N(x_τ; τ x_1,i, (1−τ)² I),

the exact velocity of the weighted set. Given the set, that is the conditional expectation of the usual target, so the
gradient keeps its mean and loses variance (Rao and Blackwell). Stein's control variate from ∇Q takes off more: see
`isfm.regression`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from entroflow import optimise
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.flow.velocity import VelocityField
from entroflow.isfm import (
    Control,
    GaussianProposal,
    defensive,
    draw_candidates,
    stein_control,
)
from entroflow.isfm.regression import LEAST_FISHER

from .targets import Density

OBS = (0.0,)  # the single state


@dataclass(frozen=True)
class Config:
    """Settings, the same for all targets.

    Attributes:
        candidates: candidates N of one round.
        reuse: gradient steps made with them.
        points: points x_τ of one gradient step, a multiple of `times`.
        times: different flow times among them.
        latest: flow times are below this; at 1 the mean over the candidates is 0/0.
        width: of the velocity network.
        solver_steps: midpoint steps of the flow in training.
        rate: peak learning rate.
        warmup: fraction of the steps over which the learning rate rises to its peak.
        average: fraction of the steps so far over which the parameters that are returned are averaged.
        broad: share ε of the candidates that come from the broad Gaussian of the defensive mixture.
        broad_deviation: its standard deviation over the target's scale.
        latent_deviation: the target's scale over that of the noise x_0.
        ess_floor: least ESS/N, kept by tempering, as a fraction of where the mixture starts.
    """

    candidates: int = 1024
    reuse: int = 8
    points: int = 1024
    times: int = 32
    latest: float = 0.999
    width: int = 128
    solver_steps: int = 6
    rate: float = 3e-2
    warmup: float = 0.02
    average: float = 0.1
    broad: float = 0.2
    broad_deviation: float = 1.5
    latent_deviation: float = 3.0
    ess_floor: float = 0.3


class State(NamedTuple):
    """What training goes on with: parameters, their average, the optimiser's state, the key, rounds made."""

    velocity: VelocityField
    average: VelocityField
    optimiser: optax.OptState
    key: PRNGKeyArray
    rounds: Int[Array, ""]


class Metrics(NamedTuple):
    """Averages over the last rounds: the loss, the tempering exponent β, ESS/N of the candidates for the target."""

    loss: Float[Array, ""]
    beta: Float[Array, ""]
    ess: Float[Array, ""]


def new_policy(config: Config, target: Density, key: PRNGKeyArray) -> FlowPolicy:
    """Return an untrained flow at the single state, in units of the target's scale."""
    velocity = VelocityNetwork(len(OBS), target.size, width=config.width, depth=1, key=key)
    space = Unbounded(target.size, scale=target.scale / config.latent_deviation)
    return FlowPolicy(velocity, space, solver=RungeKutta("midpoint", config.solver_steps))


def with_velocity(config: Config, target: Density, trained: VelocityField) -> FlowPolicy:
    """Return the flow with the trained part of its velocity field: all but the layers that read the only state.

    Those stay as they are, the same for all seeds. They could add no more than the biases that are trained anyway, but
    their matrices would be most of the optimiser's work.
    """
    policy = new_policy(config, target, jax.random.key(0))
    return replace(policy, velocity=eqx.combine(trained, policy.velocity))


def start(config: Config, target: Density, rounds: int, key: PRNGKeyArray) -> State:
    """Return the state before training."""
    init_key, key = jax.random.split(key)
    policy = new_policy(config, target, init_key)
    velocity = eqx.tree_at(lambda velocity: velocity.state_layers, policy.velocity, replace=None)
    muon = optimise.planned(config.rate, config.warmup, rounds * config.reuse)
    return State(velocity, velocity, muon.init(cast(optax.Params, velocity)), key, jnp.int32(0))


def advance(config: Config, target: Density, rounds: int, state: State, count: Int[Array, ""]) -> tuple[State, Metrics]:
    """Make a number of rounds: draw candidates from the defensive mixture, weigh them, make `reuse` gradient steps.

    Args:
        config: settings.
        target: the density to learn.
        rounds: rounds of the whole training, for the learning rate.
        state: where training is.
        count: rounds to make.

    Returns:
        The state and the metrics averaged over these rounds.
    """
    muon = optimise.planned(config.rate, config.warmup, rounds * config.reuse)
    assemble = partial(with_velocity, config, target)
    obs = jnp.asarray(OBS, jnp.float32)
    deviation = config.broad_deviation * config.latent_deviation
    broad = GaussianProposal(jnp.zeros(target.size, jnp.float32), deviation**2)

    def round(_: Int[Array, ""], carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, total = carry
        key, draw_key, step_key = jax.random.split(state.key, 3)
        current = assemble(state.velocity)
        drawn = draw_candidates(
            draw_key,
            current,
            obs,
            lambda _, x: target.log_density(x),
            1.0,
            n=config.candidates,
            proposal=defensive(current, broad, config.broad),
            ess_floor=config.ess_floor,
            with_scores=True,
        )

        assert drawn.scores is not None
        whole = (drawn.beta == 1).astype(drawn.beta.dtype)  # the scores are those of the whole step's target
        control = stein_control(drawn.scores[None], drawn.weights[None], whole[None])
        control = jax.tree.map(lambda leaf: leaf[0], control)

        def step(learner: tuple, inputs: tuple[Array, Array]) -> tuple[tuple, Array]:
            velocity, average, optimiser_state = learner
            number, key = inputs
            x, times, wanted = regression(config, key, drawn.latents, drawn.weights, control)

            def loss(velocity: VelocityField) -> Float[Array, ""]:
                policy = assemble(velocity)
                of_points = jax.vmap(policy.velocity, in_axes=(0, None, None))
                found = jax.vmap(of_points, in_axes=(0, 0, None))(x, times, policy.condition(obs))
                return jnp.mean(jnp.sum((found - wanted) ** 2, axis=-1))

            error, gradient = jax.value_and_grad(loss)(velocity)
            velocity, optimiser_state = optimise.descend(muon, gradient, velocity, optimiser_state)
            average = optimise.follow(average, velocity, 1 / (1 + config.average * number))
            return (velocity, average, optimiser_state), error

        numbers = state.rounds.astype(jnp.float32) * config.reuse + jnp.arange(config.reuse, dtype=jnp.float32)
        learner = state.velocity, state.average, state.optimiser
        learner, losses = jax.lax.scan(step, learner, (numbers, jax.random.split(step_key, config.reuse)))
        found = Metrics(jnp.mean(losses), drawn.beta, drawn.diagnostics.ess)
        return State(*learner, key, state.rounds + 1), jax.tree.map(jnp.add, total, found)

    zeros = Metrics(*[jnp.zeros((), jnp.float32)] * 3)
    state, total = jax.lax.fori_loop(0, count, round, (state, zeros))
    return state, jax.tree.map(lambda value: value / count.astype(jnp.float32), total)


def regression(
    config: Config,
    key: PRNGKeyArray,
    latents: Float[Array, "N d"],
    weights: Float[Array, " N"],
    control: Control | None = None,
) -> tuple[Float[Array, "T P d"], Float[Array, " T"], Float[Array, "T P d"]]:
    """Return the data of one gradient step: points x_τ on paths to resampled candidates, τ, the set's velocities.

    Args:
        config: settings.
        key: random key.
        latents: candidates x_1, shape (N, d).
        weights: their weights, which sum to one, shape (N,).
        control: Stein's control variate; none if not given.

    Returns:
        P = points/times points at each of T stratified flow times, shape (T, P, d); the times, shape (T,); and
        E[x_1 − x_0 | x_τ] under the weighted candidates, with the control variate, shape (T, P, d).
    """
    choice_key, time_key, noise_key = jax.random.split(key, 3)
    each = config.points // config.times
    times = jnp.arange(config.times, dtype=latents.dtype) + jax.random.uniform(time_key)
    times = config.latest * times / config.times
    # Systematic resampling: at every flow time equally spaced quantiles of the weights, shifted around together.
    quantiles = jnp.arange(each, dtype=latents.dtype)[None] + jax.random.uniform(choice_key, (config.times, 1))
    cumulative = jnp.cumsum(weights)
    x1 = latents[jnp.searchsorted(cumulative, quantiles / each * cumulative[-1])]
    x0 = jax.random.normal(noise_key, x1.shape, x1.dtype)
    x = times[:, None, None] * x1 + (1 - times[:, None, None]) * x0
    return x, times, jax.vmap(partial(posterior_velocity, latents, weights, control=control))(x, times)


def posterior_velocity(
    latents: Float[Array, "N d"],
    weights: Float[Array, " N"],
    points: Float[Array, "P d"],
    time: Float[Array, ""],
    control: Control | None = None,
) -> Float[Array, "P d"]:
    """Return what `posterior_target` does, at points x_τ of one flow time: by matrix products, for many candidates.

    F is averaged over the candidates: among many, a candidate's own share of it does not matter.

    Args:
        latents: candidates, shape (N, d).
        weights: their weights, up to a factor, shape (N,).
        points: points x_τ, shape (P, d).
        time: flow time τ.
        control: Stein's control variate; none if not given.

    Returns:
        What to regress the velocity at the points on, shape (P, d).
    """
    ratio = time / (1 - time)
    log_weights = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
    offsets = log_weights - 0.5 * ratio**2 * jnp.sum(latents**2, axis=1)
    posterior = jax.nn.softmax(ratio / (1 - time) * (points @ latents.T) + offsets[None], axis=1)
    mean = posterior @ latents
    noise = (points - time * mean) / (1 - time)
    if control is None:
        return mean - noise
    fisher = jnp.maximum(weights @ control.fisher / jnp.sum(weights), LEAST_FISHER)
    factor = control.share / (time**2 + (1 - time) ** 2 * fisher)
    return mean - noise + factor[None] * (time * noise + (1 - time) * (posterior @ control.scores))


def paths(policy: FlowPolicy, noises: Float[Array, "m d"], points: int = 33) -> Float[Array, "p m d"]:
    """Return where the flow carries noises, at equally spaced flow times from 0 to 1, in units of the target."""
    solver = RungeKutta("rk4", 1)
    context = policy.condition(jnp.asarray(OBS, jnp.float32))
    length = 1 / (points - 1)

    def segment(x: Array, begin: Array) -> tuple[Array, Array]:
        def velocity(x: Array, part: Array) -> Array:
            return length * policy.velocity(x, begin + length * part, context)

        x = jax.vmap(lambda x: solver.solve(velocity, x))(x)
        return x, x

    _, after = jax.lax.scan(segment, noises, length * jnp.arange(points - 1, dtype=noises.dtype))
    return jax.vmap(jax.vmap(policy.action_space.to_action))(jnp.concatenate([noises[None], after]))
