"""What is timed of soft actor-critic in Stable-Baselines3 (PyTorch) and in SBX (JAX), at their defaults.

This file is run by the Python of their environment, without this library (see `worker`).
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

REPLAY = 20_000  # transitions; the same in `ours`
BATCH, UNITS = 256, 50
LIBRARIES = {"sb3": "stable_baselines3", "sbx": "sbx", "sbx_alike": "sbx"}
PACKAGES = {"stable_baselines3": ("stable_baselines3", "torch", "gymnasium"), "sbx": ("sbx-rl", "jax", "gymnasium")}


def make(algorithm: str, task: str) -> tuple[dict[str, tuple[Callable[[], Any], int]], dict[str, str]]:
    """Return what can be timed, by name, and versions.

    Args:
        algorithm: "sb3", "sbx", or "sbx_alike", whose networks are those of our Gaussian SAC: SiLU, and layer norm in
            the critics.
        task: id of a Gymnasium environment, whose shapes the synthetic replay has.

    Returns:
        Functions with the number of units of work that they do, and the versions of the packages.
    """
    if algorithm == "sb3":
        import_module("torch").set_num_threads(1)
    library: Any = import_module(LIBRARIES[algorithm])
    alike = {"layer_norm": True, "activation_fn": import_module("jax").nn.silu} if algorithm == "sbx_alike" else {}
    sizes = {"buffer_size": REPLAY, "learning_starts": 0}
    model = library.SAC("MlpPolicy", task, policy_kwargs=alike, seed=0, device="cpu", **sizes)
    model.set_logger(import_module("stable_baselines3.common.logger").configure(None, []))
    obs = _fill(model.replay_buffer)
    one, many = obs[0], obs[:BATCH]
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "update": (lambda: model.train(gradient_steps=1, batch_size=BATCH), 1),
        "act_1": (lambda: model.predict(one), 1),
        "act_256": (lambda: model.predict(many), 1),
        "best_1": (lambda: model.predict(one, deterministic=True), 1),
        "best_of_4": (lambda: model.predict(one, deterministic=True), 1),  # the mean, as before
        "density": (_density(algorithm, model, many), 1),
        "steps": (lambda: model.learn(UNITS, reset_num_timesteps=False, log_interval=None), UNITS),
    }
    return calls, {name: version(name) for name in PACKAGES[LIBRARIES[algorithm]]}


def _fill(replay: Any) -> np.ndarray:
    """Fill a replay with noise; return its observations."""
    random = np.random.default_rng(0)
    for name in ("observations", "next_observations", "rewards"):
        array = getattr(replay, name)
        array[:] = random.standard_normal(array.shape, np.float32)
    replay.actions[:] = random.uniform(-1, 1, replay.actions.shape)
    replay.full = True
    return replay.observations[:, 0]


def _density(algorithm: str, model: Any, obs: np.ndarray) -> Callable[[], Any]:
    """Return what computes log π of a given action at each observation; neither library has a public way."""
    actions = np.random.default_rng(1).uniform(-0.9, 0.9, (len(obs), *model.action_space.shape)).astype(np.float32)
    if LIBRARIES[algorithm] == "sbx":
        jax: Any = import_module("jax")
        state, inputs, given = model.policy.actor_state, jax.numpy.asarray(obs, "float32"), jax.numpy.asarray(actions)
        program = jax.jit(lambda parameters, x, a: state.apply_fn(parameters, x).log_prob(a))
        return lambda: program(state.params, inputs, given).block_until_ready()
    torch: Any = import_module("torch")
    inputs, given = torch.as_tensor(obs, dtype=torch.float32), torch.as_tensor(actions)

    def log_prob() -> Any:
        with torch.no_grad():
            mean, log_std, _ = model.actor.get_action_dist_params(inputs)
            return model.actor.action_dist.proba_distribution(mean, log_std).log_prob(given)

    return log_prob
