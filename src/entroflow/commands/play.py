"""The commands eval and watch: trained agents over whole episodes, and on film."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from .. import checks
from ..agents import SAC
from ..agents.load import agents_in
from ..agents.perturb import Perturbation
from ..options import EvalOptions, WatchOptions
from ..storage.folder import cache_compilations
from .video import record


def evaluate(command: EvalOptions) -> int:
    """Evaluate trained agents; return the exit code."""
    episodes = checks.positive_int("--episodes", command.episodes)
    change = Perturbation(command.action_noise, command.observation_noise, command.mass, command.friction)
    cache_compilations()
    changed = [f"{name} {value:g}" for name, value in vars(change).items() if value != getattr(Perturbation, name)]
    title = f"{episodes} episodes each" + (f", with {', '.join(changed)}" if changed else "")
    table = Table(title=title, title_justify="left")
    for name in ("agent", "mean return", "± s.e.", "min", "max", "length"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for folder in _agents(command.folder, command.checkpoint):
        agent = SAC.load(folder)
        how = {"deterministic": not command.stochastic, "seed": command.seed}
        found = agent.evaluate(episodes, perturbation=change, **how)
        cells = [found.mean, found.standard_error, found.returns.min(), found.returns.max(), found.lengths.mean()]
        table.add_row(folder.name, *[f"{cell:.1f}" for cell in cells])
    Console().print(table)
    return 0


def watch(command: WatchOptions) -> int:
    """Film a trained agent; return the exit code."""
    cache_compilations()
    folder = _agents(command.folder, command.checkpoint)[0]
    agent = SAC.load(folder)
    act = lambda obs: agent.predict(obs, deterministic=not command.stochastic)[0]  # noqa: E731
    episodes = checks.positive_int("--episodes", command.episodes)
    film = record(agent.task.name, act, command.out, episodes=episodes, seed=command.seed)
    returns = ", ".join(f"{value:.1f}" for value in film.returns)
    Console().print(f"{film.path}: {film.frames} frames, return {returns}", soft_wrap=True)
    return 0


def _agents(folder: Path, name: str) -> list[Path]:
    """Return the folders of a training's agents, or the folder of one agent itself."""
    checks.choice("--checkpoint", name, ("best", "last"))
    return agents_in(folder, name) or [folder]
