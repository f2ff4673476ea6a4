"""A policy about a linear controller: a = −K s + L u, where u is the action of another policy.

log π(a|s) = log π_u(u|s) − log |det L|, u = L⁻¹ (a + K s), exact whatever the other policy's density is. While π_u is
N(0, I), the policy is the Gaussian controller N(−K s, L Lᵀ). What is learned is the other policy; K and L stay.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...flow import ActionSpace
from ...flow.policy import WithLogProb
from ...moments import Moments
from .protocol import Actor, ActorDefaults, Goal, Step


class FeedbackNetwork(eqx.Module):
    """The other policy's network beside the controller, see `FeedbackPolicy`."""

    inner: Any
    gain: Float[Array, "d n"]
    root: Float[Array, "d d"]


class FeedbackPolicy(eqx.Module):
    """The policy; its methods are those of `FlowPolicy`.

    Args:
        inner: policy of u, with a density.
        gain: K, shape (d, n).
        root: L, shape (d, d), lower triangular and positive on the diagonal.
    """

    inner: Any
    gain: Float[Array, "d n"]
    root: Float[Array, "d d"]

    @property
    def obs_units(self) -> Moments:
        """Moments by which the other policy normalises observations."""
        return self.inner.obs_units

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise that an action is made of."""
        return self.inner.noise_shape

    def with_solver(self, solver: Any) -> "FeedbackPolicy":
        """Return the same policy with another integrator, see `FlowPolicy.with_solver`."""
        return replace(self, inner=self.inner.with_solver(solver))

    def action(self, obs: Float[Array, " n"], inner: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return −K s + L u.

        Args:
            obs: observation s, shape (n,).
            inner: action u of the other policy, shape (d,).

        Returns:
            The action, shape (d,).
        """
        return self.root @ inner - self.gain @ obs

    def log_det(self) -> Float[Array, ""]:
        """Return log |det L|."""
        return jnp.sum(jnp.log(jnp.diagonal(self.root)))

    def sample(self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: Any = 1.0) -> Float[Array, " d"]:
        """Draw an action, see `Policy.sample`."""
        return self.action(obs, self.inner.sample(key, obs, noise_scale))

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> WithLogProb:
        """Draw it with its log-density, see `Policy.sample`."""
        return self._outer(obs, *self.inner.sample_and_log_prob(key, obs))

    def log_prob(self, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log π(a|s), see `DensityPolicy.log_prob`."""
        inner = jax.scipy.linalg.solve_triangular(self.root, action + self.gain @ obs, lower=True)
        return self.inner.log_prob(obs, inner) - self.log_det()

    def push(self, obs: Float[Array, " n"], noise: Float[Array, "..."]) -> Float[Array, " d"]:
        """Return the action that given noise becomes, see `NoisePolicy.push`."""
        return self.action(obs, self.inner.push(obs, noise))

    def push_and_log_prob(self, obs: Float[Array, " n"], noise: Float[Array, "..."]) -> WithLogProb:
        """Return it with its log-density, see `NoisePolicy.push`."""
        return self._outer(obs, *self.inner.push_and_log_prob(obs, noise))

    def _outer(self, obs: Float[Array, " n"], inner: Float[Array, " d"], log_prob: Float[Array, ""]) -> WithLogProb:
        return self.action(obs, inner), log_prob - self.log_det()


@dataclass(frozen=True)
class Feedback(ActorDefaults):
    """An actor whose policies stand about a linear controller, beside which another one learns.

    Attributes:
        actor: the other actor, whose policies have a density.
    """

    actor: Actor = field(kw_only=True)

    @classmethod
    def of(cls, actor: Actor) -> "Feedback":
        """Return the actor about a controller that learns as another one does."""
        return cls(actor=actor, **{each.name: getattr(actor, each.name) for each in fields(ActorDefaults)})

    @property
    def name(self) -> str:
        """The other's algorithm."""
        return self.actor.name

    @property
    def has_density(self) -> bool:
        """Whether the other's policies have a density, and so these."""
        return self.actor.has_density

    @property
    def values_are_soft(self) -> bool:
        """Whether the other's values are soft ones, and so these."""
        return self.actor.values_are_soft

    @property
    def acting_solver(self) -> Any:
        """The solver of the trained policy, if the other actor has one."""
        return getattr(self.actor, "acting_solver", None)

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> FeedbackNetwork:
        """Make the other's network beside a controller that does nothing, see `Actor.network`."""
        inner = self.actor.network(obs_size, action_size, key=key)
        return FeedbackNetwork(inner, jnp.zeros((action_size, obs_size)), jnp.eye(action_size))

    def policy(
        self, network: FeedbackNetwork, action_space: ActionSpace, obs_units: Moments, temperature: Float[Array, ""]
    ) -> FeedbackPolicy:
        """Return the policy about the controller, see `Actor.policy`."""
        inner = self.actor.policy(network.inner, action_space, obs_units, temperature)
        return FeedbackPolicy(inner, network.gain, network.root)

    def loss_and_gradient(
        self, policy: FeedbackPolicy, network: FeedbackNetwork, key: PRNGKeyArray, goal: Goal
    ) -> Step:
        """Improve the other policy on Q as a function of u, see `Actor.loss_and_gradient`."""
        seen = goal._replace(q_function=lambda obs, inner: goal.q_function(obs, policy.action(obs, inner)))
        step = self.actor.loss_and_gradient(policy.inner, network.inner, key, seen)
        still = jax.tree.map(jnp.zeros_like, network)
        values = step.values + goal.temperature * policy.log_det()  # the entropy of a is that of u and log |det L|
        return step._replace(gradient=replace(still, inner=step.gradient), values=values)
