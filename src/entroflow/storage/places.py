"""Where agents lie in a folder of entroflow. Without JAX, so that a wrong folder is refused before that is imported."""

import re
from pathlib import Path

from .. import checks
from .checkpoint import CHECKPOINTS
from .legacy import POLICY
from .records import CONFIG

AGENT = "agent.json"
BEST, LAST = Path(CHECKPOINTS, "best"), Path(CHECKPOINTS, "last")
POLICIES = "policies"  # in an output folder of `entroflow lqr`
NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def agents_in(folder: Path, checkpoint: str = "last") -> list[Path]:
    """Return the folders of the agents in a folder, which may be that of one agent itself; what they hold is not read.

    Of a training these are its "last" or its "best" agents; nothing else has a best one. If there is none, that is a
    `ValueError`.
    """
    is_last = checkpoint == "last"
    with checks.reachable(folder):
        if is_last and any((folder / name).is_file() for name in (AGENT, POLICY)):
            return [folder]
        found = [*(folder / CHECKPOINTS / checkpoint).glob("seed=*")]
        found += (folder / POLICIES).glob("alpha=*") if is_last else ()
        found.sort(key=lambda path: [float(part) for part in re.findall(NUMBER, path.name)])
    if not found:
        expected = "the folder of an agent, of a training, or an output folder of entroflow lqr"
        expected = expected if is_last else "the folder of a training that was evaluated"
        given = f"{str(folder)!r}, which holds no {'' if is_last else f'{checkpoint} '}agent"
        raise checks.error("folder", given, expected, "check the path")
    return found


def refuse_runs(folder: Path) -> None:
    """Raise if a folder holds a run, of which an agent beside its files would be taken for the run's."""
    with checks.reachable(folder, "a folder to write to"):
        holds = any((folder / name).exists() for name in (CONFIG, POLICIES))
    if holds:
        remedy = f"pass for example {str(folder / 'agent')!r}"
        raise checks.error("path", f"{str(folder)!r}, which holds a run", "a folder of its own for the agent", remedy)


def policy_folder(temperature: float, seed: int) -> str:
    """Return where the agent of a run lies inside of an output folder of `entroflow lqr`."""
    return f"{POLICIES}/alpha={str(float(temperature)).removesuffix('.0')}_seed={seed}"
