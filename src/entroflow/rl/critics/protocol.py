"""What soft actor-critic asks of a critic: Q(s, a), and one step of policy evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

from ...moments import Moments

Metrics = dict[str, Float[Array, ""]]


class Experience(NamedTuple):
    """What one step of policy evaluation learns from: b transitions, and how a target follows from Q(s', a').

    Attributes:
        obs: states s, shape (b, n).
        action: actions a, shape (b, d).
        next_obs: states s', shape (b, n).
        next_action: actions a' of the policy at s', shape (b, d); None where V(s') needs none.
        target: Q(s', a') ↦ y = r + γ (1 − terminated) (Q(s', a') − α log π(a'|s')), equation (1), element by element,
            shapes (b,) and (b,); where `next_action` is None it takes None. What it is given should carry no gradient.
        values: states, shape (b', n), and soft values of the policy at them, shape (b',), as policy improvement found
            them; None if there was none.
        obs_units: moments of observations from now on.
        step: number of updates before this one, shape ().
        updates: number of updates of a planned training; None if it has no planned end.
    """

    obs: Float[Array, "b n"]
    action: Float[Array, "b d"]
    next_obs: Float[Array, "b n"]
    next_action: Float[Array, "b d"] | None
    target: Callable[[Float[Array, " b"] | None], Float[Array, " b"]]
    values: tuple[Float[Array, "c n"], Float[Array, " c"]] | None
    obs_units: Moments
    step: Float[Array, ""]
    updates: int | None


@runtime_checkable
class Critic(Protocol):
    """A class of critics and the way they learn. Critics are settings: what is learned is in the critic's state.

    One of your own is any object with what is below that compares equal to itself, such as a frozen dataclass:
    `SACISFM("Pendulum-v1", critic=MyCritic())`. `examples/own_critic.py` is one.

    Attributes:
        learns_v: whether it learns V(s), too, so that targets need no actions; it is a `VCritic` then, and policy
            evaluation is given `Experience.values`.
    """

    @property
    def learns_v(self) -> bool: ...  # noqa: D102

    def init(self, keys: Key[Array, "2"], obs_units: Moments, action_size: int, updates: int | None) -> Any:
        """Make the state of a critic that has learned nothing.

        Args:
            keys: random keys of the initial parameters of Q, and of V where there is one.
            obs_units: moments of observations, at first; the mean's shape (n,) is an observation's.
            action_size: number of components d of an action.
            updates: number of updates of a planned training; None if it has no planned end.

        Returns:
            The state: networks, optimisers, whatever learning needs, as a tree of arrays.
        """
        ...

    def q(self, state: Any, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Q(s, a) for targets and for choosing actions.

        Args:
            state: the critic's state.
            obs: observation s, shape (n,).
            action: action a, shape (d,).

        Returns:
            The value in the units of the return, shape ().
        """
        ...

    def policy_q(self, state: Any, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return Q(s, a) for policy improvement, see `Critic.q`."""
        ...

    def update(self, state: Any, experience: Experience) -> tuple[Any, Metrics]:
        """Make one step of policy evaluation.

        Args:
            state: the critic's state.
            experience: what to learn from.

        Returns:
            The next state, and numbers to log, of shape ().
        """
        ...


@runtime_checkable
class VCritic(Critic, Protocol):
    """A critic that learns V(s), too."""

    def v(self, state: Any, obs: Float[Array, " n"]) -> Float[Array, ""]:
        """Return V(s), a soft value in the units of the return, shape (), see `Critic.q`."""
        ...
