"""Policies on disk: a `.npz` with the arrays and a JSON header, readable without this library, never unpickled."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import checks
from ..flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from ..flow.bounds import Box

FORMAT = 1
HEADER, ARRAYS = "policy.json", "policy.npz"


def save_policy(folder: Path, policy: FlowPolicy, description: dict[str, Any]) -> None:
    """Write a policy with a velocity network and a fixed-step solver.

    Args:
        folder: where to write `policy.json` and `policy.npz`; made if missing.
        policy: the policy.
        description: what else the header should say, JSON-ready.
    """
    assert isinstance(policy.velocity, VelocityNetwork) and isinstance(policy.solver, RungeKutta)
    header = {
        "format": FORMAT,
        **description,
        "obs_size": policy.velocity.obs_size,
        "action_size": policy.velocity.action_size,
        "width": policy.velocity.second.out_features,
        "depth": len(policy.velocity.state_layers) - 1,
        "state_width": policy.velocity.state_layers[0].out_features,
        "solver": dataclasses.asdict(policy.solver),
        "action_space": "box" if isinstance(policy.action_space, Box) else "unbounded",
    }
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(leaf) for name, leaf in _named_arrays(policy)}
    np.savez(folder / ARRAYS, allow_pickle=False, **arrays)
    (folder / HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")


def load_policy(folder: Path) -> tuple[FlowPolicy, dict[str, Any]]:
    """Read a policy and its header.

    Args:
        folder: a folder that `save_policy` wrote.

    Returns:
        The policy and the header.

    Raises:
        ValueError: if a file is missing, damaged, of a newer format or does not fit the other.
    """
    header = checks.json_object(folder / HEADER)
    if header.get("format") != FORMAT:
        given, expected = f"format {header.get('format')!r}", f"format {FORMAT}"
        raise checks.error(str(folder / HEADER), given, expected, "read it with the version of entroflow that wrote it")
    try:
        skeleton = eqx.filter_eval_shape(_skeleton, header)
        expected = dict(_named_arrays(skeleton))
        # Opened by hand, since NumPy does not close a file that it cannot read.
        with (folder / ARRAYS).open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in expected}
        for name, leaf in expected.items():
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            if found != f"{leaf.dtype} {leaf.shape}" or not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} is {found} instead of {leaf.dtype} {leaf.shape} or is not finite")
    except Exception as problem:  # what damage does to NumPy, zipfile or JAX, they do not promise
        given = f"files that do not make a policy ({problem})"
        raise checks.error(str(folder), given, "a policy as entroflow wrote it", "copy or train it again") from problem
    leaves = [jnp.asarray(arrays[name]) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(skeleton), leaves), header


def _skeleton(header: dict[str, Any]) -> FlowPolicy:
    """Make a policy of the right structure, whatever its numbers."""
    d = header["action_size"]
    key = jax.random.key(0)
    # Older files lack the last.
    sizes: dict[str, Any] = {name: header.get(name) for name in ("width", "depth", "state_width")}
    velocity = VelocityNetwork(header["obs_size"], d, **sizes, key=key)
    spaces = {"box": Box(-jnp.ones(d), jnp.ones(d)), "unbounded": Unbounded(d)}
    return FlowPolicy(velocity, spaces[header["action_space"]], solver=RungeKutta(**header["solver"]))


def _named_arrays(policy: FlowPolicy) -> list[tuple[str, Any]]:
    """Return the leaves with their paths as names, such as velocity.first.weight."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(policy)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
