"""Command lines as people type them, and worse: each answers in time, in a sentence, with a documented exit code.

    python -m experiments.hostile.command_lines --cases 900 --out out/command_lines

Some cases are listed, the others are drawn: of every command its options, right and wrong, with values that people and
scripts come up with. What would begin to train counts as accepted there and ends.
"""

import contextlib
import csv
import io
import json
import multiprocessing
import random
import re
import resource
import shlex
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from entroflow import cli
from entroflow.storage import records

from ..frame import markdown, read

SECONDS = 15.0  # of processor time for an answer
HANGS = 120.0  # seconds until a process is ended
MEMORY = 12 * 2**30  # bytes of address space, of which JAX takes some just to start
FORBIDDEN = re.compile(r"Traceback|entroflow\.settings|command\.\w+|\.pyc?\b:? line")
TASK = "Pendulum-v1"
BEFORE = Path(__file__).with_name("command_lines_before.csv")  # what failed when the cases were first tried


class Case(NamedTuple):
    """A command line, the exit codes that are right, and the encoding of the terminal or file that it answers to."""

    kind: str
    argv: list[str]
    codes: tuple[int, ...]
    encoding: str = "utf-8"


class Outcome(NamedTuple):
    """What came of it: how it failed, nothing if it did not; its exit code, words, and seconds."""

    failure: str
    code: int | None
    said: str
    seconds: float


class Accepted(BaseException):
    """Training would begin here."""


# Of every kind the exit code that is right, and command lines; (a|b) stands for one line each with a and b.
LISTED = {
    "help": (
        0,
        """
        (lqr|train|resume|eval|watch|export|compare|version) --help
        (--help|version)
        """,
    ),
    "everyday": (
        0,
        """
        train TASK
        train TASK --steps (1e4|10_000) --seeds 3 --seed 7
        train TASK --set num_envs=4 candidates=32
        train TASK --algorithm gaussian_sac --set target_entropy=None temperature=0.1
        train TASK --algorithm=denoising --out=elsewhere
        lqr --alpha 0.5 --seeds 1 --steps 1e2 --out study
        compare run --out comparison
        compare run run-seed-1 --labels a b
        eval agent --episodes 1
        export agent --out policy.stablehlo
        """,
    ),
    "wrong words": (
        2,
        """
        (''|nosuch|train|eval|compare)
        (trian TASK|lqr coupled)
        train (--env TASK|TASK --env TASK|TASK Hopper-v5)
        train TASK (--step 3|--steps|--no-such 3|--steps 3 --steps 4|--resume always)
        eval --folder run
        compare run (run|--metric retrun|--labels a b)
        """,
    ),
    "tasks": (
        2,
        """
        train (Pendulm-v1|Pendulum-v2|pendulum-v1|Hopper-v2|CartPole-v1|LunarLander-v3|Blackjack-v1|''|:|a:b:c|..)
        train (nosuch:X-v0|os:X-v0|/etc/passwd|LETTERS|DIGITS|🙂-v0|-v0|GymV26Environment-v0)
        train (phys2d/CartPole-v1|tabular/CliffWalking-v0)
        """,
    ),
    "numbers": (
        2,
        """
        train TASK (--steps|--seeds|--evaluate-every|--evaluation-episodes) (0|-1|1.5|nan|inf|1e400|1e-3|''|three)
        train TASK (--steps|--seeds|--evaluate-every|--evaluation-episodes|--seed) (DIGITS|-DIGITS)
        train TASK --seed (-1|4294967296|1.5|nan)
        lqr --alpha (0|-1|nan|inf|1e400|1e-300|''|DIGITS)
        lqr --candidates (1|0|1e3|DIGITS|many|-8|²)
        lqr --steps (0|DIGITS|1e12)
        eval agent --episodes (0|-3|DIGITS)
        eval agent --mass (0|nan|-1|2)
        export agent --best-of (0|-1|DIGITS)
        """,
    ),
    "sizes": (
        2,
        """
        (train TASK|lqr) --seeds (2147483648|10000000|50000)
        train TASK --evaluation-episodes 100000000
        train TASK --steps 1e9 --set buffer_size=2147483647
        train TASK --set num_envs=100000000
        train TASK --set (width|critic_width|depth|critic_depth)=1000000
        train TASK --set (batch_size|critic_members|state_width)=1000000000
        train TASK --set (candidates|states|action_candidates)=2000000000
        train TASK --set (updates_per_step|width)=DIGITS
        eval agent --episodes 100000000
        export agent --best-of 2000000000
        """,
    ),
    "settings": (
        2,
        """
        train TASK --set (learning_rate=1e-3|=|=3|rate|rate=|rate=fast|rate=-1|rate=DIGITS|LETTERS=3|🙂=1)
        train TASK --set width=(1.5|-1|[]|{}|null|true|BRACKETS)
        train TASK --set (discount=1|discount=NaN|temperature=0|seed=3|actor=mine|critic=mine|critic=|config=3)
        train TASK --set (buffer_size=10|soft_value=netwrok|target_entropy=high|solver=euler|normalise_obs=3)
        train TASK --set (num_envs|batch_size)=0
        train TASK --algorithm (sac|''|SAC_ISFM|LETTERS|ppo)
        """,
    ),
    "files": (
        2,
        """
        (eval|resume|watch|export|compare) (nowhere|empty|file|LETTERS|''|/dev/null|file/below|damaged|🙂)
        resume (every-0|every-x|no-every|episodes-many|evaluation-list|no-evaluation)
        resume (long-steps|long-seed|many-steps|no-task|module|deep)
        lqr --system (nowhere|file|empty|LETTERS|''|damaged/config.json)
        (compare run|train TASK) --out (file|LETTERS)
        export agent --out (policy.txt|policy|LETTERS.onnx|file/p.onnx)
        (lqr|train TASK) --out run
        watch agent --out film.avi
        export several
        eval agent --checkpoint first
        """,
    ),
}
LONG = {"TASK": TASK, "DIGITS": "9" * 10_000, "LETTERS": "x" * 5000, "BRACKETS": "[" * 5000}
WORDS = r"""
    0 1 3 -1 1.5 1e3 1e400 nan inf None True 0x10 １２ 1,000 1_000 -- - 🙂 é .. . ~ * \\ [/] $HOME %s {} [bold]
    DIGITS LETTERS file empty run agent TASK Hopper-v5 width=8 seeds=3 last best auto
"""
VALUES = ["", " ", "a b", "'", '"', "\n", "\udce9", "\x1b[31m", *WORDS.split()]


