"""Trained agents in tasks that are not quite those that they were trained on.

python experiments/robustness/run.py FOLDER...: evaluates the last agents of these runs of `entroflow train` (SAC-ISFM,
Gaussian SAC, SAC-ISFM at a temperature near zero, of one or of several tasks), writes results.csv and table.md.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from entroflow.agents.learner import load_agent
from entroflow.agents.load import LAST
from entroflow.agents.perturb import Perturbation
from entroflow.storage.folder import cache_compilations

HERE = Path(__file__).parent
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
FIELDS = ("task", "agent", "seed", "actions", "change", "episode", "return")


def name_of(agent: Any) -> str:
    """Return what an agent is called in the table."""
    if agent.algorithm == "sac_isfm" and agent.settings.target_entropy is None:
        return f"SAC-ISFM, α = {agent.settings.temperature:g}"
    return {"sac_isfm": "SAC-ISFM", "gaussian_sac": "Gaussian SAC", "denoising": "diffusion"}[agent.algorithm]


def measure(folder: Path) -> list[dict[str, Any]]:
    """Evaluate all agents of a run under all changes that its task knows."""
    rows = []
    for path in sorted((folder / LAST).glob("seed=*")):
        agent = load_agent(path)
        for change, how in CHANGES.items():
            if agent.task.name.startswith("Pendulum") and (how.mass, how.friction) != (1.0, 1.0):
                continue  # not simulated by MuJoCo
            for actions in ("best of 16", "drawn"):
                best = actions == "best of 16"
                found = agent.evaluate(EPISODES, deterministic=best, seed=FIRST_EPISODE, perturbation=how)
                row = {"task": agent.task.name, "agent": name_of(agent), "seed": agent.seed, "actions": actions}
                rows += [row | {"change": change, "episode": i, "return": r} for i, r in enumerate(found.returns)]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: the mean return ± its standard error over seeds, and the share of the unchanged one."""
    columns = list(dict.fromkeys((row["task"], row["agent"], row["actions"]) for row in rows))
    lines = ["| change | " + " | ".join(f"{task}: {agent}, {actions}" for task, agent, actions in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for change in CHANGES:
        cells = []
        for column in columns:
            means = _seed_means(rows, column, change)
            share = np.mean(means) / np.mean(_seed_means(rows, column, "none")) if means else np.nan
            error = np.std(means, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
            cells.append(f"{np.mean(means):.0f} ± {error:.0f} ({share:.2f})" if means else "–")
        lines.append(f"| {change} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seed_means(rows: list[dict[str, Any]], column: tuple[str, str, str], change: str) -> list[float]:
    seeds: dict[Any, list[float]] = {}
    for row in rows:
        if (row["task"], row["agent"], row["actions"], row["change"]) == (*column, change):
            seeds.setdefault(row["seed"], []).append(float(row["return"]))
    return [float(np.mean(returns)) for returns in seeds.values()]


def main() -> None:
    """Evaluate; write the results."""
    cache_compilations()
    rows = [row for folder in track([Path(name) for name in sys.argv[1:]]) for row in measure(folder)]
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(row | {"return": round(float(row["return"]), 2)} for row in rows)
    (HERE / "table.md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
