"""The names that people bring from Stable-Baselines3: each does what it does there, or is refused with what does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np

from .. import checks
from .tasks import Env

POLICIES = "MlpPolicy", "MultiInputPolicy"
# What changes nothing as it is by default, and does not exist here otherwise.
ABSENT = {"action_noise": None, "replay_buffer_class": None, "replay_buffer_kwargs": None, "monitor_wrapper": True}
ABSENT |= {"optimize_memory_usage": False, "target_update_interval": 1, "use_sde": False, "sde_sample_freq": -1}
ABSENT |= {"use_sde_at_warmup": False, "stats_window_size": 100, "n_steps": 1, "_init_setup_model": True}
# What agents have there and not here, and what does it.
ELSEWHERE = {
    "env": "make one: gymnasium.make(agent.task.name)",
    "get_env": "make one: gymnasium.make(agent.task.name)",
    "set_env": "load it with another one: entroflow.load(folder, env=env)",
    "observation_space": "it is agent.task.observation_space",
    "action_space": "it is agent.task.action_space",
    "replay_buffer": "it is saved with agent.save(folder, replay=True)",
    "save_replay_buffer": "it is saved with agent.save(folder, replay=True)",
    "load_replay_buffer": "it is loaded with what agent.save(folder, replay=True) wrote",
    "logger": "callbacks are given the numbers, and learn(…, log=folder) writes them",
    "set_logger": "callbacks are given the numbers, and learn(…, log=folder) writes them",
    "get_parameters": "the networks are in agent.state",
    "set_parameters": "load an agent: entroflow.load(folder)",
    "actor": "the policy is agent.policy, its network agent.state.actor",
    "critic": "it is agent.state.critic",
    "gamma": "it is agent.settings.discount",
    "ent_coef": "it is agent.state.temperature",
    "device": "JAX has the say: jax.default_backend()",
}


def explained(agent: Any, name: str) -> NoReturn:
    """Say with an `AttributeError` what an agent does not have, and what does here what it does elsewhere."""
    here = f"; {ELSEWHERE[name]}" if name in ELSEWHERE else ""
    raise AttributeError(f"{type(agent).__name__!r} object has no attribute {name!r}{here}", name=name, obj=agent)


def environment(given: Sequence[Any], policy: Any = None) -> Env:
    """Return the environment among the arguments of `SAC(policy, env)` or `SAC(env)`.

    A `ValueError` refuses policies that do not exist here, vector environments, and an argument too many or too few.
    """
    if given and isinstance(given[0], str) and given[0].endswith("Policy"):
        policy, *given = given
    if policy is not None and policy not in POLICIES:
        remedy = "leave it out; a policy of your own is an actor, SAC(env, actor=mine)"
        raise checks.error("policy", f"{policy!r}", f"one of {', '.join(POLICIES)}", remedy)
    if not given:
        raise checks.error("env", "none", "an environment", "pass 'Pendulum-v1', and leave the policy out")
    env, *more = given
    if more:
        raise checks.error("arguments", repr(more[0]), "the environment alone", "name all else, as in batch_size=512")
    if (count := getattr(env, "num_envs", None)) is not None and not isinstance(env, gymnasium.Env):
        remedy = f"pass what makes one of its environments, and num_envs={count}"
        raise checks.error("env", f"a {type(env).__name__}", "one environment, its id, or what makes it", remedy)
    return env


def refuse_reset(wanted: bool, made: int) -> None:
    """Refuse to count steps anew where some were made, with a `ValueError`."""
    if wanted and made:
        remedy = "make a new agent to begin anew"
        raise checks.error("reset_num_timesteps", f"True after {made} steps", "False: they are counted on", remedy)


def translated(changes: Mapping[str, Any], num_envs: int = 1) -> dict[str, Any]:
    """Return settings by the names that they have here; what is none of Stable-Baselines3's stays as it is.

    `num_envs` are the environments where the changes do not say how many.
    """
    here = {name: value for name, value in changes.items() if name not in TABLE.keys() | ABSENT.keys()}
    for name in changes.keys() & ABSENT.keys():
        if isinstance(changes[name], np.ndarray) or changes[name] != ABSENT[name]:
            raise checks.error(name, repr(changes[name]), f"{ABSENT[name]!r}, all that there is here", "leave it out")
    found: dict[str, Any] = {}
    for name in changes.keys() & TABLE.keys():
        found |= TABLE[name](changes[name], {"num_envs": num_envs, **changes})
    for name in found.keys() & here.keys():
        raise checks.error(name, "it by the name of Stable-Baselines3, too", "one of the two", "leave the other out")
    return here | found


def _as(*names: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """Return what gives these settings a value."""

    def named(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
        if callable(value):
            remedy = "pass one; with updates=N rates rise and fall over a training of N updates"
            raise checks.error(names[0], "a schedule", "a number", remedy)
        return dict.fromkeys(names, value)

    return named


def _entropy(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """A number stays as it is; "auto" is steered from 1, and "auto_0.1" from 0.1, to the target entropy."""
    if not isinstance(value, str):
        return {"temperature": value, "target_entropy": None}
    kind, first = value.partition("_")[::2]
    try:
        assert kind == "auto"
        return {"temperature": float(first or 1)}
    except (AssertionError, ValueError):
        raise checks.error("ent_coef", repr(value), "a number, 'auto' or 'auto_0.1'", "pass one of these") from None


def _updates(_: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Updates for every step of one environment, from those made after every so many steps of all of them."""
    steps, made = changes.get("train_freq", 1), changes.get("gradient_steps", 1)
    steps = steps[0] if isinstance(steps, tuple) and steps[1:] == ("step",) else steps
    if made == -1:
        return {"updates_per_step": 1}
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        given, remedy = f"{steps!r}", "pass updates_per_step, the updates for every step, such as 1 or 0.2"
        raise checks.error("train_freq", given, "a whole number of steps above 0", remedy)
    made = checks.positive_int("gradient_steps", made, "pass -1 for one update a step, or updates_per_step")
    return {"updates_per_step": made / (int(steps) * checks.positive_int("num_envs", changes["num_envs"]))}


