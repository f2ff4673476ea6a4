"""How many floating-point operations the programs need: two for every multiply–add of their matrix products.

XLA's own count cannot be used for what loops, for it counts the body of a loop once. A test compares the two where
nothing loops. Elementwise functions, random numbers and optimisers are not counted.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from entroflow.flow import RungeKutta
from entroflow.flow.integrate import TABLEAUS
from entroflow.flow.velocity import TIME_FREQUENCIES, TIME_WIDTH
from entroflow.rl.actors.flow import MIDPOINT_4
from entroflow.rl.sac import Config

DRAWN_AND_TRAINED = 3  # a gradient costs two passes beside the first


def perceptron(*sizes: int) -> int:
    """Return the operations of one pass through dense layers of these sizes."""
    return 2 * sum(i * o for i, o in itertools.pairwise(sizes))


@dataclass(frozen=True)
class Flow:
    """The operations of a flow policy.

    Attributes:
        obs: number of components n of an observation.
        action: number of components d of an action.
        width: width h of the velocity network.
        depth: layers that read the state.
        state_width: width of these; h if zero.
        solver: the integrator.
    """

    obs: int
    action: int
    width: int = 64
    depth: int = 2
    state_width: int = 0
    solver: RungeKutta = MIDPOINT_4

    @property
    def velocity(self) -> int:
        """Of the velocity at one point, conditioning aside."""
        return perceptron(self.action, self.width, self.width, self.action)

    @property
    def at_state(self) -> int:
        """Of the conditioning on one state."""
        return perceptron(self.obs, *[self.state_width or self.width] * self.depth, self._pairs)

    @property
    def at_time(self) -> int:
        """Of the conditioning on one flow time."""
        return perceptron(2 * TIME_FREQUENCIES + 1, TIME_WIDTH, self._pairs)

    def draw(self, states: int, actions: int, *, density: bool = True) -> int:
        """Of drawing a number of actions at each of a number of states, with log-densities or without."""
        tableau, steps = TABLEAUS[self.solver.method], self.solver.steps
        rated = sum(1 for b in tableau.b if b) if density else 0
        each = len(tableau.b) * self.velocity + rated * 2 * self.width**2
        matrix = 2 * self.width**2 * self.action if density else 0
        return steps * (states * actions * each + len(tableau.b) * self.at_time) + states * self.at_state + matrix

    def improve(
        self, states: int, candidates: int, pairs: int, critics: int, critic_width: int, *, pathwise: bool
    ) -> int:
        """Of one improvement step: candidates with densities, their Q, and the gradients of both terms of the loss."""
        points = states * candidates
        value = critics * perceptron(self.obs + self.action, critic_width, critic_width, 1)
        regression = points * pairs * self.velocity + states * self.at_state + candidates * pairs * self.at_time
        improved = self.draw(states, candidates) + points * value + DRAWN_AND_TRAINED * regression
        if not pathwise:
            return improved
        once = self.draw(states, 1, density=False)
        calls = len(TABLEAUS[self.solver.method].b) * self.solver.steps * states * self.velocity
        # The Jacobian's d tangents pass through the calls of the network, not through its conditioning; for the
        # gradient the calls are evaluated once more.
        through = (1 + self.action) * calls
        return improved + DRAWN_AND_TRAINED * (once - calls + through + states * value) + through

    @property
    def _pairs(self) -> int:
        return 2 * (4 * self.width + self.action)


def improvement(config: Config, obs: int, action: int) -> int:
    """Return the operations of one improvement step of SAC-ISFM."""
    actor: Any = config.actor
    flow = Flow(obs, action, actor.width, actor.depth, actor.state_width, actor.solver)
    critic: Any = config.critic
    sizes = actor.states, actor.candidates, actor.pairs, critic.members, critic.width
    return flow.improve(*sizes, pathwise=actor.pathwise > 0)
