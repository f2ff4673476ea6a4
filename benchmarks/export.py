"""Latency of exported policies against the library's own, from NumPy to NumPy, on one core.

    python benchmarks/export.py

writes export.json and export.md next to this file. The policies have the sizes that `entroflow train HalfCheetah-v5`
and `entroflow lqr` give them; what they have learned does not matter to the clock. Calls of the three programs
alternate, so that whatever else the machine does falls on all of them alike. Where it is busy, calls of more than a
millisecond are interrupted: compare their CPU time, not the clock on the wall.
"""

import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from entroflow.agents.settings import ALGORITHMS, of_algorithm
from entroflow.commands.lqr.job import ACTING_SOLVER
from entroflow.commands.lqr.job import settings as lqr_settings
from entroflow.export import programs as export
from entroflow.flow import Box, Unbounded
from entroflow.rl import sac

HERE = Path(__file__).parent
BATCHES = 1, 256
ROUNDS, CALLS = 20, 10  # calls of one program in a row, and how often every program has its turn


def programs() -> dict[str, export.Program]:
    """What `export` writes of every algorithm at HalfCheetah's sizes, and of SAC-ISFM on LQR."""
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.99)}
    found = {}
    for name in ALGORITHMS:
        config = of_algorithm(name).config
        space = Box(-np.ones(6), np.ones(6))
        state = sac.init(config, jax.random.key(0), obs_size=17, action_space=space, **numbers)
        found[name] = export.acting(config, state, 1)
        if name == "sac_isfm":
            found[f"{name}, best of 16"] = export.acting(config, state, 16)
    config = lqr_settings(1)
    state = sac.init(config, jax.random.key(0), obs_size=2, action_space=Unbounded(1), **numbers)
    found["sac_isfm of LQR"] = export.sampling(sac.policy(config, state).with_solver(ACTING_SOLVER))
    return found


def callables(program: export.Program, folder: Path) -> dict[str, object]:
    """The library's own call and the two files', each from NumPy to NumPy."""
    own = jax.jit(jax.vmap(program.function))
    stored = export.write(folder / "policy.stablehlo", program).read_bytes()
    stablehlo = jax.jit(jax.export.deserialize(bytearray(stored)).call)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(export.write(folder / "policy.onnx", program), options)
    return {
        "JAX": lambda obs, noise: [np.asarray(part) for part in own(obs, noise)],
        "StableHLO": lambda obs, noise: [np.asarray(part) for part in stablehlo(obs, noise)],
        "ONNX": lambda obs, noise: session.run(None, {"obs": obs, "noise": noise}),
    }


def measure(program: export.Program, batch: int, calls: dict) -> dict[str, dict[str, float]]:
    """Microseconds of each program, and its largest difference from the library's own call."""
    rng = np.random.default_rng(batch)
    shapes = (batch, program.obs_size), (batch, *program.noise_shape)
    obs, noise = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    expected = calls["JAX"](obs, noise)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    differences = {
        name: max(float(np.abs(a - b).max()) for a, b in zip(call(obs, noise), expected, strict=True))
        for name, call in calls.items()  # compiles, too
    }
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for _ in range(CALLS):
                wall, cpu = time.perf_counter(), time.process_time()
                call(obs, noise)
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "p10": float(np.percentile(wall, 10)),
            "median": float(np.median(wall)),
            "cpu_p10": float(np.percentile(cpu, 10)),
            "cpu_median": float(np.median(cpu)),
            "difference": differences[name],
        }
        for name, (wall, cpu) in ((name, 1e6 * np.transpose(taken)) for name, taken in times.items())
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(rows: list[dict], machine: dict[str, str]) -> str:
    """The rows in Markdown: median of the CPU time, then 10th percentile and median of the wall clock."""
    lines = [
        "| policy | observations | JAX | StableHLO | ONNX | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        taken = [row[name] for name in ("JAX", "StableHLO", "ONNX")]
        cells = [f"{one['cpu_median']:,.0f} ({one['p10']:,.0f}, {one['median']:,.0f})" for one in taken]
        largest = max(row[name]["difference"] for name in ("StableHLO", "ONNX"))
        lines.append(f"| {row['policy']} | {row['batch']} | {' | '.join(cells)} | {largest:.0e} |")
    legend = f"Microseconds per call, CPU time (10th percentile and median of the wall clock) of {ROUNDS * CALLS} calls"
    described = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([*lines, "", f"{legend}; {described}.", ""])


def main() -> None:
    """Measure and write."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before JAX starts and counts the cores
    machine = {
        "processor": f"{processor()} (one core)",
        "load at the start": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "Python": platform.python_version(),
    } | {name: version(name) for name in ("jax", "onnx", "onnxruntime", "numpy")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, program in programs().items():
            calls = callables(program, Path(folder))
            sizes = {path.suffix[1:]: path.stat().st_size for path in sorted(Path(folder).iterdir())}
            for batch in BATCHES:
                rows.append({"policy": name, "batch": batch, "bytes": sizes} | measure(program, batch, calls))
                print(rows[-1], flush=True)
    (HERE / "export.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    (HERE / "export.md").write_text(table(rows, machine))


if __name__ == "__main__":
    main()
