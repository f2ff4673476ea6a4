"""The commands eval, watch and export: trained agents over whole episodes, on film, and as one file."""

from rich.console import Console
from rich.table import Table

from ..agents import SAC, load
from ..agents.load import agents_in
from ..agents.perturb import Perturbation
from ..export import acting, write
from ..options import EvalOptions, ExportOptions, WatchOptions
from ..storage.folder import cache_compilations
from .video import record


def evaluate(command: EvalOptions) -> int:
    """Evaluate trained agents; return the exit code."""
    change = Perturbation(command.action_noise, command.observation_noise, command.mass, command.friction)
    cache_compilations()
    changed = [f"{name} {value:g}" for name, value in vars(change).items() if value != getattr(Perturbation, name)]
    title = f"{command.episodes} episodes each" + (f", with {', '.join(changed)}" if changed else "")
    table = Table(title=title, title_justify="left")
    for name in ("agent", "mean return", "± s.e.", "min", "max", "length"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for folder in agents_in(command.folder, command.checkpoint) or [command.folder]:
        agent = SAC.load(folder)
        how = {"deterministic": not command.stochastic, "seed": command.seed}
        found = agent.evaluate(command.episodes, perturbation=change, **how)
        cells = [found.mean, found.standard_error, found.returns.min(), found.returns.max(), found.lengths.mean()]
        table.add_row(folder.name, *[f"{cell:.1f}" for cell in cells])
    Console().print(table)
    return 0


def watch(command: WatchOptions) -> int:
    """Film a trained agent; return the exit code."""
    cache_compilations()
    agent = SAC.load((agents_in(command.folder, command.checkpoint) or [command.folder])[0])
    act = lambda obs: agent.predict(obs, deterministic=not command.stochastic)[0]  # noqa: E731
    film = record(agent.task.name, act, command.out, episodes=command.episodes, seed=command.seed)
    returns = ", ".join(f"{value:.1f}" for value in film.returns)
    Console().print(f"{film.path}: {film.frames} frames, return {returns}", soft_wrap=True)
    return 0


def export(command: ExportOptions) -> int:
    """Write a policy as a file that runs without this library; return the exit code."""
    agent = load(command.folder, temperature=command.temperature, seed=command.seed)
    program = acting(agent.config, agent.state, command.best_of)
    path = write(command.out, program)
    inputs = f"obs (batch, {program.obs_size}), noise (batch, {', '.join(map(str, program.noise_shape))})"
    print(f"{path}: {inputs} -> {', '.join(program.outputs)}")
    return 0
