"""Names of algorithms, compiled tasks and settings, with types and without JAX: for editors and quick refusals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_type_hints

if TYPE_CHECKING:  # the command line's `--help` needs none of them
    from .fields import Count, Discount, Layers, NonNegative, Number, Positive, PositiveShare, Share

ALGORITHMS = "sac_isfm", "gaussian_sac", "denoising"

# What Stable-Baselines3, CleanRL and others call it.
ELSEWHERE = {"learning_rate": "rate", "lr": "rate", "gamma": "discount", "tau": "critic_target_rate"}
ELSEWHERE |= {"ent_coef": "temperature", "gradient_steps": "updates_per_step", "train_freq": "updates_per_step"}
ELSEWHERE |= {"n_envs": "num_envs", "n_critics": "critic_members", "net_arch": "width"}
# Tasks in JAX, on which training is compiled as a whole, and what Gymnasium calls them.
COMPILED = {"jax/Pendulum": "Pendulum-v1"}
COMPILED |= {f"mjx/{name}": f"{name}-v5" for name in ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid")}


class Changes(TypedDict, total=False):
    """Settings of `entroflow.agents.Settings`, `entroflow.rl.Config`, the three actors and the two critics."""

    num_envs: Count
    updates_per_step: Positive
    policy_delay: Count
    learning_starts: Count
    buffer_size: Count
    discount: Discount
    temperature: Positive
    target_entropy: Number | Literal["auto"] | None
    action_candidates: Count
    actor: Any
    critic: Any
    updates: Count | None
    entropy_in_target: bool
    batch_size: Count
    temperature_rate: Positive
    reward_scale: Positive
    normalise_obs: bool
    obs_limit: Positive | None
    recent: PositiveShare
    states: Count
    rate: Positive
    warmup: Share
    average: NonNegative
    rest: Share
    width: Count
    depth: Layers
    state_width: Count
    solver: Any
    acting_solver: Any
    candidates: Count
    pairs: Count
    ess_floor: Discount
    target: Literal["pair", "posterior", "stein"]
    pathwise: NonNegative
    proposal: Any
    normalise: Any
    steps: Count
    exploration: NonNegative
    critic_width: Count
    critic_depth: Layers
    critic_layer_norm: bool
    critic_members: Count
    critic_ensemble: Literal["mean", "min"]
    critic_soft_value: Literal["action", "network"]
    critic_improve_on: Literal["target", "online"]
    critic_rate: Positive
    critic_warmup: Share
    critic_target_rate: PositiveShare
    critic_final_target_rate: PositiveShare
    critic_momentum: Discount
    critic_forgetting: PositiveShare
    critic_epsilon: Positive


class Named(Changes, total=False):
    """Those, and what Stable-Baselines3 calls some of them, see `entroflow.agents.sb3`."""

    policy: str
    gamma: float
    learning_rate: float
    tau: float
    ent_coef: float | str
    train_freq: int | tuple[int, str]
    gradient_steps: int
    policy_kwargs: dict[str, Any] | None
    device: str


def check(changes: Mapping[str, Any], option: str = "setting") -> None:
    """Refuse what no algorithm has as a setting, and values that cannot be; the `ValueError` speaks of the `option`."""
    from . import fields

    hints = get_type_hints(Changes, localns=vars(fields), include_extras=True)
    for name, value in changes.items():
        hint = hints[known(name, hints, option)]
        if hint is not Any or not isinstance(value, dict):  # the form of an object in files, which is made later
            fields.checked(name, value, hint)


def known(name: str, names: Collection[str], option: str = "setting") -> str:
    """Return a setting's name if it is one of these; else a `ValueError` says who has it, or what is like it."""
    import difflib

    from . import checks

    if name in Changes.__annotations__ and name not in names:
        theirs = [f" (elsewhere {there!r})" for there, here in ELSEWHERE.items() if here == name]
        remedy = "leave it out, or choose others"
        raise checks.error(option, f"{name!r}{''.join(theirs[:1])}", "one that this actor or this critic has", remedy)
    near = [] if name in names else difflib.get_close_matches(name, [*names, *ELSEWHERE], 1, 0.85)
    if near and (here := ELSEWHERE.get(near[0])) in names:
        raise checks.error(option, repr(name), "a name of these settings", f"here it is {here!r}")
    return checks.choice(option, name, sorted(names))
