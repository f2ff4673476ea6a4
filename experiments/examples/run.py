"""What the files of `examples/` print, and the processor time that each takes."""

import functools
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markdown import Markdown

from .. import frame

EXAMPLES = Path(__file__).parents[2] / "examples"
SEEDS, TASKS = (0, 1, 2), ("lqr", "Pendulum-v1")
ALONE = "design.py", "isfm_alone.py", "own_proposal.py", "own_actor.py", "own_critic.py", "own_environment.py"
ALONE += ("jax_environment.py",)
COMMANDS = [("sac_isfm.py", "--env", task, "--seed", str(seed)) for task in TASKS for seed in SEEDS]
COMMANDS += [(name,) for name in ALONE]
# One thread, and every program is compiled, so that the time is that of a first run.
PINNED = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}
PROGRESS = re.compile(r" *\d+ steps:")


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Run every command, one after the other."""
    rows, job.cells = [], len(COMMANDS)
    for command in COMMANDS:
        rows.append(job.cell(" ".join(command), functools.partial(measure, job, command)))
    job.text("table.md", table(rows))
    return {"settings": {"environment": PINNED}, "examples": rows}, [Markdown(table(rows))]


def measure(job: frame.Job, command: Sequence[str]) -> frame.Row:
    """Run a command; return what it printed but its progress, to the letter, and its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told, environment = " ".join(["python examples/" + command[0], *command[1:]]), os.environ | PINNED
    words = [sys.executable, str(EXAMPLES / command[0]), *command[1:]]
    done = subprocess.run(words, cwd=job.out, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        job.keep()  # ends here if Ctrl-C ended both
        raise frame.Broken(f"{told} ended with exit code {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    printed = [line for line in done.stdout.splitlines() if not PROGRESS.match(line)]
    return {"command": told, "printed": printed, "processor_seconds": round(seconds, 1)}


def table(rows: Sequence[frame.Row]) -> str:
    """Write in Markdown what every command printed and took."""
    cells = [[f"`{row['command']}`", "<br>".join(row["printed"]), f"{row['processor_seconds']:.0f} s"] for row in rows]
    return frame.markdown(["command", "prints", "processor time"], cells)


main = frame.command("examples", lambda _: run)

if __name__ == "__main__":
    sys.exit(main())
