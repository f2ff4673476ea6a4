"""The multi-goal comparison: three actors under the same critics, against the exact soft-optimal policy.

SAC-ISFM, plain SAC with its Gaussian, and a diffusion policy without a density (SDAC's way) are trained on the world of
soft Q-learning at one temperature, the seeds of an algorithm in one program. All settings but the actor are the same,
except that without a density the critic's targets cannot count the entropy.
"""

import dataclasses
import itertools
import math
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key

from entroflow import checks
from entroflow.devices import mesh_of, use_all_cores
from entroflow.envs import MultiGoalEnv
from entroflow.flow import Box
from entroflow.rl import MLPCritic, loop_jax, sac
from entroflow.rl.actors import Actor, Denoising, Flow, Gaussian

from .. import frame
from . import measure, report
from .exact import Solution, World, solve

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
class Options(frame.Options):
    """What can be chosen."""

    algorithm: tuple[str, ...] = ("all",)
    """sac_isfm, gaussian_sac (plain SAC), denoising (a diffusion policy without a density), or all."""
    alpha: float = 0.5
    """Temperature α > 0, the weight of the entropy."""
    seeds: int = 4
    """Number of seeds for every algorithm."""
    steps: int = 8000
    """Training steps: in each, every environment makes one step and every run one update."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""


def settings(actor: Actor, updates: int) -> sac.Config:
    """Return the settings for an actor: one critic, since a minimum is biased."""
    critic = MLPCritic(
        width=128,
        depth=3,
        layer_norm=False,
        members=1,
        ensemble="mean",
        improve_on="target",
        rate=5e-3,
        target_rate=0.1,
        final_target_rate=0.02,
    )
    return sac.Config(actor, critic, updates, batch_size=1024, recent=0.6)


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    frame.seeds_of(options)
    checks.positive_int("--steps", options.steps, most=np.iinfo(np.int32).max // ENVIRONMENTS)
    checks.positive_number("--alpha", options.alpha)
    names = list(ALGORITHMS)
    if options.algorithm != ("all",):
        wanted = checks.distinct("--algorithm", options.algorithm, "algorithms, or all")
        names = [checks.choice("--algorithm", name, ALGORITHMS) for name in wanted]
    solution = solve(World(), options.alpha, steps_per_unit=RESOLUTION)
    use_all_cores()
    return lambda job: Study(options, solution, job).run(names)


class Study:
    """The runs of all algorithms, one algorithm after the other."""

    def __init__(self, options: Options, solution: Solution, job: frame.Job):
        self.options, self.solution, self.job, self.seeds = options, solution, job, frame.seeds_of(options)
        self.env = MultiGoalEnv(dataclasses.replace(solution.world, initial_std=STARTS))
        self.discount, self.exploration = solution.world.discount, EXPLORATION
        self.rows: list[frame.Row] = job.found.setdefault("metrics", [])

    def run(self, names: list[str]) -> tuple[frame.Row, list[Any]]:
        """Train, measure, draw; return results and tables."""
        job, world = self.job, self.solution.world
        job.cells = len(names)
        job.console.print(
            f"multi-goal world, α = {self.options.alpha:g}: {', '.join(names)}; {len(self.seeds)} seeds of each in one "
            f"program, {self.options.steps} steps, {ENVIRONMENTS} environments each"
        )
        job.show(0.0, "following the exact policy")
        with job.timed("exact"):
            against = measure.reference(self.solution)
            perfect = measure.exact(against)
        exact = measure.compare(against, perfect)
        found = [job.cell(name, partial(self._algorithm, name, against)) for name in names]
        pictures = [report.picture("exact", world, perfect), *(report.Picture(*part["picture"]) for part in found)]
        report.draw(job.out, self.solution, pictures)
        settings = {
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
            "sac": {name: dataclasses.asdict(self._config(name)) for name in names},
        }
        results = [row for part in found for row in part["runs"]]
        document = {"world": dataclasses.asdict(world), "settings": settings, "exact": exact, "runs": results}
        return document, [report.table(results, exact)]

    def _config(self, name: str) -> sac.Config:
        return settings(ALGORITHMS[name], self.options.steps)

    def _algorithm(self, name: str, against: measure.Reference) -> frame.Row:
        """Train all seeds of an algorithm and measure them."""
        config = self._config(name)
        agents = self._train(name, config)
        self.job.show(1.0, f"measuring {name}")
        with self.job.timed("measure"):
            measured = measure.measure(against, config, agents, self.seeds)
        named = [{"algorithm": name, "seed": seed} for seed in self.seeds]
        runs = [label | measure.compare(against, one) for label, one in zip(named, measured, strict=True)]
        return {"runs": runs, "picture": report.picture(name, self.solution.world, measured[0])}

    def _train(self, name: str, config: sac.Config) -> sac.State:
        """Train, with what is needed to go on kept at every mark."""
        steps, job = self.options.steps, self.job
        begun = max((row["step"] for row in self.rows if row["algorithm"] == name), default=0)
        job.show(0.0, f"compiling {name} (once: the next time it is read from disk)")
        loop, advance = self.program(config)
        job.show(begun / steps, name)
        if begun:
            loop = job.restored("loop", loop)
        marks = np.unique(np.linspace(0, steps, min(EVALUATIONS, steps) + 1).astype(int)).tolist()
        for before, after in itertools.pairwise([mark for mark in marks if mark >= begun]):
            with job.timed(f"train_{name}"):
                loop, metrics = jax.block_until_ready(advance(loop, jnp.int32(after - before)))
            for i, seed in enumerate(self.seeds):
                found = {key: float(metrics[key][i]) if key in metrics else None for key in METRICS}
                label = {"algorithm": name, "seed": seed, "step": after, "transitions": int(loop.count)}
                self.rows.append(label | found)
            job.rows("metrics.csv", self.rows)
            for row in self.rows[-len(self.seeds) :]:
                if not math.isfinite(row["critic_error"] + row["policy_loss"]):
                    fault = before + 1 + int(metrics["broke"][self.seeds.index(row["seed"])])
                    raise frame.Broken(f"{name}, seed {row['seed']}: losses are no longer finite at step {fault}")
            job.show(after / steps)
            job.trees["loop"] = loop
            job.keep()
        job.trees.pop("loop", None)
        return loop.agent

    def program(self, config: sac.Config) -> tuple[loop_jax.Loop, Any]:
        """Compile the training; return runs that have made no step, and what advances them."""
        space = Box(self.env.action_low, self.env.action_high)
        temperature, discount = jnp.float32(self.solution.temperature), jnp.float32(self.discount)
        mesh, scales = mesh_of(len(self.seeds)), jnp.linspace(1.0, self.exploration, ENVIRONMENTS)
        remembered = max(1, math.ceil(self.options.steps * config.recent))

        def start(keys: Key[Array, "runs 2"]) -> loop_jax.Loop:
            agents = jax.vmap(
                lambda key: sac.init(
                    config,
                    key,
                    obs_size=self.env.obs_size,
                    action_space=space,
                    temperature=temperature,
                    discount=discount,
                )
            )(keys[:, 0])
            capacity = ENVIRONMENTS * remembered
            return loop_jax.start(self.env, agents, keys[:, 1], environments=ENVIRONMENTS, capacity=capacity)

        def advance(loop: loop_jax.Loop, steps: Array) -> tuple[loop_jax.Loop, loop_jax.Metrics]:
            return loop_jax.advance(config, self.env, loop, scales, steps)

        keys = jax.vmap(jax.random.split)(jnp.stack([jax.random.key(seed) for seed in self.seeds]))
        # The runs are divided among the devices along their axis, which all leaves have but for the counter.
        along = jax.tree.map(lambda leaf: P("runs") if leaf.ndim else P(), jax.eval_shape(start, keys))
        with self.job.timed("compile"):
            begin = jax.jit(jax.shard_map(start, mesh=mesh, in_specs=P("runs"), out_specs=along, check_vma=False))
            loop = begin(keys)
            divided = jax.shard_map(
                advance, mesh=mesh, in_specs=(along, P()), out_specs=(along, P("runs")), check_vma=False
            )
            return loop, jax.jit(divided, donate_argnums=0).lower(loop, jnp.int32(1)).compile()


main = frame.command("multigoal", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
