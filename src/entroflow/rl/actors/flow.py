"""The flow policy, improved by importance sampling flow matching: with it soft actor-critic is SAC-ISFM.

Where α is small against the spread of Q, a few candidates in a space of many dimensions tell little of where exp(Q/α)/Z
lies, and steps are tempered to a small β. The gradient of Q at one action tells d numbers more. The pathwise term adds
it: for the policy π_β ∝ π_k^(1−β) exp(βQ/α) that a shortened step aims at,

    ∇ KL(π ‖ π_β) = β ∇ KL(π ‖ exp(Q/α)/Z) = (β/α) ∇ E[α log π(a|s) − Q(s, a)]        at π = π_k,

through the solver's steps and the Jacobian of their map: through the integral of the divergence it would learn to raise
the solver's error. Where the flow can be exp(Q/α)/Z, that is the minimum of both terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import error
from ...flow import ActionSpace, FlowPolicy, RungeKutta, Solver, VelocityNetwork
from ...isfm import (
    NORMALISATIONS,
    Candidates,
    CurrentPolicy,
    PopulationProposal,
    Proposal,
    RegressionTarget,
    Schedule,
    UniformProposal,
    at_size,
    defensive,
    improvement,
)
from ...moments import Moments
from ..soft_bellman import soft_value_from_weights
from .pathwise import pathwise_values
from .protocol import QFunction, Step

MIDPOINT_4 = RungeKutta("midpoint", 4)
DEFENSIVE_SHARE = 0.1  # of uniform candidates in the defensive mixture
ProposalName = Literal["policy", "population", "defensive"]


@dataclass(frozen=True)
class Flow:
    """Settings of the flow policy and of its improvement.

    Attributes:
        width: width of the velocity network.
        depth: layers of the velocity network that read the state.
        state_width: width of these, which cost once per state.
        solver: integrator of the policy's ODE while training.
        states: states per policy update.
        candidates: candidates N per state, a number or a schedule such as `Adaptive()`.
        pairs: pairs (x_0, τ) per candidate.
        ess_floor: least ESS/N of the candidates' weights; below, the improvement step is shortened (tempering). Zero:
            never.
        target: what the velocity is regressed on, "pair", "posterior", "stein" or "difference" (see `isfm_loss`).
        proposal: where candidates come from: the current "policy", the "population" moved up the critic, or the
            "defensive" mixture of the policy and a tenth of actions uniform in the box.
        pathwise: weight of the pathwise term beside the ISFM loss; zero: none.
        normalise: normalisation of the weights, "self", "state" or "raw".
        rate: learning rate; its peak in a planned training.
        warmup: fraction of a planned training over which the rate rises; long, so that the policy does not follow
            untrained critics.
        average: fraction of the updates so far over which the acting policy's parameters are averaged; zero: none.
    """

    width: int = 64
    depth: int = 2
    state_width: int = 256
    solver: Solver = MIDPOINT_4
    states: int = 32
    candidates: Schedule = 8
    pairs: int = 1
    ess_floor: float = 0.3
    target: RegressionTarget = "posterior"
    pathwise: float = 0.3
    proposal: ProposalName = "policy"
    normalise: Literal["self", "state", "raw"] = "self"
    rate: float = 1e-3
    warmup: float = 0.1
    average: float = 0.0

    def __post_init__(self):
        if self.pathwise > 0 and not isinstance(self.solver, RungeKutta):
            remedy = "use RungeKutta, or pathwise=0"
            raise error("pathwise", f"{self.pathwise} with an adaptive solver", "a solver of fixed steps", remedy)

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> VelocityNetwork:
        """Make the velocity network."""
        sizes = {"width": self.width, "depth": self.depth, "state_width": self.state_width}
        return VelocityNetwork(obs_size, action_size, **sizes, key=key)

    def policy(
        self,
        network: VelocityNetwork,
        action_space: ActionSpace,
        obs_units: Moments,
        temperature: Float[Array, ""],
    ) -> FlowPolicy:
        """Return the flow policy of a velocity network."""
        del temperature
        units = {"obs_mean": obs_units.mean, "obs_scale": obs_units.scale, "obs_limit": obs_units.limit}
        return FlowPolicy(network, action_space, solver=self.solver, **units)

    def improve(
        self,
        policy: FlowPolicy,
        network: VelocityNetwork,
        key: PRNGKeyArray,
        obs: Float[Array, "b n"],
        q_function: QFunction,
        temperature: Float[Array, ""],
        ess: Float[Array, ""],
    ) -> Step:
        """Find the gradient of the ISFM loss, equations (7) and (9), and of the pathwise term.

        Args:
            policy: current policy π_k.
            network: its velocity network.
            key: random key.
            obs: states to improve the policy at, shape (b, n).
            q_function: soft action value, (s, a) ↦ Q(s, a).
            temperature: entropy weight α.
            ess: running average of ESS/N, by which a schedule chooses the number of candidates.

        Returns:
            The step. Its soft values are right for candidates of the current policy only.
        """

        def improve(n: int) -> Step:
            candidates, loss = improvement(
                policy,
                key,
                obs,
                q_function,
                temperature,
                candidates=n,
                pairs=self.pairs,
                propose=self._propose(q_function, temperature),
                normalise=NORMALISATIONS[self.normalise],
                ess_floor=self.ess_floor if self.ess_floor > 0 else None,
                target=self.target,
            )

            def objective(network: VelocityNetwork) -> Float[Array, ""]:
                if self.pathwise == 0:
                    return loss(network)
                draw = replace(policy, velocity=network).sample_and_solver_log_prob
                draw_key = jax.random.fold_in(key, 3)  # after the three keys that `improvement` splits off
                values = pathwise_values(draw, draw_key, obs, q_function, temperature)
                return loss(network) - self.pathwise * jnp.mean(candidates.beta) / temperature * jnp.mean(values)

            error, gradient = jax.value_and_grad(objective)(network)
            found = candidates.diagnostics
            values = soft_value_from_weights(found.log_z, found.kl, temperature)
            metrics = {"beta": jnp.mean(candidates.beta)} | jax.tree.map(jnp.mean, found)._asdict()
            return Step(error, gradient, values, metrics, _variance(candidates))

        step, size = at_size(self.candidates, ess, improve)
        return step._replace(metrics={"candidates": size} | step.metrics)

    def _propose(self, q_function: QFunction, temperature: Float[Array, ""]) -> Callable[[FlowPolicy], Proposal]:
        """Return what makes the proposal from the current policy."""
        if self.proposal == "policy":
            return CurrentPolicy
        if self.proposal == "population":
            return lambda policy: PopulationProposal(policy, q_function, temperature)
        return lambda policy: defensive(policy, UniformProposal(policy.action_space), DEFENSIVE_SHARE)


def _variance(candidates: Candidates) -> Float[Array, " d"]:
    """Return the target policy's variance as told by the weighted candidates, averaged over the states."""
    weights = candidates.weights[..., None]
    mean = jnp.sum(weights * candidates.latents, axis=1, keepdims=True)
    squares = jnp.sum(weights * (candidates.latents - mean) ** 2, axis=1)
    return jnp.mean(squares / jnp.maximum(1 - jnp.sum(weights**2, axis=1), 1e-3), axis=0)
