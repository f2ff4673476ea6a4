"""MuJoCo's classic tasks in MJX, with Gymnasium's own models, numbers and rules of version 5.

Numbers come from the installed Gymnasium: the model, and weights and ranges from the defaults of its class. What MJX
does otherwise: single precision, contacts that are always there (inactive ones push with zero force), and for
Humanoid, whose model asks for PGS, the solver Newton, which minimises the same cost.
"""

import contextlib
import importlib
import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from entroflow import checks
from entroflow.envs.functional import FunctionalEnv

REMEDY = f"run: {checks.install('mjx')}"


class Rules(NamedTuple):
    """What tells the tasks apart beside Gymnasium's numbers.

    Attributes:
        hidden: leading components of the position that are not observed.
        fastest: bound on observed velocities.
        normal: whether velocities begin normal rather than uniform.
        terminates: whether an unhealthy state ends the episode.
        watched: component of the state from which on all must be in a range; None: none must.
        closed: whether the ends of the range of heights belong to it.
    """

    hidden: int = 1
    fastest: float = np.inf
    normal: bool = False
    terminates: bool = True
    watched: int | None = None
    closed: bool = False


RULES = {
    "HalfCheetah-v5": Rules(normal=True, terminates=False),
    "Hopper-v5": Rules(fastest=10.0, watched=2),
    "Walker2d-v5": Rules(fastest=10.0),
    "Ant-v5": Rules(hidden=2, normal=True, watched=0, closed=True),
    "Humanoid-v5": Rules(hidden=2),
}


class MJXState(NamedTuple):
    """What a state is: what the simulator needs, and what Gymnasium remembers from the last substep."""

    qpos: Float[Array, "*batch nq"]
    """Positions."""
    qvel: Float[Array, "*batch nv"]
    """Velocities."""
    warmstart: Float[Array, "*batch nv"]
    """Accelerations, where the solver of contacts begins."""
    place: Float[Array, "*batch"]
    """The x by which progress is measured."""
    more: Float[Array, "*batch m"]
    """What is observed beside positions and velocities, such as forces of contacts."""
    contact: Float[Array, "*batch"]
    """What the forces of contacts cost."""


