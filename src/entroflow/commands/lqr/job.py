"""The main job: SAC-ISFM on max-entropy LQR for several temperatures and seeds, compared with the exact optimum.

The runs of all temperatures and seeds are one compiled program. The paper's protocol: Figure 1 is the standard return
during training over 100 trajectories, against the optimal policy's on the same noise; Figure 2 the errors of the
actions' mean and covariance, in 2-norm, over the states that the trained policy visits.
"""

import dataclasses
import itertools
import json
import math
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Key, PRNGKeyArray
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ... import memory
from ...agents import Settings, saved
from ...agents.progress import LINES
from ...agents.settings import to_json
from ...agents.tasks import rebuilt
from ...compiling import waiting
from ...devices import mesh_of, use_all_cores
from ...envs import LQREnv
from ...flow import Unbounded
from ...lqr import LQR
from ...lqr.simulate import Noise
from ...options import LQROptions
from ...rl import loop_jax, sac
from ...storage import checkpoint, tables
from ...storage.folder import timed, write_results
from ...storage.keeping import Keeper, conduct, keeping
from ...storage.places import policy_folder
from . import initial, report, units
from . import plan as planned
from .evaluate import LQREvaluation, evaluate, normal_points
from .plan import Run, candidates, noise, settings

RUNS = P("runs")  # leaves with a leading axis of runs are divided along it


def run(options: LQROptions, lqr: LQR, runs: list[Run], *, resumed: dict[str, Any] | None) -> int:
    """Do what was planned, see `entroflow.commands.lqr.start`, or go on with it; return the exit code."""
    begun = options.initial_gain is not None
    config = settings(options.steps, candidates(options.candidates), options.preset, options.algorithm, begun)
    controller, facts = None, {"system": lqr.to_dict()}
    if options.initial_gain is not None:  # of a study to go on with, the file may no longer be there
        known = None if resumed is None else initial.of(resumed["controller"], lqr)
        controller = known or initial.read(Path(options.initial_gain), lqr)
        facts["controller"] = initial.document(controller)
    use_all_cores()
    transition = 4 * (2 * lqr.B.shape[0] + lqr.B.shape[1] + 1) + 2
    memory.check({"seeds or temperatures": len(runs) * _remembered(options, config) * transition})
    given = {name: value for name, value in dataclasses.asdict(options).items() if name != "out"}
    again = shlex.join(["entroflow", "resume", str(options.out)])
    with (
        keeping("lqr", options.out, given, facts, resumed=resumed is not None, again=again) as keeper,
        jax.enable_x64(False),  # environment, noise and figures are in single precision
    ):
        job = lambda console: _Job(options, lqr, runs, config, controller, console, keeper).run()  # noqa: E731
        return conduct(options.out, job)


def _remembered(options: LQROptions, config: sac.Config) -> int:
    """Return how many transitions each run remembers."""
    remembered = min(max(1, math.ceil(options.steps * config.recent)), planned.LARGEST_MEMORY)
    return planned.ENVIRONMENTS * remembered


def _along_runs(loop: loop_jax.Loop) -> Any:
    """Say how the leaves of a loop are divided among the devices: along the runs, but for the counter."""
    return jax.tree.map(lambda leaf: RUNS if leaf.ndim else P(), loop)


