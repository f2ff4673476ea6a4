"""Types that several parts share."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


class Transition(NamedTuple):
    """One step of experience, or a batch of them.

    `next_obs` is the true next observation, never that of a fresh episode. `terminated` ends the return;
    `truncated` ends only the recording, so the value of `next_obs` still counts.
    """

    obs: Float[Array, "*batch n"]
    action: Float[Array, "*batch d"]
    reward: Float[Array, "*batch"]
    next_obs: Float[Array, "*batch n"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
