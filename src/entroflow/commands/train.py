"""The command train: agents on a Gymnasium task, with their records and checkpoints in a folder.

JAX is imported once it is known that the folder and the task will do.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .. import checks
from ..options import TrainOptions, value_of
from ..storage import checkpoint, legacy, records

if TYPE_CHECKING:
    from ..agents import Settings
    from ..agents.tasks import Task


def train(command: TrainOptions) -> int:
    """Train; return the exit code. Bad input is a `ValueError` before anything is written."""
    seeds = checks.seeds(command.seed, command.seeds)
    out = command.out or Path("out") / f"{command.env.replace('/', '_')}-{command.algorithm}"
    plan = {"every": command.evaluate_every, "episodes": command.evaluation_episodes}
    config = {"algorithm": command.algorithm, "env": command.env, "seeds": seeds, "evaluation": plan}
    config["wandb"] = command.wandb
    names = "--out", "--resume", f"--set {' '.join(command.set)}"
    from ..agents.tasks import task

    found = task(command.env)
    records.begun(out, config, command.resume == "auto", names, _again(out, command.env))
    from ..agents import learning
    from ..agents.settings import change, changed, from_json, of_algorithm, to_json

    settings = of_algorithm(command.algorithm, command.preset)
    settings = change(settings, _in_file(command.settings, settings) | _changes(command.set, settings))
    if command.set or command.settings or command.preset != "default":
        config["settings"] = to_json(settings)
    known = records.begun(out, config, True, names, "")
    if known is not None:
        if (kept := from_json(legacy.settings(known["settings"]))) != settings:
            told = ", ".join(f"{name}={value}" for name, value in changed(kept).items()) or "the defaults"
            Console().print(f"going on with the settings that {out} has: {told}", soft_wrap=True, markup=False)
        return go_on(out, known, command.steps, found)
    config = learning.describe(found, settings, seeds, command.steps, plan, wandb=command.wandb)
    config["spec"] = command.env
    return _train(out, found, config, settings, command.steps, new=True)


def go_on(out: Path, config: dict[str, Any], steps: int | None = None, found: "Task | None" = None) -> int:
    """Go on with the run in a folder; return the exit code."""
    from ..agents.settings import from_json
    from ..agents.tasks import rebuilt

    settings = from_json(legacy.settings(config["settings"]))
    if found is None and config.get("spec", "") is None:
        given, remedy = f"a run on {config['env']!r}, which no file can make again", "go on in Python, with resume=True"
        raise checks.error(str(out), given, "its task", remedy)
    found = found or rebuilt(config.get("spec", config["env"]))  # earlier versions had the id alone
    return _train(out, found, config, settings, steps or config["steps"], new=False)


def _train(out: Path, found: "Task", config: dict[str, Any], settings: "Settings", steps: int, *, new: bool) -> int:
    """Begin a run or go on with it; return the exit code."""
    from .. import memory
    from ..agents import Broken, NotFinite, learning
    from ..agents.compiled import training_of
    from ..stopping import Stop
    from ..storage.folder import cache_compilations

    episodes = records.evaluation_plan(out, config)["episodes"]
    memory.check({"evaluation episodes": len(config["seeds"]) * episodes * memory.ENVIRONMENT})
    console = Console()
    cache_compilations()
    training = training_of(found, settings, config["seeds"], max(steps, config["steps"]))
    with Stop() as stop:
        try:
            finished = learning.Run(training, out, config, steps, stop, console).record(new=new)
        except (Broken, NotFinite, OSError) as problem:
            end = f"cannot write to {out} ({problem})" if isinstance(problem, OSError) else f"{problem}"
            kept = list(checkpoint.folders(out / checkpoint.CHECKPOINTS))
            left = f"the last checkpoint is that of step {kept[-1]} in" if kept else "no checkpoint yet"
            left += f" {out / checkpoint.CHECKPOINTS}" if kept else ""
            console.print(f"{end}: training cannot go on; {left}", style="red", markup=False, soft_wrap=True)
            return 1
        finally:
            training.close()
    told = f"stopped at step {training.step}; to go on: {_again(out, config.get('spec'))}"
    if finished:
        told = f"learning_curve.png, evaluations.csv, metrics.csv and agents are in {out}"
    console.print(told, soft_wrap=True, markup=False)
    return 0 if finished else stop.exit_code


def _again(out: Path, spec: Any) -> str:
    """Return the command that goes on with a run; no folder chooses a module, so that one's own is to be named."""
    own = isinstance(spec, str) and ":" in spec and not spec.startswith("entroflow.")
    return shlex.join(["entroflow", "resume", str(out), *(["--task", spec] if own else [])])


def _changes(assignments: tuple[str, ...], settings: "Settings") -> dict[str, Any]:
    """Read settings of the form name=value."""
    from ..agents.settings import level_of

    changes = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign:
            raise checks.error("--set", repr(text), "name=value", "write for example --set candidates=32")
        if name == "actor":
            raise checks.error("--set", repr(text), "settings of one algorithm", "choose it by --algorithm")
        if name in changes:
            raise checks.error("--set", f"{name} twice", "it once", "leave one of them out")
        level_of(name, settings, "--set")
        changes[name] = value_of(value)
    return changes


def _in_file(path: Path | None, settings: "Settings") -> dict[str, Any]:
    """Read a file of settings, such as the best of a search."""
    from ..agents.settings import level_of

    changes = {} if path is None else (checks.toml_table if path.suffix == ".toml" else checks.json_object)(path)
    if "actor" in changes:
        raise checks.error(str(path), "'actor'", "settings of one algorithm", "choose it by --algorithm")
    for name in changes:
        level_of(name, settings, str(path))
    return {name: None if value == "None" else value for name, value in changes.items()}
