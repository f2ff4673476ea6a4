"""Soft policy iteration (Algorithm 1) with flow policies, laid over the exact one, at every iteration.

All temperatures and seeds are one compiled program, which improves a flow policy by ISFM to convergence. The start π_0
is a policy exp(Q/α)/Z, too, so that the same program fits the first flow.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from entroflow import checks
from entroflow.devices import use_all_cores
from entroflow.flow import FlowPolicy
from entroflow.isfm import improve
from entroflow.lqr import systems
from entroflow.rl.spi import soft_policy_iteration

from .. import frame
from .figures import draw, table
from .lqr_problem import LQRProblem
from .rooms import Rooms
from .rooms_problem import RoomsProblem

Run = tuple[float, int]  # temperature and seed
Problem = LQRProblem | RoomsProblem  # `parameters` of either are what determines a policy's soft Q
LAST = 0.05  # fraction of an improvement's steps over which its diagnostics are averaged


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    system: str = "double_integrator"
    """A named LQR system (double_integrator, coupled, unstable, cartpole, mass_spring), a JSON file, or rooms."""
    alpha: tuple[float, ...] = (0.1, 1.0)
    """Temperatures α > 0, the weights of the entropy."""
    seeds: int = 3
    """Number of seeds for every temperature."""
    iterations: int = 4
    """Number of policy improvements."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    problem, seeds = _problem(options.system), frame.seeds_of(options)
    checks.positive_int("--iterations", options.iterations)
    given = [checks.positive_number("--alpha", temperature) for temperature in options.alpha]
    runs = [(temperature, seed) for temperature in checks.distinct("--alpha", given, "temperatures") for seed in seeds]
    use_all_cores()
    return lambda job: Study(problem, runs, job).run(options.iterations)


def _problem(system: str) -> Problem:
    """Return the problem of a name or a file."""
    path = Path(system)
    if path.suffix.lower() != ".json" and len(path.parts) <= 1:  # a name
        checks.choice("system", system, (*systems.CATALOGUE, RoomsProblem.name), "choose one or pass a .json file")
    return RoomsProblem(Rooms()) if system == RoomsProblem.name else LQRProblem(systems.load(system))


class Evaluated(NamedTuple):
    """Policy evaluation of all runs: what was measured of each flow policy, and the parameters of their soft Q."""

    measured: list[Any]
    parameters: Float[np.ndarray, "runs ..."]


