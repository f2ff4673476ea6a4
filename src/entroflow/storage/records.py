"""What a training run leaves on disk: config.json, metrics.csv and evaluations.csv, written row by row and read back.

A folder is one algorithm on one task, with all its seeds. Rows are on disk when the call that wrote them returns, so a
run that is killed loses at most a half-written last line, which reading ignores. Nothing is pickled. What the functions
have in common:

Args:
    folder: the run, made if there is none.
    algorithm: name, such as "sac_isfm".
    env: the task's id.
    spec: from what the task is made again, see `entroflow.agents.tasks.Task.spec`; None if no file can tell that.
    seeds: all seeds of the run.
    steps: planned number of environment steps of every seed; of a resumed run, if it has changed.
    settings: what else the run was started with, in types that JSON knows, NumPy's included.
    evaluation: "every", the steps between evaluations, and "episodes", the number in each; a resumed run needs it.
    wandb: also send the rows to Weights & Biases.
    step: the step of the checkpoint to go on from.
    evaluated: the step of its last evaluation, if it was made before the evaluation of its own step.

Returns:
    The writer; close it, or use it in a `with` block.

Raises:
    ValueError: for a folder that holds a run already, none to go on with, or a damaged one or one of a newer format.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from . import checkpoint, legacy
from .folder import versions, write_json
from .tables import Columns, Row, Table, drop_after, read_table
from .trackers import Sink, open_sinks

FORMAT = 1
CONFIG = "config.json"
EVALUATION = {"every": 5000, "episodes": 10}  # unless one asks for other evaluations
METRICS = ("seed", "step", "seconds", "return", "length", "episodes")  # the learner's metrics follow
EVALUATIONS = ("seed", "step", "seconds", "episode", "return", "length")
TABLES = {"metrics.csv": METRICS, "evaluations.csv": EVALUATIONS}


class Record(NamedTuple):
    """A run as it is on disk."""

    folder: Path
    """Where it is."""
    config: dict[str, Any]
    """The object in config.json: algorithm, env, seeds, steps, settings, versions."""
    metrics: Columns
    """Columns of metrics.csv, one row per seed and log interval; an empty field is NaN."""
    evaluations: Columns
    """Columns of evaluations.csv, one row per episode of an evaluation."""


class Writer(contextlib.ExitStack):
    """Appends rows to the two tables, and to TensorBoard and Weights & Biases; a context manager that closes them.

    Args:
        folder: the folder, which exists.
        sinks: what else is given every row.
    """

    def __init__(self, folder: Path, sinks: list[Sink]):
        super().__init__()
        self._metrics, self._evaluations = (Table(folder / name, fixed) for name, fixed in TABLES.items())
        self._sinks = sinks
        for each in (self._metrics, self._evaluations, *sinks):
            self.callback(each.close)

    def metrics(self, rows: Sequence[Row]) -> None:
        """Append rows to metrics.csv, one per seed: `METRICS`, then the learner's, as the first row of all has them.

        None is an empty field: no episode has ended.
        """
        self._metrics.append(rows)
        for sink in self._sinks:
            sink.write("train", rows)

    def evaluations(self, rows: Sequence[Row]) -> None:
        """Append rows to evaluations.csv, one per seed and episode; the sinks are given the mean over episodes."""
        self._evaluations.append(rows)
        groups: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            groups.setdefault((int(row["seed"]), int(row["step"])), []).append(row)
        means = [
            {"seed": seed, "step": step, "seconds": part[-1]["seconds"]}
            | {name: float(np.mean([row[name] for row in part])) for name in ("return", "length")}
            for (seed, step), part in groups.items()
        ]
        for sink in self._sinks:
            sink.write("evaluation", means)


def create(
    folder: Path,
    *,
    algorithm: str,
    env: str,
    seeds: Sequence[int],
    steps: int,
    settings: Mapping[str, Any],
    spec: Any = None,
    evaluation: Mapping[str, int] | None = None,
    wandb: bool = False,
) -> Writer:
    """Write config.json and open the records of a new run."""
    if there := [name for name in (CONFIG, *TABLES, checkpoint.CHECKPOINTS) if (folder / name).exists()]:
        what = "a run" if there[0] == CONFIG else f"{there[0]} of another run"
        given = f"{str(folder)!r}, which already holds {what}"
        raise checks.error("folder", given, "a folder without them", "resume that run or pass another name")
    config = {"format": FORMAT, "algorithm": algorithm, "env": env, "seeds": list(seeds), "steps": steps}
    config["spec"] = spec
    config |= {"settings": dict(settings), "evaluation": dict(evaluation or {}), "wandb": wandb, "versions": versions()}
    sinks = open_sinks(folder, config, wandb=wandb)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)
    return Writer(folder, sinks)


def resume(folder: Path, step: int, *, evaluated: int | None = None, steps: int | None = None) -> Writer:
    """Open the records of an existing run, to go on from a step: later rows are dropped, to be written again."""
    config = read_config(folder)
    _, rows = _told(folder, step)
    for (name, fixed), until in zip(TABLES.items(), (step, step if evaluated is None else evaluated), strict=True):
        drop_after(folder / name, fixed, until, rows.get(name))
    if steps is not None and steps != config["steps"]:
        config["steps"] = steps
        write_json(folder / CONFIG, config)
    return Writer(folder, open_sinks(folder, config, wandb=config.get("wandb", False), after=step))


def begun(
    out: Path, config: dict[str, Any], resume: bool, names: tuple[str, str, str], way: str
) -> dict[str, Any] | None:
    """Return the configuration of the run in a folder, if there is one to go on with; a `ValueError` refuses another.

    `config` is what the run is to be, as far as it is known. `names` are what messages call the folder, `resume` and
    the settings; `way` is how to go on, for the message about a folder that holds a run where `resume` is False.
    """
    if out.is_file():
        raise checks.error(names[0], f"the file {str(out)!r}", "a folder", "pass another name")
    if not (out / CONFIG).exists():
        return None
    if not resume:
        given, remedy = f"{str(out)!r}, which already holds a run", f"pass another one, or go on with: {way}"
        raise checks.error(names[0], given, "a new folder", remedy)
    known = read_config(out)
    for name in ("algorithm", "env", "seeds"):
        if name in config and known[name] != config[name]:
            given = f"{name} {config[name]!r}, where the run in {out} has {known[name]!r}"
            remedy = f"pass what it was started with, or another {names[0]}"
            raise checks.error(names[1], given, "the same run", remedy)
    if "settings" in config and legacy.settings(known["settings"]) != config["settings"]:
        given = f"{names[2]}, where the run in {out} has other settings"
        raise checks.error(names[1], given, "the same settings", f"leave them out, or pass another {names[0]}")
    if config.get("wandb") and not known.get("wandb"):
        given = f"wandb, where the run in {out} goes without"
        raise checks.error(names[1], given, "the same run", f"leave it out, or pass another {names[0]}")
    plan = evaluation_plan(out, known)
    asked = {name: each for name, each in config.get("evaluation", {}).items() if each != EVALUATION[name]}
    if other := [name for name, each in asked.items() if each != plan.get(name)]:
        given = f"evaluations with {other[0]}={asked[other[0]]}, where the run in {out} has {plan.get(other[0])}"
        raise checks.error(names[1], given, "the same evaluations", f"leave them out, or pass another {names[0]}")
    return known


def read(folder: str | Path) -> Record:
    """Read a run, finished or not; what was written since the newest checkpoint may only add to what that says."""
    folder = Path(folder)
    config, (run, rows) = read_config(folder), _told(folder)
    tables = [read_table(folder / name, fixed) for name, fixed in TABLES.items()]
    if run not in (None, made_of(config)):
        raise checkpoint.damaged(folder / CONFIG, "the description of another run than its checkpoints have")
    for name, table in zip(TABLES, tables, strict=True):
        if len(table["step"]) < rows.get(name, 0):
            raise checkpoint.damaged(folder / name, f"{len(table['step'])} rows, where {rows[name]} were written")
        if strange := {*table["seed"].tolist()} - {*config["seeds"]}:
            raise checkpoint.damaged(folder / name, f"rows of seed {min(strange)}, which the run does not have")
    episodes = [*zip(*(tables[1][part].tolist() for part in ("seed", "step", "episode")), strict=True)]
    if len({*episodes}) < len(episodes):
        raise checkpoint.damaged(folder / "evaluations.csv", "an episode twice")
    return Record(folder, config, *tables)


def evaluation_plan(folder: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the plan of evaluations that a run needs to go on, which those of the earliest versions do not have."""
    plan, place = config.get("evaluation"), str(folder / CONFIG)
    if not isinstance(plan, dict):
        remedy = "begin anew in another folder"
        raise checks.error(place, "no plan of evaluations", "a run of this version", remedy)
    return {part: checks.positive_int(f"{place}, evaluation: {part}", plan.get(part)) for part in EVALUATION}


