"""How far log π of trained flow policies is from the truth, solver by solver, and what a solver costs.

An agent is trained on every task. At states of its own episodes three densities of the same drawn actions are compared
with the density of what acts, in double precision: log N(x_0; 0, I) − log |det ∂a/∂x_0|, a(x_0) as the solver's steps
make it.
"""

import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.markdown import Markdown

import entroflow
from entroflow import checks
from entroflow.flow import AdaptiveSolver, Box, FlowPolicy, RungeKutta, Solver

from .. import frame

TASKS = {"Pendulum-v1": 4000, "HalfCheetah-v5": 20000}  # steps of training
SETTINGS: dict[str, Any] = {}  # beside the defaults
STATES, DRAWS = 64, 32
SOLVERS: dict[str, Solver] = {
    "midpoint, 4 steps": RungeKutta("midpoint", 4),
    "midpoint, 16 steps": RungeKutta("midpoint", 16),
    "rk4, 4 steps": RungeKutta("rk4", 4),
    "rk4, 8 steps": RungeKutta("rk4", 8),
    "rk4, 16 steps": RungeKutta("rk4", 16),
    "midpoint, 4 graded steps": RungeKutta("midpoint", 4, grading=1.5),
    "rk4, 4 graded steps": RungeKutta("rk4", 4, grading=1.5),
    "rk4, 6 graded steps": RungeKutta("rk4", 6, grading=1.5),
    "rk4, 8 graded steps": RungeKutta("rk4", 8, grading=1.5),
    "rk4, 12 graded steps": RungeKutta("rk4", 12, grading=1.5),
}
REFERENCE = AdaptiveSolver(1e-9, 1e-9)
GRID = 4001  # actions at which a density of one dimension is summed up
TIMED = {"best of 16": (1, 16), "256 draws": (1, 256)}  # states and draws
ROUNDS = 40


@dataclass(frozen=True)
class Options(frame.Options):
    """Options."""

    seed: int = 3
    """Seed of the agents, and of the episodes that the states are from."""
    trained: tuple[Path, ...] = ()
    """Folders of trained agents, to measure these and train none."""


def plan(options: Options) -> frame.Work:
    """Check the options and return the work."""
    return functools.partial(run, checks.seed("seed", options.seed), options.trained)


