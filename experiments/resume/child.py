"""The process that is killed: it begins a tiny run or resumes it. What is tested does not depend on networks' sizes.

python -m experiments.resume.child TASK FOLDER MOMENT SEED
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from entroflow import cli, files
from entroflow.agents import learning
from entroflow.commands.lqr import job as lqr
from entroflow.commands.lqr import plan as lqr_plan
from entroflow.commands.lqr import report as lqr_report
from entroflow.storage import checkpoint, folder, keeping, tables

from ..multigoal import measure
from ..multigoal import run as multigoal

LENGTH = 400  # steps of the MuJoCo task; a checkpoint every 10
SMALL = ["learning_starts=40", "critic_width=8", "width=8", "depth=1", "batch_size=16", "num_envs=2"]
HOPPER = ["train", "Hopper-v5", "--algorithm", "gaussian_sac"]
FLOW = ["train", "Hopper-v5", "--algorithm", "sac_isfm"]
EVALUATION = ["--evaluate-every", "10", "--evaluation-episodes", "1"]
COMMANDS = {
    "train": [*HOPPER, "--steps", str(LENGTH), *EVALUATION, "--set", *SMALL],
    "flow": [*FLOW, "--steps", str(LENGTH), *EVALUATION, "--set", *SMALL, "state_width=8", "candidates=4"],
    "lqr": ["lqr", "--system", "double_integrator", "--alpha", "0.5", "--seeds", "1", "--steps", "40"],
    "multigoal": ["--algorithm", "gaussian_sac", "--seeds", "1", "--steps", "40"],
}
WRITING = ["any", "any", "arrays", "header", "half a header", "cleaning"]
MOMENTS = {"train": [*WRITING, "metrics"], "flow": [*WRITING, "metrics"], "lqr": WRITING, "multigoal": WRITING}


def cache_all() -> None:
    """Keep even the smallest programs on disk: processes start as fast as they can."""
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", "out/resume-cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def make_small() -> None:
    """Make everything about the runs small, and every stretch of a study end with a checkpoint that stays."""
    folder.cache_compilations = keeping.cache_compilations = cache_all
    learning.LOG_INTERVAL = 4
    keeping.SHARE = 1e9
    keeping.Keeper.finished = lambda self: None
    sizes = {"ENVIRONMENTS": 8, "HORIZON": 10, "TRAJECTORIES": 8, "EVALUATIONS": 40, "PROGRESS_STATES": 4}
    sizes |= {"PROGRESS_SAMPLES": 64, "FINAL_STATES": 6, "FINAL_SAMPLES": 256}
    for name, value in sizes.items():
        for module in (lqr, lqr_plan):
            if hasattr(module, name):
                setattr(module, name, value)
    lqr_report.PICTURE_SAMPLES = 64
    of_lqr, of_multigoal = lqr.settings, multigoal.settings

    def small_lqr(updates, candidates):
        config = of_lqr(updates, candidates)
        actor = dataclasses.replace(cast(Any, config.actor), width=8, states=16)
        critic = dataclasses.replace(cast(Any, config.critic), width=8)
        return dataclasses.replace(config, actor=actor, critic=critic, batch_size=64)

    def small_multigoal(actor, updates):
        config = of_multigoal(actor, updates)
        critic = dataclasses.replace(cast(Any, config.critic), width=8, depth=1)
        return dataclasses.replace(config, critic=critic, batch_size=16)

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
            path.with_name(f"{files.PARTIAL}half").write_text(text[: len(text) // 2])
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


def measure_memory(path: Path) -> None:
    """Write down the resident memory of this process at every row of metrics.csv."""
    learning.LOG_INTERVAL = 250
    page, found, append = os.sysconf("SC_PAGESIZE"), [], tables.Table.append

    def measured(self, rows):
        append(self, rows)
        if self._path.name == "metrics.csv" and rows:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found.append({"step": rows[0]["step"], "megabytes": round(pages * page / 1e6, 1)})
            path.write_text(json.dumps(found))

    tables.Table.append = measured


def main(task: str, folder: Path, moment: str, seed: int) -> int:
    """Begin a run or resume it, to its end or until it is killed; return the exit code."""
    make_small()
    if moment != "never":
        kill_at(moment, random.Random(seed))
    begun = (folder / "config.json").exists()
    if task == "multigoal":
        return multigoal.main([*COMMANDS[task], "--out", str(folder), *["--resume"] * begun])
    if task == "memory":
        measure_memory(folder.with_suffix(".json"))
        return cli.main([*HOPPER, "--steps", "5000", "--evaluate-every", "500", "--out", str(folder), "--set", *SMALL])
    return cli.main(["resume", str(folder)] if begun else [*COMMANDS[task], "--out", str(folder)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