def words(line: str) -> list[str]:
    """Return the words of a line, the long ones written out."""
    return [re.sub("|".join(LONG), lambda found: LONG[found[0]], word) for word in shlex.split(line)]


def lines(text: str) -> Iterator[str]:
    """Return the lines that a text stands for."""
    for line in text.strip().splitlines():
        if choice := re.search(r"\(([^)]*)\)", line):
            yield from lines(
                "\n".join(line[: choice.start()] + part + line[choice.end() :] for part in choice[1].split("|"))
            )
        else:
            yield line


def listed() -> list[Case]:
    """Return the cases that stand here one by one; those that print something once more in two narrow encodings."""
    cases = [Case(kind, words(line), (code,)) for kind, (code, text) in LISTED.items() for line in lines(text)]
    told = [case for case in cases if case.kind in ("help", "wrong words") or case.argv[:1] in (["compare"], ["eval"])]
    return cases + [case._replace(kind="encodings", encoding=name) for name in ("cp1252", "ascii") for case in told]


def drawn(count: int, seed: int) -> Iterator[Case]:
    """Draw command lines: of a command's own options and others', words for their values, in any order."""
    choose = random.Random(seed)
    options = {name: [part.name.replace("_", "-") for part in fields(kind)] for name, (kind, _) in cli.COMMANDS.items()}
    every = sorted({option for names in options.values() for option in names} | {"help", "version", "verbose"})
    for _ in range(count):
        command = choose.choice(list(options))
        parts = [[choose.choice(["TASK", "run", "agent", *VALUES])] if choose.random() < 0.8 else []]
        for _ in range(choose.randrange(4)):
            name = choose.choice(options[command] or every) if choose.random() < 0.9 else choose.choice(every)
            values = [choose.choice(VALUES) for _ in range(choose.choice([0, 1, 1, 1, 1, 2]))]
            joined = len(values) == 1 and choose.random() < 0.3
            parts.append([f"--{name}={values[0]}"] if joined else [f"--{name}", *values])
        choose.shuffle(parts)
        # What is right takes its time: films, exports and evaluations of any length are not drawn.
        short = {"eval": ["--episodes", "0"], "watch": ["--episodes", "0"], "export": ["--best-of", "0"]}.get(
            command, []
        )
        argv = [command, *[LONG.get(word, word) for part in parts for word in part], *short]
        yield Case("drawn", argv, (0, 2), choose.choice(["utf-8", "utf-8", "cp1252", "ascii"]))


