"""How the time of SAC-ISFM grows with its sizes, against the number of operations."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from entroflow.agents.settings import of_algorithm
from entroflow.commands.lqr.plan import settings as lqr_settings
from entroflow.envs import LQREnv
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.lqr import systems
from entroflow.rl import loop_jax, sac
from entroflow.rl.actors.flow import MIDPOINT_4

from .measure import Row, blocks_in_turns, matmul_rate, summary
from .operations import Flow, improvement

OBS, ACTION = 17, 6  # of HalfCheetah
STATES, EACH = 32, 16  # actions drawn where their dimension grows
ENVIRONMENTS, REMEMBERED = 2048, 8  # of LQR runs; steps of all environments in the replay
SIZES: dict[str, tuple[int, ...]] = {
    "action dimension": (1, 2, 4, 8, 16, 32, 64),
    "candidates": (1, 2, 4, 8, 16, 32, 64, 128),
    "ODE steps": (1, 2, 4, 8, 16, 32),
    "width": (64, 128, 256, 512, 1024),
    "states": (8, 16, 32, 64, 128, 256),
    "LQR runs": (1, 2, 4, 8, 16, 32, 64),
}


def measure(axis: str, rounds: int) -> Row:
    """Measure along one axis of `SIZES`, all else at the defaults.

    Args:
        axis: which.
        rounds: number of rounds over all sizes.

    Returns:
        The machine's speed at large matrix products, and for every size the times and the number of operations; for
        action dimensions the times of sampling alone, too, and the median over the rounds of the ratio of both; the
        log-log slope of time against operations.
    """
    sizes = SIZES[axis]
    made = {size: _program(axis, size) for size in sizes}
    calls: dict[str, Callable[[], Any]] = {}
    for size, (call, _, alone) in made.items():  # side by side in a round, since the machine's speed drifts
        calls |= {str(size): call} | ({} if alone is None else {f"{size} alone": alone})
    blocks = blocks_in_turns(calls, rounds)
    rows: list[Row] = []
    for size in sizes:
        row = {"size": size, "operations": made[size][1]} | summary(blocks[str(size)])
        if f"{size} alone" in blocks:
            pairs = zip(blocks[str(size)], blocks[f"{size} alone"], strict=True)
            ratio = float(np.median([both.cpu / alone.cpu for both, alone in pairs]))
            row |= {"alone": summary(blocks[f"{size} alone"]), "ratio": ratio}
        rows.append(row)
    points = [(row["operations"] or row["size"], row["cpu"]) for row in rows]
    return {"matmul_rate": matmul_rate(rounds), "rows": rows, "slope": slope(points)}


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Return the least-squares slope of log y against log x."""
    x, y = np.log(np.array(list(points))).T
    return float(np.polyfit(x, y, 1)[0])


def _program(axis: str, size: int) -> tuple[Callable[[], Any], int | None, Callable[[], Any] | None]:
    """Return what to time, its number of operations (None: proportional to the size), and what to compare it with."""
    if axis == "action dimension":
        return _draws(size)
    if axis == "LQR runs":
        return _lqr(size), None, None
    config = _config(axis, size)
    space = Unbounded(ACTION)
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.99)}
    state = sac.init(config, jax.random.key(0), obs_size=OBS, action_space=space, **numbers)
    obs, key = jax.random.normal(jax.random.key(1), (config.actor.states, OBS)), jax.random.key(2)
    step = jax.jit(partial(sac.improve_policy, config))
    return lambda: step(state, obs, key), improvement(config, OBS, ACTION), None


def _config(axis: str, size: int) -> sac.Config:
    """Return the default settings with one size changed."""
    config = of_algorithm("sac_isfm").config
    change = {
        "candidates": {"candidates": size},
        "ODE steps": {"solver": RungeKutta("midpoint", size)},
        "width": {"width": size},
        "states": {"states": size},
    }[axis]
    actor: Any = config.actor
    return dataclasses.replace(config, actor=dataclasses.replace(actor, **change))


def _draws(size: int) -> tuple[Callable[[], Any], int, Callable[[], Any]]:
    """Return drawing actions with log-densities at a batch of states, its operations, and drawing them alone."""
    policy = FlowPolicy(VelocityNetwork(OBS, size, key=jax.random.key(0)), Unbounded(size), solver=MIDPOINT_4)
    obs, keys = jax.random.normal(jax.random.key(1), (STATES, OBS)), jax.random.split(jax.random.key(2), (STATES, EACH))
    each = lambda method: jax.vmap(jax.vmap(method, (0, None)))  # noqa: E731
    both = eqx.filter_jit(lambda policy, keys, obs: each(policy.sample_and_log_prob)(keys, obs))
    alone = eqx.filter_jit(lambda policy, keys, obs: each(policy.sample)(keys, obs))
    operations = Flow(OBS, size).draw(STATES, EACH)
    return lambda: both(policy, keys, obs), operations, lambda: alone(policy, keys, obs)


def _lqr(runs: int) -> Callable[[], Any]:
    """Return one iteration of a number of runs of the LQR study: environments, critic and policy."""
    lqr = systems.get("double_integrator")
    env, config = LQREnv(lqr, 100), lqr_settings(1000)
    space = Unbounded(lqr.B.shape[1])

    def start(key: jax.Array) -> sac.State:
        numbers = {"temperature": jnp.float32(0.5), "discount": jnp.float32(lqr.discount)}
        return sac.init(config, key, obs_size=lqr.B.shape[0], action_space=space, **numbers)

    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(0), runs))
    sizes = {"environments": ENVIRONMENTS, "capacity": ENVIRONMENTS * REMEMBERED}
    loop = loop_jax.start(env, jax.jit(jax.vmap(start))(keys[:, 0]), keys[:, 1], **sizes)
    scales = jnp.linspace(1.0, 3.0, ENVIRONMENTS)
    program = jax.jit(lambda loop, steps: loop_jax.advance(config, env, loop, scales, steps), donate_argnums=0)
    kept = [loop]

    def iterate() -> Any:
        kept[0], metrics = program(kept[0], jnp.int32(1))
        return kept[0].count, metrics

    return iterate


def flatness(rows: list[Row]) -> float:
    """Return the largest ratio of sampling with log-density to sampling alone."""
    return max(row["ratio"] for row in rows) if rows else math.nan
