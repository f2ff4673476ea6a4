"""A study on a cluster of three Ray nodes: kill a node, then the driver, resume, compare with training without Ray.

Bit for bit: the last checkpoints (parameters, optimisers, replay, keys, environments by their SHA-256) and the tables
of every trial. Beside it, what Ray costs: twelve short trials as a study, and as a loop of `entroflow train`.
"""

import contextlib
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entroflow import checks
from entroflow.storage.checkpoint import CHECKPOINTS, folders
from entroflow.studies import Study, read

from .. import frame
from ..resume.run import ROOT, content

TASKS = ["Pendulum-v1", "InvertedPendulum-v5"]
SMALL = {"learning_starts": 40, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16}
STUDY: dict[str, Any] = {"tasks": TASKS, "algorithms": ["sac_isfm", "gaussian_sac"], "seeds": 3, "steps": 200}
STUDY |= {"evaluate_every": 20, "evaluation_episodes": 1}
SETTINGS: dict[str, Any] = SMALL | {"sac_isfm": {"state_width": 8, "candidates": 4}}
NODES = 3
STARTING = """
from entroflow.studies.running import joined
from entroflow.studies import Needs
with joined("local", 1, Needs(), 0):
    pass
"""


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    repetitions: int = 10
    """Studies of which a node and the driver are killed."""
    pairs: int = 3
    """Pairs of a study and a loop that are timed."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    for name in ("repetitions", "pairs"):
        checks.number(f"--{name}", getattr(options, name), "a number of at least 0", holds=lambda x: x >= 0)
    return functools.partial(run, options)


def run(options: Options, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Kill studies, then time some."""
    job.cells = 1 + options.repetitions + options.pairs
    study, peace = written(job.out / "study.toml"), job.out / "peace"
    if options.repetitions:
        job.cell("without Ray", functools.partial(in_peace, study, peace))
    kills, times = [], []
    for i in range(options.repetitions):
        kills.append(job.cell(f"killed {i}", functools.partial(killed, job.out, study, peace, i)))
        job.rows("kills.csv", kills)
    for i in range(options.pairs):
        times.append(job.cell(f"timed {i}", functools.partial(timed, job.out, study)))
        job.rows("times.csv", times)
    table = frame.new_table("killed studies", "", ["repetition", "exit code", "lost", "mismatches"])
    for row in kills:
        table.add_row(*(str(row[name]) for name in ("repetition", "exit_code", "lost", "mismatches")))
    sums = {name: sum(row[name] for row in kills) for name in ("lost", "mismatches")}
    return {"killed": {"studies": len(kills), "trials": len(kills) * len(study.trials), **sums}}, [table]


def written(path: Path) -> Study:
    """Write the study's file; return the study."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in STUDY.items()]
    tables = {"settings": SMALL, **{f"settings.{k}": v for k, v in SETTINGS.items() if isinstance(v, dict)}}
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return read(path)


def in_peace(study: Study, out: Path) -> list[float]:
    """Train every trial by `entroflow train`, a process each; return the seconds by the clock and by the processor."""
    shutil.rmtree(out, ignore_errors=True)
    begun, processor = time.perf_counter(), 0.0
    for trial in study.trials:
        options = ["--algorithm", trial.algorithm, "--steps", trial.steps, "--seed", trial.seeds[0]]
        options += ["--evaluate-every", trial.evaluation["every"], "--evaluation-episodes", 1]
        options += ["--out", out / trial.name]
        options += ["--set", *(f"{name}={value}" for name, value in trial.settings.items())]
        processor += waited(start(out, "-m", "entroflow", "train", trial.task, *options))
    return [time.perf_counter() - begun, processor]


def waited(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return the processor's seconds of its whole session, of which many are not its children."""
    seconds: dict[str, float] = {}
    while process.poll() is None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended
                parts = stat.read_text().rpartition(")")[2].split()  # session is the sixth entry of proc(5), see there
                if int(parts[3]) == process.pid:
                    seconds[stat.parent.name] = (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.2)
    if process.returncode:
        raise frame.Broken(f"{process.args} failed")
    return sum(seconds.values())