CONFIG: dict[str, Any] = {
    **{"format": 1, "algorithm": "gaussian_sac", "env": TASK, "seeds": [0], "steps": 10, "wandb": False},
    "settings": {"config": {"kind": "Config", "actor": {"kind": "Gaussian"}, "critic": {"kind": "MLPCritic"}}},
    "evaluation": {"every": 5, "episodes": 1},
}
RUNS = {
    "run": "{}",
    "run-seed-1": '{"seeds": [1]}',
    "every-0": '{"evaluation": {"every": 0, "episodes": 1}}',
    "every-x": '{"evaluation": {"every": "x", "episodes": 1}}',
    "no-every": '{"evaluation": {"episodes": 1}}',
    "episodes-many": '{"evaluation": {"every": 5, "episodes": 100000000}}',
    "evaluation-list": '{"evaluation": [5, 1]}',
    "no-evaluation": '{"evaluation": null}',
    "long-steps": f'{{"steps": {"9" * 10_000}}}',
    "long-seed": f'{{"seeds": [{"9" * 10_000}]}}',
    "many-steps": '{"steps": 1e400}',
    "no-task": '{"env": "Pendulum-v9"}',
    "module": '{"env": "os:X-v0"}',
    "deep": '{"settings": {"config": {"kind": "Config", "actor": {"kind": "Gaussian", "depth": 10000000}}}}',
}


def furnish(folder: Path) -> None:
    """Put into a folder what command lines speak of: runs, whole and damaged, an agent, several, a file."""
    from entroflow import GaussianSAC

    for name, changes in RUNS.items():
        seeds = [1] if name == "run-seed-1" else [0]
        with records.create(
            folder / name, **{k: v for k, v in CONFIG.items() if k != "format"} | {"seeds": seeds}
        ) as run:
            rows = [{"seed": seeds[0], "step": step, "seconds": 1.0, "return": -step} for step in (0, 5, 10)]
            run.evaluations([row | {"episode": 0, "length": 200} for row in rows])
        path = folder / name / records.CONFIG
        text = path.read_text().rstrip()
        for key in re.findall(r'^\{"(\w+)"', changes):
            document = {k: v for k, v in json.loads(text).items() if k != key}
            text = json.dumps(document)[:-1] + ", " + changes[1:]
        path.write_text(text)
    agent = GaussianSAC("entroflow/LQR-v0", width=4, critic_width=4)
    for name in ("agent", "several/checkpoints/last/seed=0", "several/checkpoints/last/seed=1"):
        agent.save(folder / name)
    (folder / "empty").mkdir()
    (folder / "file").write_text("nothing\n")
    (folder / "damaged").mkdir()
    (folder / "damaged" / records.CONFIG).write_text('{"format": 1, ')


@contextlib.contextmanager
def ending_where_training_begins() -> Iterator[None]:
    """Let everything be checked, and nothing be trained."""
    from entroflow.agents import training
    from entroflow.commands.lqr import job

    def accept(*_: Any, **__: Any) -> Any:
        raise Accepted

    begin, run = training._init, job._Job.run

    def begin_if_saved(config: Any, seeds: Any, obs_size: int, *rest: Any) -> Any:
        return begin(config, seeds, obs_size, *rest) if config.critic.width == 4 else accept()  # the furniture is

    vars(begin_if_saved).update(vars(begin))
    training._init, job._Job.run = begin_if_saved, accept  # type: ignore[assignment]
    try:
        yield
    finally:
        training._init, job._Job.run = begin, run


def attempt(case: Case) -> Outcome:
    """Run a command line in this process, its output encoded strictly, as it is into a file; judge what comes of it."""
    out, err = (io.TextIOWrapper(io.BytesIO(), case.encoding, write_through=True) for _ in range(2))
    begun, code, raised = time.process_time(), None, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(case.argv)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except Accepted:
            code = 0
        except BaseException:
            raised = traceback.format_exc(limit=-3)
    seconds = time.process_time() - begun
    printed, said = (stream.buffer.getvalue().decode(case.encoding) for stream in (out, err))  # type: ignore[attr-defined]
    said = re.sub(r"\S+ DeprecationWarning: .*WARN.*\n.*\n", "", said)  # Gymnasium's, of old versions
    return Outcome(judged(case, code, printed, said, raised, seconds), code, (raised or said)[:2000], round(seconds, 2))


