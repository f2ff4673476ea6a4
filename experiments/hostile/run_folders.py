"""Run folders that were cut, mixed up or prepared: every reader gives the right answer, or says in a sentence why not.

    python -m experiments.hostile.run_folders --out out/run_folders

One tiny training is made. Copies of its folder are changed, check sums made anew where there are any, and read by
`load`, `eval`, `resume`, `compare` and `export`. Right is the answer that the unchanged folder gives.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import entroflow
from entroflow import cli, plotting
from entroflow.storage import checkpoint

from ..frame import markdown, read

SECONDS = 60  # for an answer
TASK = "entroflow/MultiGoal-v0"
SMALL = {"learning_starts": 10, "critic_width": 4, "width": 4, "depth": 1, "batch_size": 8, "buffer_size": 100}
OBS = np.array([0.5, -0.25], np.float32)
READERS = ("load", "eval", "resume", "compare", "export")
AGENT = "checkpoints/last/seed=0/agent.json"
NEWEST = "checkpoints/step=40/checkpoint.json"
DIGITS = "9" * 10_000

Change = Callable[[Path, Path], None]  # of a folder, given the place of others and of files that must stay as they are


class Case(NamedTuple):
    """A change, and the readers that it must not hinder."""

    kind: str
    name: str
    change: Change
    spared: tuple[str, ...] = ()


class Hang(BaseException):
    """An answer takes too long."""


def make(place: Path) -> None:
    """Make the run, an agent of another algorithm, and files that nothing may write to."""
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    command = ["train", TASK, "--algorithm", "gaussian_sac", "--steps", "40", "--seeds", "2", "--evaluate-every", "20"]
    command += ["--evaluation-episodes", "1", "--out", str(place / "run"), "--set", *settings]
    if code := cli.main(command):
        raise RuntimeError(f"the training ended with exit code {code}")
    entroflow.DenoisingSAC(TASK, **SMALL).save(place / "other")
    (place / "outside").mkdir()
    (place / "outside" / "victim").write_text("mine\n")


def sign(path: Path, document: dict[str, Any]) -> None:
    """Write a header with its check sum made anew."""
    document.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(document, indent=2).encode()).hexdigest()
    path.write_text(json.dumps(document | {"sha256": digest}, indent=2) + "\n")


def edit(file: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change a JSON file; what has a check sum gets a new one."""

    def do(folder: Path, place: Path) -> None:
        document = json.loads((folder / file).read_text())
        change(document)
        if "sha256" in document:
            sign(folder / file, document)
        else:
            (folder / file).write_text(json.dumps(document))

    return do


def put(file: str, *path: str, value: Any) -> Change:
    """Put a value into a JSON file."""

    def change(document: dict[str, Any]) -> None:
        for part in path[:-1]:
            document = document[part]
        document[path[-1]] = value

    return edit(file, change)


def drop(file: str, *path: str) -> Change:
    """Take a value out of a JSON file."""

    def change(document: dict[str, Any]) -> None:
        for part in path[:-1]:
            document = document[part]
        del document[path[-1]]

    return edit(file, change)


def pack(file: str, change: Callable[[dict[str, np.ndarray]], Any], *, compress: bool = False) -> Change:
    """Change arrays, and their check sums with them."""

    def do(folder: Path, place: Path) -> None:
        header = json.loads((folder / file).read_text())
        old = folder / Path(file).with_name(header["arrays"]["file"])
        with np.load(old) as content:
            arrays = dict(content)
        change(arrays)
        (np.savez_compressed if compress else np.savez)(old, **arrays)  # type: ignore[arg-type]
        bind(folder / file, old)

    return do


def bind(path: Path, arrays: Path) -> None:
    """Let a header name arrays that are there."""
    header, digest = json.loads(path.read_text()), hashlib.sha256(arrays.read_bytes()).hexdigest()
    new = path.with_name(f"{path.stem}-{digest[:16]}.npz")
    arrays.rename(new)
    header["arrays"] = {"file": new.name, "bytes": new.stat().st_size, "sha256": digest}
    sign(path, header)


