"""Policy improvement all the way, for a Q that is known: from Q to the policy exp(Q/α)/Z of equation (4) by ISFM.

SAC-ISFM makes one such step for every step of its critic.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .. import optimise
from ..checks import error, positive_number
from ..fields import Count, Discount, NonNegative, Positive, Share, check_fields
from ..flow import FlowPolicy
from .loss import weighted_regression
from .proposals import Propose, QFunction, current_policy
from .regression import RegressionTarget
from .weights import Diagnostics, Faults, Normalisation, check_faults, self_normalised


@dataclass(frozen=True)
class FitConfig:
    """Settings of `improve`.

    Attributes:
        steps: gradient steps.
        candidates: candidates N per state and step.
        pairs: pairs (x_0, τ) per candidate.
        rate: peak learning rate (Muon; warm-up, then cosine to zero).
        warmup: fraction of the steps over which the learning rate rises to its peak.
        ess_floor: least ESS/N of the candidates' weights; below, the step is shortened (tempering). Zero: never.
        average: fraction of the steps so far over which the parameters that are returned are averaged.
        target: what the velocity is regressed on (see `isfm_loss`).

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    steps: Count = 2000
    candidates: Count = 256
    pairs: Count = 2
    rate: Positive = 1e-2
    warmup: Share = 0.02
    ess_floor: Discount = 0.3
    average: NonNegative = 0.1
    target: RegressionTarget = "pair"

    def __post_init__(self):
        check_fields(self)


class FitMetrics(NamedTuple):
    """What every step of `improve` tells, averaged over its states; every field has shape (steps,).

    Attributes:
        loss: the loss before the step.
        beta: the step taken from the policy to the target.
        diagnostics: distance between proposal and target.
        faults: shares of candidates that could not be weighed.
    """

    loss: Float[Array, " steps"]
    beta: Float[Array, " steps"]
    diagnostics: Diagnostics
    faults: Faults


def improve(
    config: FitConfig,
    policy: FlowPolicy,
    key: PRNGKeyArray,
    observe: Callable[[PRNGKeyArray], Float[Array, "b n"]],
    q_function: QFunction,
    temperature: Float[ArrayLike, ""],
    *,
    propose: Propose = current_policy,
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
        propose: makes the proposal from the current policy, Q and α; the current policy itself if not given.
        normalise: `self_normalised`, `state_normalised` or `raw`.

    Returns:
        The policy with its parameters averaged over the last steps, and the metrics of every step.

    Raises:
        ValueError: if Q has another shape, or the proposal's log-density or Q was not finite at a candidate. A caller
            that compiles this function calls `check_faults(metrics.faults)` on the result instead. If α is not
            positive.
    """
    if not isinstance(temperature, Tracer):
        positive_number("temperature", temperature)
    _check_shape(q_function, observe, policy, key)
    muon = optimise.planned(config.rate, config.warmup, config.steps)
    ess_floor = config.ess_floor if config.ess_floor > 0 else None

    def step(carry: tuple, inputs: tuple[Array, Array]) -> tuple[tuple, FitMetrics]:
        velocity, average, state = carry
        number, key = inputs
        obs_key, key = jax.random.split(key)
        obs = observe(obs_key)
        drawn, loss = weighted_regression(
            replace(policy, velocity=velocity),
            jax.random.split(key, 3),
            obs,
            q_function,
            temperature,
            candidates=config.candidates,
            pairs=config.pairs,
            propose=propose,
            normalise=normalise,
            ess_floor=ess_floor,
            target=config.target,
        )
        means = jax.tree.map(jnp.mean, (drawn.beta, drawn.diagnostics, drawn.faults))
        error, gradient = jax.value_and_grad(loss)(velocity)
        velocity, state = optimise.descend(muon, gradient, velocity, state)
        average = optimise.follow(average, velocity, 1 / (1 + config.average * number))
        return (velocity, average, state), FitMetrics(error, *means)

    velocity = policy.velocity
    start = velocity, velocity, muon.init(cast(optax.Params, velocity))
    numbers = jnp.arange(config.steps, dtype=policy.obs_units.mean.dtype)
    (_, average, *_), metrics = jax.lax.scan(step, start, (numbers, jax.random.split(key, config.steps)))
    check_faults(metrics.faults)
    return replace(policy, velocity=average), metrics


def _check_shape(q_function: QFunction, observe: Callable[..., Array], policy: FlowPolicy, key: PRNGKeyArray) -> None:
    """Raise if Q is not one number for one observation and one action."""
    obs = jax.eval_shape(lambda key: observe(key)[0], key)
    action = jax.eval_shape(policy.action_space.to_action, jnp.zeros(policy.noise_shape))
    found = getattr(jax.eval_shape(q_function, obs, action), "shape", None)
    if found != ():
        given = f"values of shape {found} of an observation of shape {obs.shape} and an action of {action.shape}"
        raise error("q_function", given, "one number, of shape ()", "return for example value[0]")
