"""Options of the commands: data alone, which `--help` prints without importing anything heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class LQROptions:
    """Train SAC-ISFM on max-entropy LQR, all temperatures and seeds at once, and compare with the exact optimum.

    Writes figures, results.json, metrics.csv and the trained policies into a folder.
    """

    system: str = "coupled"
    """A named system (double_integrator, coupled, unstable, cartpole, mass_spring) or a JSON file."""
    temperature: Annotated[tuple[float, ...], arg(name="alpha")] = (0.1, 0.5, 1.0, 2.0)
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
class TrainOptions:
    """Train on a Gymnasium task, all seeds at once. Records, checkpoints and figures go into a folder."""

    env: Positional[str]
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
class ResumeOptions:
    """Go on with a training, or a job of lqr, from its last checkpoint, as if it had never stopped."""

    folder: Positional[Path]
    """Folder of the training or job."""
    steps: int | None = None
    """Environment steps of every seed, if a training is to make others than planned."""


@dataclass(frozen=True)
class EvalOptions:
    """Evaluate the agents of a training over whole episodes."""

    folder: Positional[Path]
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
class WatchOptions:
    """Film a trained agent."""

    folder: Positional[Path]
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
class ExportOptions:
    """Write a trained policy as one file that runs without this library: observations and noise to actions."""

    folder: Positional[Path]
    """Folder of a training, of one agent, or of `entroflow lqr`."""
    out: Path = Path("out/policy.onnx")
    """The file, .onnx or .stablehlo."""
    best_of: int = 1
    """Actions to draw, of which the best by Q is taken; a single one comes with its log-density."""
    temperature: Annotated[float | None, arg(name="alpha")] = None
    """Temperature of the policy, where the folder holds several."""
    seed: int | None = None
    """Its seed, likewise."""


@dataclass(frozen=True)
class CompareOptions:
    """Compare training runs: learning curves, final scores, probabilities of improvement, with 95 % intervals.

    Writes compare.png, compare.pdf, compare.json (all that is drawn) and compare.csv (the table) into a folder.
    """

    folders: Positional[tuple[Path, ...]]
    """Folders of training runs; the first one's algorithm is set against the others."""
    out: Path = Path("out/compare")
    """Output folder: new, empty or of an earlier comparison."""
    metric: str = "return"
    """What to compare: return or length of evaluations, train/return, or a column of metrics.csv such as entropy."""
    labels: tuple[str, ...] = ()
    """What to call the lines, one for each folder, if not by algorithm and by settings that differ."""


@dataclass(frozen=True)
class VersionOptions:
    """Print the version."""


def refuse_repeats(argv: list[str]) -> None:
    """Refuse options given twice: of `--set a=1 --set b=2` the first would be lost without a word."""
    given = [part.split("=")[0] for part in argv if part.startswith("--")]
    for option in given:
        if given.count(option) > 1:
            from . import checks  # brings NumPy, which options do not need

            remedy = "give all of its values after one, as in --set candidates=32 num_envs=4"
            raise checks.error(option, f"it {given.count(option)} times", "it once", remedy)