def run(seed: int, trained: Sequence[Path], job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Train the agents, unless there are some, then measure each with every solver."""
    jobs = {path.name: functools.partial(states_of, path, seed) for path in trained} or {
        name: functools.partial(train, name, steps, seed, job.out / "agents" / name) for name, steps in TASKS.items()
    }
    folders = {path.name: path for path in trained}
    job.cells, rows = len(jobs) * (1 + len(SOLVERS)), []
    for name, prepare in jobs.items():
        told = job.cell(f"{name}: states" if trained else f"{name}: training", prepare)
        states = np.array(told["states"], np.float32)
        agent = entroflow.load(folders.get(name, job.out / "agents" / name))
        for solver in SOLVERS:
            measured = job.cell(f"{name}: {solver}", functools.partial(measure, agent, states, solver))
            rows.append({"task": name, "solver": solver} | measured)
    job.text("table.md", table(rows))
    settings = {"tasks": list(folders) or TASKS, "states": STATES, "draws": DRAWS}
    return {"settings": settings, "solvers": rows}, [Markdown(table(rows))]


def train(name: str, steps: int, seed: int, folder: Path) -> frame.Row:
    """Train an agent, keep it, and return states of its episodes."""
    entroflow.SACISFM(name, seed=seed, **SETTINGS).learn(steps).save(folder)
    return states_of(folder, seed)


def states_of(folder: Path, seed: int) -> frame.Row:
    """Return states of the episodes of an agent that was kept, evenly spaced."""
    agent = entroflow.load(folder)
    env, states = gym.make(agent.task.name), []
    obs, _ = env.reset(seed=seed)
    for _ in range(1000):
        states.append(obs)
        obs, _, terminated, truncated, _ = env.step(agent.predict(obs)[0])
        if terminated or truncated:
            obs, _ = env.reset()
    env.close()
    return {"states": np.array(states[:: len(states) // STATES][:STATES], np.float32)}


def measure(agent: Any, states: Float[np.ndarray, "b n"], name: str) -> frame.Row:
    """Return errors of log π, in nats, and milliseconds of processor time.

    Args:
        agent: the trained agent.
        states: observations, n numbers each.
        name: the solver's.

    Returns:
        Largest and mean absolute `error` of the density that comes with a draw, `again` of `log_prob` of the drawn
        action, `ode` of the differential equation's own density; the error of the `entropy`; the largest and the mean
        `mass` that exp(`log_prob`) has in a box of one dimension; time by kind of call.
    """
    policy = agent.policy.with_solver(SOLVERS[name])
    obs = jnp.asarray(states)
    noise = jax.random.normal(jax.random.key(0), (len(obs), DRAWS, *policy.noise_shape))
    actions, drawn = at_all(FlowPolicy.push_and_log_prob)(policy, obs, noise)
    again = at_all(FlowPolicy.log_prob)(policy, obs, actions)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), policy)
        wide = [jnp.asarray(part, jnp.float64) for part in (obs, noise)]
        latents, truth = at_all(latent_of)(double, *wide)
        ode = at_all(FlowPolicy.latent_log_prob)(double.with_solver(REFERENCE), wide[0], latents)
        change = jax.vmap(jax.vmap(double.action_space.log_det))(latents)
        truth, ode = np.asarray(truth - change), np.asarray(ode - change)
    found: frame.Row = {"entropy": float(np.mean(truth) - np.mean(drawn)), "policy_entropy": float(-np.mean(truth))}
    for kind, other in (("error", drawn), ("again", again), ("ode", ode)):
        gap = np.abs(np.asarray(other, np.float64) - truth)
        found |= {kind: float(gap.mean()), f"{kind}_worst": float(gap.max())}
    box = policy.action_space
    if box.size == 1 and isinstance(box, Box):
        total = np.asarray(eqx.filter_jit(mass)(policy, box, obs))
        found |= {"mass": float(total.mean()), "mass_worst": float(total[np.abs(total - 1).argmax()])}
    return found | {kind: milliseconds(policy, obs[:count], draws) for kind, (count, draws) in TIMED.items()}


@functools.cache
def at_all(method: Any) -> Any:
    """Compile a method of one state and one noise or action for all of them."""
    one = lambda policy, obs, points: jax.vmap(functools.partial(method, policy, obs))(points)  # noqa: E731
    return eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))


def latent_of(
    policy: FlowPolicy, obs: Float[Array, " n"], noise: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Return the latent u that the solver's steps make of the noise, and log N(x_0; 0, I) − log |det ∂u/∂x_0|."""
    push = functools.partial(policy.solver.solve, functools.partial(policy.velocity, context=policy.condition(obs)))
    log_prob = jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - jnp.linalg.slogdet(jax.jacrev(push)(noise))[1]
    return push(noise), log_prob


def mass(policy: FlowPolicy, box: Box, obs: Float[Array, "b n"]) -> Float[Array, " b"]:
    """Return the integral of exp(`log_prob`) over a box of one dimension, by the midpoint rule."""
    (low,), (high,) = box.low, box.high
    width = (high - low) / GRID
    grid = (low + width * (jnp.arange(GRID, dtype=obs.dtype) + 0.5))[:, None]
    one = lambda state: jnp.sum(jnp.exp(jax.vmap(functools.partial(policy.log_prob, state))(grid)))  # noqa: E731
    return jax.lax.map(one, obs) * width


def milliseconds(policy: FlowPolicy, obs: Float[Array, "b n"], draws: int) -> float:
    """Return the 10th percentile of the processor time of actions with their log-densities."""
    one = lambda policy, keys, obs: jax.vmap(policy.sample_and_log_prob, (0, None))(keys, obs)  # noqa: E731
    program = eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))
    keys, times = jax.random.split(jax.random.key(1), (len(obs), draws)), []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        jax.block_until_ready(program(policy, keys, obs))
        times.append(time.process_time() - begun)
    return 1e3 * float(np.percentile(times[1:], 10))


def table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table: mean and worst errors in nats, the masses, milliseconds."""
    headers = ["task", "solver", "of a draw", "of `log_prob`", "of the ODE", "entropy", "mass", *TIMED]
    lines = []
    for row in rows:
        errors = [f"{row[kind]:.1g} ({row[f'{kind}_worst']:.1g})" for kind in ("error", "again", "ode")]
        total = f"{row['mass']:.4f} ({row['mass_worst']:.4f})" if "mass" in row else ""
        times = [f"{row[kind]:.2g}" for kind in TIMED]
        lines.append([row["task"], row["solver"], *errors, f"{row['entropy']:+.1g}", total, *times])
    return frame.markdown(headers, lines)


main = frame.command("solvers", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
