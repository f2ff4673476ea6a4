"""The names of all settings, without JAX: editors complete them, and a misspelt one is refused at once."""

from typing import Any, TypedDict

# What Stable-Baselines3, CleanRL and others call it.
ELSEWHERE = {"learning_rate": "rate", "lr": "rate", "gamma": "discount", "tau": "critic_target_rate"}
ELSEWHERE |= {"ent_coef": "temperature", "gradient_steps": "updates_per_step", "train_freq": "updates_per_step"}
ELSEWHERE |= {"n_envs": "num_envs", "n_critics": "critic_members", "net_arch": "width"}
# Tasks in JAX, on which training is compiled as a whole, and what Gymnasium calls them.
COMPILED = {"jax/Pendulum": "Pendulum-v1"}
COMPILED |= {f"mjx/{name}": f"{name}-v5" for name in ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid")}


class Changes(TypedDict, total=False):
    """Settings of `entroflow.agents.Settings`, `entroflow.rl.Config`, the three actors and the default critic."""

    num_envs: int
    updates_per_step: float
    policy_delay: int
    learning_starts: int
    buffer_size: int
    discount: float
    temperature: float
    target_entropy: Any
    action_candidates: int
    actor: Any
    critic: Any
    updates: int | None
    entropy_in_target: bool
    batch_size: int
    temperature_rate: float
    reward_scale: float
    normalise_obs: bool
    obs_limit: float | None
    recent: float
    states: int
    rate: float
    warmup: float
    average: float
    width: int
    depth: int
    state_width: int
    solver: Any
    acting_solver: Any
    candidates: Any
    pairs: int
    ess_floor: float
    target: str
    pathwise: float
    proposal: Any
    normalise: Any
    steps: int
    exploration: float
    critic_width: int
    critic_depth: int
    critic_layer_norm: bool
    critic_members: int
    critic_ensemble: str
    critic_soft_value: str
    critic_improve_on: str
    critic_rate: float
    critic_warmup: float
    critic_target_rate: float
    critic_final_target_rate: float


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
