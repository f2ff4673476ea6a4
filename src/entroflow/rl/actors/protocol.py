"""What soft actor-critic asks of an actor: a policy, and the gradient of one step of policy improvement."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...flow import ActionSpace
from ...moments import Moments

QFunction = Callable[[Array, Array], Array]
Metrics = dict[str, Float[Array, ""]]


@runtime_checkable
class Policy(Protocol):
    """A policy with a density, for one state and one action: `FlowPolicy`, `GaussianPolicy`, or one of your own."""

    @property
    def action_space(self) -> ActionSpace:
        """The map from latents to actions."""
        ...

    def sample(self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: Any = 1.0) -> Float[Array, " d"]:
        """Draw an action, with its noise scaled; 1 is the policy, shape (d,)."""
        ...

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Draw an action with log π(a|s), shapes (d,) and ()."""
        ...


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
    """A class of policies and its improvement. Actors are settings: what is learned is in the network."""

    @property
    def rate(self) -> float:
        """Learning rate of the network."""
        ...

    @property
    def warmup(self) -> float:
        """Fraction of a planned training over which the rate rises to its peak."""
        ...

    @property
    def average(self) -> float:
        """Fraction of the updates so far over which the parameters that act in the end are averaged."""
        ...

    @property
    def states(self) -> int:
        """Number of states b of one step."""
        ...

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> Any:
        """Make the policy's network."""
        ...

    def policy(
        self, network: Any, action_space: ActionSpace, obs_units: Moments, temperature: Float[Array, ""]
    ) -> Policy:
        """Return the policy that a network is; of the temperature α only exploration may depend."""
        ...

    def improve(
        self,
        policy: Any,
        network: Any,
        key: PRNGKeyArray,
        obs: Float[Array, "b n"],
        q_function: QFunction,
        temperature: Float[Array, ""],
        ess: Float[Array, ""],
    ) -> Step:
        """Find the gradient of one step toward exp(Q/α)/Z at b states; `ess` is the running average of ESS/N."""
        ...
