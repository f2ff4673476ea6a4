"""Options of the commands: data, and what can be seen to be wrong with it without JAX, whose import takes seconds."""

import json
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from . import names
from .names import ALGORITHMS


def _whole(words: list[str]) -> int:
    try:
        number = Decimal(words[0])
        if abs(number) < 2**63 and number % 1 == 0:
            return int(number)
    except ArithmeticError:  # no number at all
        pass
    raise ValueError(f"got {words[0][:40]!r}, expected a whole number such as 10000, 10_000 or 1e4")


WHOLE = PrimitiveConstructorSpec(
    1, "INT", _whole, lambda value: isinstance(value, int | None), lambda value: [f"{value}"]
)
Whole = Annotated[int, WHOLE]
MaybeWhole = Annotated[int | None, WHOLE]
Task = Annotated[Positional[str], arg(metavar="TASK")]
Folder = Annotated[Positional[Path], arg(metavar="FOLDER")]
Preset = Literal["default", "paper"]
TrainPreset = Literal["default", "paper", "crossq"]


@dataclass(frozen=True)
class LQROptions:
    """Train SAC-ISFM on max-entropy LQR, all temperatures and seeds at once, and compare with the exact optimum.

    Writes figures, results.json, metrics.csv and the trained policies into a folder.
    """

    # A named system (double_integrator, coupled, unstable, cartpole, mass_spring), or a JSON file of the matrices, such
    # as lqr.design(...).to_json writes.
    system: str = "coupled"
    # Temperatures α > 0, the weights of the entropy.
    temperature: Annotated[tuple[float, ...], arg(name="alpha")] = (0.1, 0.5, 1.0, 2.0)
    seeds: Whole = 3  # Number of seeds for every temperature.
    steps: Whole = 3000  # Training steps: in each, every environment makes one step and every run one update.
    seed: Whole = 0  # First seed S; the seeds are S, S+1, ….
    algorithm: Literal["sac_isfm", "gaussian_sac"] = "sac_isfm"  # gaussian_sac: plain SAC on the same critic.
    preset: Preset = "default"  # paper: Algorithm 2 as it is written, and draws of the policy alone as behaviour.
    # Begin as a controller of your own: a JSON file of its gain and, if wanted, its covariance, or one that
    # lqr.design(...).to_json wrote.
    initial_gain: str | None = None
    candidates: str = "8"  # Candidates per state of an improvement step: a number from 2 to 1024.
    out: Path = Path("out/lqr")  # Output folder, new or empty.


@dataclass(frozen=True)
class TrainOptions:
    """Train on a Gymnasium task, all seeds at once. Records, checkpoints and figures go into a folder."""

    env: Task  # Id of the task, such as HalfCheetah-v5; one of your own is module:Id.
    algorithm: str = "sac_isfm"  # sac_isfm, gaussian_sac, or denoising (a diffusion policy without a density).
    # paper: Algorithm 2 as it is written; crossq: with the critic of CrossQ, for MuJoCo's tasks.
    preset: TrainPreset = "default"
    steps: Whole = 100_000  # Environment steps of every seed.
    seeds: Whole = 1  # Number of seeds.
    seed: Whole = 0  # First seed S; the seeds are S, S+1, ….
    evaluate_every: Whole = 5000  # Environment steps between evaluations, each with a checkpoint.
    evaluation_episodes: Whole = 10  # Episodes of every evaluation.
    # Settings to change, such as candidates=32 num_envs=4; `entroflow settings` lists all.
    set: tuple[str, ...] = ()
    settings: Path | None = None  # A JSON or TOML file of settings to change; where --set has one, too, that counts.
    resume: Literal["never", "auto"] = "never"  # auto: go on with the run in the folder, if there is one.
    wandb: bool = False  # Also log to Weights & Biases.
    out: Path | None = None  # Output folder; out/TASK-ALGORITHM if not given.


@dataclass(frozen=True)
class ResumeOptions:
    """Go on with a training, or a job of lqr, from its last checkpoint, as if it had never stopped."""

    folder: Folder  # Folder of the training or job.
    steps: MaybeWhole = None  # Environment steps of every seed in all, if a training is to end elsewhere than planned.
    task: str | None = None  # A training's task, if it is of a module of your own, as module:Name.


@dataclass(frozen=True)
class _ActingOptions:
    folder: Folder  # Folder of a training, or of one agent.
    checkpoint: Literal["last", "best"] = "last"  # Which agents of a training.
    stochastic: bool = False  # Draw actions from the policy; otherwise, of several draws, that of the highest Q acts.
    seed: Whole = 0  # Seed of the first episode.
    task: str | None = None  # The task, if it is of a module of your own, as module:Name.


@dataclass(frozen=True)
class EvalOptions(_ActingOptions):
    """Evaluate the agents of a training over whole episodes."""

    episodes: Whole = 100  # Episodes of every agent.
    action_noise: float = 0.0  # Standard deviation of noise on actions, as a fraction of half their range.
    observation_noise: float = 0.0  # Standard deviation of noise on every component of the observation.
    mass: float = 1.0  # Factor of all masses and inertias (MuJoCo tasks).
    friction: float = 1.0  # Factor of all friction coefficients (MuJoCo tasks).


