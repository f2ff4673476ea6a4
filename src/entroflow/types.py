"""Types that several parts share."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


class Transition(NamedTuple):
    """One step of experience, or a batch of them.

    Attributes:
        obs: observation s.
        action: action a.
        reward: r(s, a).
        next_obs: the true next observation, never that of a fresh episode.
        terminated: whether the return ends here.
        truncated: whether only the recording ends here, so that the value of `next_obs` still counts.
    """

    obs: Float[Array, "*batch n"]
    action: Float[Array, "*batch d"]
    reward: Float[Array, "*batch"]
    next_obs: Float[Array, "*batch n"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
