"""Benchmark problems of control whose soft optimum is no Gaussian: bounded inputs, and more than one good way to go.

    s' = move(s, a + disturbance, w),   w ~ N(0, I),   a clipped to its box,

in dimensionless units and small enough for `entroflow.exact` to solve on a grid. The parameters are arrays, so that a
disturbed problem is `equinox.tree_at` away, and a family of them a `vmap`. What the functions have in common:

Args:
    state: the state s, (n,).
    action: the action a, (d,).
    noise: standard normal w, (noise_size,); of `follow` noise_std times that.
    next_state: the state s', (n,).

Returns:
    The next state or the reward.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from entroflow.envs.functional import FunctionalEnv


class ControlEnv(FunctionalEnv):
    """What the problems share: a box of inputs, walls, Gaussian noise, starts s_0 ~ N(start, diag spread²).

    Args:
        bound: largest actions.
        low: walls, −∞ where there are none.
        high: walls.
        start: mean of the first state.
        spread: its standard deviations.
        noise_std: standard deviation of the noise.
        time_limit: length of an episode.
    """

    action_low: Float[Array, "d"]
    action_high: Float[Array, "d"]
    low: Float[Array, "n"]
    high: Float[Array, "n"]
    start: Float[Array, "n"]
    spread: Float[Array, "n"]
    noise_std: Float[Array, ""]
    disturbance: Float[Array, "d"]
    """What is added to every input: zero, unless somebody disturbs."""
    time_limit: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)
    noise_size: int = eqx.field(static=True)
    """Number of components of w."""

    def __init__(self, bound: list[float], low: list[float], high: list[float], start: list[float],
                 spread: list[float], noise_std: float, time_limit: int):  # fmt: skip
        self.action_high = _array(bound)
        self.action_low = -self.action_high
        self.low, self.high, self.start, self.spread = map(_array, (low, high, start, spread))
        self.noise_std, self.disturbance = _array(noise_std), 0 * self.action_high
        self.time_limit, self.obs_size, self.noise_size = time_limit, len(start), 1

    def initial(self, key: PRNGKeyArray) -> Float[Array, "n"]:
        """s_0, within the walls."""
        return jnp.clip(self.start + self.spread * jax.random.normal(key, self.start.shape), self.low, self.high)

    def state_of(self, observation: Float[Array, "m"]) -> Float[Array, "n"]:
        """The state that is seen as this observation."""
        return observation

    @abstractmethod
    def follow(
        self, state: Float[Array, "n"], action: Float[Array, "d"], noise: Float[Array, "w"]
    ) -> Float[Array, "n"]:
        """The next state where there are no walls, see `move`."""

    def clipped(self, action: Float[Array, "d"]) -> Float[Array, "d"]:
        """The action within its box, which moves and costs."""
        return jnp.clip(action, self.action_low, self.action_high)

    def move(self, state: Float[Array, "n"], action: Float[Array, "d"], noise: Float[Array, "w"]) -> Float[Array, "n"]:
        """The next state for a given noise."""
        action = self.clipped(action) + self.disturbance
        return jnp.clip(self.follow(state, action, self.noise_std * noise), self.low, self.high)

    def transition(self, key: PRNGKeyArray, state: Float[Array, "n"], action: Float[Array, "d"]) -> Float[Array, "n"]:
        """The next state, see `FunctionalEnv.transition`."""
        return self.move(state, action, jax.random.normal(key, (self.noise_size,)))


class DoubleWell(ControlEnv):
    """A particle on the top between two wells, of which either will do; at x = 0 the best is left or right, not ahead.

    x' = x + dt (x − x³) + a/2 + w, in [−2, 2],   |a| ≤ 2,   cost (x² − 1)² + a²/2 per step.
    """

    dt: Float[Array, ""]

    def __init__(self):
        super().__init__([2.0], [-2.0], [2.0], [0.0], [1.0], 0.1, 20)
        self.dt = _array(0.1)

    def follow(
        self, state: Float[Array, "n"], action: Float[Array, "d"], noise: Float[Array, "w"]
    ) -> Float[Array, "n"]:
        """See `ControlEnv.follow`."""
        return state + self.dt * (state - state**3) + action / 2 + noise

    def reward(
        self, state: Float[Array, "n"], action: Float[Array, "d"], next_state: Float[Array, "n"]
    ) -> Float[Array, ""]:
        """Minus the cost, see `FunctionalEnv.reward`."""
        return -((state[0] ** 2 - 1) ** 2 + jnp.sum(self.clipped(action) ** 2) / 2)


class SwingUp(ControlEnv):
    """A pendulum whose torque is too weak to lift it at once: from rest below, it swings to one side first.

    ω' = ω + dt (sin θ + a − ω/20) + w,  θ' = θ + dt ω',   θ = 0 upright, |a| ≤ 1/2, |ω| ≤ 4;
    cost dt (1 − cos θ + ω²/10 + a²/10) per step; seen are cos θ, sin θ and ω.
    """

    dt: Float[Array, ""]
    gravity: Float[Array, ""]

    def __init__(self):
        super().__init__([0.5], [-jnp.inf, -4.0], [jnp.inf, 4.0], [jnp.pi, 0.0], [2.0, 1.0], 0.05, 40)
        self.dt, self.gravity, self.obs_size = _array(0.25), _array(1.0), 3

    def observation(self, state: Float[Array, "n"]) -> Float[Array, "3"]:
        """Cos θ, sin θ, ω."""
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    def state_of(self, observation: Float[Array, "3"]) -> Float[Array, "2"]:
        """The state with θ from −π to π."""
        return jnp.stack([jnp.arctan2(observation[1], observation[0]), observation[2]])

    def follow(
        self, state: Float[Array, "n"], action: Float[Array, "d"], noise: Float[Array, "w"]
    ) -> Float[Array, "n"]:
        """See `ControlEnv.follow`; the speed has its bound before it moves the angle."""
        angle, speed = state
        torque = self.gravity * jnp.sin(angle) + action[0] - speed / 20
        speed = jnp.clip(speed + self.dt * torque + noise[0], self.low[1], self.high[1])
        return jnp.stack([angle + self.dt * speed, speed])

    def reward(
        self, state: Float[Array, "n"], action: Float[Array, "d"], next_state: Float[Array, "n"]
    ) -> Float[Array, ""]:
        """Minus the cost, see `FunctionalEnv.reward`."""
        angle, speed = state
        return -self.dt * (1 - jnp.cos(angle) + speed**2 / 10 + jnp.sum(self.clipped(action) ** 2) / 10)


class DeadBand(ControlEnv):
    """A mass moved by a valve that small inputs do not open: the best is to do nothing, or to push beyond the band.

    v' = v + dt (a less ±band, 0 within it) + w,  x' = x + dt v',   |a| ≤ 2, |x| ≤ 3, |v| ≤ 3;
    cost dt (x² + v²/4 + a²/2) per step.
    """

    dt: Float[Array, ""]
    band: Float[Array, ""]

    def __init__(self):
        super().__init__([2.0], [-3.0, -3.0], [3.0, 3.0], [0.0, 0.0], [1.0, 0.5], 0.1, 20)
        self.dt, self.band = _array(0.4), _array(1.0)

    def follow(
        self, state: Float[Array, "n"], action: Float[Array, "d"], noise: Float[Array, "w"]
    ) -> Float[Array, "n"]:
        """See `ControlEnv.follow`."""
        force = action[0] - jnp.clip(action[0], -self.band, self.band)
        speed = jnp.clip(state[1] + self.dt * force + noise[0], self.low[1], self.high[1])
        return jnp.stack([state[0] + self.dt * speed, speed])

    def reward(
        self, state: Float[Array, "n"], action: Float[Array, "d"], next_state: Float[Array, "n"]
    ) -> Float[Array, ""]:
        """Minus the cost, see `FunctionalEnv.reward`."""
        return -self.dt * (state[0] ** 2 + state[1] ** 2 / 4 + jnp.sum(self.clipped(action) ** 2) / 2)


def _array(value: float | list[float]) -> Array:
    """A parameter in single precision."""
    return jnp.asarray(value, jnp.float32)
