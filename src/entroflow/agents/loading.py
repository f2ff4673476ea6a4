"""`entroflow.load`: trained agents from a folder."""

from pathlib import Path
from typing import Any

from .. import checks
from ..storage.places import agents_in, policy_folder
from .agent import SAC
from .tasks import Env


def load(
    folder: str | Path,
    *,
    temperature: float | None = None,
    seed: int | None = None,
    env: Env | None = None,
    **own: Any,
) -> SAC:
    """Load a trained agent.

    Args:
        folder: the folder of one agent, as `.save` wrote it; or the output folder of `entroflow lqr`, or of
            `entroflow train`, whose last checkpoint is taken.
        temperature: temperature α of the agent wanted; not needed where there is only one.
        seed: its seed, likewise. The seeds of `--seed S` are S, S+1, ….
        env: its task, where files cannot tell it.
        **own: the objects of your own that were among its settings, such as `proposal=mine` or `critic=mine`.

    Returns:
        A `SACISFM`, `GaussianSAC` or `DenoisingSAC`, or a `SAC` of an actor of your own, with `.predict`, `.sample`,
        `.sample_and_log_prob`, `.log_prob` and `.export`.

    Raises:
        ValueError: if there is no such agent, or not exactly one, or its files are damaged.
    """
    folder = Path(folder)
    found = agents_in(folder)
    if found != [folder]:
        found = [
            path
            for path in found
            if (seed is None or path.name.endswith(f"seed={seed}"))
            and (temperature is None or path.name.startswith(Path(policy_folder(temperature, 0)).name[:-1]))
        ]
    if len(found) != 1:
        have = ", ".join(path.name for path in agents_in(folder))
        asked = {name: value for name, value in {"temperature": temperature, "seed": seed}.items() if value is not None}
        given = f"{asked or 'no choice'}, where there {'are several' if found else 'is none such'}"
        remedy = "choose by seed and temperature, on the command line --seed and --alpha"
        raise checks.error("agent", given, f"one of: {have}", remedy)
    agent = SAC.load(found[0], env, **own)
    for name, asked, has in (("seed", seed, agent.seed), ("temperature", temperature, agent.settings.temperature)):
        if asked not in (None, has) and found == [folder]:
            remedy = f"leave {name} out, or pass another folder"
            raise checks.error(name, f"{asked}", f"{has}, that of the one agent in {folder}", remedy)
    return agent