def made_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run is, of its configuration; its checkpoints say the same."""
    return {name: config[name] for name in ("algorithm", "env", "seeds", "settings")}


def _told(folder: Path, step: int | None = None) -> tuple[Any, dict[str, int]]:
    """Return what a checkpoint, the newest that can be read if not that of a step, says of the run and its rows."""
    for number, path in reversed(checkpoint.folders(folder / checkpoint.CHECKPOINTS).items()):
        if step in (None, number):
            with contextlib.suppress(ValueError), checkpoint.fitting(path):
                header = checkpoint.read_header(path / checkpoint.HEADER)
                rows = header.get("rows", {})  # which earlier versions did not count
                return header["run"], {name: rows[name] + 0 for name in rows}
    return None, {}


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json alone, see `read`."""
    expected, remedy = "the folder of a training run", "pass a folder that holds config.json and metrics.csv"
    path = folder / CONFIG
    with checks.reachable(folder, expected):
        if not path.is_file():
            given = "no such folder" if not folder.exists() else "a folder" if folder.is_dir() else "a file"
            given += " without config.json" if folder.is_dir() else ""
            raise checks.error(str(folder), given, expected, remedy)
    config = checks.json_object(path)
    number = config.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise checks.error(str(path), f"format {number}", f"at most format {FORMAT}", "update entroflow to read it")
    is_whole = lambda number: type(number) is int and 0 <= number < 2**63  # noqa: E731
    valid: dict[str, Callable[[Any], Any]] = {
        "format": lambda number: number == FORMAT and number is not True,
        "algorithm": lambda name: isinstance(name, str),
        "env": lambda name: isinstance(name, str),
        "steps": is_whole,
        "seeds": lambda seeds: isinstance(seeds, list) and seeds and all(map(is_whole, seeds)),
        "settings": lambda settings: isinstance(settings, dict),
    }
    if wrong := [name for name, good in valid.items() if not good(config.get(name))]:
        given = f"{wrong[0]} = {config[wrong[0]]!r}" if wrong[0] in config else f"no field {wrong[0]!r}"
        raise checks.error(str(path), given, expected, remedy)
    checks.distinct(f"seeds in {path}", config["seeds"], "seeds")
    return config