def start(out: Path, *arguments: Any) -> subprocess.Popen[bytes]:
    """Start Python in a process of its own, which leads a session."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(f"{out.name}.log").open("a") as log:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment(), start_new_session=True)


def environment() -> dict[str, str]:
    """Return that of every process: small programs are kept, too, and workers wait for no one, as Ray's would."""
    told = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1", "RAY_worker_niceness": "0"}
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])} | told


def killed(root: Path, study: Study, peace: Path, repetition: int) -> frame.Row:
    """Run the study on three nodes; kill one at a random moment, later the driver; resume; compare."""
    os.environ.update(environment())  # of the nodes
    from ray.cluster_utils import Cluster

    draw, out = random.Random(f"sweep {repetition}"), (root / f"killed-{repetition}").resolve()
    shutil.rmtree(out, ignore_errors=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES - 1)]
        driver = start(out, "-m", "entroflow", "sweep", root / "study.toml", "--out", out, "--address", cluster.address)
        node_at, driver_at = await_checkpoints(driver, out, draw), 0
        cluster.remove_node(draw.choice(nodes), allow_graceful=False)
        if driver.poll() is None:
            driver_at = await_checkpoints(driver, out, draw, node_at)
        driver.kill()
        driver.wait()
        cluster.add_node(num_cpus=1)
        begun = time.perf_counter()
        code = start(out, "-m", "entroflow", "sweep", out, "--resume", "--address", cluster.address).wait()
        seconds = time.perf_counter() - begun
    finally:
        cluster.shutdown()
    different = {trial.name: differences(peace / trial.name, out / "trials" / trial.name) for trial in study.trials}
    lost = [trial.name for trial in study.trials if not (out / "trials" / trial.name / "learning_curve.png").exists()]
    row = {"repetition": repetition, "node_killed_at": node_at, "driver_killed_at": driver_at, "exit_code": code}
    row |= {"seconds_resumed": round(seconds, 1), "lost": len(lost)}
    wrong = [f"{name}: {' '.join(parts)}" for name, parts in different.items() if parts]
    return row | {"mismatches": len(wrong), "different": "; ".join(wrong)}


def await_checkpoints(driver: subprocess.Popen[bytes], out: Path, draw: random.Random, after: int = 0) -> int:
    """Wait for a random number of checkpoints of all trials together, and a moment more; return the number there is."""
    most = 12 * STUDY["steps"] // STUDY["evaluate_every"]
    wanted = after + draw.randrange(2, (most - after) // 2)
    while driver.poll() is None and progress(out) < wanted:
        time.sleep(0.05)
    time.sleep(draw.uniform(0, 0.5))
    return progress(out)


def progress(out: Path) -> int:
    """Return how many intervals between evaluations all trials together have made."""
    steps = (max(folders(path / CHECKPOINTS), default=0) for path in (out / "trials").glob("*"))
    return sum(steps) // STUDY["evaluate_every"]


def differences(peace: Path, folder: Path) -> list[str]:
    """Return what is not the same in two run folders."""
    whole, found = content(peace), content(folder)
    return sorted(part for part in whole.keys() | found.keys() if whole.get(part) != found.get(part))


def timed(root: Path, study: Study) -> frame.Row:
    """Time the study on one core by a loop of `entroflow train`, and by Ray, which is timed without its start, too."""
    out = (root / "timed").resolve()
    found = {"loop": in_peace(study, out / "loop")}
    shutil.rmtree(out / "ray", ignore_errors=True)
    sweep = "-m", "entroflow", "sweep", root / "study.toml", "--out", out / "ray"
    for name, arguments in {"ray": sweep, "ray_start": ("-c", STARTING)}.items():
        begun = time.perf_counter()
        processor = waited(start(out / "ray", *arguments))
        found[name] = [time.perf_counter() - begun, processor]
    shutil.rmtree(out)
    clock = {name: round(seconds, 1) for name, (seconds, _) in found.items()}
    return clock | {f"{name}_processor": round(seconds, 1) for name, (_, seconds) in found.items()}


main = frame.command("sweep", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