@dataclass(frozen=True)
class WatchOptions(_ActingOptions):
    """Film a trained agent; of a training, that of its first seed."""

    episodes: Whole = 1  # Number of episodes.
    out: Path = Path("out/film")  # The film, .mp4 or .gif.


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained policy as one file that runs without this library: observations and noise to actions."""

    folder: Folder  # Folder of a training, of one agent, or of `entroflow lqr`.
    out: Path = Path("out/policy.onnx")  # The file, .onnx, .stablehlo or .h.
    # Its format, if its ending does not say it; c is a header that needs nothing but math.h.
    format: Literal["onnx", "stablehlo", "c"] | None = None
    best_of: Whole = 1  # Draws, of which the action with the highest Q is taken; a single one has its log-density.
    # Temperature of the policy, where the folder holds several.
    temperature: Annotated[float | None, arg(name="alpha")] = None
    seed: MaybeWhole = None  # Its seed, likewise.
    task: str | None = None  # The task, if it is of a module of your own, as module:Name.


@dataclass(frozen=True)
class CompareOptions:
    """Compare training runs: learning curves, final scores, probabilities of improvement, with 95 % intervals.

    Writes compare.png, compare.pdf, compare.json (all that is drawn) and compare.csv (the table) into a folder.
    """

    # Folders of training runs; the first one's algorithm is set against the others.
    folders: Positional[tuple[Path, ...]]
    out: Path = Path("out/compare")  # Output folder: new, empty or of an earlier comparison.
    # What to compare: return or length of evaluations, train/return, or a column of metrics.csv such as entropy.
    metric: str = "return"
    # What to call the lines, one for each folder, if not by algorithm and by settings that differ.
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepOptions:
    """Run a study on Ray: tasks × algorithms × settings × seeds, or a search of settings. See docs/sweep.md.

    Every trial is a run folder in OUT/trials. Needs the extra ray.
    """

    study: Positional[Path]  # The study's file, TOML; with --resume also its folder.
    out: Path | None = None  # Output folder; out/NAME of the file if not given.
    resume: bool = False  # Go on with the study in the folder; what is new in its file is run, too.
    address: str | None = None  # Of a Ray cluster to join; RAY_ADDRESS, or this machine alone, if not given.


@dataclass(frozen=True)
class SettingsOptions:
    """Print every setting of an algorithm, with its default, what it may be, and what it is."""

    algorithm: Positional[Literal["sac_isfm", "gaussian_sac", "denoising"]] = "sac_isfm"  # The algorithm.


@dataclass(frozen=True)
class VersionOptions:
    """Print the version."""


COUNTS = "steps", "seeds", "evaluate_every", "evaluation_episodes", "episodes", "best_of"


def readable() -> None:
    """Let what a terminal or file cannot show be replaced in the output, whatever its encoding."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]


def refuse_repeats(argv: list[str]) -> None:
    """Refuse options given twice, of which the first would be lost without a word, and options that are none."""
    given = [part.split("=")[0].replace("_", "-") for part in argv if part.startswith("--") and part != "--"]
    wrong = [option for option in given if given.count(option) > 1 or option in ("--env", "--folder", "--folders")]
    if wrong:
        from . import checks  # brings NumPy, which options do not need

        if given.count(wrong[0]) == 1:
            remedy = f"leave the word {wrong[0]} out"
            raise checks.error(wrong[0], "an option", "what it names by itself", remedy)
        remedy = "give all of its values after one, as in --set candidates=32 num_envs=4"
        raise checks.error(wrong[0], f"it {given.count(wrong[0])} times", "it once", remedy)
    for option in given:
        if (here := _elsewhere(argv[0], option)) is not None:
            from . import checks

            expected = f"an option of entroflow {argv[0]}"
            raise checks.error(option, "what others call it", expected, f"here it is {here}")


def _elsewhere(command: str, option: str) -> str | None:
    """Return what an option is called here that other programs, or this one's settings, have by that name."""
    name = option.removeprefix("--").replace("-", "_")
    setting = names.ELSEWHERE.get(name, name)
    if command == "train" and name not in vars(TrainOptions)["__dataclass_fields__"]:
        options = {"total_timesteps": "--steps", "env_id": "the task's id alone"}
        return options.get(name, f"--set {setting}=…" if setting in names.Changes.__annotations__ else None)
    return "--alpha" if command in ("lqr", "export") and name == "temperature" else None


def value_of(text: str) -> Any:
    """Return what stands behind `--set name=`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # text, or numbers of thousands of digits
        return {"None": None, "True": True, "False": False}.get(text, text)


def check(options: Any) -> None:
    """Refuse counts, algorithms and settings that cannot be, and unknown tasks; a `ValueError` says which."""
    from . import checks

    for name in COUNTS:
        if getattr(options, name, None) is not None:
            checks.positive_int(f"--{name.replace('_', '-')}", getattr(options, name))
    if isinstance(options, TrainOptions):
        checks.choice("algorithm", options.algorithm, ALGORITHMS)
        parts = [part.partition("=") for part in options.set]
        names.check({name: value_of(text) for name, sign, text in parts if sign}, "--set")
