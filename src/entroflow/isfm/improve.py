"""Policy improvement: from Q to the policy exp(Q/α)/Z of equation (4), by one gradient step or all the way.

`improvement` is what one gradient step needs, at a batch of states: weighted candidates, and the ISFM loss on them.
`fit` repeats it to convergence for a Q that is known; SAC-ISFM makes one step for every step of its critic.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..checks import error
from ..flow import FlowPolicy
from ..flow.velocity import VelocityField
from .faults import Faults, check_faults
from .loss import Candidates, draw_candidates, isfm_loss, stratified_times
from .proposals import CurrentPolicy, Proposal
from .regression import Control, RegressionTarget, stein_control
from .schedule import Schedule, at_size, follow
from .weights import Diagnostics, Normalisation, self_normalised

M = TypeVar("M")
QFunction = Callable[[Array, Array], Array]
Propose = Callable[[FlowPolicy], Proposal]


def improvement(
    policy: FlowPolicy,
    key: PRNGKeyArray,
    obs: Float[Array, "b n"],
    q_function: QFunction,
    temperature: Float[ArrayLike, ""],
    *,
    candidates: int,
    pairs: int,
    propose: Propose = CurrentPolicy,
    normalise: Normalisation = self_normalised,
    ess_floor: Float[ArrayLike, ""] | None = None,
    target: RegressionTarget = "pair",
) -> tuple[Candidates, Callable[[VelocityField], Float[Array, ""]]]:
    """Draw and weigh candidates at a batch of states; return them and the loss of equations (7) and (9) on them.

    Args:
        policy: current policy π_k.
        key: random key.
        obs: states, shape (b, n).
        q_function: soft action value, (s, a) ↦ Q(s, a), shapes (n,), (d,) and ().
        temperature: entropy weight α > 0, shape ().
        candidates: candidates N per state.
        pairs: pairs (x_0, τ) per candidate.
        propose: makes the proposal from the current policy, which itself proposes if not given.
        normalise: `self_normalised`, `state_normalised` or `raw`.
        ess_floor: least effective sample size over N, kept by tempering; no tempering if not given.
        target: what to regress on, "pair", "posterior", "stein" or "difference" (see `isfm_loss`); "stein"
            differentiates Q, which must not jump, and takes its control variate at the states whose step is not
            tempered; "difference" is for candidates of the current policy.

    Returns:
        The candidates, leaves of shape (b, ...), and the loss as a function of the velocity field, averaged over the
        states.

    Raises:
        ValueError: for the target "difference" with another proposal than the current policy.
    """
    if target == "difference" and propose is not CurrentPolicy:
        remedy = "choose 'posterior': only the current policy's candidates tell its velocity"
        raise error("target", "'difference' with another proposal than the current policy", "one or the other", remedy)
    candidate_key, loss_key, time_key = jax.random.split(key, 3)

    def draw(key: PRNGKeyArray, obs: Float[Array, " n"]) -> Candidates:
        return draw_candidates(
            key,
            policy,
            obs,
            q_function,
            temperature,
            n=candidates,
            proposal=propose(policy),
            normalise=normalise,
            ess_floor=ess_floor,
            with_scores=target == "stein",
        )

    drawn = jax.vmap(draw)(jax.random.split(candidate_key, obs.shape[0]), obs)
    times = stratified_times(time_key, candidates, pairs)
    loss_keys = jax.random.split(loss_key, obs.shape[0])

    # The scores are those of the whole step's target, which a shortened step does not have.
    share = (drawn.beta == 1).astype(drawn.beta.dtype)
    control = None if drawn.scores is None else stein_control(drawn.scores, drawn.weights, share)

    def loss(velocity: VelocityField) -> Float[Array, ""]:
        trained = replace(policy, velocity=velocity)

        def one(key: PRNGKeyArray, obs: Array, drawn: Candidates, control: Control | None) -> Float[Array, ""]:
            data = drawn.latents, drawn.weights, times
            return isfm_loss(trained, key, obs, *data, target=target, control=control)

        return jnp.mean(jax.vmap(one)(loss_keys, obs, drawn, control))

    return drawn, loss


@dataclass(frozen=True)
class FitConfig:
    """Settings of `fit`.

    Attributes:
        steps: gradient steps.
        candidates: candidates N per state and step, a number or a schedule such as `Adaptive()`.
        pairs: pairs (x_0, τ) per candidate.
        rate: peak learning rate (Muon; warm-up, then cosine to zero).
        warmup: fraction of the steps over which the learning rate rises to its peak.
        ess_floor: least ESS/N of the candidates' weights; below, the step is shortened (tempering). Zero: never.
        average: fraction of the steps so far over which the parameters that are returned are averaged.
        target: what the velocity is regressed on (see `isfm_loss`).
    """

    steps: int = 2000
    candidates: Schedule = 256
    pairs: int = 2
    rate: float = 1e-2
    warmup: float = 0.02
    ess_floor: float = 0.3
    average: float = 0.1
    target: RegressionTarget = "pair"


class FitMetrics(NamedTuple):
    """What every step of `fit` tells, averaged over its states; every field has shape (steps,).

    `candidates` is the number N that the step drew at each state.
    """

    loss: Float[Array, " steps"]
    beta: Float[Array, " steps"]
    diagnostics: Diagnostics
    faults: Faults
    candidates: Float[Array, " steps"]


def fit(
    config: FitConfig,
    policy: FlowPolicy,
    key: PRNGKeyArray,
    observe: Callable[[PRNGKeyArray], Float[Array, "b n"]],
    q_function: QFunction,
    temperature: Float[ArrayLike, ""],
    *,
    propose: Propose = CurrentPolicy,
    normalise: Normalisation = self_normalised,
) -> tuple[FlowPolicy, FitMetrics]:
    """Improve a policy until it is exp(Q/α)/Z, for a Q that does not change: equation (4) by ISFM.

    Args:
        config: settings.
        policy: the policy to start from.
        key: random key.
        observe: draws the batch of states of one step, key ↦ (b, n).
        q_function: soft action value, (s, a) ↦ Q(s, a), shapes (n,), (d,) and ().
        temperature: entropy weight α > 0, shape ().
        propose: makes the proposal from the current policy, which itself proposes if not given.
        normalise: `self_normalised`, `state_normalised` or `raw`.

    Returns:
        The policy with its parameters averaged over the last steps, and the metrics of every step.

    Raises:
        ValueError: if the proposal's log-density or Q was not finite at a candidate. A caller that compiles this
            function calls `check_faults(metrics.faults)` on the result instead.
    """
    muon = optimiser(config.rate, config.warmup, config.steps)
    ess_floor = config.ess_floor if config.ess_floor > 0 else None

    def step(carry: tuple, inputs: tuple[Array, Array]) -> tuple[tuple, FitMetrics]:
        velocity, average, state, ess = carry
        number, key = inputs
        obs_key, key = jax.random.split(key)
        obs = observe(obs_key)

        def improve(candidates: int) -> tuple[Any, tuple]:
            drawn, loss = improvement(
                replace(policy, velocity=velocity),
                key,
                obs,
                q_function,
                temperature,
                candidates=candidates,
                pairs=config.pairs,
                propose=propose,
                normalise=normalise,
                ess_floor=ess_floor,
                target=config.target,
            )
            means = jax.tree.map(jnp.mean, (drawn.beta, drawn.diagnostics, drawn.faults))
            return jax.value_and_grad(loss)(velocity), means

        (found, (beta, diagnostics, faults)), size = at_size(config.candidates, ess, improve)
        error, velocity, state = descend(muon, lambda _: found, velocity, state)
        average = move(average, velocity, 1 / (1 + config.average * number))
        ess = follow(ess, number, diagnostics.ess)
        return (velocity, average, state, ess), FitMetrics(error, beta, diagnostics, faults, size)

    velocity = policy.velocity
    start = velocity, velocity, muon.init(cast(optax.Params, velocity)), jnp.zeros((), policy.obs_mean.dtype)
    numbers = jnp.arange(config.steps, dtype=policy.obs_mean.dtype)
    (_, average, *_), metrics = jax.lax.scan(step, start, (numbers, jax.random.split(key, config.steps)))
    check_faults(metrics.faults)
    return replace(policy, velocity=average), metrics


def optimiser(rate: float, warmup: float, steps: int) -> optax.GradientTransformation:
    """Return Muon with warm-up and cosine decay: steps of equal size in every direction of a weight matrix.

    Small regression errors need that; with Adam they are several times larger at equal cost.
    """
    return optax.contrib.muon(optax.warmup_cosine_decay_schedule(0.0, rate, int(warmup * steps), steps))


def descend(
    optimiser: optax.GradientTransformation,
    loss_and_gradient: Callable[[M], tuple[Array, M]],
    model: M,
    state: optax.OptState,
) -> tuple[Float[Array, ""], M, optax.OptState]:
    """Make one gradient step; return the loss before it, the model and the optimiser's state."""
    error, gradient = loss_and_gradient(model)
    parameters = cast(optax.Params, model)
    with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to the power of integers
        updates, state = optimiser.update(cast(optax.Updates, gradient), state, parameters)
    return error, cast(M, optax.apply_updates(parameters, updates)), state


def move(average: M, value: M, rate: Float[ArrayLike, ""]) -> M:
    """Return average + rate (value − average), leaf by leaf."""
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, value)
