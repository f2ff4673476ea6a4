"""Agents with the conventions of Stable-Baselines3: `SACISFM("Pendulum-v1", seed=0).learn(10_000)`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .. import checks
from ..compiling import refuse_forks
from ..export import acting, write
from ..rl import ACTORS, loop_gym, sac
from ..storage import checkpoint
from . import sampling, saved
from .perturb import Perturbation, perturb
from .settings import Settings, change, from_json, of_algorithm
from .tasks import Env, Task, task
from .training import Row, Training

Callback = Callable[["SAC", Row], bool | None]
A = TypeVar("A", bound="SAC")


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
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns))) if len(self.returns) > 1 else math.nan


class SAC:
    """One agent on one task: soft actor-critic with any actor and any critic.

    `SACISFM`, `GaussianSAC` and `DenoisingSAC` are this with an actor of their own; so is `SAC(env, actor=mine)`.

    Args:
        env: the id of a registered environment, an environment from `gymnasium.make`, or a function that makes one.
        seed: seed of everything random.
        settings: the settings; the algorithm's defaults if not given.
        **changes: single settings to change, by the names of `Settings`, `entroflow.rl.Config`, the actor, or the
            critic with "critic_" before them, such as `num_envs=4`, `batch_size=512`, `candidates=32`,
            `proposal=mine` or `critic_width=512`; or `actor=` and `critic=` altogether. (A name that several have,
            `target_entropy`, is the outermost one's.)

    Raises:
        ValueError: in one sentence, for a task or a setting that is not possible.
    """

    algorithm: ClassVar[str | None] = None

    def __init__(self, env: Env, *, seed: int = 0, settings: Settings | None = None, **changes: Any):
        settings = of_algorithm(self.algorithm or "sac_isfm") if settings is None else settings
        self._prepare(task(env), change(settings, changes), seed)

    def _prepare(self, task: Task, settings: Settings, seed: int) -> None:
        refuse_forks()
        if self.algorithm not in (None, settings.algorithm):
            remedy = "use entroflow.SAC, which takes any"
            raise checks.error("settings", f"those of {settings.algorithm}", f"those of {self.algorithm}", remedy)
        self.task, self.settings, self.seed = task, settings, seed
        self._training = Training(task, settings, [seed])
        self._draws = 0  # made by `predict`

    def __repr__(self) -> str:
        """Say what it is."""
        return f"{type(self).__name__}({self.task.name!r}, seed={self.seed}, num_timesteps={self.num_timesteps})"

    @property
    def num_timesteps(self) -> int:
        """Environment steps made so far."""
        return self._training.step

    @property
    def state(self) -> sac.State:
        """The learner's state, with which `entroflow.rl.policy` makes the policy."""
        refuse_forks()
        return jax.tree.map(lambda leaf: leaf[0], self._training.agents)

    @property
    def config(self) -> sac.Config:
        """Settings of soft actor-critic, with the target entropy of this task."""
        return self._training.config

    @property
    def policy(self) -> Any:
        """The policy that acts, in JAX: of a flow, a `FlowPolicy`."""
        return sac.policy(self.config, self.state, average=True)

    def learn(self: A, total_timesteps: int, callback: Callback | None = None, log_interval: int = 1000) -> A:
        """Train.

        Args:
            total_timesteps: environment steps to make, on top of those made.
            callback: called every `log_interval` steps with the agent and a row of what happened since: step, the mean
                return and length of the training episodes that ended, and the learner's metrics. False ends training.
            log_interval: environment steps between calls.

        Returns:
            The agent itself.

        Raises:
            ValueError: if a number is not a whole one above zero, or a planned training has come to its end.
            NotFinite: if the environment or the learner gives a number that is not finite. Learning can go on; if it
                was the learner's, from the agent as it was at most `log_interval` steps before.
        """
        refuse_forks()
        left = checks.positive_int("total_timesteps", total_timesteps)
        interval = checks.positive_int("log_interval", log_interval)
        planned, made = self.config.updates, float(self._training.agents.step[0])
        if planned is not None and made >= planned:
            given, remedy = f"{total_timesteps} after {made:.0f} updates", "train a new agent"
            raise checks.error("total_timesteps", given, f"a training of {planned} updates, as planned", remedy)
        while left > 0:
            row = self._training.advance(min(interval, left))[0]
            left -= interval
            if callback is not None and callback(self, row) is False:
                break
        return self

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Choose actions, as Stable-Baselines3 calls it.

        Args:
            observation: one observation or a batch of them, in the form of the task's observations or flattened.
            state: returned as it is; policies here have no memory.
            episode_start: not used.
            deterministic: the best by Q of `settings.action_candidates` actions; otherwise a draw from the policy.

        Returns:
            The action or actions, and `state`.

        Raises:
            ValueError: for an observation of another form, or one that is not finite.
        """
        del episode_start
        flat, batch = self.task.flatten(observation)
        self._draws += 1
        # One compiled call and nothing beside it: for one action any further operation costs as much as the policy.
        actions = loop_gym.act_well(
            self.config,
            self._training.agents,
            flat[None],
            self._training.predict_keys,
            self._draws,
            candidates=self.settings.action_candidates if deterministic else 1,
        )
        return np.asarray(actions)[0].reshape(*batch, *self.task.action_space.shape), state

    def sample(self, observation: Any, n: int = 1, seed: int = 0) -> Float[np.ndarray, "..."]:
        """Draw n actions of the policy at every observation; the same arguments give the same numbers.

        Args:
            observation: observations with any leading axes, in the form of the task's observations or flattened.
            n: number of actions.
            seed: seed of the random numbers.

        Returns:
            Actions, shape (..., n, *action shape).

        Raises:
            ValueError: for observations of another form or not finite, n below one or a seed that is not whole.
        """
        flat, batch = self.task.flatten(observation)
        actions = sampling.sample(self.policy, jnp.asarray(flat), sampling.key_of(seed), checks.positive_int("n", n))
        return np.asarray(actions).reshape(*batch, n, *self.task.action_space.shape)

    def sample_and_log_prob(
        self, observation: Any, n: int = 1, seed: int = 0
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Draw the actions of `sample` with log π(a|s), shape (..., n), if the policy has one; see `SAC.sample`."""
        self._needs_density("sample_and_log_prob")
        flat, batch = self.task.flatten(observation)
        key, n = sampling.key_of(seed), checks.positive_int("n", n)
        actions, log_probs = sampling.sample_and_log_prob(self.policy, jnp.asarray(flat), key, n)
        shaped = np.asarray(actions).reshape(*batch, n, *self.task.action_space.shape)
        return shaped, np.asarray(log_probs).reshape(*batch, n)

    def log_prob(self, observation: Any, action: ArrayLike) -> Float[np.ndarray, "..."]:
        """Return log π(a|s), the log-density of actions.

        Args:
            observation: observations with any leading axes, in the form of the task's observations or flattened.
            action: actions; leading axes broadcast against those of the observations.

        Returns:
            The log-densities, of the common leading shape.

        Raises:
            ValueError: for sizes that do not fit, numbers that are not finite, or a policy without a density.
        """
        self._needs_density("log_prob")
        (obs, first), (actions, second) = self.task.flatten(observation), self.task.flatten_action(action)
        try:
            batch = np.broadcast_shapes(first, second)
        except ValueError:
            given = f"leading shapes {first} of the observations and {second} of the actions"
            raise checks.error("action", given, "shapes that broadcast", "use observation[..., None, :]") from None
        pairs = [
            np.broadcast_to(part.reshape(*lead, size), (*batch, size)).reshape(math.prod(batch), size)
            for part, lead, size in ((obs, first, obs.shape[1]), (actions, second, actions.shape[1]))
        ]
        return np.asarray(sampling.log_prob(self.policy, *map(jnp.asarray, pairs))).reshape(batch)

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

    def save(self, path: str | Path, *, replay: bool = False) -> None:
        """Write the agent into a folder.

        Args:
            path: the folder; an agent that is there is replaced.
            replay: write what it remembers of the task, too, and where its environments are, as far as these can be
                captured: once loaded, it learns on as if it had not been saved.
        """
        memory = self._training.state() if replay else None
        parts = self.task, self.settings, self.seed, self.num_timesteps, self._training.agents
        saved.write(Path(path), *parts, training=memory)

    def export(self, path: str | Path, *, best_of: int = 1) -> None:
        """Write what acts as one file that runs without this library: observations and noise to actions.

        Args:
            path: the file, .stablehlo or .onnx; see docs/export.md.
            best_of: actions to draw, of which the best by Q is taken. A single draw comes with its log π(a|s), if the
                policy has a density.

        Raises:
            ValueError: for another ending, or where a package is missing.
        """
        write(path, acting(self.config, self.state, best_of))

    @classmethod
    def load(cls: type[A], path: str | Path, env: Env | None = None, **own: Any) -> A:
        """Read an agent, with its statistics of observations, to use it or to train it on.

        Unless its memory was saved, too, it is empty: it acts by its policy until `learning_starts` transitions are
        stored, then learns again.

        Args:
            path: the folder that `save` wrote.
            env: the task, where files cannot tell it.
            **own: the objects of your own that were among its settings, such as `proposal=mine` or `critic=mine`.

        Returns:
            The agent.

        Raises:
            ValueError: if there is none, it is damaged, or of another algorithm or task, or `own` is not what it needs.
        """
        what, arrays = saved.read(Path(path))
        settings = from_json(what.settings, own)
        if settings.algorithm != what.algorithm:
            given = f"the settings of {settings.algorithm}"
            raise checks.error(str(path), given, f"those of {what.algorithm}", "restore the file")
        if cls.algorithm not in (None, settings.algorithm):
            known = BY_NAME.get(settings.algorithm, SAC).__name__
            given, remedy = f"an agent of {settings.algorithm}", f"load it with {known}"
            raise checks.error(str(path), given, f"one of {cls.algorithm}", remedy)
        kind = BY_NAME.get(settings.algorithm, cls) if cls is SAC else cls
        agent = kind.__new__(kind)
        agent._prepare(what.task_of(path, env), settings, what.seed)
        agent._training.agents = saved.state(agent._training.agents, arrays)
        agent._training.step = what.step
        if what.training is not None:
            with checkpoint.fitting(Path(path)):
                agent._training.restore(what.training, arrays)
        return agent

    def _needs_density(self, method: str) -> None:
        if not self.config.actor.has_density:
            given, remedy = f"a policy of {self.settings.algorithm}, which has none", "use SACISFM or GaussianSAC"
            raise checks.error(method, given, "a policy with a density", remedy)


class SACISFM(SAC):
    """Soft actor-critic with a flow policy, improved by importance sampling flow matching. See `SAC`."""

    algorithm = "sac_isfm"


class GaussianSAC(SAC):
    """Soft actor-critic with a squashed Gaussian policy; all else as in `SACISFM`. See `SAC`."""

    algorithm = "gaussian_sac"


class DenoisingSAC(SAC):
    """Soft actor-critic with a diffusion policy in the style of SDAC, which has no density. See `SAC`."""

    algorithm = "denoising"


BY_NAME: dict[str, type[SAC]] = dict(zip(ACTORS, (SACISFM, GaussianSAC, DenoisingSAC), strict=True))
