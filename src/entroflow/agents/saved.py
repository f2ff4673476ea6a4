"""An agent on disk: what it is, as data, and its numbers. Reading it imports and runs nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import checks
from ..rl import sac
from ..storage import checkpoint, legacy
from .settings import Settings, from_json, to_json
from .tasks import Env, Task, rebuilt, task

FORMAT = 3  # 1 was written by another library, 2 had settings and numbers in another order
HEADER = "agent.json"


class Header(NamedTuple):
    """What a saved agent is.

    Attributes:
        algorithm: its algorithm.
        env: name of its task.
        spec: how to make the task again; None if a file cannot tell that.
        spaces: what must agree between the task that it was trained on and another; empty if that is not known.
        seed: its seed.
        step: environment steps that it has made.
        sizes: numbers of components of observations and actions, flattened.
        settings: its settings, as JSON.
    """

    algorithm: str
    env: str
    spec: dict[str, Any] | None
    spaces: dict[str, Any]
    seed: int
    step: int
    sizes: dict[str, int]
    settings: dict[str, Any]

    @classmethod
    def of(cls, task: Task, settings: Settings, seed: int, step: int) -> "Header":
        """Describe an agent.

        Args:
            task: its task.
            settings: its settings.
            seed: its seed.
            step: environment steps that it has made.

        Returns:
            The header.
        """
        sizes = {"obs_size": task.obs_size, "action_size": task.action_size}
        parts = settings.algorithm, task.name, task.spec, task.spaces_as_data(), seed, step, sizes
        return cls(*parts, to_json(settings))

    def settings_with(self, own: Mapping[str, Any]) -> Settings:
        """Return the settings, given the objects of the user's own that are among them.

        Raises:
            ValueError: if one is missing, or the file holds what are no settings.
        """
        return from_json(self.settings, own)

    def task_of(self, path: str | Path, env: Env | None = None) -> Task:
        """Return the task that the agent was trained on.

        Args:
            path: the agent's folder, for messages.
            env: the task, where the header does not tell it.

        Returns:
            The task.

        Raises:
            ValueError: if it cannot be made from the header, or is another one.
        """
        if env is None and self.spec is None:
            given = f"an agent for {self.env!r}, which no file can make again"
            raise checks.error(str(path), given, "its task", "pass it as env=")
        found = rebuilt(self.spec) if env is None else task(env)
        sizes = {"obs_size": found.obs_size, "action_size": found.action_size}
        if sizes != self.sizes or (self.spaces and found.spaces_as_data() != self.spaces):
            given = f"{found.name} with {sizes}" + (" and other bounds" if sizes == self.sizes else "")
            raise checks.error(str(path), given, f"a task like {self.env} with {self.sizes}", "pass its task as env=")
        return found


def write(folder: Path, header: Header, agents: sac.State) -> None:
    """Write one agent, leaves of shape (1, ...), and what is needed to load it; all at once.

    Args:
        folder: the folder; an agent that is there is replaced.
        header: what the agent is.
        agents: its state.
    """
    arrays = checkpoint.flatten("agent", agents)
    checkpoint.write(folder / HEADER, {"format": FORMAT} | header._asdict(), arrays)


def read_header(folder: Path) -> Header:
    """Read what a saved agent is.

    Args:
        folder: its folder.

    Returns:
        The header.

    Raises:
        ValueError: if the folder holds no agent, a damaged one, or one of a newer format.
    """
    if (folder / legacy.POLICY).is_file() and not (folder / HEADER).is_file():
        return Header(**legacy.policy_header(folder))
    if not (folder / HEADER).is_file():
        raise checks.error("folder", f"{str(folder)!r}, which holds no agent", f"one with {HEADER}", "check the path")
    document = checkpoint.read_header(folder / HEADER, FORMAT, oldest=2)
    if document["format"] == 2:
        document = legacy.agent_header(document)
    return Header(*[document[name] for name in Header._fields])


def read_state(folder: Path, like: sac.State) -> sac.State:
    """Read the numbers of a saved agent.

    Args:
        folder: its folder.
        like: a state of the same structure, leaves of shape (1, ...).

    Returns:
        The state.

    Raises:
        ValueError: if files are damaged or of other settings.
    """
    if not (folder / HEADER).is_file():
        return legacy.policy_state(folder, like)
    header, arrays = checkpoint.read(folder / HEADER, FORMAT, oldest=2)
    return checkpoint.unflatten("agent", like, legacy.renamed(arrays) if header["format"] == 2 else arrays)
