"""The multi-goal comparison: three actors under the same critics, against the exact soft-optimal policy.

SAC-ISFM, plain SAC with its Gaussian, and a diffusion policy without a density (SDAC's way) are trained on the world of
soft Q-learning at one temperature, the seeds of an algorithm in one program. All settings but the actor are the same,
except that without a density the critic's targets cannot count the entropy.
"""

import csv
import dataclasses
import itertools
import json
import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ... import checks
from ...commands.conduct import conduct
from ...commands.durable import Keeper, keeping
from ...devices import mesh_of, use_all_cores
from ...envs import MultiGoalEnv
from ...flow import Box
from ...multigoal import MultiGoal, Solution, solve
from ...rl import loop_jax, sac
from ...rl.actors import Actor, Denoising, Flow, Gaussian
from ...storage import checkpoint
from ...storage.folder import timed, write_results
from . import measure, report

ENVIRONMENTS = 128  # of each run
EXPLORATION = 2.0  # noise scale of the most exploratory environment; the others are spread from one to it
STARTS = 2.0  # standard deviation of s_0 in training, per coordinate; policies are judged on the world's own 0.1
RESOLUTION = 20  # grid points per unit of length of the exact solution
EVALUATIONS = 10  # lines of metrics.csv for every run
METRICS = "policy_loss", "critic_error", "q", "entropy", "ess", "kl", "beta"

# A policy that has forgotten a goal cannot propose it: a tenth of the flow's candidates are uniform in the box. For the
# same reason training starts all over the world: from the origin alone, the first goals found keep the others unknown.
SHARED: dict[str, Any] = {"states": 64, "rate": 1e-2, "warmup": 0.2, "average": 0.1}
NARROW: dict[str, Any] = {"width": 32, "depth": 1, "state_width": 32}
ALGORITHMS: dict[str, Actor] = {
    "sac_isfm": Flow(**NARROW, candidates=16, pairs=2, proposal="defensive", pathwise=0.0, **SHARED),
    "gaussian_sac": Gaussian(width=64, **SHARED),
    "denoising": Denoising(**NARROW, candidates=64, exploration=0.0, **SHARED),
}


