"""Agents with the conventions of Stable-Baselines3: `SACISFM("Pendulum-v1", seed=0).learn(10_000)`."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from .. import checks
from ..rl import loop_gym, sac
from ..storage import checkpoint
from .perturb import Perturbation, perturb
from .settings import Settings, checked, from_json, of_algorithm, to_json
from .tasks import Env, Task, task
from .training import Row, Training

FORMAT = 2  # 1 was written by another library
HEADER = "agent.json"

Callback = Callable[["Learner", Row], bool | None]
L = TypeVar("L", bound="Learner")


class Evaluation(NamedTuple):
    """What whole episodes gave.

    Attributes:
        returns: undiscounted return of every episode.
        lengths: number of steps of every episode.
    """

    returns: Float[np.ndarray, " episodes"]
    lengths: Float[np.ndarray, " episodes"]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean return; NaN for one episode."""
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns))) if len(self.returns) > 1 else float("nan")


class Learner:
    """One agent on one task: `SACISFM`, `GaussianSAC` or `DenoisingSAC`, which differ in their policies only.

    Args:
        env: the id of a registered environment, an environment from `gymnasium.make`, or a function that makes one.
        seed: seed of everything random.
        settings: the settings; the algorithm's defaults if not given.
        **changes: single settings to change, by the names of `Settings`, `sac.Config` or the algorithm's actor, such as
            `num_envs=4`, `batch_size=512` or `candidates=32`. (A name that several have, `target_entropy`, is the
            outermost one's.)

    Raises:
        ValueError: in one sentence, for a task or a setting that is not possible.
    """

    algorithm: ClassVar[str]

    def __init__(self, env: Env, *, seed: int = 0, settings: Settings | None = None, **changes: Any):
        settings = change(of_algorithm(self.algorithm) if settings is None else settings, changes)
        if settings.algorithm != self.algorithm:
            given, remedy = f"settings of {settings.algorithm}", "make them with entroflow.settings"
            raise checks.error("settings", given, f"settings of {self.algorithm}", remedy)
        self._prepare(task(env), settings, seed)

    def _prepare(self, task: Task, settings: Settings, seed: int) -> None:
        self.task, self.settings, self.seed = task, settings, seed
        self._training = Training(task, settings, [seed])
        self._key, self._draws = jax.random.key(seed)[None], 0

    @property
    def num_timesteps(self) -> int:
        """Environment steps made so far."""
        return self._training.step

    @property
    def state(self) -> sac.State:
        """The learner's state, with which `entroflow.rl.sac.policy` makes the policy."""
        return jax.tree.map(lambda leaf: leaf[0], self._training.agents)

    @property
    def config(self) -> sac.Config:
        """Settings of soft actor-critic, with the target entropy of this task."""
        return self._training.config

    def learn(self: L, total_timesteps: int, callback: Callback | None = None, log_interval: int = 1000) -> L:
        """Train.

        Args:
            total_timesteps: environment steps to make, on top of those made.
            callback: called every `log_interval` steps with the agent and a row of what happened since: step, the mean
                return and length of the training episodes that ended, and the learner's metrics. False ends training.
            log_interval: environment steps between calls.

        Returns:
            The agent itself.

        Raises:
            ValueError: if a number is not a whole one above zero.
            NotFinite: if the environment or the learner gives a number that is not finite.
        """
        left, interval = (
            checks.positive_int("total_timesteps", total_timesteps),
            checks.positive_int("log_interval", log_interval),
        )
        while left > 0:
            row = self._training.advance(min(interval, left))[0]
            left -= interval
            if callback is not None and callback(self, row) is False:
                break
        return self

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Choose actions, as Stable-Baselines3 calls it.

        Args:
            observation: one observation or a batch of them, in the shape of the task's observations or flattened.
            state: returned as it is; policies here have no memory.
            episode_start: not used.
            deterministic: the best by Q of `settings.action_candidates` actions; otherwise a draw from the policy.

        Returns:
            The action or actions, and `state`.

        Raises:
            ValueError: for an observation of another size, or one that is not finite.
        """
        del episode_start
        flat, single = self._observations(observation)
        candidates = self.settings.action_candidates if deterministic else 1
        self._draws += 1
        # One compiled call and nothing beside it: for one action any further operation costs as much as the policy.
        actions = loop_gym.act_well(
            self.config, self._training.agents, flat[None], self._key, self._draws, candidates=candidates
        )
        actions = np.asarray(actions)[0].reshape(-1, *self.task.action_space.shape)
        return (actions[0] if single else actions), state

    def log_prob(self, observation: Any, action: ArrayLike) -> Float[np.ndarray, "*batch"]:
        """Return log π(a|s), the exact log-density of actions.

        Args:
            observation: one observation or a batch of them.
            action: one action for each.

        Returns:
            The log-densities: a number for one observation, otherwise shape (b,).

        Raises:
            ValueError: for sizes that do not fit, numbers that are not finite, or a policy without a density.
        """
        if not hasattr(sac.policy(self.config, self.state), "log_prob"):
            given, remedy = f"a policy of {self.algorithm}, which has none", "use SACISFM or GaussianSAC"
            raise checks.error("log_prob", given, "a policy with a density", remedy)
        flat, single = self._observations(observation)
        actions = np.asarray(action, np.float32).reshape(-1, self.task.action_size)
        if len(actions) != len(flat) or not np.isfinite(actions).all():
            given = f"shape {np.shape(action)}" if np.isfinite(actions).all() else "NaN or infinity"
            raise checks.error("action", given, f"{len(flat)} finite actions", "pass one for every observation")
        found = np.asarray(_log_prob(self.config, self.state, jnp.asarray(flat), jnp.asarray(actions)))
        return found.reshape(()) if single else found

    def evaluate(
        self,
        n_episodes: int = 10,
        *,
        deterministic: bool = True,
        seed: int = 0,
        perturbation: Perturbation | None = None,
    ) -> Evaluation:
        """Run whole episodes in environments of their own.

        Args:
            n_episodes: number of episodes.
            deterministic: the best by Q of `settings.action_candidates` actions; otherwise draws from the policy.
            seed: seed of the first episode's reset; the next ones count up.
            perturbation: what to change about the task; nothing if not given.

        Returns:
            Returns and lengths.

        Raises:
            ValueError: if n_episodes is not a whole number above zero, or the task cannot be perturbed like that.
        """
        episodes = checks.positive_int("n_episodes", n_episodes)
        changed = perturb(self.task, perturbation or Perturbation())
        rows = self._training.evaluate(episodes, deterministic=deterministic, seed=seed, task=changed)
        return Evaluation(np.array([row["return"] for row in rows]), np.array([row["length"] for row in rows], float))

    def save(self, path: str | Path) -> None:
        """Write the agent, without what it remembers of the task, into a folder.

        Args:
            path: the folder; an agent that is there is replaced.
        """
        save_agent(Path(path), self._training.agents, self.task.name, self.settings, self.seed, self.num_timesteps)

    def export(self, path: str | Path, *, best_of: int = 1) -> None:
        """Write what acts as one file that runs without this library: observations and noise to actions.

        Args:
            path: the file, .stablehlo or .onnx; see docs/export.md.
            best_of: actions to draw, of which the best by Q is taken. A single draw comes with its log π(a|s), except
                that of a `DenoisingSAC`, which has none.

        Raises:
            ValueError: for another ending, or where a package is missing.
        """
        from ..export.programs import acting, write

        write(path, acting(self.config, self.state, best_of))

    @classmethod
    def load(cls: type[L], path: str | Path, env: Env | None = None) -> L:
        """Read an agent, with its statistics of observations, to use it or to train it on with an empty memory.

        Args:
            path: the folder that `save` wrote.
            env: the task, if it is not one that `gymnasium.make` knows.

        Returns:
            The agent.

        Raises:
            ValueError: if there is none, it is damaged, or it belongs to another algorithm or another task.
        """
        header = read_header(Path(path))
        if cls.algorithm != header["algorithm"]:
            given, remedy = (
                f"an agent of {header['algorithm']}",
                f"load it with {BY_NAME[header['algorithm']].__name__}",
            )
            raise checks.error(str(path), given, f"one of {cls.algorithm}", remedy)
        found = task(header["env"] if env is None else env)
        sizes = {"obs_size": found.obs_size, "action_size": found.action_size}
        if sizes != header["sizes"]:
            given = f"{found.name} with {sizes}"
            raise checks.error(str(path), given, f"a task with {header['sizes']}", f"pass env={header['env']!r}")
        agent = cls.__new__(cls)
        agent._prepare(found, from_json(header["settings"]), header["seed"])
        training = agent._training
        _, arrays = checkpoint.read(Path(path) / HEADER, FORMAT)
        state = checkpoint.unflatten("agent", training.loop.agent, arrays)
        training.loop = dataclasses.replace(training.loop, agent=state)
        training.step = header["step"]
        return agent

    def _observations(self, observation: Any) -> tuple[Float[np.ndarray, "b n"], bool]:
        """Return observations as a batch of flat vectors, and whether there was only one."""
        size = self.task.obs_size
        array = np.asarray(observation)
        if array.dtype.kind not in "iufb" or array.size == 0 or array.size % size:
            given = f"shape {array.shape} of type {array.dtype}"
            raise checks.error("observation", given, f"shape ({size},) or (b, {size})", "pass what the task returned")
        flat = array.reshape(-1, size).astype(np.float32)
        if not np.isfinite(flat).all():
            raise checks.error("observation", "NaN or infinity", "finite numbers", "look where they come from")
        return flat, array.size == size and array.ndim < 2


class SACISFM(Learner):
    """Soft actor-critic with a flow policy, improved by importance sampling flow matching. See `Learner`."""

    algorithm = "sac_isfm"


class GaussianSAC(Learner):
    """Soft actor-critic with a squashed Gaussian policy; all else as in `SACISFM`. See `Learner`."""

    algorithm = "gaussian_sac"


class DenoisingSAC(Learner):
    """Soft actor-critic with a diffusion policy in the style of SDAC, which has no density. See `Learner`."""

    algorithm = "denoising"


BY_NAME: dict[str, type[Learner]] = {kind.algorithm: kind for kind in (SACISFM, GaussianSAC, DenoisingSAC)}


def change(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return settings with some changed, by name, wherever in the settings the names are.

    Args:
        settings: the settings.
        changes: new values by the names of `Settings`, `sac.Config` or the actor; the outermost one counts.

    Returns:
        The new settings.

    Raises:
        ValueError: for a name that there is not, or a value that is not possible.
    """
    levels: list[Any] = [settings, settings.config, settings.config.actor]
    names = [{field.name for field in dataclasses.fields(level)} - {"config", "actor"} for level in levels]
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for name, value in changes.items():
        checks.choice("setting", name, sorted(set().union(*names)))
        level = next(i for i, known in enumerate(names) if name in known)
        parts[level] |= checked(type(levels[level]), {name: value})
    actor = dataclasses.replace(cast(Any, settings.config.actor), **parts[2])
    config = dataclasses.replace(settings.config, actor=actor, **parts[1])
    return dataclasses.replace(settings, config=config, **parts[0])


