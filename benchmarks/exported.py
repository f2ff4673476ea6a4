"""Latency of exported policies against the library's own, from NumPy to NumPy, on one core.

The policies have the sizes that `entroflow train HalfCheetah-v5` and `entroflow lqr` give them; what they have learned
does not matter to the clock.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from entroflow.agents.settings import of_algorithm
from entroflow.commands.lqr.plan import settings as lqr_settings
from entroflow.export import programs as export
from entroflow.flow import Box, Unbounded
from entroflow.rl import ACTORS, Flow, sac

from .measure import Row, in_turns

BATCHES = 1, 256
OF_LQR, BEST = "sac_isfm of LQR", ", best of 16"
POLICIES = (*ACTORS, f"sac_isfm{BEST}", OF_LQR)


def program(name: str) -> export.Program:
    """Return what `export` writes of an algorithm at HalfCheetah's sizes, or of SAC-ISFM on LQR."""
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.99)}
    if name == OF_LQR:
        config = lqr_settings(1)
        state = sac.init(config, jax.random.key(0), obs_size=2, action_space=Unbounded(1), **numbers)
        return export.sampling(sac.policy(config, state).with_solver(cast(Flow, config.actor).acting_solver))
    config = of_algorithm(name.removesuffix(BEST)).config
    space = Box(-np.ones(6), np.ones(6))
    state = sac.init(config, jax.random.key(0), obs_size=17, action_space=space, **numbers)
    return export.acting(config, state, 16 if name.endswith(BEST) else 1)


def callables(program: export.Program, folder: Path) -> dict[str, Callable[..., list[np.ndarray]]]:
    """Return the library's own call and the two files', each from NumPy to NumPy."""
    import onnxruntime

    own = jax.jit(jax.vmap(program.function))
    stored = export.write(folder / "policy.stablehlo", program).read_bytes()
    stablehlo = jax.jit(jax.export.deserialize(bytearray(stored)).call)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(export.write(folder / "policy.onnx", program), options)
    return {
        "JAX": lambda obs, noise: [np.asarray(part) for part in own(obs, noise)],
        "StableHLO": lambda obs, noise: [np.asarray(part) for part in stablehlo(obs, noise)],
        "ONNX": lambda obs, noise: session.run(None, {"obs": obs, "noise": noise}),
    }


def measure(name: str, rounds: int) -> list[Row]:
    """Time the programs of a policy in turns.

    Args:
        name: one of `POLICIES`.
        rounds: number of rounds.

    Returns:
        For every batch the times of every program and its largest difference from the library's own call; for both
        files their sizes in bytes.
    """
    made, rows = program(name), []
    with tempfile.TemporaryDirectory() as folder:
        calls = callables(made, Path(folder))
        sizes = {path.suffix[1:]: path.stat().st_size for path in sorted(Path(folder).iterdir())}
    for batch in BATCHES:
        rng, shapes = np.random.default_rng(batch), ((batch, made.obs_size), (batch, *made.noise_shape))
        given = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        found = {kind: call(*given) for kind, call in calls.items()}
        times = in_turns({kind: lambda call=call, given=given: call(*given) for kind, call in calls.items()}, rounds)
        for kind, parts in found.items():
            pairs = zip(parts, found["JAX"], strict=True)
            times[kind]["difference"] = max(float(np.abs(a - b).max()) for a, b in pairs)
        rows.append({"batch": batch, "bytes": sizes} | times)
    return rows
