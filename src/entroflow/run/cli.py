"""The command line. Nothing heavy is imported before a command runs, so that `--help` answers at once."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class LQRCommand:
    """Train SAC-ISFM on max-entropy LQR, all temperatures and seeds at once, and compare with the exact optimum.

    Writes figures, results.json, metrics.csv and the trained policies into a folder.
    """

    system: str = "coupled"
    """A named system (double_integrator, coupled, unstable, cartpole, mass_spring) or a JSON file."""
    alpha: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    """Temperatures α > 0, the weights of the entropy."""
    seeds: int = 3
    """Number of seeds for every temperature."""
    steps: int = 3000
    """Training steps: in each, every environment makes one step and every run one update."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    candidates: str = "8"
    """Candidates per state of an improvement step: a number from 2 to 1024, or adaptive."""
    out: Path = Path("out/lqr")
    """Output folder, new or empty."""


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


@dataclass(frozen=True)
class Theorem2Command:
    """Measure Theorem 2: W_2² of the learned distribution against the number of candidates and the proposal.

    Writes a figure, results.json and cells.csv into a folder.
    """

    seeds: int = 8
    """Number of seeds for every cell, at least 2."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    steps: int = 600
    """Gradient steps of every fit."""
    out: Path = Path("out/theorem2")
    """Output folder, new or empty."""


@dataclass(frozen=True)
class DensitiesCommand:
    """ISFM alone, as a sampler of densities whose samples and normalising constants are known exactly.

    Writes one figure per target, results.json and metrics.csv into a folder.
    """

    target: tuple[str, ...] = ("all",)
    """Names, such as grid9, gmm40, two_moons, gaussian_8 or many_well_32, or all."""
    seeds: int = 3
    """Number of seeds for every target."""
    steps: int = 3000
    """Gradient steps."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    out: Path = Path("out/densities")
    """Output folder, new or empty."""


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


@dataclass(frozen=True)
class TrainCommand:
    """Train on a Gymnasium task, all seeds at once. Records, checkpoints and figures go into a folder."""

    env: tyro.conf.Positional[str]
    """Id of the task, such as HalfCheetah-v5."""
    algorithm: str = "sac_isfm"
    """sac_isfm, gaussian_sac, or denoising (a diffusion policy without a density)."""
    steps: int = 100_000
    """Environment steps of every seed."""
    seeds: int = 1
    """Number of seeds."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    evaluate_every: int = 5000
    """Environment steps between evaluations, each with a checkpoint."""
    evaluation_episodes: int = 10
    """Episodes of every evaluation."""
    set: tuple[str, ...] = ()
    """Settings to change, such as candidates=32 num_envs=4 learning_starts=500."""
    resume: Literal["never", "auto"] = "never"
    """auto: go on with the run in the folder, if there is one."""
    wandb: bool = False
    """Also log to Weights & Biases."""
    out: Path | None = None
    """Output folder; out/TASK-ALGORITHM if not given."""


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a training, or a study of lqr or multigoal, from its last checkpoint, as if it had never stopped."""

    folder: tyro.conf.Positional[Path]
    """Folder of the training or study."""
    steps: int | None = None
    """Environment steps of every seed, if a training is to make others than planned."""


@dataclass(frozen=True)
class EvalCommand:
    """Evaluate the agents of a training over whole episodes."""

    folder: tyro.conf.Positional[Path]
    """Folder of a training, or of one agent."""
    episodes: int = 100
    """Episodes of every agent."""
    checkpoint: str = "last"
    """last or best."""
    stochastic: bool = False
    """Draw actions from the policy instead of the best by Q of several draws."""
    action_noise: float = 0.0
    """Standard deviation of noise on actions, as a fraction of half their range."""
    observation_noise: float = 0.0
    """Standard deviation of noise on every component of the observation."""
    mass: float = 1.0
    """Factor of all masses and inertias (MuJoCo tasks)."""
    friction: float = 1.0
    """Factor of all friction coefficients (MuJoCo tasks)."""
    seed: int = 0
    """Seed of the first episode."""


@dataclass(frozen=True)
class WatchCommand:
    """Film a trained agent."""

    folder: tyro.conf.Positional[Path]
    """Folder of a training, whose first seed is filmed, or of one agent."""
    out: Path = Path("out/film")
    """The film, .mp4 or .gif."""
    episodes: int = 1
    """Number of episodes."""
    checkpoint: str = "last"
    """last or best."""
    stochastic: bool = False
    """Draw actions from the policy instead of the best by Q of several draws."""
    seed: int = 0
    """Seed of the first episode."""


@dataclass(frozen=True)
class ExportCommand:
    """Write a trained policy as one file that runs without this library: observations and noise to actions."""

    folder: tyro.conf.Positional[Path]
    """Folder of a training, of one agent, or of `entroflow lqr`."""
    out: Path = Path("out/policy.onnx")
    """The file, .onnx or .stablehlo."""
    best_of: int = 1
    """Actions to draw, of which the best by Q is taken; a single one comes with its log-density."""
    alpha: float | None = None
    """Temperature of the policy, where the folder holds several."""
    seed: int | None = None
    """Its seed, likewise."""


