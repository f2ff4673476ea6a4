"""Trained agents in tasks that are not quite those that they were trained on."""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markdown import Markdown
from tyro.conf import Positional

from entroflow import checks, load
from entroflow.agents.evaluation import Perturbation
from entroflow.storage.places import LAST

from .. import frame

EPISODES, FIRST_EPISODE = 10, 1000  # resets that no evaluation during training has seen
CHANGES = {
    "none": Perturbation(),
    "action noise 0.1": Perturbation(action_noise=0.1),
    "action noise 0.3": Perturbation(action_noise=0.3),
    "observation noise 0.03": Perturbation(observation_noise=0.03),
    "observation noise 0.1": Perturbation(observation_noise=0.1),
    "mass −20 %": Perturbation(mass=0.8),
    "mass +20 %": Perturbation(mass=1.2),
    "friction −20 %": Perturbation(friction=0.8),
    "friction +20 %": Perturbation(friction=1.2),
}


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    folders: Positional[tuple[Path, ...]] = ()
    """Folders of the runs."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    return functools.partial(run, agents_of(options.folders))


def agents_of(folders: Sequence[Path]) -> list[Path]:
    """Return the last agents of runs of `entroflow train`.

    Raises:
        ValueError: for a folder that has none, or is named twice.
    """
    agents = []
    for folder in checks.distinct("folders", folders, "folders of runs"):
        agents += (found := sorted((folder / LAST).glob("seed=*")))
        if not found:
            raise checks.error("folders", repr(str(folder)), "a folder with trained agents", "make it: entroflow train")
    return agents


def run(agents: Sequence[Path], job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Evaluate all agents."""
    rows, job.cells = [], len(agents)
    for path in agents:
        rows += job.cell(str(path), functools.partial(measure, path))
        job.rows("results.csv", rows)
    job.text("table.md", table(rows))
    return {"settings": {"episodes": EPISODES, "first_episode": FIRST_EPISODE}}, [Markdown(table(rows))]


def name_of(agent: Any) -> str:
    """Return what an agent is called in the table."""
    if agent.algorithm == "sac_isfm" and agent.settings.target_entropy is None:
        return f"SAC-ISFM, α = {agent.settings.temperature:g}"
    return {"sac_isfm": "SAC-ISFM", "gaussian_sac": "Gaussian SAC", "denoising": "diffusion"}[agent.algorithm]


def measure(path: Path) -> list[frame.Row]:
    """Evaluate an agent under all changes that its task knows."""
    agent, rows = load(path), []
    for change, how in CHANGES.items():
        if agent.task.name.startswith("Pendulum") and (how.mass, how.friction) != (1.0, 1.0):
            continue  # not simulated by MuJoCo
        for actions in ("best of 16", "drawn"):
            best = actions == "best of 16"
            found = agent.evaluate(EPISODES, deterministic=best, seed=FIRST_EPISODE, perturbation=how)
            row = {"task": agent.task.name, "agent": name_of(agent), "seed": agent.seed, "actions": actions}
            returns = [round(float(part), 2) for part in found.returns]
            rows += [row | {"change": change, "episode": i, "return": part} for i, part in enumerate(returns)]
    return rows


def table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table: the mean return [lowest, highest seed], and the share of the unchanged one."""
    returns: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        key = row["task"], row["agent"], row["actions"], row["change"], row["seed"]
        returns.setdefault(key, []).append(float(row["return"]))

    def seed_means(column: tuple[Any, ...], change: str) -> list[float]:
        return [float(np.mean(part)) for key, part in returns.items() if key[:4] == (*column, change)]

    columns = list(dict.fromkeys(key[:3] for key in returns))
    lines = []
    for change in CHANGES:
        cells = [change]
        for column in columns:
            means = seed_means(column, change)
            share = np.mean(means) / np.mean(seed_means(column, "none")) if means else np.nan
            cells.append(f"{frame.told(means, '{:.0f}')} ({share:.2f})" if means else "–")
        lines.append(cells)
    return frame.markdown(["change", *(f"{task}: {agent}, {actions}" for task, agent, actions in columns)], lines)


main = frame.command("robustness", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
