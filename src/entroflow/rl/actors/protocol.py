"""What soft actor-critic asks of an actor: a policy, and the gradient of one step of policy improvement."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...fields import Count, NonNegative, Positive, Share, check_fields
from ...flow import ActionSpace
from ...flow.policy import WithLogProb
from ...isfm import QFunction
from ...moments import Moments
from ..soft_bellman import pathwise_values

Metrics = dict[str, Float[Array, ""]]


@runtime_checkable
class Policy(Protocol):
    """A policy for one state and one action; `vmap` outside.

    To be exported it also says of what noise its actions are made: `noise_shape`, `push` and `obs_units`, as
    `GaussianPolicy` does.
    """

    def sample(self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: Any = 1.0) -> Float[Array, " d"]:
        """Draw an action.

        Args:
            key: random key.
            obs: observation s, shape (n,).
            noise_scale: what the policy's noise is multiplied with; 1 is the policy.

        Returns:
            The action a, shape (d,).
        """
        ...


@runtime_checkable
class DensityPolicy(Policy, Protocol):
    """A policy whose density is known: `FlowPolicy`, `GaussianPolicy`, or one of your own."""

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> WithLogProb:
        """Draw the action of `sample` with log π(a|s), shapes (d,) and (), see `Policy.sample`."""
        ...

    def log_prob(self, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log π(a|s) of a given action.

        Args:
            obs: observation s, shape (n,).
            action: action a, shape (d,).

        Returns:
            The log-density, shape ().
        """
        ...


@runtime_checkable
class NoisePolicy(Policy, Protocol):
    """A policy that makes an action of noise that it is given, which is what can be exported."""

    @property
    def obs_units(self) -> Moments:
        """Moments by which observations are normalised, leaves of shape (n,)."""
        ...

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard normal noise that an action is made of."""
        ...

    def push(self, obs: Float[Array, " n"], noise: Float[Array, "..."]) -> Float[Array, " d"]:
        """Return the action that given noise becomes.

        Args:
            obs: observation s, shape (n,).
            noise: standard normal noise, of the shape `noise_shape`.

        Returns:
            The action a, shape (d,).
        """
        ...


@runtime_checkable
class NoiseDensityPolicy(NoisePolicy, Protocol):
    """One that tells the action's density, too."""

    def push_and_log_prob(self, obs: Float[Array, " n"], noise: Float[Array, "..."]) -> WithLogProb:
        """Return that action with log π(a|s), shapes (d,) and (), see `NoisePolicy.push`."""
        ...


class Goal(NamedTuple):
    """What one step of policy improvement is to come closer to: exp(Q/α)/Z at b states.

    Attributes:
        obs: states to improve the policy at, shape (b, n).
        q_function: soft action value, (s, a) ↦ Q(s, a).
        temperature: entropy weight α, shape ().
    """

    obs: Float[Array, "b n"]
    q_function: QFunction
    temperature: Float[Array, ""]


class Step(NamedTuple):
    """One step of policy improvement at a batch of b states.

    Attributes:
        loss: value of the loss, shape ().
        gradient: its gradient, a network in structure.
        values: estimates of the soft values of the policy before the step at these states, shape (b,).
        metrics: what to log, numbers of shape ().
        variance: variance of the improved policy's latents, where the actor knows it, shape (d,).
    """

    loss: Float[Array, ""]
    gradient: PyTree
    values: Float[Array, " b"]
    metrics: Metrics
    variance: Float[Array, " d"] | None = None


