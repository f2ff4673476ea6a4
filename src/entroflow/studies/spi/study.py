"""Soft policy iteration with flow policies, laid over the exact one: `entroflow spi`.

All temperatures and seeds are one compiled program, which improves a flow policy by ISFM to convergence. The start π_0
is a policy exp(Q/α)/Z, too, so that the same program fits the first flow.
"""

import csv
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ... import checks
from ...commands.conduct import conduct
from ...devices import over_runs, use_all_cores
from ...envs.rooms import Rooms
from ...flow import FlowPolicy
from ...isfm import FitConfig, Proposal, fit
from ...lqr import systems
from ...rl.spi import soft_policy_iteration
from ...storage.folder import timed, write_results
from .figures import Shown, draw, table
from .lqr import LQRProblem
from .rooms import RoomsProblem

Run = tuple[float, int]  # temperature and seed
LAST = 0.05  # fraction of an improvement's steps over which its diagnostics are averaged


@runtime_checkable
@dataclass(frozen=True)
class SPICommand:
    """Soft policy iteration (Algorithm 1) with flow policies, compared with the exact one at every iteration.

    On LQR the exact iterates follow from Lemma 1, in the finite world `rooms` from quadrature. Writes figures,
    results.json and metrics.csv into a folder.
    """

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
    out: Path = Path("out/spi")
    """Output folder, new or empty."""


