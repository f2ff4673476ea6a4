"""What the accuracy of a log-density costs: solvers, their steps, and ways to get the divergence."""

import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from entroflow.flow import AdaptiveSolver, ClosedForm, FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.flow.divergence import DivergenceMethod, ExactJVP, Hutchinson
from entroflow.isfm import FitConfig, improve
from experiments.densities.targets import Density, get

from .measure import Row, in_turns

POINTS = 256  # actions whose log-densities are computed at once
FIT = FitConfig(steps=400, candidates=256, pairs=4)
TOLERANCE = 1e-10  # of the reference's steps
METHODS, STEPS = ("euler", "midpoint", "heun", "rk4"), (1, 2, 4, 8, 16, 32)
ESTIMATED_METHODS, ESTIMATED_STEPS = ("midpoint", "rk4"), (2, 4, 8, 16)  # with divergences not in closed form
DIVERGENCES: dict[str, DivergenceMethod] = {
    "closed form": ClosedForm(),
    "exact, by JVP": ExactJVP(),
    "Hutchinson, 1 probe": Hutchinson(1),
    "Hutchinson, 16 probes": Hutchinson(16),
}


class Setting(NamedTuple):
    """A way to compute a log-density."""

    divergence: str
    method: str
    steps: int


def settings() -> list[Setting]:
    """Return all settings that are measured."""
    exact = [Setting("closed form", *pair) for pair in itertools.product(METHODS, STEPS)]
    others = list(DIVERGENCES)[1:]
    return exact + [Setting(*three) for three in itertools.product(others, ESTIMATED_METHODS, ESTIMATED_STEPS)]


def measure(name: str, rounds: int) -> Row:
    """Measure errors and times of log π of given actions, for a flow that ISFM has fitted to a multimodal density.

    Args:
        name: the density's name, see `experiments.densities.targets`.
        rounds: number of rounds over all settings.

    Returns:
        One row per setting: its names, the root mean square error against the reference, and the times for `POINTS`
        actions; how far two references, of different schemes, are from each other.
    """
    target = get(name)
    policy = _fit(target)
    actions = jnp.asarray(target.sample(np.random.default_rng(0), POINTS), jnp.float32)
    exact, difference = _reference(policy, actions)
    keys = jax.random.split(jax.random.key(1), POINTS)
    calls = {setting: _call(_changed(policy, setting), actions, keys) for setting in settings()}
    errors = {setting: np.asarray(call(), np.float64) - exact for setting, call in calls.items()}
    times = in_turns({str(i): call for i, call in enumerate(calls.values())}, rounds)
    rows = [
        setting._asdict() | {"error": float(np.sqrt(np.mean(errors[setting] ** 2)))} | times[str(i)]
        for i, setting in enumerate(calls)
    ]
    return {"size": target.size, "rows": rows, "references_differ_by": difference}


def pareto(rows: list[Row]) -> list[Row]:
    """Return the rows that no other one beats in time and error, the fastest first."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: row["cpu"]):
        if not best or row["error"] < best[-1]["error"]:
            best.append(row)
    return best


def _fit(target: Density) -> FlowPolicy:
    """Return a flow like a trained one: some hundred ISFM steps toward the density, at its single state."""
    network = VelocityNetwork(1, target.size, width=64, depth=1, key=jax.random.key(0))
    policy = FlowPolicy(network, Unbounded(target.size, scale=target.scale / 2), solver=RungeKutta("midpoint", 6))
    temperature, obs = jnp.float32(1.0), jnp.zeros((1, 1))
    train = eqx.filter_jit(
        lambda policy, key: improve(FIT, policy, key, lambda _: obs, lambda _, x: target.log_density(x), temperature)
    )
    return train(policy, jax.random.key(1))[0]


def _reference(policy: FlowPolicy, actions: Array) -> tuple[np.ndarray, float]:
    """Return log-densities in double precision, and the largest difference of those by another scheme."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), policy)
        points = jnp.asarray(actions, jnp.float64)
        found = [
            np.asarray(jax.jit(jax.vmap(double.with_solver(solver).log_prob, (None, 0)))(jnp.zeros(1), points))
            for solver in (AdaptiveSolver(TOLERANCE, TOLERANCE), RungeKutta("rk4", 1024))
        ]
    return found[0], float(np.abs(found[1] - found[0]).max())


def _changed(policy: FlowPolicy, setting: Setting) -> FlowPolicy:
    solver = RungeKutta(setting.method, setting.steps)
    return FlowPolicy(policy.velocity, policy.action_space, solver=solver, divergence=DIVERGENCES[setting.divergence])


def _call(policy: FlowPolicy, actions: Array, keys: Array) -> Any:
    one = lambda policy, action, key: policy.log_prob(jnp.zeros(1), action, key=key)  # noqa: E731
    program = eqx.filter_jit(lambda policy, actions, keys: jax.vmap(one, (None, 0, 0))(policy, actions, keys))
    return lambda: program(policy, actions, keys)
