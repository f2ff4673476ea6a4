"""Kill trainings at random moments, resume them, and compare with those that were never killed, bit for bit.

    python experiments/resume/run.py                    everything
    python experiments/resume/run.py --task lqr         one part anew

One process after the other works on a run until it is killed (SIGKILL), at a random moment or in the midst of writing;
the next one resumes it. When a run has come to its end its last checkpoint, metrics and results are compared with those
of the run that was left in peace. Networks are tiny: what is tested does not depend on their size.
"""

import argparse
import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from entroflow.studies.multigoal import measure
from entroflow.studies.multigoal import study as multigoal

from entroflow import cli
from entroflow.commands import conduct, durable
from entroflow.commands import train as training
from entroflow.commands.lqr import job as lqr
from entroflow.commands.lqr import report as lqr_report
from entroflow.storage import checkpoint, tables
from entroflow.storage.folder import versions

HERE = Path(__file__).parent
LENGTH = 400  # steps of the MuJoCo task; a checkpoint every 10
SMALL = ["learning_starts=40", "critic_width=8", "width=8", "depth=1", "batch_size=16", "num_envs=2"]
COMMANDS = {
    "train Hopper-v5": ["train", "Hopper-v5", "--algorithm", "gaussian_sac", "--steps", str(LENGTH)],
    "lqr": ["lqr", "--system", "double_integrator", "--alpha", "0.5", "--seeds", "1", "--steps", "40"],
    "multigoal": ["multigoal", "--algorithm", "gaussian_sac", "--seeds", "1", "--steps", "40"],
}
COMMANDS["train Hopper-v5"] += ["--evaluate-every", "10", "--evaluation-episodes", "1", "--set", *SMALL]
MOMENTS = ["any", "any", "arrays", "header", "half a header", "cleaning"]  # and, in a training, "metrics"


def cache_all() -> None:
    """Keep even the smallest programs on disk: processes start as fast as they can."""
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", "out/resume-cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def make_small() -> None:
    """Make everything about the runs small, and every stretch of a study end with a checkpoint that stays."""
    training.cache_compilations = conduct.cache_compilations = cache_all
    training.LOG_INTERVAL = 4
    durable.SHARE = 1e9
    durable.Keeper.finished = lambda self: None
    sizes = {"ENVIRONMENTS": 8, "HORIZON": 10, "TRAJECTORIES": 8, "EVALUATIONS": 40, "PROGRESS_STATES": 4}
    sizes |= {"PROGRESS_SAMPLES": 64, "FINAL_STATES": 6, "FINAL_SAMPLES": 256}
    for name, value in sizes.items():
        setattr(lqr, name, value)
    lqr_report.PICTURE_SAMPLES = 64
    of_lqr, of_multigoal = lqr.settings, multigoal.settings

    def small_lqr(updates, candidates):
        config = of_lqr(updates, candidates)
        actor = dataclasses.replace(cast(Any, config.actor), width=8, states=16)
        return dataclasses.replace(config, actor=actor, critic_width=8, batch_size=64)

    def small_multigoal(actor, updates):
        return dataclasses.replace(of_multigoal(actor, updates), critic_width=8, critic_depth=1, batch_size=16)

    lqr.settings, multigoal.settings = small_lqr, small_multigoal
    small = dataclasses.replace(cast(Any, multigoal.ALGORITHMS["gaussian_sac"]), width=8, depth=1, states=8)
    multigoal.ALGORITHMS["gaussian_sac"] = small
    multigoal.ENVIRONMENTS, multigoal.RESOLUTION, multigoal.EVALUATIONS = 4, 5, 40
    for name, value in {"STATES": 3, "POINTS": 32, "SAMPLES": 64, "EPISODES": 8, "HORIZON": 35}.items():
        setattr(measure, name, value)


