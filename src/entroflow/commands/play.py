"""The commands eval, watch and export: trained agents over whole episodes, on film, and as one file."""

import os
import sys
from ctypes.util import find_library

from rich.console import Console
from rich.table import Table

from .. import checks
from ..options import EvalOptions, ExportOptions, WatchOptions
from ..storage.folder import cache_compilations
from ..storage.places import agents_in


def evaluate(command: EvalOptions) -> int:
    """Evaluate trained agents; return the exit code."""
    folders = agents_in(command.folder, command.checkpoint)
    from ..agents import SAC
    from ..agents.evaluation import Perturbation
    from ..compiling import waiting

    change = Perturbation(command.action_noise, command.observation_noise, command.mass, command.friction)
    cache_compilations()
    changed = [f"{name} {value:g}" for name, value in vars(change).items() if value != getattr(Perturbation, name)]
    title = f"{command.episodes} episodes each, undiscounted" + (f", with {', '.join(changed)}" if changed else "")
    table, console = Table(title=title, title_justify="left"), Console()
    for name in ("agent", "mean return", "± s.e.", "min", "max", "length"):
        table.add_column(name, justify="left" if name == "agent" else "right")
    for folder in folders:
        agent = SAC.load(folder, env=command.task)
        how = {"deterministic": not command.stochastic, "seed": command.seed}
        with waiting(f"evaluating {folder.name}", console):
            found = agent.evaluate(command.episodes, perturbation=change, **how)
        cells = [found.mean, found.standard_error, found.returns.min(), found.returns.max(), found.lengths.mean()]
        table.add_row(folder.name, *[f"{cell:.1f}" if cell == cell else "–" for cell in cells])
    console.print(table)
    return 0


def watch(command: WatchOptions) -> int:
    """Film a trained agent; return the exit code."""
    folder, *_ = agents_in(command.folder, command.checkpoint)
    shown = {"DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"} & os.environ.keys()
    if sys.platform == "linux" and not shown:  # MuJoCo, when it is imported, would look for a display in vain
        os.environ["MUJOCO_GL"] = "osmesa" if find_library("OSMesa") else "egl"
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # nor pygame, which would say that there is none
    from ..agents import SAC
    from ..compiling import waiting
    from .video import record

    cache_compilations()
    agent = SAC.load(folder, env=command.task)
    act = lambda obs: agent.predict(obs, deterministic=not command.stochastic)[0]  # noqa: E731
    data = agent.task.data if isinstance(agent.task.data, dict) else None
    console = Console()
    with waiting("filming", console):
        film = record(agent.task.name, act, command.out, episodes=command.episodes, seed=command.seed, data=data)
    returns = ", ".join(f"{value:.1f}" for value in film.returns)
    console.print(f"{film.path}: {film.frames} frames, return {returns}", soft_wrap=True)
    return 0


def export(command: ExportOptions) -> int:
    """Write a policy as a file that runs without this library; return the exit code."""
    agents_in(command.folder)
    if command.out.is_dir():
        raise checks.error("--out", f"the folder {str(command.out)!r}", "the name of a file", "add one")
    from ..agents import load
    from ..export import acting, write
    from ..export.programs import NEEDS

    agent = load(command.folder, temperature=command.temperature, seed=command.seed, env=command.task)
    program = acting(agent.config, agent.state, command.best_of)
    out, ending = command.out, {"c": ".h"}.get(command.format or "", f".{command.format}")
    if command.format is not None and out.suffix != ending:
        out = out.with_suffix(ending) if out.suffix in NEEDS else out.with_name(out.name + ending)
    path = write(out, program)
    batch = "" if path.suffix == ".h" else "batch, "
    inputs = ", ".join(f"{name} ({batch}{', '.join(map(str, shape))})" for name, shape in program.inputs.items())
    print(f"{path}: {inputs} -> {', '.join(program.outputs)}")
    return 0