class MJXEnv(FunctionalEnv):
    """One of `RULES`; `make` makes it.

    Attributes:
        numbers: the defaults of Gymnasium's class: weights, ranges, frame_skip.
    """

    model: Any
    qpos: Float[Array, "nq"]
    qvel: Float[Array, "nv"]
    action_low: Float[Array, "d"]
    action_high: Float[Array, "d"]
    name: str = eqx.field(static=True)
    numbers: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    time_limit: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)

    def __init__(self, name: str, mjx: Any):
        env: Any = gymnasium.make(name)
        self.name, self.time_limit, env = name, env.spec.max_episode_steps, env.unwrapped
        defaults = {part.name: part.default for part in inspect.signature(type(env)).parameters.values()}
        self.numbers = tuple((key, value) for key, value in defaults.items() if isinstance(value, int | float | tuple))
        env.model.opt.solver = importlib.import_module("mujoco").mjtSolver.mjSOL_NEWTON
        self.model = mjx.put_model(env.model, impl="jax")
        self.qpos, self.qvel = jnp.asarray(env.init_qpos, jnp.float32), jnp.asarray(env.init_qvel, jnp.float32)
        self.action_low, self.action_high = jnp.asarray(env.action_space.low), jnp.asarray(env.action_space.high)
        (self.obs_size,) = env.observation_space.shape

    @property
    def rules(self) -> Rules:
        """What tells this task from the others."""
        return RULES[self.name]

    def number(self, name: str, otherwise: Any = 0.0) -> Any:
        """Return a number, or range, that Gymnasium's class has by default, or something else where it has none."""
        return dict(self.numbers).get(name, otherwise)

    def initial(self, key: PRNGKeyArray) -> MJXState:
        """Near the model's own initial state."""
        position_key, velocity_key = jax.random.split(key)
        scale, size = self.number("reset_noise_scale"), self.qvel.shape
        qpos = self.qpos + jax.random.uniform(position_key, self.qpos.shape, jnp.float32, -scale, scale)
        if self.rules.normal:
            qvel = self.qvel + scale * jax.random.normal(velocity_key, size, jnp.float32)
        else:
            qvel = self.qvel + jax.random.uniform(velocity_key, size, jnp.float32, -scale, scale)
        data, mjx = self._data(qpos, qvel), _mjx()
        if self.name == "Humanoid-v5":
            with _lenient():
                data = mjx.com_vel(self.model, mjx.com_pos(self.model, mjx.kinematics(self.model, data)))
        elif self.name == "Ant-v5":
            data = data.replace(xpos=data.xpos.at[1].set(qpos[:3]))
        return self._state(data)

    def observation(self, state: MJXState) -> Float[Array, "n"]:
        """Positions but the hidden ones, velocities, and what is observed beside them."""
        fastest = self.rules.fastest
        return jnp.concatenate([state.qpos[self.rules.hidden :], jnp.clip(state.qvel, -fastest, fastest), state.more])

    def transition(self, key: PRNGKeyArray, state: MJXState, action: Float[Array, "d"]) -> MJXState:
        """The next state after `frame_skip` steps of the simulator, see `FunctionalEnv.transition`."""
        mjx, data = _mjx(), self._data(state.qpos, state.qvel).replace(ctrl=action, qacc_warmstart=state.warmstart)
        with _lenient():
            step = lambda _, data: mjx.step(self.model, data)  # noqa: E731
            data = jax.lax.fori_loop(0, self.number("frame_skip"), step, data)
            if self.rules.hidden == 2:
                data = mjx.rne_postconstraint(self.model, data)
        return self._state(data)

    def reward(self, state: MJXState, action: Float[Array, "d"], next_state: MJXState) -> Float[Array, ""]:
        """Progress and health, less the cost of action and contacts, see `FunctionalEnv.reward`."""
        seconds = self.model.opt.timestep * self.number("frame_skip")
        progress = self.number("forward_reward_weight") * (next_state.place - state.place) / seconds
        healthy = jnp.where(self.healthy(next_state), float(self.number("healthy_reward")), 0.0)
        return progress + healthy - self.number("ctrl_cost_weight") * jnp.sum(action**2) - next_state.contact

    def terminal(self, state: MJXState) -> Bool[Array, ""]:
        """Whether the body has fallen."""
        return ~self.healthy(state) if self.rules.terminates else jnp.bool_(False)

    def healthy(self, state: MJXState) -> Bool[Array, ""]:
        """Whether height, angle and the rest are in their ranges."""
        height, everything = state.qpos[self.rules.hidden], jnp.concatenate([state.qpos, state.qvel])
        low, high = self.number("healthy_z_range", (-np.inf, np.inf))
        found = (low <= height) & (height <= high) if self.rules.closed else (low < height) & (height < high)
        if "healthy_angle_range" in dict(self.numbers):
            low, high = self.number("healthy_angle_range")
            found &= (low < state.qpos[2]) & (state.qpos[2] < high)
        if self.rules.watched is not None:
            low, high = self.number("healthy_state_range", (-np.inf, np.inf))
            found &= jnp.all((low < everything[self.rules.watched :]) & (everything[self.rules.watched :] < high))
        return found

    def _data(self, qpos: Float[Array, "nq"], qvel: Float[Array, "nv"]) -> Any:
        with _lenient():
            return _mjx().make_data(self.model).replace(qpos=qpos, qvel=qvel)

    def _state(self, data: Any) -> MJXState:
        """Return what is kept of MJX's data."""
        place, more, cost = data.qpos[0], jnp.zeros(0, data.qpos.dtype), jnp.zeros((), data.qpos.dtype)
        forces, weight = data._impl.cfrc_ext, self.number("contact_cost_weight")
        if self.name == "Ant-v5":
            forces = jnp.clip(forces, *self.number("contact_force_range"))
            place, more, cost = data.xpos[1, 0], forces[1:].reshape(-1), weight * jnp.sum(forces**2)
        elif self.name == "Humanoid-v5":
            masses = self.model.body_mass
            place = masses @ data.xipos[:, 0] / jnp.sum(masses)
            parts = data._impl.cinert[1:], data.cvel[1:], data.qfrc_actuator[6:], forces[1:]
            more = jnp.concatenate([part.reshape(-1) for part in parts])
            cost = jnp.clip(weight * jnp.sum(forces**2), *self.number("contact_cost_range"))
        return MJXState(data.qpos, data.qvel, data.qacc_warmstart, place, more, cost)


def make(name: str) -> MJXEnv:
    """Make one of the tasks by its id in Gymnasium.

    Raises:
        ValueError: if a package is missing, or MuJoCo and MJX are not of one version.
    """
    found = {}
    for package in ("mujoco", "mujoco-mjx"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            given = f"{name} in MJX, without the package {package}"
            raise checks.error("env", given, "a package that is installed", REMEDY) from None
    if len(set(found.values())) > 1:
        given = " and ".join(f"{package} {number}" for package, number in found.items())
        raise checks.error("env", given, "one version of both, or their models disagree", REMEDY)
    return MJXEnv(name, _mjx())


def _mjx() -> Any:
    """Import MJX, without what it prints of other back ends."""
    with contextlib.redirect_stdout(None):
        return importlib.import_module("mujoco.mjx")


@contextlib.contextmanager
def _lenient() -> Any:
    """Let MJX promote types and ranks as it likes, whatever JAX is set to."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