class _Job:
    """The runs and their records."""

    def __init__(
        self,
        options: LQROptions,
        lqr: LQR,
        runs: list[Run],
        config: sac.Config,
        controller: initial.Controller | None,
        console: Console,
        keeper: Keeper,
    ):
        self.options, self.lqr, self.runs, self.console, self.keeper = options, lqr, runs, console, keeper
        self.env, self.controller = LQREnv(lqr, planned.HORIZON), controller
        if keeper.step:  # all were one before they were kept
            state, action, reward = keeper.numbers.get("units", ([1.0] * len(lqr.A), [1.0] * len(lqr.R), 1.0))
            self.units = units.Units(np.array(state), np.array(action), reward)
        else:
            one = np.ones(len(lqr.A)), np.ones(len(lqr.R))
            seen = self.env if controller is None else initial.about(self.env, controller, *one)
            self.units = units.find(seen, lqr.discount)
        action = self.units.action if controller is None else np.ones(len(lqr.R))
        self.learned_on = LQREnv(lqr.in_units(self.units.state, action, self.units.reward), planned.HORIZON)
        if controller is not None:
            self.learned_on = initial.about(self.learned_on, controller, self.units.state, self.units.action)
        self.config = config
        self.noise = Noise(*[part.astype(np.float32) for part in noise(lqr)])
        self.mesh = mesh_of(len(runs))
        self.clock = {"compile": 0.0, "train": 0.0, "evaluate": 0.0}
        self.rows: list[dict[str, Any]] = []
        self.begun = time.perf_counter()

    def run(self) -> int:
        """Train, evaluate, write; return the exit code."""
        n, d = self.lqr.B.shape
        console, runs, steps = self.console, self.runs, self.options.steps
        count = lambda number, what: f"{number} {what}{'s' * (number != 1)}"  # noqa: E731
        console.print(
            f"{self.options.algorithm.upper().replace('_', '-')} on [bold]{escape(self.lqr.name)}[/] "
            f"({count(n, 'state')}, {count(d, 'input')}): {count(len(runs), 'run')} in one program, "
            f"{count(steps, 'step')}, {planned.ENVIRONMENTS} environments each"
        )
        with waiting("compiling (once: the next time it is read from disk)", console):
            loop = self._start()
            scales = jnp.linspace(1.0, jnp.asarray(self._boldest()), planned.ENVIRONMENTS, axis=1)

            def advance(
                loop: loop_jax.Loop, scales: Float[Array, "runs e"], steps: Array
            ) -> tuple[loop_jax.Loop, loop_jax.Metrics]:
                return loop_jax.advance(self.config, self.learned_on, loop, scales, steps)

            along = _along_runs(loop)
            advance = self._divide(advance, (along, RUNS, P()), (along, RUNS))
            advance = self._compile(jax.jit(advance, donate_argnums=0), loop, scales, jnp.int32(1))
            watch = self._compile(self._evaluation(planned.PROGRESS_STATES, planned.PROGRESS_SAMPLES), loop.agent)
        if self.keeper.step:
            numbers = self.keeper.numbers
            with checkpoint.fitting(self.options.out):
                self.rows, self.clock = json.loads(numbers["rows"]), dict(numbers["seconds"])
                self.begun -= self.clock.pop("total", 0.0)
                loop = self.keeper.restored("loop", loop)
        marks = [step for step in planned.marks(steps) if step >= self.keeper.step]
        columns = BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        progress, status = Progress(TextColumn("{task.percentage:3.0f} %"), *columns, console=console), Text()
        with Live(Group(progress, status), console=console, transient=not console.is_terminal):
            task = progress.add_task("training", total=steps, completed=marks[0])
            for before, after in itertools.pairwise(marks):
                with timed(self.clock, "train"):
                    loop, metrics = jax.block_until_ready(advance(loop, scales, jnp.int32(after - before)))
                faults = before + 1 + np.asarray(metrics.pop("broke"))
                with timed(self.clock, "evaluate"):
                    measured = [report.errors(*pair) for pair in zip(runs, _unstack(watch(loop.agent)), strict=True)]
                for name in metrics.keys() & {"entropy", "temperature"}:
                    del metrics[name]  # the learner's own, in its units; the entropy is measured
                worth = np.array([run.temperature for run in runs]) * self._volume() / (1 - self.lqr.discount)
                for name, share in {"critic_error": 0.0, "q": self.lqr.discount, "v": 1.0}.items():
                    if name in metrics:  # in the plant's units, entropy, too: see `units.counted`
                        metrics[name] = metrics[name] * self.units.reward + share * worth
                drawn = after * self.config.actor.states * getattr(self.config.actor, "candidates", 1)
                rows, weights = [], {} if "ess" in metrics else {"ess": math.nan}
                for i, run in enumerate(runs):
                    head = {"alpha": run.temperature, "seed": run.seed, "step": after, "transitions": int(loop.count)}
                    learned = {name: float(values[i]) for name, values in metrics.items()}
                    rows.append(head | measured[i] | learned | weights | {"candidates_drawn": drawn})
                self.rows += rows
                tables.write_rows(self.options.out / "metrics.csv", self.rows)
                if (broken := _broken(rows, metrics, faults)) is not None:
                    console.print(f"[red]{broken}; training cannot go on. metrics.csv holds what led there.")
                    return 1
                progress.update(task, completed=after)
                status.plain = _status(rows)
                if not console.is_terminal and after * LINES // steps > before * LINES // steps:
                    console.print(f"{after / steps:4.0%}  {status.plain}", highlight=False, soft_wrap=True)
                if self.keeper.keep(after, lambda loop=loop: self._state(loop)):
                    return self.keeper.stopped(console)
        self._finish(loop)
        self.keeper.finished()
        return 0

    def _units_told(self) -> list[Any]:
        """Return the units as JSON has them."""
        return [np.asarray(unit).tolist() for unit in self.units]

    def _seconds(self) -> dict[str, float]:
        """Return what took how long, in all sittings together."""
        return self.clock | {"total": time.perf_counter() - self.begun}

    def _state(self, loop: loop_jax.Loop) -> tuple[dict[str, Any], checkpoint.Arrays]:
        """Return what going on needs. Rows are text, for an evaluation may find infinity, which JSON does not have."""
        numbers = {"rows": json.dumps(self.rows), "seconds": self._seconds(), "units": self._units_told()}
        return numbers, checkpoint.flatten("loop", loop)

    def _start(self) -> loop_jax.Loop:
        """Return runs that have made no step; a run's numbers do not depend on which others stand beside it."""
        n, d = self.lqr.B.shape
        keys = jax.vmap(jax.random.split)(jnp.stack([jax.random.key(run.seed) for run in self.runs]))

        def init(key: PRNGKeyArray, temperature: Float[Array, ""], width: Float[Array, " d"]) -> sac.State:
            discount = jnp.asarray(self.lqr.discount, jnp.float32)
            spaces = {"obs_size": n, "action_space": Unbounded(d, scale=width)}
            agent = sac.init(self.config, key, **spaces, temperature=temperature, discount=discount)
            return agent if self.controller is None else initial.at_rest(agent)

        def start(
            keys: Key[Array, "runs 2"], temperatures: Float[Array, " runs"], widths: Float[Array, "runs d"]
        ) -> loop_jax.Loop:
            agents = jax.vmap(init)(keys[:, 0], temperatures, widths)
            sizes = {"environments": planned.ENVIRONMENTS, "capacity": _remembered(self.options, self.config)}
            return loop_jax.start(self.learned_on, agents, keys[:, 1], **sizes)

        temperatures = [run.temperature / self.units.reward for run in self.runs]
        widths = [units.action_sizes(self.learned_on, self.lqr.discount, alpha / 2) for alpha in temperatures]
        if self.controller is not None and self.controller.covariance is not None:
            widths = [1 / self.units.action] * len(temperatures)
        arguments = keys, jnp.asarray(temperatures, jnp.float32), jnp.asarray(np.stack(widths), jnp.float32)
        along = _along_runs(jax.eval_shape(start, *arguments))
        return self._compile(jax.jit(self._divide(start, (RUNS, RUNS, RUNS), along)), *arguments)(*arguments)

    def _boldest(self) -> list[float]:
        """Return the noise scale of the boldest environment of every run."""
        return [planned.exploration(self.options, run.temperature / self.units.reward) for run in self.runs]

    def _divide(self, function: Any, inputs: Any, outputs: Any) -> Any:
        """Divide the runs among the devices: every core, or GPU, advances its own."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def _compile(self, function: Any, *arguments: Any) -> Any:
        with timed(self.clock, "compile"):
            return function.lower(*arguments).compile()

    def _evaluation(self, states: int, samples: int) -> Any:
        """Return the evaluation of all runs at a number of visited states, with samples at each, to be compiled."""
        points = jnp.asarray(normal_points(samples, self.lqr.B.shape[1]))
        visits = jnp.asarray(planned.visits(states))

        def one(agent: sac.State) -> LQREvaluation:
            policy = sac.policy(*self._restored(agent), average=True)
            return evaluate(self.env, policy, agent.discount, self.noise, visits, points)

        return jax.jit(self._divide(jax.vmap(one), RUNS, RUNS))

    def _restored(self, agent: sac.State) -> tuple[sac.Config, sac.State]:
        """Return settings and an agent as they are for the plant."""
        plain = self.config, units.counted(units.restored(agent, self.units), self._volume())
        return plain if self.controller is None else initial.unwrapped(*plain, self.controller)

    def _volume(self) -> float:
        """Return the logarithm of the volume, in the plant's units, of what counts as one of the actions learned."""
        root = np.eye(len(self.units.action)) if self.controller is None else self.controller.root
        return float(np.sum(np.log(self.units.action)) + np.linalg.slogdet(root)[1])

    def _save(self, folder: Path, run: Run, config: sac.Config, agent: sac.State) -> None:
        """Write the agent of a run."""
        made = Settings(config, discount=self.lqr.discount, temperature=run.temperature, target_entropy=None)
        task = rebuilt({"id": "entroflow/LQR-v0", "kwargs": {"system": self.lqr.to_dict()}})
        saved.write(folder, task, made, run.seed, self.options.steps, jax.tree.map(lambda leaf: leaf[None], agent))

    def _finish(self, loop: loop_jax.Loop) -> None:
        """Make the last evaluation and write everything."""
        out, console = self.options.out, self.console
        with waiting("final evaluation", console):
            final = self._compile(self._evaluation(planned.FINAL_STATES, planned.FINAL_SAMPLES), loop.agent)
            with timed(self.clock, "evaluate"):
                evaluations = _unstack(jax.block_until_ready(final(loop.agent)))
        with waiting("writing policies and figures", console):
            results, pictures = [], []
            for i, (run, evaluation) in enumerate(zip(self.runs, evaluations, strict=True)):
                config, agent = self._restored(jax.tree.map(lambda leaf, i=i: leaf[i], loop.agent))
                folder = policy_folder(run.temperature, run.seed)
                self._save(out / folder, run, config, agent)
                last, measured = self.rows[i - len(self.runs)], report.errors(run, evaluation)
                floors = report.floors(run, planned.FINAL_SAMPLES, measured["mean_scale"])
                trained = {name: last[name] for name in ("ess", "transitions", "candidates_drawn")}
                head = {"alpha": run.temperature, "seed": run.seed}
                results.append(head | measured | floors | trained | {"policy": folder})
                if run.seed == self.options.seed:
                    pictures += report.pictures(self.lqr, run, sac.policy(config, agent, average=True))
            report.draw(out, self.lqr.name, self.runs, self.rows, results, pictures)
        seconds = self._seconds()
        told = dataclasses.asdict(self.options) | {
            "environments": planned.ENVIRONMENTS,
            "exploration": dict(
                zip([str(run.temperature).removesuffix(".0") for run in self.runs], self._boldest(), strict=True)
            ),
            "horizon": planned.HORIZON,
            "trajectories": planned.TRAJECTORIES,
            "evaluated_states": planned.FINAL_STATES,
            "samples_per_state": planned.FINAL_SAMPLES,
            "acting_solver": to_json(getattr(self.config.actor, "acting_solver", None)),
            "units": dict(zip(self.units._fields, self._units_told(), strict=True)),
            "sac": to_json(self.config),
        }
        started = {} if self.controller is None else {"controller": initial.document(self.controller)}
        write_results(out, {"system": self.lqr.to_dict()} | started | {"settings": told, "runs": results}, seconds)
        console.print(report.table(results))
        if (diverging := report.diverging(results)) is not None:
            console.print(diverging, style="yellow", highlight=False, soft_wrap=True)
        console.print(
            f"compile {seconds['compile']:.0f} s, train {seconds['train']:.0f} s, "
            f"evaluate {seconds['evaluate']:.0f} s, all {seconds['total']:.0f} s"
        )
        console.print("figure1, figure2, figure3, policies (png, pdf), results.json, metrics.csv and policies/ are in")
        console.print(str(out), markup=False, soft_wrap=True)