def die() -> None:
    """Be killed, like by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(moment: str, draw: random.Random) -> None:
    """Arrange for this process to be killed, after it has written at least one checkpoint."""
    save, savez, replace, remove = checkpoint.save, np.savez, checkpoint.replace, shutil.rmtree
    append, state = tables.Table.append, {"saves": 0, "at": draw.randint(2, 3)}
    due = lambda now: moment == now and state["saves"] + 1 >= state["at"]  # noqa: E731

    def counted_save(*arguments):
        size = save(*arguments)
        state["saves"] += 1
        if moment == "any" and state["saves"] == 1:
            threading.Timer(draw.uniform(0.0, 0.5), die).start()
        return size

    def half_savez(file, **arrays):
        savez(file, **arrays)
        if due("arrays"):
            file.truncate(int(draw.random() * file.tell()))
            die()

    def half_replace(path, text):
        if due("header"):
            die()
        if due("half a header"):
            path.with_name(path.name + ".partial").write_text(text[: len(text) // 2])
            die()
        replace(path, text)

    def half_remove(path, **options):
        if due("cleaning"):
            next(Path(path).iterdir()).unlink()
            die()
        remove(path, **options)

    def half_append(self, rows):
        if due("metrics"):
            self._file.write(b"0,1")
            self._file.flush()
            die()
        append(self, rows)

    checkpoint.save, np.savez, checkpoint.replace = counted_save, half_savez, half_replace
    checkpoint.shutil.rmtree, tables.Table.append = half_remove, half_append


def child(task: str, folder: Path, moment: str, seed: int) -> int:
    """Begin a run or resume it, to its end or until it is killed."""
    make_small()
    if moment != "never":
        kill_at(moment, random.Random(seed))
    if (folder / "config.json").exists():
        return cli.main(["resume", str(folder)])
    return cli.main([*COMMANDS[task], "--out", str(folder)])


def start(task: str, folder: Path, moment: str = "never", seed: int = 0) -> int:
    """Run `child` in a process of its own, forked before JAX starts; return its exit code, negative for a signal."""
    sys.stdout.flush()
    if (process := os.fork()) == 0:
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            code = 99
            try:
                code = child(task, folder, moment, seed)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{task} ended with exit code {code}, see {folder}.log")
    return code


def content(folder: Path) -> dict[str, object]:
    """Return all that must be the same: checkpoints, whose arrays tell by their SHA-256, tables, results, policies."""
    found: dict[str, object] = {}
    for step, path in checkpoint.folders(folder / "checkpoints").items():
        header, _ = checkpoint.read(path / checkpoint.HEADER)
        numbers = {name: part for name, part in header["numbers"].items() if name != "seconds"}
        found[f"checkpoint {step}"] = (header["arrays"]["sha256"], numbers)
    for path in folder.glob("*.csv"):
        with path.open(newline="") as file:
            found[path.name] = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    if (folder / "results.json").exists():
        results = json.loads((folder / "results.json").read_text())
        found["results"] = results["runs"]
    for path in folder.rglob("policy.npz"):
        with np.load(path) as arrays:
            found[str(path.relative_to(folder))] = {name: arrays[name].tobytes() for name in arrays.files}
    return found


def kills_of(task: str, out: Path, wanted: int, draw: random.Random) -> list[dict[str, object]]:
    """Kill and resume runs of a task until there were enough kills; return one row for each."""
    name = task.split()[0]
    (out / name).mkdir(parents=True)
    start(task, out / name / "whole")
    whole, rows, chain = content(out / name / "whole"), [], 0
    while len(rows) < wanted:
        folder, killed, chain = out / name / f"killed-{chain}", [], chain + 1
        while True:
            moments = [*MOMENTS, "metrics"] if name == "train" else MOMENTS
            moment = draw.choice(moments) if len(rows) + len(killed) < wanted else "never"
            if start(task, folder, moment, draw.randrange(2**31)) == 0:
                break
            steps = list(checkpoint.folders(folder / "checkpoints"))
            killed.append({"task": task, "run": chain, "moment": moment, "resumed_from": steps[-1] if steps else 0})
            print(killed[-1], flush=True)
        found = content(folder)
        different = sorted(part for part in whole.keys() | found.keys() if whole.get(part) != found.get(part))
        rows += [row | {"different": " ".join(different)} for row in killed]
        print(f"{task}, run {chain}: {len(killed)} kills, different: {different or 'nothing'}", flush=True)
    return rows


def memory_of(out: Path) -> list[dict[str, float]]:
    """Train for a while in this process; return its resident memory at every row of metrics.csv."""
    make_small()
    training.LOG_INTERVAL = 250
    page, found = os.sysconf("SC_PAGESIZE"), []
    append = tables.Table.append

    def measured(self, rows):
        append(self, rows)
        if self._path.name == "metrics.csv" and rows:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found.append({"step": rows[0]["step"], "megabytes": round(pages * page / 1e6, 1)})

    tables.Table.append = measured
    command = COMMANDS["train Hopper-v5"]
    options = ["--steps", "5000", "--evaluate-every", "500", "--out", str(out / "memory")]
    assert cli.main([*command[:4], *options, "--set", *SMALL]) == 0
    return found


def main() -> None:
    """Do all of it, the memory last, for it starts JAX; write results.json and kills.csv."""
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--out", type=Path, default=Path("out/resume"))
    options.add_argument("--task", nargs="+", default=[*COMMANDS, "memory"], help="others keep their results")
    options = options.parse_args()
    kills, results = HERE / "kills.csv", HERE / "results.json"
    document: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"kills": {}, "seconds": {}}
    rows = list(csv.DictReader(kills.open(newline=""))) if kills.exists() else []
    for task in options.task:
        begun = time.perf_counter()
        if task == "memory":
            document["memory"] = memory_of(options.out)
        else:
            found = kills_of(task, options.out, options.kills, random.Random(task))
            rows = [row for row in rows if row["task"] != task] + found
            document["kills"][task] = {
                "kills": len(found),
                "while_writing": sum(row["moment"] != "any" for row in found),
                "resumes": len(found),
                "mismatches": len({row["run"] for row in found if row["different"]}),
            }
            with kills.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        document["seconds"][task] = round(time.perf_counter() - begun)
    document["versions"] = versions()  # starts JAX, after which no process may be forked
    results.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["kills"], indent=1))


if __name__ == "__main__":
    main()
