"""A study as its file tells it, and the trials that it is made of. Neither JAX nor Ray is needed to read one.

tasks = ["Pendulum-v1", "Hopper-v5"]
algorithms = ["sac_isfm", "paper", "gaussian_sac"]  # algorithms, and presets
seeds = 5                                           # 0 to 4; or a list
steps = 100_000

[settings]            # a list is crossed with all others
width = [128, 256]
[settings.sac_isfm]   # of one algorithm
candidates = 8

[needs]               # of one trial
cores = 1
"""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from .. import checks
from ..fields import Count, NonNegative, Positive, check_fields, checked
from ..names import ELSEWHERE, Changes

T = TypeVar("T")
LONGEST = 120  # letters of a trial's name, which is that of a folder
RANGE = "from", "to", "log"


@dataclass(frozen=True)
class Needs:
    """What one trial needs of the machine that it runs on, and how often it is placed again when that dies.

    Attributes:
        cores: processor cores.
        gpus: graphics processors, or a share of one.
        memory: GiB; None: as much as its plan takes.
        retries: times that a trial is placed again whose process or machine has died.

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    cores: Positive = 1
    gpus: NonNegative = 0
    memory: Positive | None = None
    retries: Count = 10

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Search:
    """How settings are searched.

    Attributes:
        trials: points to try.
        hours: how long to go on; None: until all points are tried.
        objective: what is to be high, the mean over seeds and episodes: of the last evaluation, or of all of them.
        early_stopping: whether ASHA stops trials that are worse than others after as many steps.
        seed: of the suggestions.

    Raises:
        ValueError: in one sentence, for a value that is not possible.
    """

    trials: Count = 32
    hours: Positive | None = None
    objective: Literal["final", "average"] = "final"
    early_stopping: bool = True
    seed: int = 0

    def __post_init__(self):
        check_fields(self)
        checks.seed("seed", self.seed)


class Trial(NamedTuple):
    """One run folder of a study: an algorithm with its settings on a task.

    Attributes:
        name: of its folder.
        task: id of the task.
        algorithm: an algorithm, or the preset of one.
        settings: what differs from their defaults.
        crossed: those settings of which the study has a list, or a range.
        seeds: those that share its program.
        steps: environment steps of each.
        evaluation: "every", the steps between evaluations, and "episodes", the number in each.
    """

    name: str
    task: str
    algorithm: str
    settings: dict[str, Any]
    crossed: list[str]
    seeds: list[int]
    steps: int
    evaluation: dict[str, int]

    @property
    def label(self) -> str:
        """What it is called in comparisons: all but task and seeds."""
        return " ".join([self.algorithm, *(f"{name}={self.settings.get(name)}" for name in self.crossed)])


class Study(NamedTuple):
    """What a study file says.

    Attributes:
        document: the file's content.
        trials: what is run; of a search, the one trial whose settings are fixed.
        needs: of one trial.
        search: how settings are searched, if they are.
        ranges: by setting what is searched: a list to choose from, or `RANGE`.
        storage: where results travel if the machines share no disk: a place that Ray knows, such as s3://bucket/study.
    """

    document: dict[str, Any]
    trials: list[Trial]
    needs: Needs
    search: Search | None
    ranges: dict[str, Any]
    storage: str | None


KEYS = "tasks", "algorithms", "seeds", "steps", "evaluate_every", "evaluation_episodes", "one_program", "storage"
TABLES = "settings", "needs", "search"


def read(source: str | Path | Mapping[str, Any]) -> Study:
    """Read a study, from its file or what that would hold, as far as it goes without JAX; else it is a `ValueError`."""
    if not isinstance(source, str | Path | Mapping):
        raise checks.error("study", repr(source), "a file, or a dict of what it would hold", "pass one of these")
    place = "study" if isinstance(source, Mapping) else str(source)
    document = dict(source) if isinstance(source, Mapping) else checks.toml_table(source)
    for key in document:
        checks.choice(place, key, [*KEYS, *TABLES])
    settings, needs, search = (_table(key, document.get(key, {})) for key in TABLES)
    tasks, algorithms = (_several(key, document.get(key), "names") for key in ("tasks", "algorithms"))
    seeds, whole = document.get("seeds", 1), checks.positive_int
    seeds = list(range(whole("seeds", seeds, most=checks.MOST_SEEDS))) if isinstance(seeds, int) else seeds
    seeds = [checks.seed("seeds", seed) for seed in _several("seeds", seeds, "seeds")]
    steps, every = whole("steps", document.get("steps")), whole("evaluate_every", document.get("evaluate_every", 5000))
    evaluation = {"every": every, "episodes": whole("evaluation_episodes", document.get("evaluation_episodes", 10))}
    for name, value in settings.items():
        if name not in algorithms and isinstance(value, Mapping):
            given, remedy = "a table of an algorithm that the study has not", "add it to algorithms, or leave it out"
            raise checks.error(f"settings.{name}", given, f"one of {', '.join(algorithms)}", remedy)
    ranges = _ranges(_table("search.settings", search.pop("settings", {}))) if search else {}
    together = checked("one_program", document.get("one_program", bool(ranges)), bool)
    storage = checked("storage", document.get("storage"), str | None) or None
    trials = []
    for task, algorithm in itertools.product(tasks, algorithms):
        given = {name: value for name, value in settings.items() if name not in algorithms}
        given |= _table(f"settings.{algorithm}", settings.get(algorithm, {}))
        every_one = {_known(name): _several(name, value, "values") for name, value in given.items()}
        if both := [name for name in ranges if name in given]:
            raise checks.error(both[0], "a value and a range", "one of the two", "leave one of them out")
        crossed = [*(name for name, value in given.items() if isinstance(value, list | tuple)), *ranges]
        for values in itertools.product(*every_one.values()):
            combined = dict(zip(every_one, map(plainly, values), strict=True))
            for part in [seeds] if together else [[seed] for seed in seeds]:
                trials.append(Trial("", task, algorithm, combined, crossed, part, steps, evaluation))
    trials = [trial._replace(name=name_of(trial)) for trial in trials]
    checks.distinct("folders of trials", [trial.name for trial in trials], "names")
    if "search" in document and (len(trials) > 1 or not ranges):
        given = f"{len(trials)} trials" if ranges else "no range"
        remedy = "write a study for each" if ranges else "write for example rate = { from = 1e-4, to = 1e-3 }"
        raise checks.error(
            "search", given, "one task, algorithm and setting of the rest, and [search.settings]", remedy
        )
    how = _made(Search, search, "search") if ranges else None
    return Study(document, trials, _made(Needs, needs, "needs"), how, ranges, storage)


def name_of(trial: Trial) -> str:
    """Return the name of a trial's folder: task, algorithm, settings that are crossed, seeds."""
    whole = "-".join([trial.task, *trial.label.split(" "), f"seed={','.join(map(str, trial.seeds))}"])
    name = re.sub(r"[^\w.=,+-]", "_", whole.replace("/", "_", 1))
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return name if len(name) <= LONGEST and name == whole.replace("/", "_", 1) else f"{name[: LONGEST - 9]}-{digest}"


