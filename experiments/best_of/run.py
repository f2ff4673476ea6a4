"""What it is worth to act by the best by Q of M draws, and not by one."""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markdown import Markdown

from entroflow import load
from entroflow.agents.evaluation import Perturbation

from .. import frame
from ..robustness import run as robustness

EPISODES, FIRST_EPISODE = 10, 1000  # resets that no evaluation during training has seen
DRAWS = 1, 2, 4, 8, 16, 64


@dataclass(frozen=True)
class Options(robustness.Options):
    """What can be chosen."""

    observation_noise: float = 0.0
    """Deviation of the noise on observations, in their own units."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    change = Perturbation(observation_noise=options.observation_noise)
    return functools.partial(run, robustness.agents_of(options.folders), change)


def run(agents: Sequence[Path], change: Perturbation, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Evaluate all agents."""
    rows, job.cells = [], len(agents)
    for path in agents:
        rows += job.cell(str(path), functools.partial(measure, path, change))
        job.rows("results.csv", rows)
    job.text("table.md", table(rows))
    return {"settings": {"episodes": EPISODES, "first_episode": FIRST_EPISODE}}, [Markdown(table(rows))]


def measure(path: Path, change: Perturbation) -> list[frame.Row]:
    """Evaluate an agent that acts by the best of every number of draws."""
    agent, rows = load(path), []
    for draws in DRAWS:
        agent._training.settings = dataclasses.replace(agent.settings, action_candidates=draws)
        found = agent.evaluate(EPISODES, seed=FIRST_EPISODE, perturbation=change)
        row = {"task": agent.task.name, "steps": agent.num_timesteps, "noise": change.observation_noise}
        row |= {"agent": robustness.name_of(agent), "seed": agent.seed, "draws": draws}
        rows += [row | {"episode": i, "return": round(float(part), 2)} for i, part in enumerate(found.returns)]
    return rows


def table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table: the mean return [lowest, highest seed] at every number of draws."""
    returns: dict[tuple[str, ...], dict[int, dict[str, list[float]]]] = {}
    for row in rows:
        noise = "–" if float(row["noise"]) == 0 else str(row["noise"])
        columns = row["task"], f"{int(row['steps']):,}", noise, row["agent"]
        seeds = returns.setdefault(columns, {}).setdefault(int(row["draws"]), {})
        seeds.setdefault(str(row["seed"]), []).append(float(row["return"]))
    lines = []
    for columns, found in returns.items():
        means = [[float(np.mean(part)) for part in found[draws].values()] for draws in DRAWS]
        cells = [frame.told(part, "{:.0f}").removesuffix(" (one seed)") for part in means]
        lines.append([*columns, str(len(means[0])), *cells])
    heads = ["one draw", *(f"best of {draws}" for draws in DRAWS[1:])]
    return frame.markdown(["task", "steps", "noise", "", "seeds", *heads], lines)


main = frame.command("best_of", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