def save_agent(folder: Path, agents: sac.State, env: str, settings: Settings, seed: int, step: int) -> None:
    """Write one agent, leaves of shape (1, ...), and what is needed to load it."""
    header = {
        "format": FORMAT,
        "algorithm": settings.algorithm,
        "env": env,
        "seed": seed,
        "step": step,
        "sizes": {"obs_size": agents.obs_units.mean.shape[-1], "action_size": agents.action_units.mean.shape[-1]},
        "settings": to_json(settings),
    }
    checkpoint.write(folder / HEADER, header, checkpoint.flatten("agent", agents))


def read_header(folder: Path) -> dict[str, Any]:
    """Read what a saved agent is.

    Raises:
        ValueError: if the folder holds no agent, or one of a newer format.
    """
    if not (folder / HEADER).is_file():
        raise checks.error("folder", f"{str(folder)!r}, which holds no agent", f"one with {HEADER}", "check the path")
    return checkpoint.read_header(folder / HEADER, FORMAT)


def load_agent(folder: str | Path, env: Env | None = None) -> Learner:
    """Load an agent of any algorithm, see `Learner.load`."""
    return BY_NAME[read_header(Path(folder))["algorithm"]].load(folder, env)


@partial(jax.jit, static_argnames="config")
def _log_prob(
    config: sac.Config, state: sac.State, obs: Float[Array, "b n"], action: Float[Array, "b d"]
) -> Float[Array, " b"]:
    return jax.vmap(sac.policy(config, state, average=True).log_prob)(obs, action)