def lie(file: str, shape: str) -> Change:
    """Let an array say that it is of another shape."""

    def do(folder: Path, place: Path) -> None:
        old = folder / Path(file).with_name(json.loads((folder / file).read_text())["arrays"]["file"])
        with zipfile.ZipFile(old) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = next(iter(members))
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        head = text.ljust(117) + "\n"
        members[name] = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + members[name][-16:]
        with zipfile.ZipFile(old, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        bind(folder / file, old)

    return do


def write(file: str, change: Callable[[bytes], bytes]) -> Change:
    """Change the bytes of a file."""

    def do(folder: Path, place: Path) -> None:
        path = resolve(folder, file)
        path.write_bytes(change(path.read_bytes()))

    return do


def resolve(folder: Path, file: str) -> Path:
    """Return a file, whose name may hold a star."""
    return next(folder.glob(file), folder / file)


def instead(file: str, kind: str) -> Change:
    """Put something else in a file's place."""

    def do(folder: Path, place: Path) -> None:
        path = resolve(folder, file)
        moved = place / "outside" / "moved"
        path.rename(moved) if kind == "link" else path.unlink(missing_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(moved)
        elif kind == "dangling link":
            path.symlink_to(place / "outside" / "new")

    return do


def link(name: str) -> Change:
    """Prepare a link to somebody's file."""

    def do(folder: Path, place: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(place / "outside" / "victim")

    return do


def link_folder(name: str) -> Change:
    """Move a folder out of the run, and link to it."""

    def do(folder: Path, place: Path) -> None:
        shutil.move(folder / name, place / "outside" / "moved")
        (folder / name).symlink_to(place / "outside" / "moved")

    return do


def swap(first: str, second: str) -> Change:
    """Exchange two folders or files."""

    def do(folder: Path, place: Path) -> None:
        one, other = resolve(folder, first), resolve(folder, second)
        one.rename(folder / "between")
        other.rename(one)
        (folder / "between").rename(other)

    return do


def copy(source: str, target: str) -> Change:
    """Replace a folder by a copy of another; one that begins with / lies beside the run."""

    def do(folder: Path, place: Path) -> None:
        shutil.rmtree(folder / target)
        shutil.copytree(place / source[1:] if source.startswith("/") else folder / source, folder / target)

    return do


def lines(keep: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    """Change the lines of a table."""
    return lambda content: b"".join(keep(content.splitlines(keepends=True)))


def other_rows(content: bytes) -> bytes:
    """Make the last field of the first row end otherwise."""
    head, row, rest = content.split(b"\n", 2)
    return b"\n".join([head, row.rsplit(b",", 1)[0] + b"," + b"9" * 5000, rest])


FILES = {
    "config.json": ("load", "eval", "export"),
    "metrics.csv": ("load", "eval", "export"),
    "evaluations.csv": ("load", "eval", "export"),
    NEWEST: ("load", "eval", "export", "resume"),
    "checkpoints/step=40/*.npz": ("load", "eval", "export", "resume"),
    AGENT: ("resume", "compare"),
    "checkpoints/last/seed=0/*.npz": ("resume", "compare"),
}


def cases() -> list[Case]:
    """Return all cases."""
    found: list[Case] = [Case("unchanged", "nothing", lambda folder, place: None, READERS)]

    def add(kind: str, name: str, change: Change, *spared: str) -> None:
        found.append(Case(kind, name, change, spared))

    for file, spared in FILES.items():
        spared = () if file == "config.json" else spared  # says what agents belong to the run
        add("truncated", f"{file}, emptied", write(file, lambda content: b""), *spared)
        add("truncated", f"{file}, half", write(file, lambda content: content[: len(content) // 2]), *spared)
        add("truncated", f"{file}, last byte", write(file, lambda content: content[:-1]))
        add("replaced", f"{file} by noise", write(file, lambda content: bytes(range(256)) * 9), *spared)
        for kind in ("folder", "pipe"):
            add("replaced", f"{file} by a {kind}", instead(file, kind), *spared)
        add("links", f"{file} is a link", instead(file, "link"), *spared)
    for name in ("metrics.csv", "evaluations.csv", "learning_curve.png"):
        add("links", f"{name} is a dangling link", instead(name, "dangling link"), "load", "eval", "export")
    partial = ["metrics.csv", "evaluations.csv", "config.json", ".lock"]
    partial += [AGENT, NEWEST, "checkpoints/last/seed=0/agent.npz", "checkpoints/step=40/checkpoint.npz"]
    for name in partial:
        add("links", f"{name}.partial is a link", link(f"{name}.partial"), *READERS)
    for name in ("checkpoints", "checkpoints/last", "checkpoints/last/seed=0", "checkpoints/step=20"):
        add("links", f"{name} is a link", link_folder(name), "load", "eval", "export")
    last = "checkpoints/last/seed="
    add("mixed up", "seeds exchanged", swap(f"{last}0", f"{last}1"), "resume", "compare")
    add("mixed up", "seed 1 as seed 0", copy(f"{last}1", f"{last}0"), "resume", "compare")
    add("mixed up", "another algorithm as seed 0", copy("/other", f"{last}0"), "resume", "compare")
    add("mixed up", "arrays of seed 1", swap(f"{last}0/*.npz", f"{last}1/*.npz"), "resume", "compare")
    add("mixed up", "headers of agents exchanged", swap(f"{last}0/agent.json", f"{last}1/agent.json"))
    add("mixed up", "step 20 as step 40", copy("checkpoints/step=20", "checkpoints/step=40"), "resume", "load")
    add("mixed up", "tables exchanged", swap("metrics.csv", "evaluations.csv"), "load", "eval", "export")
    for name, value in (("depth", 10_000_000), ("width", 10**9), ("depth", -1), ("width", "8"), ("obs", None)):
        add("sizes", f"agent of {name} {value}", put(AGENT, "settings", "config", "actor", name, value=value))
    add("sizes", "agent of 10**8 critics", put(AGENT, "settings", "config", "critic", "members", value=10**8))
    add("sizes", "agent of other sizes", put(AGENT, "sizes", value={"obs_size": 10**9, "action_size": 2}))
    for shape in ("(1000000000000,)", "(2, -3)", "(1000000, 1000000, 1000000)", "()"):
        for file in (AGENT, NEWEST):
            add("sizes", f"an array in {file} of shape {shape}", lie(file, shape))
    bomb = lambda arrays: arrays.update(bomb=np.zeros(2**24))  # noqa: E731
    add("sizes", "a compressed array of 128 MB", pack(AGENT, bomb, compress=True), "resume", "compare")
    add("sizes", "a million seeds", put("config.json", "seeds", value=list(range(1_000_000))))
    for file in ("config.json", AGENT, NEWEST):
        for name, value in (("an integer of 10,000 digits", DIGITS), ("nested", "[" * 100_000 + "]" * 100_000)):
            end = f', "x": {value}}}\n'.encode()
            add("JSON", f"{file}, {name}", write(file, lambda text, end=end: text.rstrip()[:-1] + end))
        add("JSON", f"{file}, nested a little", put(file, "x", value=nested(300)))
        add("JSON", f"{file}, 1e999", write(file, lambda text: text.rstrip()[:-1] + b', "x": 1e999}\n'))
        add("JSON", f"{file}, an empty object", write(file, lambda text: b"{}"))
        add("JSON", f"{file}, format 99", put(file, "format", value=99))
        add("JSON", f"{file}, format true", put(file, "format", value=True))
    for field, values in {
        "algorithm": ("denoising", 3),
        "env": ("payload:X-v0", "Pendulum-v1", None),
        "spec": ({"id": "payload:X-v0"}, 7, {"id": TASK, "wrappers": [{"name": "__init__"}]}),
        "spaces": ({"action": 3}, []),
        "seed": ("x", -1, 1, 10**300),
        "step": ("x", -1, 1.5, 10**300),
        "settings": (None, {"config": 3}, {"temperature": float("1e300")}, {"nosuch": 1}),
        "arrays": (None, {}, {"file": "../seed=1/agent.json"}, {"file": "agent-0.npz", "bytes": -1, "sha256": "x"}),
    }.items():
        for value in values:
            add("agent.json", f"{field} {str(value)[:40]}", put(AGENT, field, value=value), "resume", "compare")
        add("agent.json", f"no {field}", drop(AGENT, field), "resume", "compare")
    for path, values in {
        "step": ("x", 20, -1, None),
        "run": (None, {"seeds": [0]}),
        "numbers": (None, {}, 3),
        "numbers.training": (None, {}),
        "numbers.best": (None, {"x": 0}, {"0": "x"}),
        "numbers.evaluated": ("x", -5),
        "numbers.training.step": ("x", -1, 10**300, 4.5),
        "numbers.training.updates": ("x", 4.5),
        "numbers.training.envs": ({}, [], [[]], [[{"step": 3}, {}]], [[{"env": 3}]], "x"),
        "arrays": (None, {}, {"file": "/etc/passwd", "bytes": 1, "sha256": "x"}),
        "versions": (None, {"jax": "0.0.1"}),
    }.items():
        for value in values:
            keep = ("load", "eval", "export")
            add("checkpoint.json", f"{path} {str(value)[:40]}", put(NEWEST, *path.split("."), value=value), *keep)
    for field, values in {
        "algorithm": ("sac_isfm", 3),
        "env": ("payload:X-v0", "Pendulum-v1", 3),
        "seeds": ([1, 0], [0, 0], [0, 2], "01", [0, -1], [0, 10**300]),
        "steps": (10**300, "x"),
        "settings": (None, {}, {"nosuch": 1}, [1]),
        "evaluation": (None, {}, {"every": 0, "episodes": 1}, {"every": "x", "episodes": 1}),
    }.items():
        for value in values:
            add("config.json", f"{field} {str(value)[:40]}", put("config.json", field, value=value))
        add("config.json", f"no {field}", drop("config.json", field))
    for file in (AGENT, NEWEST):
        for name, change in {
            "NaN": lambda array: array * np.float32("nan"),
            "infinity": lambda array: array + np.float32("inf"),
            "text": lambda array: array.astype(str),
            "an object": lambda array: np.array([print], object),
            "one turned": lambda array: array.T[..., None],
        }.items():
            add("arrays", f"{name} in {file}", pack(file, first(change)))
        add("arrays", f"one missing in {file}", pack(file, lambda arrays: arrays.popitem()))
        add("arrays", f"all missing in {file}", pack(file, lambda arrays: arrays.clear()))
    for file in ("metrics.csv", "evaluations.csv"):
        keep = ("load", "eval", "export")
        add("tables", f"{file} cut to its header", write(file, lines(lambda rows: rows[:1])), *keep)
        add("tables", f"{file} without its last row", write(file, lines(lambda rows: rows[:-1])), *keep)
        add("tables", f"{file} without its first row", write(file, lines(lambda rows: rows[:1] + rows[2:])), *keep)
        add("tables", f"{file} with a number of 5,000 digits", write(file, other_rows), *keep)
        add("tables", f"{file} with a row of -1", write(file, lambda text: text + b"-1,-1" + b",1" * 4 + b"\n"), *keep)
        add("tables", f"{file} with a row twice", write(file, lines(lambda rows: [*rows, rows[-1]])), *keep)
    return found


def first(change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, np.ndarray]], None]:
    """Change the first array of real numbers."""

    def do(arrays: dict[str, np.ndarray]) -> None:
        name = next(name for name in arrays if arrays[name].dtype == np.float32)
        arrays[name] = change(arrays[name])

    return do


def nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def ask(reader: str, folder: Path, place: Path) -> tuple[int, Any]:
    """Let a reader read; return the exit code and the answer, in which nothing depends on the time or the folder."""
    if reader == "load":
        agent = entroflow.load(folder, seed=0)
        found = agent.predict(OBS, deterministic=True)[0].tolist(), agent.num_timesteps, agent.seed
        return 0, (type(agent).__name__, *found)
    out, options = place / "answer", {"eval": ["--episodes", "1"], "resume": []}
    options |= {"compare": ["--out", str(out)], "export": ["--seed", "0", "--out", str(out / "p.onnx")]}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main([reader, str(folder), *options[reader]])
    if code:
        print(said.getvalue())
        return code, None
    if reader == "resume":
        step, newest = list(checkpoint.folders(folder / "checkpoints").items())[-1]
        header = json.loads((newest / checkpoint.HEADER).read_text())
        header["numbers"]["training"].pop("envs")  # what was not restored is said, and stays until it is written again
        tables = [(folder / name).read_text().splitlines() for name in ("metrics.csv", "evaluations.csv")]
        rows = [[line.split(",")[:2] + line.split(",")[3:] for line in table] for table in tables]
        return 0, (step, header["arrays"]["sha256"], header["numbers"], rows)
    return 0, {"eval": said.getvalue, "compare": (out / "compare.json").read_text}.get(
        reader, (out / "p.onnx").read_bytes
    )()


def attempt(case: Case, reader: str, place: Path, right: dict[str, Any]) -> tuple[str, str]:
    """Read a changed copy; return what is wrong, nothing if all is well, and what was said."""
    outside, said = place / "outside", io.StringIO()
    shutil.rmtree(place / "copy", ignore_errors=True)
    shutil.rmtree(place / "answer", ignore_errors=True)
    shutil.copytree(place / "run", place / "copy")
    for path in outside.iterdir():
        if path.name != "victim":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    case.change(place / "copy", place)
    before = {path: path.read_bytes() if path.is_file() else b"" for path in outside.rglob("*")}
    answer, code = None, None
    try:
        with contextlib.redirect_stderr(said), limited():
            code, answer = ask(reader, place / "copy", place)
    except ValueError as refusal:
        code = 2
        print(refusal, file=said)
    except Hang:
        return "hangs", ""
    except BaseException:
        return "traceback", traceback.format_exc(limit=-3)
    sentence = said.getvalue().strip()
    if before != {path: path.read_bytes() if path.is_file() else b"" for path in outside.rglob("*")}:
        return "writes elsewhere", sentence
    if code == 0 and reader in right and answer != right[reader]:
        return "silent", f"{answer}"[:200]
    if code == 0 or (reader == "resume" and code == 1):
        return "", sentence
    if code != 2 or len(sentence.splitlines()) != 1 or len(sentence) > 2000:
        return "not one sentence", sentence
    return ("refused" if reader in case.spared else ""), sentence


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Let nothing take too long."""

    def end(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempts(chosen: Sequence[Case], readers: Sequence[str] = READERS) -> list[dict[str, str]]:
    """Try cases; return a row for every case and reader."""
    rows, draw = [], plotting.save
    plotting.save = lambda *_: None  # figures are drawn from what is compared
    try:
        with tempfile.TemporaryDirectory() as name:
            place, right = Path(name).resolve(), dict[str, Any]()
            make(place)
            for reader in readers:
                shutil.copytree(place / "run", place / "copy")
                right[reader] = ask(reader, place / "copy", place)[1]
                shutil.rmtree(place / "copy")
            for number, case in enumerate(chosen):
                print(f"\r{number} of {len(chosen)}", end="", file=sys.stderr, flush=True)
                for reader in readers:
                    failure, said = attempt(case, reader, place, right)
                    said = " ".join(said.replace(str(place), "…").split())[:200]
                    rows.append({"kind": case.kind, "change": case.name, "reader": reader, "failure": failure})
                    rows[-1]["said"] = said
    finally:
        plotting.save = draw
    return rows


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a line for every kind: folders, answers, and how many answers were wrong in which way."""
    wrong = ["traceback", "hangs", "silent", "writes elsewhere", "refused", "not one sentence"]
    made = []
    for kind in [*dict.fromkeys(row["kind"] for row in rows), "all"]:
        part = [row for row in rows if kind in (row["kind"], "all")]
        counts = [len({(row["kind"], row["change"]) for row in part}), len(part)]
        counts += [sum(row["failure"] == name for row in part) for name in wrong]
        made.append([kind, *map(str, counts)])
    return markdown(["kind", "folders", "answers", *wrong], made)


@dataclass(frozen=True)
class Options:
    """Options of the experiment."""

    every: int = 1
    """Try every nth case alone."""
    out: Path = Path("out/run_folders")
    """Output folder, made if there is none."""


def run(options: Options) -> int:
    """Try all cases; write them into a table; return the exit code."""
    rows = attempts(cases()[:: options.every])
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "run_folders.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (options.out / "run_folders.md").write_text(table(rows))
    print(table(rows))
    return int(any(row["failure"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(read("experiments.hostile.run_folders", run, Options))
