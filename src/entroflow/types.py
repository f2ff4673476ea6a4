"""Types that several parts share."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


class Transition(NamedTuple):
    """One step of experience, or a batch of them."""

    obs: Float[Array, "*batch n"]
    """Observation s."""
    action: Float[Array, "*batch d"]
    """Action a."""
    reward: Float[Array, "*batch"]
    """r(s, a)."""
    next_obs: Float[Array, "*batch n"]
    """The true next observation, never that of a fresh episode."""
    terminated: Bool[Array, "*batch"]
    """Whether the return ends here."""
    truncated: Bool[Array, "*batch"]
    """Whether only the recording ends here, so that the value of `next_obs` still counts."""
