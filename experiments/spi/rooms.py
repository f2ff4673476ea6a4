"""A finite world with a continuous action, small enough to be solved on a grid: five rooms in a circle.

In a room s the agent earns the room's comfort less the effort of its push a ∈ (−1, 1). A push to the right beyond a
threshold moves it to the next room, one to the left to the previous room, with the probabilities

    P(right) = S((a − threshold)/width),  P(left) = S((−a − threshold)/width),  S(z) = 1/(1 + e^{−z}),

and otherwise it stays. Where comfortable rooms lie on both sides the soft-optimal policy has two modes, or three where
staying is worth something, too. The exact answers are NumPy in float64 and need nothing but quadrature.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

GRID = 2000  # actions of the quadrature
Values = Float[np.ndarray, " s"]


class Weighted(NamedTuple):
    """A policy as a quadrature rule: E[f(s, a)] = Σ_k weights_ks f(s, actions_ks); all parts have shape (k, S)."""

    actions: Float[np.ndarray, "k s"]
    weights: Float[np.ndarray, "k s"]
    log_probs: Float[np.ndarray, "k s"]


@dataclass(frozen=True)
class Rooms:
    """The world. Arrays of actions have the rooms along their last axis, of length S, or 1 for the same in all rooms.

    Attributes:
        comfort: reward per step of each room, S numbers.
        effort: cost of the action, effort · a².
        threshold: push from which on leaving is likelier than staying, above 0.
        width: softness of that threshold.
        discount: γ in [0, 1).
    """

    comfort: tuple[float, ...] = (1.0, 0.7, 0.6, 0.98, 0.6)
    effort: float = 0.3
    threshold: float = 0.5
    width: float = 0.07
    discount: float = 0.8

    @property
    def size(self) -> int:
        """Number of rooms S."""
        return len(self.comfort)

    # --- the world, for NumPy and JAX alike -----------------------------------------------------------------------

    def reward(self, action: Any) -> Any:
        """Return r(s, a), (..., S) → (..., S)."""
        xp = action.__array_namespace__()
        comfort = xp.asarray(self.comfort, dtype=action.dtype).reshape((1,) * (action.ndim - 1) + (-1,))
        return comfort - self.effort * action**2

    def moves(self, action: Any) -> tuple[Any, Any]:
        """Return the probabilities of moving to the next room and to the previous one, each shaped as the action."""
        exp = action.__array_namespace__().exp
        right = 1 / (1 + exp((self.threshold - action) / self.width))
        return right, 1 / (1 + exp((self.threshold + action) / self.width))

    def q(self, values: Any, action: Any) -> Any:
        """Return Q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) V(s') for given values V, (S,) and (..., S) → (..., S)."""
        xp = action.__array_namespace__()
        right, left = self.moves(action)
        values = values.reshape((1,) * (action.ndim - 1) + (-1,))
        gain, loss = xp.roll(values, -1, axis=-1) - values, xp.roll(values, 1, axis=-1) - values
        return self.reward(action) + self.discount * (values + right * gain + left * loss)

    # --- exact answers --------------------------------------------------------------------------------------------

    def improved(self, values: Values, temperature: float, grid: int = GRID) -> Weighted:
        """Equation (4): the policy exp(Q/α)/Z for the Q that belongs to given values, by the midpoint rule.

        Args:
            values: V(s') of every room.
            temperature: entropy weight α > 0.
            grid: number of actions.

        Returns:
            The policy.
        """
        actions = np.linspace(-1, 1, grid, endpoint=False)[:, None] + 1 / grid
        log_probs = self.log_prob(values, temperature, actions)
        return Weighted(np.broadcast_to(actions, log_probs.shape), np.exp(log_probs) * 2 / grid, log_probs)

    def log_prob(self, values: Values, temperature: float, actions: Float[np.ndarray, "k _"]) -> Any:
        """Log-density of the same policy at any actions, (k, S) or (k, 1) → (k, S)."""
        return (self.q(values, actions) - self.log_partition(values, temperature)) / temperature

    def log_partition(self, values: Values, temperature: float, grid: int = GRID) -> Values:
        """Return α log Z(s) = α log ∫ exp(Q(s, a)/α) da, the soft maximum of Q."""
        q = self.q(values, np.linspace(-1, 1, grid, endpoint=False)[:, None] + 1 / grid)
        most = q.max(axis=0)
        return most + temperature * np.log(np.mean(np.exp((q - most) / temperature), axis=0) * 2)

    def evaluate(self, policy: Weighted, temperature: float, tolerance: float = 1e-12) -> Values:
        """Soft value of a policy: equation (1) iterated to its fixed point.

        What is iterated is (1) after the mean over the policy's own actions, V(s) = E[Q(s, a) − α log π(a|s)].

        Args:
            policy: the policy.
            temperature: entropy weight α > 0.
            tolerance: largest change at which the iteration ends.

        Returns:
            V(s) of every room, entropy at s included.
        """
        values = np.zeros(self.size)
        while True:
            soft_q = self.q(values, policy.actions) - temperature * policy.log_probs
            updated = np.sum(policy.weights * soft_q, axis=0)
            if np.abs(updated - values).max() <= tolerance:
                return updated
            values = updated

    def optimal(self, temperature: float, grid: int = GRID, tolerance: float = 1e-12) -> Values:
        """Soft-optimal value, by soft value iteration V ← α log ∫ exp(Q/α) da; no policy takes part.

        Args:
            temperature: entropy weight α > 0.
            grid: number of actions.
            tolerance: largest change at which the iteration ends.

        Returns:
            V*(s) of every room.
        """
        values = np.zeros(self.size)
        while np.abs((updated := self.log_partition(values, temperature, grid)) - values).max() > tolerance:
            values = updated
        return values
