"""ISFM as a sampler of densities whose samples and normalising constants are known exactly.

Every target is trained and judged with the same settings: no environment, no critic, one state. What is reported is
measured on fresh samples of the trained flow, whose density is computed by an accurate solver.
"""

import dataclasses
import itertools
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray
from rich.table import Table

from entroflow import checks
from entroflow.flow import FlowPolicy, RungeKutta

from .. import frame
from ..distances import sample_w2
from . import fit as fitting
from .figures import Picture, density_figure
from .targets import Density, get, names

EVALUATIONS = 20  # rows of metrics.csv per target and seed
ESTIMATE = 2000  # samples of one estimate of log Z, as peers use
REPETITIONS = 10  # such estimates per seed
W2_SAMPLES = 1000
FLOORS = 5  # pairs of exact sample sets
GRID = 121  # of the picture, squared
PATHS = 80
SOLVER = RungeKutta("rk4", 16)


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    target: tuple[str, ...] = ("all",)
    """Names, such as grid9, gmm40, two_moons, gaussian_8 or many_well_32, or all."""
    seeds: int = 3
    """Number of seeds for every target."""
    steps: int = 3000
    """Gradient steps."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    frame.seeds_of(options)
    checks.positive_int("--steps", options.steps)
    everything = options.target == ("all",)
    wanted = names() if everything else checks.distinct("--target", options.target, "targets, or all")
    targets = [get(name) for name in wanted]
    for target in targets:
        if target.size < 2:
            remedy = "pass for example gaussian_2"
            raise checks.error("--target", target.name, "a target of at least two dimensions", remedy)
    return lambda job: Study(options, job).run(targets)


class Study:
    """Targets, one after the other."""

    def __init__(self, options: Options, job: frame.Job):
        self.job, self.seeds, self.config = job, frame.seeds_of(options), fitting.Config()
        self.rounds = -(-options.steps // self.config.reuse)

    def run(self, targets: list[Density]) -> tuple[frame.Row, list[Any]]:
        """Train, judge and draw; return results and tables."""
        job, steps = self.job, self.rounds * self.config.reuse
        job.cells = len(targets)
        job.console.print(
            f"ISFM on {', '.join(target.name for target in targets)}: {len(self.seeds)} seeds in one program, "
            f"{steps} steps of {self.config.points} points, {self.rounds * self.config.candidates:,} candidates each",
            soft_wrap=True,
        )
        results, rows = [], []
        for target in targets:
            found = job.cell(target.name, partial(self._target, target))
            results.append(found["result"])
            rows += found["rows"]
            job.rows("metrics.csv", rows)
        settings = {
            "estimate": ESTIMATE,
            "repetitions": REPETITIONS,
            "w2_samples": W2_SAMPLES,
            "solver": dataclasses.asdict(SOLVER),
            "fit": dataclasses.asdict(self.config),
        }
        return {"settings": settings, "targets": results}, [table(results)]

    def _target(self, target: Density) -> frame.Row:
        """Train on one target and judge what was learned."""
        since = time.perf_counter()
        policies, rows = self.train(target)
        return {"result": self.judge(target, policies) | {"seconds": time.perf_counter() - since}, "rows": rows}

    def train(self, target: Density) -> tuple[list[FlowPolicy], list[frame.Row]]:
        """Return the trained policies and what metrics.csv says of them."""
        keys, rows = jnp.stack([jax.random.key(seed) for seed in self.seeds]), []
        start = jax.vmap(partial(fitting.start, self.config, target, self.rounds))
        state = self._compile(start, keys)(keys)
        advance = partial(fitting.advance, self.config, target, self.rounds)
        advance = self._compile(jax.vmap(advance, in_axes=(0, None)), state, jnp.int32(1))
        marks = np.unique(np.linspace(0, self.rounds, EVALUATIONS + 1).astype(int))
        for before, after in itertools.pairwise(marks):
            with self.job.timed("train"):
                state, metrics = jax.block_until_ready(advance(state, jnp.int32(after - before)))
            values = {name: np.asarray(value) for name, value in metrics._asdict().items()}
            rows += [
                {"target": target.name, "seed": seed, "step": int(after) * self.config.reuse}
                | {name: float(value[i]) for name, value in values.items()}
                for i, seed in enumerate(self.seeds)
            ]
            if not np.isfinite(values["loss"]).all():
                raise frame.Broken(f"the loss on {target.name} is not finite")
            self.job.show(after / (self.rounds + 1))
        averages = [jax.tree.map(lambda leaf, i=i: leaf[i], state.average) for i in range(len(self.seeds))]
        policies = [fitting.with_velocity(self.config, target, average).with_solver(SOLVER) for average in averages]
        return policies, rows

    def judge(self, target: Density, policies: list[FlowPolicy]) -> frame.Row:
        """Compare the trained policies with the target; draw the first one."""
        keys = [jax.random.fold_in(jax.random.key(seed), 1) for seed in self.seeds]
        measure = self._compile(partial(draw_and_weigh, target), policies[0], keys[0])
        exact = np.random.default_rng(self.seeds[0])
        floor = [sample_w2(target.sample(exact, W2_SAMPLES), target.sample(exact, W2_SAMPLES)) for _ in range(FLOORS)]
        rows, drawn = [], []
        for seed, policy, key in zip(self.seeds, policies, keys, strict=True):
            with self.job.timed("evaluate"):
                samples, log_weights = (np.asarray(part, np.float64) for part in measure(policy, key))
                drawn.append(samples)
                row = accuracy(target, log_weights) | mode_error(target, samples)
                distance = sample_w2(samples[:W2_SAMPLES], target.sample(exact, W2_SAMPLES))
                rows.append({"seed": seed} | row | {"w2": distance})
        result = {"target": target.name, "size": target.size, "log_z": target.log_z, "w2_floor": float(np.mean(floor))}
        if target.modes is not None and target.mode_weights is not None:
            result |= {"exact_mode_weights": target.mode_weights}
        result |= {"seeds": rows}
        with self.job.timed("draw"):
            self._draw(target, policies[0], drawn[0], result)
        return result

    def _draw(self, target: Density, policy: FlowPolicy, samples: Float[np.ndarray, "m d"], result: frame.Row) -> None:
        exact = target.sample(np.random.default_rng(0), len(samples))
        low, high = exact[:, :2].min(axis=0), exact[:, :2].max(axis=0)
        bounds = np.stack([low - 0.05 * (high - low), high + 0.05 * (high - low)])
        noises = jax.random.normal(jax.random.key(0), (PATHS, target.size))
        paths = np.asarray(jax.jit(fitting.paths)(policy, noises), np.float64)
        densities = None
        if target.size == 2:
            axes = np.linspace(bounds[0], bounds[1], GRID)
            points = jnp.asarray(np.stack(np.meshgrid(*axes.T), axis=-1), jnp.float32)
            densities = np.exp(np.asarray(jax.jit(partial(log_densities, target))(policy, points), np.float64))
        picture = Picture(exact, samples, paths, bounds, densities)
        density_figure(self.job.out, target.name, caption(result), picture)

    def _compile(self, function: Any, *arguments: Any) -> Any:
        with self.job.timed("compile"):
            return jax.jit(function).lower(*arguments).compile()


def draw_and_weigh(
    target: Density, policy: FlowPolicy, key: PRNGKeyArray
) -> tuple[Float[Array, "m d"], Float[Array, " m"]]:
    """Draw samples of a policy, `ESTIMATE` × `REPETITIONS` of them, with log weights log_density − log π."""

    def block(keys: Key[Array, " n"]) -> tuple[Array, Array]:
        obs = jnp.asarray(fitting.OBS, jnp.float32)
        x, log_prob = jax.vmap(policy.sample_and_log_prob, in_axes=(0, None))(keys, obs)
        return x, jax.vmap(target.log_density)(x) - log_prob

    samples, log_weights = jax.lax.map(block, jax.random.split(key, (REPETITIONS, ESTIMATE)))
    return samples.reshape(-1, target.size), log_weights.reshape(-1)


def log_densities(target: Density, policy: FlowPolicy, points: Float[Array, "r c 2"]) -> Float[Array, "2 r c"]:
    """Return log p of the target and log π of the policy on a grid."""

    def row(points: Float[Array, "c 2"]) -> Float[Array, "2 c"]:
        obs = jnp.asarray(fitting.OBS, jnp.float32)
        learned = jax.vmap(policy.log_prob, in_axes=(None, 0))(obs, points)
        return jnp.stack([jax.vmap(target.log_density)(points) - target.log_z, learned])

    return jnp.swapaxes(jax.lax.map(row, points), 0, 1)


def accuracy(target: Density, log_weights: Float[np.ndarray, " m"]) -> dict[str, Any]:
    """Return ESS/N, KL(π‖p) and the errors of log Ẑ: of every estimate from 2,000 samples, and of all together."""
    log_ratio = log_weights - target.log_z  # log p/π, of mean one in exponential
    top = log_ratio.max()
    ratio = np.exp(log_ratio - top)
    estimates = np.log(ratio.reshape(REPETITIONS, -1).mean(axis=1)) + top
    return {
        "ess": float(ratio.sum() ** 2 / (ratio.size * (ratio**2).sum())),
        "kl": float(-log_ratio.mean()),
        "log_z_error": float(np.abs(estimates).mean()),
        "log_z_error_all": float(np.log(ratio.mean()) + top),
        "log_z_errors": estimates,
    }


def mode_error(target: Density, samples: Float[np.ndarray, "m d"]) -> dict[str, Any]:
    """Return the learned mode weights and their total variation distance from the exact ones, if there are modes."""
    if target.modes is None or target.mode_weights is None:
        return {"mode_error": None}
    squares = ((samples[:, None] - target.modes[None]) ** 2).sum(axis=2)
    weights = np.bincount(squares.argmin(axis=1), minlength=len(target.modes)) / len(samples)
    return {"mode_weights": weights, "mode_error": float(0.5 * np.abs(weights - target.mode_weights).sum())}


def caption(result: dict[str, Any]) -> str:
    """Return the figure's title: the first seed's numbers."""
    row = result["seeds"][0]
    return (
        f"{result['target']} (d = {result['size']}): ESS/N {row['ess']:.3f}, |log Ẑ − log Z| {row['log_z_error']:.4f}, "
        f"W₂ {row['w2']:.3g} (floor {result['w2_floor']:.3g})"
    )


def table(results: list[dict[str, Any]]) -> Table:
    """Return the closing table, at most 80 columns wide."""
    headers = "target", "d", "ESS/N", "|log Ẑ − log Z|", "W₂", "floor", "modes %", "s"
    caption = (
        f"average over seeds, in brackets the worst; log Ẑ from {ESTIMATE:,} samples; W₂ between\n"
        f"{W2_SAMPLES:,} learned and as many exact samples, floor: exact and exact; modes:\n"
        "total variation between learned and exact mode weights"
    )
    table = frame.new_table("learned density against the exact one", caption, headers, padding=0)
    for result in results:
        columns = {name: [row[name] for row in result["seeds"]] for name in ("ess", "log_z_error", "w2", "mode_error")}
        modes = columns["mode_error"]
        table.add_row(
            result["target"],
            str(result["size"]),
            f"{np.mean(columns['ess']):.3f} ({np.min(columns['ess']):.3f})",
            f"{np.mean(columns['log_z_error']):.2g} ({np.max(columns['log_z_error']):.2g})",
            f"{np.mean(columns['w2']):.3g}",
            f"{result['w2_floor']:.3g}",
            "–" if modes[0] is None else f"{100 * np.mean(modes):.1f}",
            f"{result['seconds']:.0f}",
        )
    return table


main = frame.command("densities", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