@dataclass(frozen=True)
class MultiGoalCommand:
    """Train several algorithms on the multi-goal world and compare them with its exact soft-optimal policy.

    Writes figures, results.json and metrics.csv into a folder.
    """

    algorithm: tuple[str, ...] = ("all",)
    """sac_isfm, gaussian_sac (plain SAC), denoising (a diffusion policy without a density), or all."""
    alpha: float = 0.5
    """Temperature α > 0, the weight of the entropy."""
    seeds: int = 4
    """Number of seeds for every algorithm."""
    steps: int = 4000
    """Training steps: in each, every environment makes one step and every run one update."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    out: Path = Path("out/multigoal")
    """Output folder, new or empty."""


def settings(actor: Actor, updates: int) -> sac.Config:
    """Return the settings for an actor: one critic, since a minimum is biased; no entropy without a density."""
    return sac.Config(
        actor,
        updates,
        critic_width=128,
        critic_depth=3,
        layer_norm=False,
        critics=1,
        critic_value="mean",
        entropy_in_target=not isinstance(actor, Denoising),
        batch_size=1024,
        critic_rate=5e-3,
        target_rate=0.1,
        final_target_rate=0.02,
        policy_critic="target",
        recent=0.6,
    )


def run(command: MultiGoalCommand, resumed: dict[str, Any] | None = None) -> int:
    """Do what the command says; return the exit code.

    Args:
        command: the command.
        resumed: not None to go on with the study in its folder.

    Raises:
        ValueError: for bad input, before anything is written.
    """
    names = _plan(command)
    solution = solve(MultiGoal(), command.alpha, steps_per_unit=RESOLUTION)
    use_all_cores()
    with keeping("multigoal", command, {}, resumed=resumed is not None) as keeper:
        study = lambda console: _Study(command, names, solution, console, keeper).run()  # noqa: E731
        return conduct(command.out, study, claimed=True)


def _plan(command: MultiGoalCommand) -> list[str]:
    """Check the settings; return the algorithms."""
    checks.seeds(command.seed, command.seeds)
    checks.positive_int("--steps", command.steps, most=np.iinfo(np.int32).max // ENVIRONMENTS)
    checks.positive_number("--alpha", command.alpha)
    if command.algorithm == ("all",):
        return list(ALGORITHMS)
    wanted = checks.distinct("--algorithm", command.algorithm, "algorithms, or all")
    return [checks.choice("--algorithm", name, ALGORITHMS) for name in wanted]


class _Study:
    """The runs and their records."""

    def __init__(
        self, command: MultiGoalCommand, names: list[str], solution: Solution, console: Console, keeper: Keeper
    ):
        self.command, self.names, self.solution, self.console, self.keeper = command, names, solution, console, keeper
        self.env = MultiGoalEnv(dataclasses.replace(solution.world, initial_std=STARTS))
        self.seeds = checks.seeds(command.seed, command.seeds)
        self.clock: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []
        self.trained: checkpoint.Arrays = {}  # the agents of the algorithms that are done

    def run(self) -> int:
        """Train, measure, write; return the exit code."""
        begun, command, console = time.perf_counter(), self.command, self.console
        console.print(
            f"multi-goal world, α = {command.alpha:g}: {', '.join(self.names)}; {len(self.seeds)} seeds of each in one "
            f"program, {command.steps} steps, {ENVIRONMENTS} environments each"
        )
        with console.status("following the exact policy"), timed(self.clock, "exact"):
            against = measure.reference(self.solution)
            perfect = measure.exact(against)
            exact = measure.compare(against, perfect)
        results, pictures = [], [report.picture("exact", perfect)]
        if self.keeper.step:
            self.rows, self.clock = json.loads(self.keeper.numbers["rows"]), dict(self.keeper.numbers["seconds"])
            done = tuple(f"trained.{name}." for name in self.keeper.numbers["done"])
            self.trained = {name: part for name, part in self.keeper.arrays.items() if name.startswith(done)}
        with (command.out / "metrics.csv").open("w", newline="") as file:
            writer: csv.DictWriter = csv.DictWriter(file, ("algorithm", "seed", "step", "transitions", *METRICS))
            writer.writeheader()
            writer.writerows(self.rows)
            for place, name in enumerate(self.names):
                config = settings(ALGORITHMS[name], command.steps)
                agents = self._train(place, config, writer, file)
                if agents is None:
                    return self.keeper.stopped(console) if self.keeper.stop() else 1
                with console.status(f"measuring {name}"), timed(self.clock, "measure"):
                    found = measure.measure(against, config, agents, self.seeds)
                    for seed, one in zip(self.seeds, found, strict=True):
                        results.append({"algorithm": name, "seed": seed} | measure.compare(against, one))
                pictures.append(report.picture(name, found[0]))
        with console.status("writing figures"):
            report.draw(command.out, self.solution, pictures)
        used = dataclasses.asdict(command) | {
            "environments": ENVIRONMENTS,
            "exploration": EXPLORATION,
            "starts": STARTS,
            "steps_per_unit": RESOLUTION,
            "states": measure.STATES,
            "grid_of_actions": measure.POINTS,
            "samples_per_histogram": measure.SAMPLES,
            "episodes": measure.EPISODES,
            "horizon": measure.HORIZON,
            "acting_solver": dataclasses.asdict(measure.ACTING_SOLVER),
            "sac": {name: dataclasses.asdict(settings(ALGORITHMS[name], command.steps)) for name in self.names},
        }
        document = {"world": dataclasses.asdict(self.solution.world), "settings": used}
        seconds = self.clock | {"total": time.perf_counter() - begun}
        write_results(command.out, document | {"exact": exact, "runs": results}, seconds)
        console.print(report.table(results, exact))
        console.print(f"all {seconds['total']:.0f} s; figures (png, pdf), results.json, metrics.csv are in")
        console.print(str(command.out), markup=False, soft_wrap=True)
        self.keeper.finished()
        return 0

    def _train(self, place: int, config: sac.Config, writer: csv.DictWriter, file: Any) -> sac.State | None:
        """Train all seeds of an algorithm; return the agents, or None if one broke down or training is to stop."""
        steps, console, name = self.command.steps, self.console, self.names[place]
        begun = self.keeper.step - place * steps  # where an earlier process came to
        with console.status(f"compiling {name} (once: the next time it is read from disk)"):
            loop, advance = self._program(config)
        if 0 < begun < steps:
            loop = self.keeper.restored("loop", loop)
        elif begun >= steps:
            return self.keeper.restored(f"trained.{name}", loop.agent)
        marks = np.unique(np.linspace(0, steps, min(EVALUATIONS, steps) + 1).astype(int)).tolist()
        marks = [mark for mark in marks if mark >= begun]
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(name, total=steps, completed=marks[0])
            for before, after in itertools.pairwise(marks):
                with timed(self.clock, f"train_{name}"):
                    loop, metrics = jax.block_until_ready(advance(loop, jnp.int32(after - before)))
                rows = []
                for i, seed in enumerate(self.seeds):
                    row = {"algorithm": name, "seed": seed, "step": after, "transitions": int(loop.count)}
                    row |= {key: float(metrics[key][i]) for key in METRICS if key in metrics}
                    writer.writerow(row)
                    rows.append(row)
                    if not math.isfinite(row["critic_error"] + row["policy_loss"]):
                        fault = before + 1 + int(metrics["broke"][i])
                        console.print(f"[red]{name}, seed {seed}: losses are no longer finite at step {fault}")
                        return None
                file.flush()
                self.rows += rows
                if after == steps:
                    self.trained |= checkpoint.flatten(f"trained.{name}", loop.agent)
                progress.update(task, completed=after)
                if self.keeper.keep(
                    place * steps + after, lambda loop=loop, after=after: self._state(loop, place, after)
                ):
                    return None
        return loop.agent

    def _state(self, loop: loop_jax.Loop, place: int, after: int) -> tuple[dict[str, Any], checkpoint.Arrays]:
        """Return what going on needs: the agents that are done, and the loop of the one that is not.

        Rows are text, for the entropy of a policy without a density may be infinite, which JSON does not have.
        """
        done = after == self.command.steps
        numbers = {"rows": json.dumps(self.rows), "done": self.names[: place + done], "seconds": self.clock}
        return numbers, self.trained | ({} if done else checkpoint.flatten("loop", loop))

    def _program(self, config: sac.Config) -> tuple[loop_jax.Loop, Any]:
        """Compile the training; return runs that have made no step, and what advances them."""
        space, alpha = Box(self.env.action_low, self.env.action_high), jnp.float32(self.command.alpha)
        discount = jnp.float32(self.solution.world.discount)
        mesh, scales = mesh_of(len(self.seeds)), jnp.linspace(1.0, EXPLORATION, ENVIRONMENTS)
        remembered = max(1, math.ceil(self.command.steps * config.recent))

        def start(keys: Key[Array, "runs 2"]) -> loop_jax.Loop:
            agents = jax.vmap(
                lambda key: sac.init(config, key, obs_size=2, action_space=space, temperature=alpha, discount=discount)
            )(keys[:, 0])
            capacity = ENVIRONMENTS * remembered
            return loop_jax.start(self.env, agents, keys[:, 1], environments=ENVIRONMENTS, capacity=capacity)

        def advance(loop: loop_jax.Loop, steps: Array) -> tuple[loop_jax.Loop, loop_jax.Metrics]:
            return loop_jax.advance(config, self.env, loop, scales, steps)

        keys = jax.vmap(jax.random.split)(jnp.stack([jax.random.key(seed) for seed in self.seeds]))
        # The runs are divided among the devices along their axis, which all leaves have but for the counter.
        along = jax.tree.map(lambda leaf: P("runs") if leaf.ndim else P(), jax.eval_shape(start, keys))
        with timed(self.clock, "compile"):
            begin = jax.jit(jax.shard_map(start, mesh=mesh, in_specs=P("runs"), out_specs=along, check_vma=False))
            loop = begin(keys)
            divided = jax.shard_map(
                advance, mesh=mesh, in_specs=(along, P()), out_specs=(along, P("runs")), check_vma=False
            )
            return loop, jax.jit(divided, donate_argnums=0).lower(loop, jnp.int32(1)).compile()