def plainly(value: Any) -> Any:
    """Return a setting's value from a file, in which None, which TOML lacks, may be written as text."""
    return None if value == "None" else value


def _made(kind: type[T], table: Mapping[str, Any], place: str) -> T:
    """Return a dataclass of what a table holds."""
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    return kind(**{checks.choice(place, name, known): value for name, value in table.items()})


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise checks.error(name, repr(value), "a table", f"begin it with [{name}]")
    return dict(value)


def _several(name: str, value: Any, what: str) -> Sequence[Any]:
    """Return one or more different values, of which one may stand alone."""
    values = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    plain = str if what == "names" else str | int | float
    if wrong := [part for part in values if not isinstance(part, plain)]:
        raise checks.error(name, repr(wrong[0]), what, "write a value, or a list of values")
    return checks.distinct(name, values, what)


def _known(name: str) -> str:
    """Refuse a setting that no algorithm has; what it is called elsewhere, the settings themselves refuse."""
    return name if name in ELSEWHERE else checks.choice("settings", name, sorted(Changes.__annotations__))


def _ranges(table: dict[str, Any]) -> dict[str, Any]:
    """Check the form of what is searched; see `trial.check` for the values."""
    for name, value in table.items():
        _known(name)
        if isinstance(value, list):
            _several(name, value, "values")
            continue
        value = _table(f"search.settings.{name}", value)
        for key in value:
            checks.choice(name, key, RANGE)
        ends = [checks.number(f"{name}, {key}", value.get(key)) for key in RANGE[:2]]
        if not ends[0] < ends[1]:
            raise checks.error(name, f"from {ends[0]} to {ends[1]}", "a range", "let it end above where it begins")
        if not isinstance(log := value.get("log", False), bool) or (log and ends[0] <= 0):
            given = f"log = {log!r} from {ends[0]}"
            raise checks.error(name, given, "true from above 0, or false", "let it begin above 0, or leave log out")
    return table