def judged(case: Case, code: int | None, printed: str, said: str, raised: str, seconds: float) -> str:
    """Return what is wrong, nothing if all is well."""
    if raised:
        return "traceback"
    if code not in case.codes:
        return f"exit code {code} for {' or '.join(map(str, case.codes))}"
    if found := FORBIDDEN.search(printed + said):
        return f"speaks of {found[0]!r}"
    lines = said.splitlines()
    boxed = "For full helptext" in said
    if code == 2 and not boxed and (len(lines) != 1 or not lines[0].startswith("entroflow: ")):
        return "not one sentence"
    return f"{seconds:.0f} seconds" if seconds > SECONDS else ""


def _work(cases: Sequence[Case], first: int, pipe: Connection) -> None:
    """Try cases from one on in a process of its own, in a folder of its own, with bounded memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        furnish(Path(folder))
        with ending_where_training_begins():
            for case in cases[first:]:
                pipe.send(attempt(case))


def attempts(cases: Sequence[Case], tell: Callable[[int], None] = lambda _: None) -> list[Outcome]:
    """Try all cases, in a process that is ended and begun anew where one hangs or dies."""
    spawn, found = multiprocessing.get_context("spawn"), list[Outcome]()
    while len(found) < len(cases):
        here, there = spawn.Pipe(duplex=False)
        worker = spawn.Process(target=_work, args=(cases, len(found), there))
        worker.start()
        there.close()
        while len(found) < len(cases):
            tell(len(found))
            try:
                if not here.poll(HANGS):
                    found.append(Outcome("hangs", None, "", HANGS))
                    break
                found.append(here.recv())
            except EOFError:
                found.append(Outcome("dies", None, "", 0.0))
                break
        worker.kill()
        worker.join()
    return found


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    cases: int = 900
    """Number of command lines in all, the listed ones first."""
    seed: int = 0
    """Seed of the drawn ones."""
    out: Path = Path("out/command_lines")
    """Output folder, made if there is none."""


def all_cases(count: int, seed: int = 0) -> list[Case]:
    """Return so many cases, the listed ones first."""
    cases = listed()
    return [*cases, *drawn(max(count - len(cases), 0), seed)][:count]


def table(rows: Sequence[Mapping[str, str]], before: Sequence[Mapping[str, str]]) -> str:
    """Return a line for every kind: how many cases, how many failed before the mends and now, the longest answer."""
    lines = []
    for kind in [*dict.fromkeys(row["kind"] for row in rows), "all"]:
        found = [row for row in rows if kind in (row["kind"], "all")]
        failed = [sum(bool(row["failure"]) for row in part if kind in (row["kind"], "all")) for part in (before, found)]
        longest = max(float(row["seconds"]) for row in found)
        lines.append([kind, *map(str, (len(found), *failed)), f"{longest:.1f}"])
    return markdown(["kind", "cases", "failures before", "failures after", "longest answer, s"], lines)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; of none if there is no such file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def run(options: Options) -> int:
    """Try all cases; write them into a table; return the exit code."""
    cases = all_cases(options.cases, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes = attempts(cases, lambda number: print(f"\r{number} of {len(cases)}", end="", flush=True))
    with (path := options.out / "command_lines.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["kind", "encoding", "command line", "exit code", "seconds", "failure", "said"])
        for case, outcome in zip(cases, outcomes, strict=True):
            shown = [word if len(word) < 60 else f"{word[:20]}… of {len(word)}" for word in case.argv]
            said = " ".join(re.sub("[─-╿]+", " ", outcome.said).split())
            told = outcome.code, outcome.seconds, outcome.failure, repr(said[:120])[1:-1]
            writer.writerow([case.kind, case.encoding, repr(shlex.join(shown))[1:-1], *told])
    print("\n" + table(read_rows(path), read_rows(BEFORE)))
    return int(any(outcome.failure for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(read("experiments.hostile.command_lines", run, Options))