@dataclass(frozen=True)
class CompareCommand:
    """Compare training runs: learning curves, final scores, probabilities of improvement, with 95 % intervals.

    Writes compare.png, compare.pdf, compare.json (all that is drawn) and compare.csv (the table) into a folder.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of training runs; the first one's algorithm is set against the others."""
    out: Path = Path("out/compare")
    """Output folder: new, empty or of an earlier comparison."""
    metric: str = "return"
    """What to compare: return or length of evaluations, train/return, or a column of metrics.csv such as entropy."""
    labels: tuple[str, ...] = ()
    """What to call the lines, one for each folder, if not by algorithm and by settings that differ."""


@dataclass(frozen=True)
class BenchCommand:
    """Measure speed: beside other libraries, how it grows with sizes, what accuracy costs.

    Writes bench.json, bench.md and figures into a folder; what an earlier call measured there stays, part by part.
    """

    parts: tyro.conf.Positional[tuple[str, ...]] = ("all",)
    """update, act, density, steps, start, pieces, scaling, accuracy, or all."""
    task: tuple[str, ...] = ("HalfCheetah-v5", "Humanoid-v5")
    """Gymnasium tasks, whose shapes the data have."""
    peers: Path | None = None
    """The Python of an environment with Stable-Baselines3 and SBX (see benchmarks/README.md); without, ours alone."""
    rounds: int = 10
    """Rounds in which everything takes its turn."""
    out: Path = Path("out/bench")
    """Output folder."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process if not given.

    Returns:
        The exit code: 0 for success, 1 if training broke down, 2 for bad input, 130 after Ctrl-C, 143 after
        SIGTERM.
    """
    app = tyro.extras.SubcommandApp()

    @app.command(name="lqr")
    def lqr(command: tyro.conf.OmitArgPrefixes[LQRCommand]) -> int:
        """Train on max-entropy LQR and compare with the exact optimum."""
        from ..studies.lqr.study import run

        return run(command)

    @app.command(name="spi")
    def spi(command: tyro.conf.OmitArgPrefixes[SPICommand]) -> int:
        """Iterate policy evaluation and improvement, and compare with exact soft policy iteration."""
        from ..studies.spi.study import run

        return run(command)

    @app.command(name="theorem2")
    def theorem2(command: tyro.conf.OmitArgPrefixes[Theorem2Command]) -> int:
        """Measure the error against the number of candidates, the divergence D_4 and the proposal."""
        from ..studies.theorem2.study import run

        return run(command)

    @app.command(name="densities")
    def densities(command: tyro.conf.OmitArgPrefixes[DensitiesCommand]) -> int:
        """Learn densities with known samples and normalising constants, and compare."""
        from ..studies.densities.study import run

        return run(command)

    @app.command(name="multigoal")
    def multigoal(command: tyro.conf.OmitArgPrefixes[MultiGoalCommand]) -> int:
        """Train on the multi-goal world and compare with its exact soft optimum."""
        from ..studies.multigoal.study import run

        return run(command)

    @app.command(name="train")
    def train(command: tyro.conf.OmitArgPrefixes[TrainCommand]) -> int:
        """Train SAC-ISFM or Gaussian SAC on a Gymnasium task."""
        from .train import train

        return train(command)

    @app.command(name="resume")
    def resume(command: tyro.conf.OmitArgPrefixes[ResumeCommand]) -> int:
        """Go on with a training that was stopped or killed."""
        from ..studies.durable import resume

        return resume(command)

    @app.command(name="eval")
    def evaluate(command: tyro.conf.OmitArgPrefixes[EvalCommand]) -> int:
        """Evaluate trained agents."""
        from .play import evaluate

        return evaluate(command)

    @app.command(name="watch")
    def watch(command: tyro.conf.OmitArgPrefixes[WatchCommand]) -> int:
        """Film a trained agent."""
        from .play import watch

        return watch(command)

    @app.command(name="export")
    def export(command: tyro.conf.OmitArgPrefixes[ExportCommand]) -> int:
        """Write a trained policy for use without this library."""
        from .export import run

        return run(command)

    @app.command(name="compare")
    def compare(command: tyro.conf.OmitArgPrefixes[CompareCommand]) -> int:
        """Compare training runs: learning curves and scores with intervals over seeds and tasks."""
        from .compare_report import run

        return run(command)

    @app.command(name="bench")
    def bench(command: tyro.conf.OmitArgPrefixes[BenchCommand]) -> int:
        """Measure the speed of everything, beside Stable-Baselines3 and SBX."""
        from ..studies.bench.study import run

        return run(command)

    @app.command(name="version")
    def version() -> int:
        """Print the version."""
        from importlib.metadata import version

        print(version("entroflow"))
        return 0

    try:
        _no_repeats(sys.argv[1:] if argv is None else argv)
        return app.cli(
            prog="entroflow", description="Maximum-entropy reinforcement learning with flow policies.", args=argv
        )
    except ValueError as problem:
        print(f"entroflow: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("entroflow: stopped", file=sys.stderr)
        return 130


def _no_repeats(argv: list[str]) -> None:
    """Refuse options given twice: of `--set a=1 --set b=2` the first would be lost without a word."""
    options = [part.split("=")[0] for part in argv if part.startswith("--")]
    for option in options:
        if options.count(option) > 1:
            from .. import checks

            remedy = "give all of its values after one, as in --set candidates=32 num_envs=4"
            raise checks.error(option, f"it {options.count(option)} times", "it once", remedy)
