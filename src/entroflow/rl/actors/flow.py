"""The flow policy, improved by importance sampling flow matching: with it soft actor-critic is SAC-ISFM.

Where α is small against the spread of Q, a few candidates in a space of many dimensions tell little of where exp(Q/α)/Z
lies, and steps are tempered to a small β. The gradient of Q at one action tells d numbers more. The pathwise term adds
it: for the policy π_β ∝ π_k^(1−β) exp(βQ/α) that a shortened step aims at,

    ∇ KL(π ‖ π_β) = β ∇ KL(π ‖ exp(Q/α)/Z) = (β/α) ∇ E[α log π(a|s) − Q(s, a)]        at π = π_k,

through the solver's steps and the Jacobian of their map: through the integral of the divergence it would learn to raise
the solver's error. Where the flow can be exp(Q/α)/Z, that is the minimum of both terms.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...checks import error
from ...fields import Count, Discount, Layers, NonNegative, Positive, named
from ...flow import ActionSpace, FlowPolicy, RungeKutta, Solver, VelocityNetwork
from ...isfm import (
    NORMALISATIONS,
    Candidates,
    MixtureProposal,
    Normalisation,
    Propose,
    QFunction,
    RegressionTarget,
    UniformProposal,
    current_policy,
    defensive,
    weighted_regression,
)
from ...moments import Moments
from ..soft_bellman import pathwise_values, soft_value_from_weights
from .protocol import ActorDefaults, Goal, Step

MIDPOINT_4 = RungeKutta("midpoint", 4)
# The cheapest by which log π of agents (Ant-v5's aside) is right to 0.01 nats, at worst 0.1: experiments/solvers.
RK4_8 = RungeKutta("rk4", 8, grading=1.5)
DEFENSIVE_SHARE = 0.1  # of uniform candidates in the defensive mixture


def defensive_uniform(policy: FlowPolicy, q_function: QFunction, temperature: Float[ArrayLike, ""]) -> MixtureProposal:
    """Propose with the policy, and a tenth of the candidates uniformly in the box, see `Propose.__call__`."""
    del q_function, temperature
    return defensive(policy, UniformProposal(policy.action_space), DEFENSIVE_SHARE)


PROPOSALS: dict[str, Propose] = {"policy": current_policy, "defensive": defensive_uniform}


@dataclass(frozen=True)
class Flow(ActorDefaults):
    """Settings of the flow policy and of its improvement, beside those of `ActorDefaults`.

    Attributes:
        width: width of the velocity network.
        depth: layers of the velocity network that read the state.
        state_width: width of these, which cost once per state.
        solver: integrator of the policy's ODE in training.
        acting_solver: a finer one, by which the trained policy acts and tells its density.
        states: states per policy update.
        candidates: candidates N per state.
        pairs: pairs (x_0, τ) per candidate.
        ess_floor: least ESS/N of the candidates' weights; below, the improvement step is shortened (tempering). Zero:
            never.
        target: what the velocity is regressed on, "pair", "posterior" or "stein" (see `isfm_loss`).
        proposal: where candidates come from: the current "policy", the "defensive" mixture of the policy and a tenth
            of actions uniform in the box, or a `Propose` of one's own.
        pathwise: weight of the pathwise term beside the ISFM loss; zero: none.
        normalise: normalisation of the weights, "self", "state" or "raw", or a function of one's own of the N
            log-weights of a state.
        rate: learning rate; its peak in a planned training.

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    width: Count = 64
    depth: Layers = 2
    state_width: Count = 256
    solver: Solver = MIDPOINT_4
    acting_solver: Solver = RK4_8
    states: Count = 32
    candidates: Count = 8
    pairs: Count = 1
    ess_floor: Discount = 0.3
    target: RegressionTarget = "posterior"
    pathwise: NonNegative = 0.3
    proposal: str | Propose = "policy"
    normalise: str | Normalisation = "self"
    rate: Positive = 1e-3

    def __post_init__(self):
        named("proposal", self.proposal, PROPOSALS, Propose)
        named("normalise", self.normalise, NORMALISATIONS, Normalisation)
        super().__post_init__()
        if self.pathwise > 0 and not isinstance(self.solver, RungeKutta):
            given, remedy = f"{self.pathwise} with {type(self.solver).__name__}", "use RungeKutta, or pathwise=0"
            raise error("pathwise", given, "a solver of fixed steps", remedy)

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return "sac_isfm"

    @property
    def values_are_soft(self) -> bool:
        """Whether `Step.values` estimate the soft value of the policy, as candidates of the policy alone do."""
        return self.proposal in ("policy", current_policy)

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> VelocityNetwork:
        """Make the velocity network, see `Actor.network`."""
        sizes = {"width": self.width, "depth": self.depth, "state_width": self.state_width}
        return VelocityNetwork(obs_size, action_size, **sizes, key=key)

    def policy(
        self,
        network: VelocityNetwork,
        action_space: ActionSpace,
        obs_units: Moments,
        temperature: Float[Array, ""],
    ) -> FlowPolicy:
        """Return the flow policy of a velocity network, see `Actor.policy`."""
        del temperature
        return FlowPolicy(network, action_space, solver=self.solver, obs_units=obs_units)

    def loss_and_gradient(self, policy: FlowPolicy, network: VelocityNetwork, key: PRNGKeyArray, goal: Goal) -> Step:
        """Take the ISFM loss, (7) and (9), and the pathwise term, see `Actor.loss_and_gradient`."""
        obs, q_function, temperature = goal
        keys = jax.random.split(key, 4)
        candidates, isfm_loss = weighted_regression(
            policy,
            keys[:3],
            obs,
            q_function,
            temperature,
            candidates=self.candidates,
            pairs=self.pairs,
            propose=PROPOSALS[self.proposal] if isinstance(self.proposal, str) else self.proposal,
            normalise=NORMALISATIONS[self.normalise] if isinstance(self.normalise, str) else self.normalise,
            ess_floor=self.ess_floor if self.ess_floor > 0 else None,
            target=self.target,
        )

        def loss(network: VelocityNetwork) -> Float[Array, ""]:
            if self.pathwise == 0:
                return isfm_loss(network)
            draw = dataclasses.replace(policy, velocity=network).sample_and_solver_log_prob
            values = pathwise_values(draw, keys[3], obs, q_function, temperature, policy.action_space)
            return isfm_loss(network) - self.pathwise * jnp.mean(candidates.beta) / temperature * jnp.mean(values)

        error, gradient = jax.value_and_grad(loss)(network)
        found = candidates.diagnostics
        values = soft_value_from_weights(found.log_z, found.kl, temperature)
        metrics = {"candidates": jnp.asarray(self.candidates, error.dtype), "beta": jnp.mean(candidates.beta)}
        metrics |= jax.tree.map(jnp.mean, found)._asdict()
        return Step(error, gradient, values, metrics, _variance(candidates))


def _variance(candidates: Candidates) -> Float[Array, " d"]:
    """Return the target policy's variance as told by the weighted candidates, averaged over the states."""
    total = jnp.sum(candidates.weights, axis=1, keepdims=True)
    weights = (candidates.weights / jnp.maximum(total, jnp.finfo(total.dtype).tiny))[..., None]
    mean = jnp.sum(weights * candidates.latents, axis=1, keepdims=True)
    squares = jnp.sum(weights * (candidates.latents - mean) ** 2, axis=1)
    return jnp.mean(squares / jnp.maximum(1 - jnp.sum(weights**2, axis=1), 1e-3), axis=0)
