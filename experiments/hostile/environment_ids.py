"""Every environment that Gymnasium knows, and ids that people type: it works, or one sentence says what to do.

    python -m experiments.hostile.environment_ids --out experiments/hostile

Tasks are made and looked at, nothing is trained. What works depends on the packages that are installed.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium

from entroflow.agents.tasks import task

from ..frame import markdown, read

TYPED = ["", "Hopper", "hopper-v5", "Hopper-v99", "Hopper v5", "ALE/Pong-v5", "nosuch:X-v0", "no/such:X-v0", ":X-v0"]
TYPED += ["os:path", "gymnasium:Nope-v0", "../x", "dm_control/cartpole-swingup-v0", "Hopper-v5:1", "😀-v0", "a" * 5000]
SENTENCE = re.compile(r"[\w ]+(?: of .*)?: got .*, expected .*; .*\.")


def attempt(name: str) -> dict[str, str]:
    """Make a task; return what came of it."""
    try:
        found = task(name)
        outcome, said = "works", f"{found.obs_size} observations, {found.action_size} actions"
    except ValueError as problem:
        said = str(problem)
        missing = "needs what is missing" in said
        outcome = "package is named" if missing else "is told why not" if SENTENCE.fullmatch(said) else "no sentence"
    except Exception as problem:
        outcome, said = "traceback", f"{type(problem).__name__}: {problem}"
    return {"id": name[:40], "kind": "typed" if name in TYPED else "registered", "outcome": outcome, "said": said[:400]}


def attempts(names: Iterable[str]) -> list[dict[str, str]]:
    """Try ids; return a row for each."""
    return [attempt(name) for name in names]


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a line for each kind: ids, and how many came out in which way."""
    outcomes = ["works", "package is named", "is told why not", "no sentence", "traceback"]
    kinds = {kind: [row["outcome"] for row in rows if row["kind"] == kind] for kind in ("registered", "typed")}
    counts = ([kind, len(part), *map(part.count, outcomes)] for kind, part in kinds.items())
    return markdown(["kind", "ids", *outcomes], (map(str, row) for row in counts))


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    out: Path = Path("out/environment_ids")
    """Output folder, made if there is none."""


def run(options: Options) -> int:
    """Try all ids; write them into a table; return the exit code."""
    rows = attempts([*gymnasium.registry, *TYPED])
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "environment_ids.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (options.out / "environment_ids.md").write_text(table(rows))
    print(table(rows))
    return int(any(row["outcome"] in ("no sentence", "traceback") for row in rows))


if __name__ == "__main__":
    raise SystemExit(read("experiments.hostile.environment_ids", run, Options))