def _networks(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse what networks are made of, but for the number of critics."""
    if not isinstance(value, dict | None):
        raise checks.error("policy_kwargs", repr(value), "a dictionary, or None", "pass critic_members and the like")
    parts = dict(value or {})
    found = {"critic_members": parts.pop("n_critics")} if "n_critics" in parts else {}
    for name, part in parts.items():
        both = part if isinstance(part, dict) else {"pi": part, "qf": part}
        layers = [each if isinstance(each := both.get(of), list) and each else [256, 256] for of in ("pi", "qf")]
        sizes = [
            f"{of}width={each[0]}, {of}depth={len(each)}" for of, each in zip(("", "critic_"), layers, strict=True)
        ]
        remedy = f"layers of an actor, and of a critic, are equally wide: pass {', '.join(sizes)}"
        raise checks.error("policy_kwargs", f"{name}={part!r}", "n_critics alone", remedy)
    return found


def _device(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse another device than JAX computes on."""
    import jax

    have = jax.default_backend()
    if str(value) not in ("auto", have, {"gpu": "cuda"}.get(have)):
        remedy = "leave it out, or choose before Python starts, as in JAX_PLATFORMS=cpu"
        raise checks.error("device", repr(value), f"'auto' or {have!r}, which JAX computes on", remedy)
    return {}


TABLE: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "policy": lambda *_: {},  # see `environment`
    "gamma": _as("discount"),
    "learning_rate": _as("rate", "critic_rate", "temperature_rate"),
    "tau": _as("critic_target_rate", "critic_final_target_rate"),
    "ent_coef": _entropy,
    "train_freq": _updates,
    "gradient_steps": _updates,
    "policy_kwargs": _networks,
    "device": _device,
}
