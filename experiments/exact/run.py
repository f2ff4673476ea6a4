"""Control problems whose soft optimum is no Gaussian: what is learned against the optimum solved on a grid.

SAC-ISFM, the paper's plain algorithm and plain SAC with its Gaussian are trained at a fixed temperature on a particle
between two wells, a pendulum's swing-up and an actuator with a dead band, the seeds of an algorithm in one program. All
settings but the actor are the same, except that the paper's behaviour is the policy itself.
"""

import dataclasses
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from entroflow import checks
from entroflow.devices import use_all_cores
from entroflow.exact import Solution, solve
from entroflow.flow import RungeKutta
from entroflow.rl import MLPCritic, sac
from entroflow.rl.actors import Actor, Flow, Gaussian

from .. import frame
from ..multigoal import run as multigoal
from . import measure, report
from .measure import Seen
from .systems import SYSTEMS, System

NODES = 48
SHARED: dict[str, Any] = {"states": 64, "rate": 1e-2, "warmup": 0.2, "average": 0.1}
# With two equal steps values of `double_well` came out too high by as much as V* differs between its states.
SOLVER = RungeKutta("rk4", 3, grading=1.5)
NARROW: dict[str, Any] = {"width": 32, "depth": 1, "state_width": 32, "candidates": 16, "pairs": 2, "pathwise": 0.0}
ALGORITHMS: dict[str, Actor] = {
    "sac_isfm": Flow(**NARROW, proposal="defensive", solver=SOLVER, **SHARED),
    "paper": Flow(**NARROW, target="pair", ess_floor=0.0, **SHARED),
    "gaussian_sac": Gaussian(width=64, **SHARED),
}
EXPLORATION = {"sac_isfm": 2.0, "paper": 1.0, "gaussian_sac": 2.0}  # noise scale of the boldest environment
CRITIC = MLPCritic(
    width=64,
    depth=3,
    layer_norm=False,
    members=1,
    ensemble="mean",
    improve_on="target",
    rate=5e-3,
    target_rate=0.1,
    final_target_rate=0.05,
)


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    system: tuple[str, ...] = ("all",)
    """double_well, swing_up, dead_band, or all."""
    algorithm: tuple[str, ...] = ("all",)
    """sac_isfm, paper (its Algorithm 2 as it is written), gaussian_sac (plain SAC), or all."""
    seeds: int = 3
    """Number of seeds for every algorithm."""
    steps: int = 2000
    """Training steps: in each, every environment makes one step and every run one update."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    batch: int = 1024
    """Transitions of a critic's step."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    frame.seeds_of(options)
    checks.positive_int("--batch", options.batch)
    checks.positive_int("--steps", options.steps, most=np.iinfo(np.int32).max // multigoal.ENVIRONMENTS)
    chosen = []
    for name, given, table in (("system", options.system, SYSTEMS), ("algorithm", options.algorithm, ALGORITHMS)):
        wanted = list(table) if given == ("all",) else checks.distinct(f"--{name}", given, f"{name}s, or all")
        chosen.append([checks.choice(f"--{name}", one, table) for one in wanted])
    use_all_cores()
    return lambda job: work(options, job, *chosen)


def work(options: Options, job: frame.Job, systems: list[str], algorithms: list[str]) -> tuple[frame.Row, list[Any]]:
    """Solve, train, measure, draw; return results and tables."""
    job.cells = len(systems) * len(algorithms)
    solved, runs, pictures = [], [], {}
    for name in systems:
        system = SYSTEMS[name]
        job.show(0.0, f"solving {name}")
        with job.timed("exact"):
            solution = optimum(system)
            against = reference(system, solution)
        study = Study(options, name, solution, against, job)
        found = {one: job.cell(f"{name} {one}", partial(study.learned, one)) for one in algorithms}
        runs += [row for one in found.values() for row in one["runs"]]
        pictures[name] = {"exact": report.shown(against.exact)} | {one: part["picture"] for one, part in found.items()}
        exact = measure.compare(system, against.exact, against.exact, against.values, against.start_value)
        told = {key: getattr(solution, key) for key in ("temperature", "discount", "error", "residual", "bound")}
        solved.append({"system": name, "grid": [list(axis) for axis in system.grid]} | told | dict(exact))
    report.draw(job.out, pictures)
    settings = {
        "environments": multigoal.ENVIRONMENTS,
        "exploration": EXPLORATION,
        "nodes": NODES,
        "states": measure.STATES,
        "grid_of_actions": measure.POINTS,
        "episodes": measure.EPISODES,
        "horizon": measure.HORIZON,
        "disturbances": measure.DISTURBANCES,
        "sac": {name: dataclasses.asdict(settings_of(name, options)) for name in algorithms},
    }
    job.text("table.md", report.markdown(runs))
    return {"settings": settings, "systems": solved, "runs": runs}, [report.table(runs)]


def settings_of(algorithm: str, options: Options) -> sac.Config:
    """Return the settings of an algorithm: one critic, since a minimum is biased."""
    return sac.Config(ALGORITHMS[algorithm], CRITIC, options.steps, batch_size=options.batch, recent=0.6)


def optimum(system: System) -> Solution:
    """Solve a problem."""
    return solve(system.make(), system.grid, temperature=system.temperature, discount=system.discount, nodes=NODES)


class Reference:
    """What policies are compared with: the optimum, starts, the states that it visits, and what it shows."""

    def __init__(self, starts: Any, states: Any, exact: Seen, values: Any, start_value: float):
        self.starts, self.states, self.exact, self.values, self.start_value = starts, states, exact, values, start_value


def reference(system: System, solution: Solution) -> Reference:
    """Follow the optimal policy, and look at it where it goes."""
    env = system.make()
    starts, states = jax.jit(measure.visited)(solution, keys_to_measure()[0])

    def critic(obs: Any, action: Any) -> Any:
        return solution.q(env.state_of(obs), action)

    look = jax.jit(lambda s: measure.look(s, system, s.policy(), critic, starts, states, keys_to_measure()[1]))
    exact = jax.tree.map(np.asarray, look(solution))
    values = np.asarray(jax.vmap(solution.soft_maximum)(states), float)
    return Reference(starts, states, exact, values, float(jnp.mean(jax.vmap(solution.soft_maximum)(starts))))


def keys_to_measure() -> Key[Array, " 2"]:
    """Return the keys to visit and to look with: of no training, whose seeds are smaller."""
    return jax.random.split(jax.random.key(2**31))


class Study(multigoal.Study):
    """The runs of one problem, trained as those of the multi-goal world are."""

    def __init__(self, options: Options, name: str, solution: Solution, against: Reference, job: frame.Job):
        self.options, self.solution, self.job, self.seeds = options, solution, job, frame.seeds_of(options)
        self.env, self.discount, self.name, self.against = solution.env, solution.discount, name, against
        self.rows = job.found.setdefault("metrics", [])

    def learned(self, algorithm: str) -> frame.Row:
        """Train all seeds of an algorithm and measure them."""
        config, label = settings_of(algorithm, self.options), f"{self.name} {algorithm}"
        self.exploration, system, against = EXPLORATION[algorithm], SYSTEMS[self.name], self.against
        agents = self._train(label, config)
        self.job.show(1.0, f"measuring {label}")

        def look(agent: sac.State) -> Seen:
            policy, critic = sac.policy(config, agent, average=True), partial(sac.q_value, config, agent)
            given = against.starts, against.states, keys_to_measure()[1]
            return measure.look(self.solution, system, policy, critic, *given)

        with self.job.timed("measure"):
            seen = jax.tree.map(np.asarray, frame.over_runs(look, len(self.seeds))(agents))
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], seen) for i in range(len(self.seeds))]
        head = {"system": self.name, "algorithm": algorithm}
        runs = [
            head
            | {"seed": seed}
            | dict(measure.compare(system, against.exact, one, against.values, against.start_value))
            for seed, one in zip(self.seeds, each, strict=True)
        ]
        return {"runs": runs, "picture": report.shown(each[0])}


main = frame.command("exact", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
