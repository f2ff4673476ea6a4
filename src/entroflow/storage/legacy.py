"""What earlier versions wrote, in the form of this one.

Policies of `entroflow lqr` lay in `policy.json` and `policy.npz`, without their critics. Agents of format 2 and
checkpoints had the critic's numbers and settings among those of soft actor-critic.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from . import checkpoint

POLICY, ARRAYS = "policy.json", "policy.npz"
SIZES = ("width", "depth", "state_width", "obs_size", "action_size")
CRITIC = ("q", "q_target", "v", "q_optimiser", "v_optimiser", "action_units", "value_units")
CRITIC_SETTINGS = {
    "critic_width": "width",
    "critic_depth": "depth",
    "layer_norm": "layer_norm",
    "critics": "members",
    "critic_value": "ensemble",
    "soft_value": "soft_value",
    "policy_critic": "improve_on",
    "critic_rate": "rate",
    "critic_warmup": "warmup",
    "target_rate": "target_rate",
    "final_target_rate": "final_target_rate",
}
ACTORS = {"sac_isfm": "Flow", "gaussian_sac": "Gaussian", "denoising": "Denoising"}


def renamed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a state, of this version or of an earlier one, by the names that they have now."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        before, is_agent, after = name.partition("agent.")
        part = after.split(".")[0]
        if is_agent and part in CRITIC:
            name = f"{before}agent.critic.{after}"
        elif is_agent and part == "obs_units":
            found.setdefault(f"{before}agent.critic.{after}", array)
        found[name] = array
    return found


def settings(document: Any) -> Any:
    """Return settings in their present form; what is none, and what has that form already, as it is."""
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("actor"), dict):
        return document
    actor, is_old = dict(config["actor"]), "critic" not in config
    if is_old:
        actor["kind"] = ACTORS.get(actor.pop("algorithm", ""), None)
        if isinstance(actor.get("solver"), dict):
            actor["solver"] = {"kind": "RungeKutta"} | actor["solver"]
    if actor.get("kind") == "Flow" and "solver" in actor:  # flows acted by the solver by which they learned
        actor.setdefault("acting_solver", actor["solver"])
    if not is_old:
        return document | {"config": config | {"actor": actor}}
    critic = {new: config[old] for old, new in CRITIC_SETTINGS.items() if old in config}
    rest = {name: value for name, value in config.items() if name not in CRITIC_SETTINGS}
    rest |= {"kind": "Config", "actor": actor, "critic": {"kind": "MLPCritic"} | critic}
    return document | {"config": rest}


def agent_header(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header of an agent of format 2 as one of format 3, which tells more of its task."""
    return {**document, "spec": {"id": document["env"]}, "spaces": {}, "settings": settings(document["settings"])}


def policy(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header of an agent that stands for the policy in a folder with `policy.json`, and its arrays."""
    given = checks.json_object(folder / POLICY)
    if given.get("format") != 1:
        remedy = "read it with the version of entroflow that wrote it"
        raise checks.error(str(folder / POLICY), f"format {given.get('format')!r}", "format 1", remedy)
    given.setdefault("state_width", given.get("width"))  # the oldest files lack it
    arrays = checkpoint.load(folder / ARRAYS)
    try:
        sizes = {name: checks.positive_int(name, given.get(name), most=4096) for name in SIZES}
        layers = sum(name.startswith("velocity.state_layers.") for name in arrays) // 2
        if layers != sizes["depth"] + 1:
            raise ValueError(f"depth {sizes['depth']}, where the arrays have {layers} layers")
        for name, array in arrays.items():
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite in single precision")
        solver, system, _ = dict(given["solver"]), dict(given["system"]), arrays["obs_mean"]
    except (ValueError, TypeError, KeyError) as problem:
        raise checkpoint.damaged(folder, f"files that do not make a policy ({problem})") from None
    actor = {"kind": "Flow", "pathwise": 0.0, "solver": {"kind": "RungeKutta"} | solver}
    actor["acting_solver"] = actor["solver"]
    actor |= {name: sizes[name] for name in SIZES[:3]}
    critic = {"kind": "MLPCritic", "width": 1, "depth": 1, "members": 1}
    config = {"kind": "Config", "actor": actor, "critic": critic, "obs_limit": None}
    header = {
        "algorithm": "sac_isfm",
        "env": "entroflow/LQR-v0",
        "spec": {"id": "entroflow/LQR-v0", "kwargs": {"system": system}},
        "spaces": {},
        "seed": given.get("seed", 0),
        "step": 0,
        "sizes": {name: sizes[name] for name in SIZES[3:]},
        "settings": {"config": config, "temperature": given.get("temperature", 1.0), "target_entropy": None},
    }
    return header, arrays


def completed(arrays: Mapping[str, np.ndarray], like: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a whole agent, given those of a policy of `entroflow lqr`; all others as they are.

    Its Q is zero, so that of several draws the first is best.
    """
    if "obs_mean" not in arrays:
        return dict(arrays)
    keep = (".scale", "log_")
    parts = checkpoint.flatten("agent", like)
    parts = {name: part if any(map(name.__contains__, keep)) else np.zeros_like(part) for name, part in parts.items()}
    names = {"obs_mean": "obs_units.mean", "obs_scale": "obs_units.scale"}
    for name, array in arrays.items():
        for network in ("actor", "actor_average") if name.startswith("velocity.") else (name,):
            parts[f"agent.{names.get(name, name.replace('velocity', network, 1))}"] = array[None]
    return parts