@runtime_checkable
class Actor(Protocol):
    """A class of policies and its improvement. Actors are settings: what is learned is in the network.

    One of your own is any object with what is below that compares equal to itself, such as a frozen dataclass:
    `SAC("Pendulum-v1", actor=MyActor())`. Made from `ActorDefaults`, it need not say more than `network` and
    `policy`. `examples/own_actor.py` is one.

    Attributes:
        name: name of the algorithm that it makes of soft actor-critic.
        has_density: whether its policies are `DensityPolicy`. If not, targets count no entropy, and a temperature that
            is steered follows `policy.exploration_entropy()`, the entropy in nats of the noise that the policy adds.
        values_are_soft: whether `Step.values` estimate the soft value of the policy, which a network V can learn from.
        rate: learning rate of the network; its peak in a planned training.
        warmup: fraction of a planned training over which the rate rises to its peak.
        average: fraction of the updates so far over which the parameters that act in the end are averaged; zero: none.
        states: number of states b of one step.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def has_density(self) -> bool: ...  # noqa: D102
    @property
    def values_are_soft(self) -> bool: ...  # noqa: D102
    @property
    def rate(self) -> float: ...  # noqa: D102
    @property
    def warmup(self) -> float: ...  # noqa: D102
    @property
    def average(self) -> float: ...  # noqa: D102
    @property
    def states(self) -> int: ...  # noqa: D102

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> Any:
        """Make the policy's network.

        Args:
            obs_size: number of components n of an observation.
            action_size: number of components d of an action.
            key: random key of the initial parameters.

        Returns:
            The network, a tree of arrays: whatever else it holds is static (`eqx.field(static=True)`).
        """
        ...

    def policy(self, network: Any, action_space: ActionSpace, obs_units: Moments, temperature: Float[Array, ""]) -> Any:
        """Return the policy that a network is.

        Args:
            network: the network.
            action_space: map from latents to actions.
            obs_units: moments by which observations are normalised.
            temperature: entropy weight α, on which exploration may depend, and nothing else.

        Returns:
            The `Policy`, or `DensityPolicy`.
        """
        ...

    def loss_and_gradient(self, policy: Any, network: Any, key: PRNGKeyArray, goal: Goal) -> Step:
        """Find loss and gradient of one step toward exp(Q/α)/Z.

        Args:
            policy: current policy.
            network: its network, with respect to which the gradient is.
            key: random key.
            goal: where to.

        Returns:
            The step.
        """
        ...


@dataclass(frozen=True)
class ActorDefaults:
    """What an actor is unless it says otherwise: inherit from it, and say what differs.

    It is improved along the gradient of Q, which asks for a policy with a density that is a dataclass with a field
    `network`, and whose actions carry gradients to it.

    Attributes:
        states: states per policy update.
        rate: learning rate; its peak in a planned training.
        warmup: fraction of a planned training over which the rate rises; long, so that the policy does not follow
            untrained critics.
        average: fraction of the updates so far over which the acting policy's parameters are averaged; zero: none.
        rest: fraction of a planned training in which the policy stays as it began, while critics learn its worth.

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    states: Count = 256
    rate: Positive = 3e-4
    warmup: Share = 0.1
    average: NonNegative = 0.0
    rest: Share = 0.0

    def __post_init__(self):
        check_fields(self)

    @property
    def name(self) -> str:
        """The algorithm's name: the class's."""
        return type(self).__name__

    @property
    def has_density(self) -> bool:
        """Whether the policy's density is known."""
        return True

    @property
    def values_are_soft(self) -> bool:
        """Whether `Step.values` estimate the soft value of the policy."""
        return True

    def loss_and_gradient(self, policy: Any, network: Any, key: PRNGKeyArray, goal: Goal) -> Step:
        """Differentiate −E[Q(s, a) − α log π(a|s)] through an action per state, see `Actor.loss_and_gradient`."""

        def loss(network: Any) -> tuple[Float[Array, ""], Float[Array, " b"]]:
            draw = replace(policy, network=network).sample_and_log_prob
            values = pathwise_values(draw, key, goal.obs, goal.q_function, goal.temperature)
            return -jnp.mean(values), values

        (error, values), gradient = jax.value_and_grad(loss, has_aux=True)(network)
        return Step(error, gradient, values, {})