class Study:
    """All runs, from iteration to iteration."""

    def __init__(self, problem: Problem, runs: list[Run], job: frame.Job):
        self.problem, self.runs, self.job = problem, runs, job
        self.temperatures = jnp.asarray([temperature for temperature, _ in runs], jnp.float32)
        self.start = Evaluated([], np.stack([problem.start_parameters(temperature) for temperature, _ in runs]))

    def run(self, iterations: int) -> tuple[frame.Row, list[Any]]:
        """Iterate, compare, draw; return results and tables."""
        problem, job = self.problem, self.job
        job.cells = iterations + 1
        job.console.print(
            f"soft policy iteration on {problem.name} ({problem.description}): {len(self.runs)} runs in one program, "
            f"{iterations} iterations of {problem.config.steps} gradient steps"
        )
        job.show(0.0, "compiling")
        with job.timed("compile"):
            policies = self.compile()
        begun = max(0, len(job.found) - 1)
        policies = job.restored("policies", policies) if job.found else self.improve(policies, self.start, -1)
        trajectories = {temperature: problem.exact(temperature, iterations) for temperature, _ in self.runs}
        improve = lambda policies, evaluated, k: self.improve(policies, evaluated, begun + k)  # noqa: E731
        found, before = [job.found[f"iteration {k}"] for k in range(begun)], None
        steps = soft_policy_iteration(policies, self.evaluate, improve, iterations - begun)
        for k, (current, evaluated) in enumerate(steps, begun):
            job.trees["policies"] = current
            exact = [trajectories[temperature][k] for temperature, _ in self.runs]
            found.append(job.cell(f"iteration {k}", functools.partial(self.compare, k, evaluated, exact, before)))
            job.rows("metrics.csv", [row for part in found for row in part["rows"]])
            before = evaluated
        pairs = [pair for part in found for pair in zip(part["rows"], part["kept"], strict=True)]
        iterates = [row | kept for row, kept in pairs]
        draw(job.out, problem, iterates, [part["pictures"] for part in found])
        settings = {"fit": dataclasses.asdict(problem.config)}
        return problem.document() | {"settings": settings, "iterations": iterates}, [table(problem, iterates)]

    def compile(self) -> FlowPolicy:
        """Compile everything; return untrained policies. A run does not depend on which others stand beside it."""
        problem, count = self.problem, len(self.runs)
        keys = jax.vmap(jax.random.split)(jnp.stack([jax.random.key(seed) for _, seed in self.runs]))
        units = [problem.units(temperature) for temperature, _ in self.runs]
        stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *units)
        policies = frame.over_runs(problem.policy, count)(keys[:, 0], stacked)
        self._keys, parameters = keys[:, 1], jnp.asarray(self.start.parameters, jnp.float32)
        improve, measure = frame.over_runs(self._improve_one, count), frame.over_runs(problem.measure, count)
        self._improve = improve.lower(policies, self._keys, parameters, self.temperatures).compile()
        self._measure = measure.lower(policies).compile()
        return policies

    def _improve_one(
        self, policy: FlowPolicy, key: PRNGKeyArray, parameters: Array, temperature: Float[Array, ""]
    ) -> tuple[FlowPolicy, dict[str, Array]]:
        """Improve one policy to convergence; return it and the diagnostics of the last steps."""
        problem = self.problem
        improved, metrics = improve(
            problem.config,
            policy,
            key,
            lambda key: problem.observe(policy, key),
            lambda obs, action: problem.q(parameters, obs, action),
            temperature,
            propose=lambda policy, *_: problem.propose(policy),
        )
        parts = {"loss": metrics.loss, "beta": metrics.beta, "ess": metrics.diagnostics.ess}
        last = math.ceil(LAST * problem.config.steps)
        return improved, {name: jnp.mean(values[-last:]) for name, values in parts.items()}

    def improve(self, policies: FlowPolicy, evaluated: Evaluated, k: int) -> FlowPolicy:
        """Policy improvement of all runs; k = −1 stands for the start."""
        self.job.pause()
        self.job.show(0.0, f"iteration {k + 1}")
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(self._keys, k + 1)
        parameters = jnp.asarray(evaluated.parameters, jnp.float32)
        with self.job.timed("improve"):
            policies, self.fitted = jax.block_until_ready(self._improve(policies, keys, parameters, self.temperatures))
        return policies

    def evaluate(self, policies: FlowPolicy) -> Evaluated:
        """Policy evaluation of all runs.

        Raises:
            Broken: if a policy is not finite or does not stabilise its system.
        """
        with self.job.timed("measure"):
            stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self._measure(policies))
        measured = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(self.runs))]
        parameters = []
        for (temperature, seed), one in zip(self.runs, measured, strict=True):
            if not all(np.isfinite(leaf).all() for leaf in one):
                raise frame.Broken(f"the policy of alpha={temperature:g} seed={seed} is no longer finite")
            try:
                parameters.append(self.problem.evaluate(one, temperature))
            except ValueError as unstable:
                raise frame.Broken(str(unstable)) from None
        return Evaluated(measured, np.stack(parameters))

    def compare(self, k: int, evaluated: Evaluated, exact: Sequence[Any], before: Evaluated | None) -> frame.Row:
        """Compare the flows of an iteration with the exact policies, and the step that led there with the exact one."""
        rows, kept, pictures = [], [], []
        for i, (temperature, seed) in enumerate(self.runs):
            previous = before.measured[i] if before else None
            numbers, more = self.problem.compare(temperature, evaluated.measured[i], exact[i], previous)
            name = {"alpha": temperature, "seed": seed, "iteration": k}
            rows.append(name | numbers | {key: float(value[i]) for key, value in self.fitted.items()})
            kept.append(more)
            if seed == self.runs[0][1]:
                pictures.append(self.problem.picture(evaluated.measured[i]))
        return {"rows": rows, "kept": kept, "pictures": pictures}


main = frame.command("spi", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