class Problem(Protocol):
    """A problem whose exact soft policy iteration is known; `parameters` are what determines a soft Q."""

    name: str
    description: str
    config: FitConfig
    shown: tuple[Shown, ...]

    def document(self) -> dict[str, Any]:
        """Return what results.json says about the problem."""
        ...

    def start_parameters(self, alpha: float) -> np.ndarray:
        """Return the parameters of a Q for which exp(Q/α)/Z is the start π_0."""
        ...

    def exact(self, alpha: float, iterations: int) -> Sequence[Any]:
        """Return the exact iterates π_0, …, π_iterations."""
        ...

    def units(self, alpha: float) -> dict[str, np.ndarray]:
        """Return what `policy` needs to know about the temperature."""
        ...

    def policy(self, key: PRNGKeyArray, units: dict[str, Array]) -> FlowPolicy:
        """Return an untrained flow policy."""
        ...

    def propose(self, policy: FlowPolicy) -> Proposal:
        """Return where the candidates of an improvement come from."""
        ...

    def observe(self, policy: FlowPolicy, key: PRNGKeyArray) -> Array:
        """Draw the states of a gradient step, (b, n)."""
        ...

    def q(self, parameters: Array, obs: Array, action: Array) -> Array:
        """Return Q(s, a), up to a constant."""
        ...

    def measure(self, policy: FlowPolicy) -> Any:
        """Return all that is to be known of a flow policy, a tuple of JAX arrays."""
        ...

    def evaluate(self, measured: Any, alpha: float) -> np.ndarray:
        """Return the parameters of the soft Q of what was measured, or raise a ValueError if it has none."""
        ...

    def compare(
        self, alpha: float, measured: Any, exact: Any, previous: Any | None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Compare a flow with the exact policy of its iteration: columns of metrics.csv, and more for results.json."""
        ...

    def figures(self, iterates: list[dict[str, Any]], measured: list[list[Any]]) -> Iterator[tuple[str, Figure]]:
        """Draw the problem's own figures, with their names."""
        ...


def run(command: SPICommand) -> int:
    """Do what the command says; return the exit code.

    Raises:
        ValueError: for bad input, before anything is written.
    """
    problem = _problem(command.system)
    runs = _plan(command)
    use_all_cores()
    return conduct(command.out, lambda console: _Study(command, problem, runs, console).run())


def _problem(system: str) -> Problem:
    """Return the problem of a name or a file."""
    path = Path(system)
    if path.suffix.lower() != ".json" and len(path.parts) <= 1:  # a name
        checks.choice("system", system, (*systems.CATALOGUE, RoomsProblem.name), "choose one or pass a .json file")
    return RoomsProblem(Rooms()) if system == RoomsProblem.name else LQRProblem(systems.load(system))


def _plan(command: SPICommand) -> list[Run]:
    """Check the settings; return the runs."""
    seeds = checks.seeds(command.seed, command.seeds)
    checks.positive_int("--iterations", command.iterations)
    alphas = checks.distinct("--alpha", [checks.positive_number("--alpha", a) for a in command.alpha], "temperatures")
    return [(alpha, seed) for alpha in alphas for seed in seeds]


class Evaluated(NamedTuple):
    """Policy evaluation of all runs: what was measured of each flow policy, and the parameters of their soft Q."""

    measured: list[Any]
    parameters: Float[np.ndarray, "runs ..."]


class _Study:
    """The runs and their records."""

    def __init__(self, command: SPICommand, problem: Problem, runs: list[Run], console: Console):
        self.command, self.problem, self.runs, self.console = command, problem, runs, console
        self.alphas = jnp.asarray([alpha for alpha, _ in runs], jnp.float32)
        self.clock: dict[str, float] = {}

    def run(self) -> int:
        """Iterate, compare, write; return the exit code."""
        begun = time.perf_counter()
        command, problem, runs, console = self.command, self.problem, self.runs, self.console
        console.print(
            f"soft policy iteration on [bold]{escape(problem.name)}[/] ({problem.description}): {len(runs)} runs in "
            f"one program, {command.iterations} iterations of {problem.config.steps} gradient steps"
        )
        start = Evaluated([], np.stack([problem.start_parameters(alpha) for alpha, _ in runs]))
        exact = {alpha: problem.exact(alpha, command.iterations) for alpha in command.alpha}
        with console.status("compiling (once: the next time it is read from disk)"), timed(self.clock, "compile"):
            policies = self._compile(start)
        rows, iterates, measured = [], [], []
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        metrics = (command.out / "metrics.csv").open("w", newline="")
        with Progress(*columns, console=console) as progress, metrics as file:
            task = progress.add_task("start", total=command.iterations + 1)
            try:
                policies = self.improve(policies, start, -1)
                steps = soft_policy_iteration(policies, self.evaluate, self.improve, command.iterations)
                for k, (_, evaluated) in enumerate(steps):
                    measured.append(evaluated.measured)
                    for i, (alpha, seed) in enumerate(runs):
                        previous = measured[k - 1][i] if k else None
                        numbers, kept = problem.compare(alpha, measured[k][i], exact[alpha][k], previous)
                        name = {"alpha": alpha, "seed": seed, "iteration": k}
                        rows.append(name | numbers | {key: float(value[i]) for key, value in self.fitted.items()})
                        iterates.append(rows[-1] | kept)
                    writer = csv.DictWriter(file, rows[0])
                    if k == 0:
                        writer.writeheader()
                    writer.writerows(rows[-len(runs) :])
                    file.flush()
                    progress.update(task, completed=k + 1, description=f"iteration {k}")
            except ValueError as broken:
                console.print(f"[red]iteration cannot go on: {escape(str(broken))}")
                return 1
        with console.status("writing figures"):
            draw(command.out, problem, iterates, [part[:: command.seeds] for part in measured])
        settings = dataclasses.asdict(command) | {"fit": dataclasses.asdict(problem.config)}
        document = problem.document() | {"settings": settings, "iterations": iterates}
        write_results(command.out, document, self.clock | {"total": time.perf_counter() - begun})
        console.print(table(problem, rows))
        console.print(f"all {time.perf_counter() - begun:.0f} s; figures (png, pdf), results.json, metrics.csv are in")
        console.print(str(command.out), markup=False, soft_wrap=True)
        return 0

    def _compile(self, start: Evaluated) -> FlowPolicy:
        """Compile everything; return untrained policies. A run does not depend on which others stand beside it."""
        problem, count = self.problem, len(self.runs)
        keys = jax.vmap(jax.random.split)(jnp.stack([jax.random.key(seed) for _, seed in self.runs]))
        units = [problem.units(alpha) for alpha, _ in self.runs]
        stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *units)
        policies = over_runs(problem.policy, count)(keys[:, 0], stacked)
        self._keys, parameters = keys[:, 1], jnp.asarray(start.parameters, jnp.float32)
        improve, measure = over_runs(self._improve_one, count), over_runs(problem.measure, count)
        self._improve = improve.lower(policies, self._keys, parameters, self.alphas).compile()
        self._measure = measure.lower(policies).compile()
        return policies

    def _improve_one(
        self, policy: FlowPolicy, key: PRNGKeyArray, parameters: Array, alpha: Float[Array, ""]
    ) -> tuple[FlowPolicy, dict[str, Array]]:
        """Improve one policy to convergence; return it and the diagnostics of the last steps."""
        problem = self.problem
        improved, metrics = fit(
            problem.config,
            policy,
            key,
            lambda key: problem.observe(policy, key),
            lambda obs, action: problem.q(parameters, obs, action),
            alpha,
            propose=problem.propose,
        )
        parts = {"loss": metrics.loss, "beta": metrics.beta, "ess": metrics.diagnostics.ess}
        last = math.ceil(LAST * problem.config.steps)
        return improved, {name: jnp.mean(values[-last:]) for name, values in parts.items()}

    def improve(self, policies: FlowPolicy, evaluated: Evaluated, k: int) -> FlowPolicy:
        """Policy improvement of all runs; k = −1 stands for the start."""
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(self._keys, k + 1)
        parameters = jnp.asarray(evaluated.parameters, jnp.float32)
        with timed(self.clock, "improve"):
            policies, self.fitted = jax.block_until_ready(self._improve(policies, keys, parameters, self.alphas))
        return policies

    def evaluate(self, policies: FlowPolicy) -> Evaluated:
        """Policy evaluation of all runs.

        Raises:
            ValueError: if a policy is not finite or does not stabilise its system.
        """
        with timed(self.clock, "measure"):
            stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self._measure(policies))
        measured = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(self.runs))]
        parameters = []
        for (alpha, seed), one in zip(self.runs, measured, strict=True):
            if not all(np.isfinite(leaf).all() for leaf in one):
                raise ValueError(f"the policy of alpha={alpha:g} seed={seed} is no longer finite.")
            parameters.append(self.problem.evaluate(one, alpha))
        return Evaluated(measured, np.stack(parameters))
