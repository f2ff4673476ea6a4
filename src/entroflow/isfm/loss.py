"""Importance sampling flow matching: fit a flow to exp(Q/α)/Z from weighted candidates.

    path              x_τ = τ x_1 + (1−τ) x_0,  x_0 ~ N(0, I),  with conditional velocity x_1 − x_0,
    flow matching     L_FM = E ‖v_θ(x_τ, τ, s) − (x_1 − x_0)‖²  over samples x_1 of the target: (7) of equal weights,
    (7)               L_IS = E_{x_1~μ} [ π_new(x_1|s)/μ(x_1|s) ‖v_θ(x_τ, τ, s) − (x_1 − x_0)‖² ],
    (9)               log weight of x_1 = Q(s, x_1)/α − log μ(x_1|s), up to log Z(s).

Everything takes place in the latent space of the policy, and for one state: `vmap` over states, keys and candidates.
What the functions have in common:

Args:
    policy: current policy π_k, whose velocity field is trained.
    key: random key.
    obs: observation s, shape (n,), of a batch (b, n).
    q_function: soft action value, (s, a) ↦ Q(s, a), shapes (n,), (d,) and ().
    temperature: entropy weight α > 0, shape ().
    normalise: `self_normalised`, `state_normalised` or `raw`, or one of your own.
    ess_floor: least effective sample size over N, kept by tempering (see `temper`); no tempering if not given.
    latents: candidates x_1, shape (N, d).
    times: flow times τ, for example from `stratified_times`, shape (N, P).
    weights: weights w_i, a mean over the candidates when all are 1/N, shape (N,).
    control: Stein's control variate, for "stein" (see `stein_control`).
    keys: random keys of the candidates, of the noise x_0 and of the flow times τ.
    n: number N of candidates.
    candidates: candidates N per state.
    pairs: number P of pairs (x_0, τ) per candidate.
    proposal: where candidates come from; the current policy if not given.
    propose: makes the proposal from the current policy, Q and α; the current policy itself if not given.
    with_scores: whether to differentiate Q at the candidates, too.
    target: what to regress on: "pair" is the equation as it stands; "posterior" and "stein" change the value, not the
        expected gradient, which becomes less noisy (see `posterior_target`). "stein" differentiates Q, which must not
        jump, and takes its control variate at the states whose step is not tempered.

Returns:
    The weighted candidates; flow times, shape (N, P); or the loss, shape ().
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key, PRNGKeyArray

from ..checks import choice, error
from ..flow import FlowPolicy, VelocityField
from .proposals import CurrentPolicy, Proposal, Propose, QFunction, current_policy
from .regression import TARGETS, Control, RegressionTarget, posterior_target, stein_control
from .weights import (
    Diagnostics,
    Faults,
    Normalisation,
    check_faults,
    diagnose,
    find_faults,
    self_normalised,
    temper,
)


class Candidates(NamedTuple):
    """Weighted candidates of one state, a set of data for the regression: no gradient passes through them.

    Attributes:
        latents: the candidates x_1, shape (N, d).
        weights: their weights; they sum to one, or do so on average, according to the normalisation, shape (N,).
        beta: the step taken from the policy to the target, 1 without tempering, shape ().
        diagnostics: distance between proposal and target π_new (of the whole step, β = 1).
        faults: shares of candidates that could not be weighed, for `check_faults`; zero when all is well.
        scores: ∇ log π_new at the candidates, shape (N, d), if they were asked for.
    """

    latents: Float[Array, "N d"]
    weights: Float[Array, " N"]
    beta: Float[Array, ""]
    diagnostics: Diagnostics
    faults: Faults
    scores: Float[Array, "N d"] | None = None


def draw_candidates(
    key: PRNGKeyArray,
    policy: FlowPolicy,
    obs: Float[Array, " n"],
    q_function: QFunction,
    temperature: Float[ArrayLike, ""],
    *,
    n: int,
    proposal: Proposal | None = None,
    normalise: Normalisation = self_normalised,
    ess_floor: Float[ArrayLike, ""] | None = None,
    with_scores: bool = False,
) -> Candidates:
    """Draw candidates of one state and weigh them by equation (9).

    Raises:
        ValueError: for n below one, or a proposal that returns other shapes; outside of compiled programs also if
            the proposal's log-density or Q is not finite at a candidate (see `check_faults`).
    """
    if n < 1:
        raise error("candidates", f"{n}", "a whole number above 0", "pass for example 8")
    # Candidates are data. Stopping gradients here, too, keeps JAX from differentiating the integration for nothing.
    arrays, static = eqx.partition((policy, proposal), eqx.is_array)
    policy, proposal = eqx.combine(jax.lax.stop_gradient(arrays), static)
    proposal = CurrentPolicy(policy) if proposal is None else proposal

    latents, log_proposal = proposal.sample_and_log_prob(key, obs, n)
    wanted = (n, policy.action_space.size), (n,)
    if (latents.shape, log_proposal.shape) != wanted:
        given = f"samples of shape {latents.shape} with log-densities of shape {log_proposal.shape}"
        raise error("proposal", given, f"shapes {wanted[0]} and {wanted[1]}", "return one latent and one number each")

    def log_density(latent: Array) -> tuple[Array, Array]:
        q = q_function(obs, policy.action_space.to_action(latent))
        return q / temperature + policy.action_space.log_det(latent), q

    if with_scores:
        (log_target, q), scores = jax.vmap(jax.value_and_grad(log_density, has_aux=True))(latents)
    else:
        (log_target, q), scores = jax.vmap(log_density)(latents), None
    faults = find_faults(latents, log_proposal, q)
    check_faults(faults)

    log_weights, beta = log_target - log_proposal, jnp.ones((), latents.dtype)
    diagnostics = diagnose(log_weights)
    if ess_floor is not None:
        if isinstance(proposal, CurrentPolicy):
            log_policy = log_proposal
        else:
            log_policy = jax.vmap(policy.latent_log_prob, in_axes=(None, 0))(obs, latents)
        log_weights, beta = temper(log_target - log_policy, log_policy - log_proposal, ess_floor)
    return jax.lax.stop_gradient(Candidates(latents, normalise(log_weights), beta, diagnostics, faults, scores))


def stratified_times(key: PRNGKeyArray, n: int, pairs: int) -> Float[Array, "N P"]:
    """Draw flow times by systematic sampling: N P equally spaced points of [0, 1), shifted around together.

    Each time is uniform, and both the times of one candidate and those of all candidates are spread evenly. The same
    times may serve all states of a batch, which lets the network embed each of them once.
    """
    shift = jax.random.uniform(key)
    return (jnp.linspace(0.0, 1.0, n * pairs, endpoint=False).reshape(pairs, n).T + shift) % 1.0


def isfm_loss(
    policy: FlowPolicy,
    key: PRNGKeyArray,
    obs: Float[Array, " n"],
    latents: Float[Array, "N d"],
    weights: Float[Array, " N"],
    times: Float[Array, "N P"],
    *,
    target: str = "pair",
    control: Control | None = None,
) -> Float[Array, ""]:
    """Equation (7) for one state: Σ_i w_i of the mean over P pairs (x_0, τ) of ‖v_θ(x_τ, τ, s) − (x_1,i − x_0)‖².

    Raises:
        ValueError: for an unknown target, or "stein" without its control variate.
    """
    if target not in TARGETS:
        choice("target", target, TARGETS)
    if target == "stein" and control is None:
        raise error("control", "none", "a control variate for the target 'stein'", "make it with stein_control")
    context = policy.condition(obs)
    noises = jax.random.normal(key, (*times.shape, latents.shape[1]), latents.dtype)

    def regress_on(x1: Array, x0: Array, time: Array) -> Array:
        if target == "pair":
            return x1 - x0
        return posterior_target(latents, weights, x1, x0, time, control if target == "stein" else None)

    def squared_error(x1: Array, x0: Array, time: Array) -> Array:
        velocity = policy.velocity(time * x1 + (1 - time) * x0, time, context)
        return jnp.sum((velocity - jax.lax.stop_gradient(regress_on(x1, x0, time))) ** 2)

    errors = jax.vmap(jax.vmap(squared_error, in_axes=(None, 0, 0)))(latents, noises, times)
    return jax.lax.stop_gradient(weights) @ jnp.mean(errors, axis=1)


def weighted_regression(
    policy: FlowPolicy,
    keys: Key[Array, "3"],
    obs: Float[Array, "b n"],
    q_function: QFunction,
    temperature: Float[ArrayLike, ""],
    *,
    candidates: int,
    pairs: int,
    propose: Propose = current_policy,
    normalise: Normalisation = self_normalised,
    ess_floor: Float[ArrayLike, ""] | None = None,
    target: RegressionTarget = "pair",
) -> tuple[Candidates, Callable[[VelocityField], Float[Array, ""]]]:
    """Draw and weigh candidates at a batch of states; return them and the loss of equations (7) and (9) on them.

    Returns:
        The candidates, leaves of shape (b, ...), and the loss as a function of the velocity field, averaged over the
        states.
    """
    draw = functools.partial(
        draw_candidates,
        policy=policy,
        q_function=q_function,
        temperature=temperature,
        n=candidates,
        proposal=propose(policy, q_function, temperature),
        normalise=normalise,
        ess_floor=ess_floor,
        with_scores=target == "stein",
    )
    draw_keys, noise_keys = (jax.random.split(key, obs.shape[0]) for key in keys[:2])
    drawn = jax.vmap(draw)(draw_keys, obs=obs)
    times = stratified_times(keys[2], candidates, pairs)

    # The scores are those of the whole step's target, which a shortened step does not have.
    share = (drawn.beta == 1).astype(drawn.beta.dtype)
    control = None if drawn.scores is None else stein_control(drawn.scores, drawn.weights, share)

    def loss(velocity: VelocityField) -> Float[Array, ""]:
        trained = dataclasses.replace(policy, velocity=velocity)

        def one(key: PRNGKeyArray, obs: Array, drawn: Candidates, control: Control | None) -> Float[Array, ""]:
            data = drawn.latents, drawn.weights, times
            return isfm_loss(trained, key, obs, *data, target=target, control=control)

        return jnp.mean(jax.vmap(one)(noise_keys, obs, drawn, control))

    return drawn, loss
