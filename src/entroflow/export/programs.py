"""Policies for deployment: one file that runs without this library, as StableHLO for JAX, as ONNX or as C.

Files hold no random numbers: noise is an input. Observations are normalised and actions bounded inside of the file, and
the integrator's steps are those of the policy. What the functions have in common:

Args:
    config: settings of soft actor-critic.
    state: the agent's state.
    best_of: number M of actions; where there are several, the program's noise has M rows of what `sampling` needs.
    path: the file, whose ending tells the format: .stablehlo, .onnx or .h; one that is there is replaced.
    program: what to write.

Returns:
    The program, or the file's path.

Raises:
    ValueError: in one sentence, if the number of actions is not positive or memory does not hold so many; for another
        ending, a missing package, a policy that the format cannot express, or a file that cannot be written.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, memory
from ..files import replace
from ..rl import sac
from ..rl.actors import NoiseDensityPolicy, NoisePolicy
from .c_header import to_c

PLATFORMS = ("cpu", "cuda")  # that a .stablehlo runs on
NEEDS = {".stablehlo": "flatbuffers", ".onnx": "onnx", ".h": "jax"}


class Program(NamedTuple):
    """What is written: a function of one observation and one draw of noise."""

    function: Callable[..., tuple[Any, ...]]
    """(obs, noise) ↦ a tuple of results."""
    obs_size: int
    """Number of components of an observation."""
    noise_shape: tuple[int, ...]
    """Shape of the standard normal noise."""
    outputs: tuple[str, ...]
    """Names of the results."""

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arguments."""
        return {"obs": (self.obs_size,), "noise": self.noise_shape}


def sampling(policy: Any) -> Program:
    """Return what draws one action of a `NoisePolicy`; with its log-density, where the policy has one."""
    if not isinstance(policy, NoisePolicy):
        missing = [part for part in ("noise_shape", "push", "obs_units") if not hasattr(policy, part)]
        remedy = f"give it {' and '.join(missing) or 'what is missing'}, see NoisePolicy"
        raise checks.error("policy", type(policy).__name__, "one that makes actions of given noise", remedy)
    policy = jax.tree.map(_single, policy)
    obs_size = policy.obs_units.mean.shape[0]
    if isinstance(policy, NoiseDensityPolicy):
        return Program(policy.push_and_log_prob, obs_size, policy.noise_shape, ("action", "log_prob"))
    return Program(lambda obs, noise: (policy.push(obs, noise),), obs_size, policy.noise_shape, ("action",))


def acting(config: sac.Config, state: sac.State, best_of: int) -> Program:
    """Return what draws actions from an agent's policy and takes the best by Q; of one, `sampling`."""
    state = jax.tree.map(_single, state)
    one = sampling(sac.policy(config, state, average=True))
    if checks.positive_int("best_of", best_of) == 1:
        return one

    memory.check({"best_of": 4 * best_of * getattr(config.actor, "width", 1)})

    def choose(obs: Any, noise: Any) -> tuple[Any]:
        actions = jax.vmap(lambda noise: one.function(obs, noise)[0])(noise)
        values = jax.vmap(lambda action: sac.q_value(config, state, obs, action))(actions)
        chosen = jax.nn.one_hot(jnp.argmax(values), best_of, dtype=actions.dtype)
        return (jnp.sum(chosen[:, None] * actions, axis=0),)

    return Program(choose, one.obs_size, (best_of, *one.noise_shape), ("action",))


def write(path: str | Path, program: Program) -> Path:
    """Write a program."""
    path = Path(path)
    checks.choice("format", path.suffix, NEEDS, "give the file one of these endings")
    try:
        import_module(NEEDS[path.suffix])
    except ImportError:
        given = f"{str(path)!r} without the package {NEEDS[path.suffix]}"
        raise checks.error("format", given, "it installed", checks.install("export")) from None
    parts = program.function, program.inputs, program.outputs
    with jax.enable_x64(False):  # files are in single precision
        if path.suffix == ".stablehlo":
            content = _stablehlo(program)
        elif path.suffix == ".onnx":
            from .onnx_graph import to_onnx  # brings ONNX

            content = to_onnx(*parts).SerializeToString()
        else:
            content = to_c(*parts, path.stem)
    with checks.reachable(path, "a file to write to"):
        replace(path, content)
    return path


def _single(leaf: Any) -> Any:
    """Return numbers in the precision of files."""
    return leaf.astype(np.float32) if getattr(leaf, "dtype", None) == np.float64 else leaf


def _stablehlo(program: Program) -> bytes:
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = (batch, program.obs_size), (batch, *program.noise_shape)
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    exported = jax.export.export(jax.jit(jax.vmap(program.function)), platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())