def _unstack(evaluation: LQREvaluation) -> list[LQREvaluation]:
    """Return the evaluations of the single runs, as NumPy arrays."""
    arrays = jax.tree.map(np.asarray, evaluation)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], arrays) for i in range(len(arrays.standard_return))]


def _broken(rows: list[dict[str, Any]], metrics: Iterable[str], faults: Float[np.ndarray, " runs"]) -> str | None:
    """Say which of the learner's metrics is no longer a finite number, if one is not.

    What the evaluation measures does not count: a policy that does not stabilise the system yet has no finite return.
    """
    for row, fault in zip(rows, faults, strict=True):
        for name in metrics:
            if not math.isfinite(row[name]):
                run = f"the run alpha={row['alpha']:g} seed={row['seed']}"
                return f"{name} of {run} is {row[name]} at step {fault:.0f}"
    return None


def _status(rows: list[dict[str, Any]]) -> str:
    """The live line: averages over the runs whose return is finite."""
    stable = [row for row in rows if math.isfinite(row["standard_return"])]
    told = f"{len(rows) - len(stable)} of {len(rows)} runs do not stabilise the plant yet"
    if not stable:
        return told
    average = {name: float(np.mean([row[name] for row in stable])) for name in rows[0]}
    return (
        f"return {average['standard_return']:.4g} (optimum {average['optimal_standard_return']:.4g})  "
        f"error: mean {average['mean_error_relative']:.1%}, cov {average['covariance_error_relative']:.1%}  "
        f"ESS/N {average['ess']:.2f}"
    ) + f"  {told}" * (len(stable) < len(rows))
