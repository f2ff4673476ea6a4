"""An agent on disk: what it is, as data, and its numbers. Reading it imports and runs nothing."""

from pathlib import Path
from typing import Any, NamedTuple

from .. import checks
from ..rl import sac
from ..storage import checkpoint, legacy
from ..storage.places import AGENT, BEST, LAST, POLICIES, policy_folder, refuse_runs
from ..storage.records import CONFIG, read_config
from .settings import Settings, from_json, to_json
from .specification import REMEDY
from .tasks import Env, Task, rebuilt, task

FORMAT = 3  # 1 was written by another library, 2 had settings and numbers in another order
TYPES = {"algorithm": str, "env": str, "spec": object, "spaces": dict, "seed": int, "step": int}
TYPES |= {"sizes": dict, "settings": dict}


class Header(NamedTuple):
    """What a saved agent is.

    Attributes:
        spec: how to make the task again; None if a file cannot tell that.
        spaces: what must agree between the task that it was trained on and another; empty if that is not known.
        sizes: numbers of components of observations and actions, flattened.
        training: what `Training.state` says of its memory and environments, if they were saved with it.
    """

    algorithm: str
    env: str
    spec: Any
    spaces: dict[str, Any]
    seed: int
    step: int
    sizes: dict[str, Any]
    settings: dict[str, Any]
    training: dict[str, Any] | None = None

    def task_of(self, path: str | Path, env: Env | None = None) -> Task:
        """Return the task that the agent was trained on."""
        if env is None and self.spec is None:
            given = f"an agent for {self.env!r}, which no file can make again"
            raise checks.error(str(path), given, "its task", "pass it as env=, or name it by --task")
        found = rebuilt(self.spec) if env is None else task(env)
        sizes = {"obs_size": found.obs_size, "action_size": found.action_size}
        if sizes != self.sizes or (self.spaces and found.spaces_as_data() != self.spaces):
            given = f"{found.name} with {sizes}" + (" and other bounds" if sizes == self.sizes else "")
            expected = f"a task like {self.env} with {self.sizes}"
            raise checks.error(str(path), given, expected, REMEDY)
        return found

    def settings_of(self, path: str | Path, own: dict[str, Any]) -> Settings:
        """Return the agent's settings, with objects of the user's own, by the names of their fields."""
        settings = from_json(self.settings, own)
        if settings.algorithm != self.algorithm:
            given = f"the settings of {settings.algorithm}"
            raise checks.error(str(path), given, f"those of {self.algorithm}", "restore the file")
        return settings


def write(
    folder: Path,
    task: Task,
    settings: Settings,
    seed: int,
    step: int,
    agents: sac.State,
    training: tuple[dict[str, Any], checkpoint.Arrays] | None = None,
) -> None:
    """Write one agent and what is needed to load it, all at once; `training` is what `Training.state` returned."""
    refuse_runs(folder)
    sizes = {"obs_size": task.obs_size, "action_size": task.action_size}
    numbers, arrays = training or (None, {})
    of_task = task.name, task.spec, task.spaces_as_data()
    told = Header(settings.algorithm, *of_task, seed, step, sizes, to_json(settings), numbers)
    header = {"format": FORMAT} | told._asdict()
    checkpoint.write(folder / AGENT, header, checkpoint.flatten("agent", agents) | arrays)


def read(folder: Path) -> tuple[Header, checkpoint.Arrays]:
    """Read a saved agent: what it is, and its numbers, which `state` makes a state of.

    A `ValueError` says that the folder holds none, a damaged one, one of a newer format, or another one than it says.
    """
    path = folder / AGENT
    if path.is_file():
        document, arrays = checkpoint.read(path, FORMAT, oldest=2)
        if document["format"] == 2:
            document, arrays = legacy.agent_header(document), legacy.renamed(arrays)
    elif (folder / legacy.POLICY).is_file():
        document, arrays = legacy.policy(folder)
    else:
        raise checks.error("folder", f"{str(folder)!r}, which holds no agent", f"one with {AGENT}", "check the path")
    document["settings"] = legacy.settings(document.get("settings"))
    for name, kind in TYPES.items():
        value = document.get(name)
        wild = isinstance(value, int) and not 0 <= value < 2**63
        if name not in document or not isinstance(value, kind) or isinstance(value, bool) or wild:
            raise checkpoint.damaged(path, f"{name} = {value!r}")
    header = Header._make(document.get(name) for name in Header._fields)
    _check_place(folder.resolve(), header)
    return header, arrays


def state(like: sac.State, arrays: checkpoint.Arrays) -> sac.State:
    """Return the state that was read."""
    return checkpoint.unflatten("agent", like, legacy.completed(arrays, like))


def _check_place(folder: Path, header: Header) -> None:
    """Compare an agent with what its place in a training, or in an output folder of `entroflow lqr`, says of it."""
    parent, given, right = folder.parent, f"the agent of seed {header.seed}", True
    if parent.name == POLICIES and folder.name.startswith("alpha="):
        temperature = checks.number("temperature", header.settings.get("temperature"))
        given += f", temperature {temperature}"
        right = policy_folder(temperature, header.seed) == f"{POLICIES}/{folder.name}"
    elif Path(parent.parent.name, parent.name) in (BEST, LAST) and folder.name.startswith("seed="):
        right = folder.name == f"seed={header.seed}"
        if (parent.parent.with_name(CONFIG)).is_file():
            config = read_config(parent.parents[1])
            given += f", {header.algorithm} on {header.env} in a training of {config['algorithm']} on {config['env']}"
            right &= (header.algorithm, header.env) == (config["algorithm"], config["env"])
    if not right:
        raise checkpoint.damaged(folder, given)
