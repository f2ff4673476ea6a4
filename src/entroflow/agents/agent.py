"""Agents with the conventions of Stable-Baselines3: `SACISFM("Pendulum-v1", seed=0).learn(10_000)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .. import checks, later, names
from ..storage import checkpoint
from ..storage.folder import cache_compilations
from . import sb3
from .callbacks import Callback, together
from .evaluation import Evaluation, Perturbation, perturb
from .tasks import Env, Task, task

if TYPE_CHECKING:
    import jax

    from .. import compiling, export
    from ..rl import loop_gym, sac
    from . import compiled, learning, progress, sampling, saved
    from . import settings as sets
else:  # what brings JAX waits until the task and the settings are known to be possible
    jax, compiling, export = map(later.Module, ("jax", "entroflow.compiling", "entroflow.export"))
    loop_gym, sac = map(later.Module, ("entroflow.rl.loop_gym", "entroflow.rl.sac"))
    _OWN = "compiled", "learning", "progress", "sampling", "saved", "settings"
    compiled, learning, progress, sampling, saved, sets = (later.Module(f"{__package__}.{name}") for name in _OWN)

A = TypeVar("A", bound="SAC")


class SAC:
    """One agent on one task: soft actor-critic with any actor and any critic.

    `SACISFM`, `GaussianSAC` and `DenoisingSAC` are this with an actor of their own; so is `SAC(env, actor=mine)`.

    Args:
        *given: the environment, `env`, alone; Stable-Baselines3's "MlpPolicy" may stand before it.
        env: the id of a registered environment, an environment from `gymnasium.make`, a function that makes one, or a
            `FunctionalEnv`, with which all is compiled.
        seed: seed of everything random.
        preset: settings that belong together: "default", "paper" or "crossq", see docs/algorithm/defaults.md.
        settings: all settings, in place of a preset.
        verbose: what `learn` shows: 0 nothing, 1 a bar or, without a terminal, ten lines; None: a bar or nothing.
        tensorboard_log: folder in which every `learn` makes one of its own, as for `log`.
        **changes: settings to change, such as `num_envs=4`, `candidates=32`, `proposal=mine` or `critic_width=512`,
            by the names that `entroflow settings` lists; or `actor=` and `critic=` altogether. Stable-Baselines3's
            names do what they do there, or are refused.

    Raises:
        ValueError: in one sentence, for a task or a setting that is not possible.
    """

    algorithm: ClassVar[str | None] = None
    verbose: int | None = None
    tensorboard_log: str | Path | None = None
    __signature__ = later.Attribute(lambda kind: sets.signature(kind.__init__, kind.algorithm or "sac_isfm"))

    def __init__(
        self,
        *given: Env,
        env: Env | None = None,
        seed: int = 0,
        preset: str = "default",
        settings: sets.Settings | None = None,
        verbose: int | None = None,
        tensorboard_log: str | Path | None = None,
        **changes: Unpack[names.Named],
    ):
        given = given if env is None else (*given, env)
        found, seed = task(sb3.environment(given, changes.get("policy"))), checks.seed("seed", seed)
        named = sb3.translated(changes, 1 if settings is None else settings.num_envs)
        if settings is None and not named.keys() & {"actor", "critic"}:  # which may have settings of their own
            names.check(named)
        self._prepare(found, sets.begun(self.algorithm, preset, settings, named), seed)
        self.verbose, self.tensorboard_log = verbose, tensorboard_log

    def _prepare(self, task: Task, settings: sets.Settings, seed: int) -> None:
        compiling.refuse_forks()
        if self.algorithm not in (None, settings.algorithm):
            remedy = "use entroflow.SAC, which takes any"
            raise checks.error("settings", f"those of {settings.algorithm}", f"those of {self.algorithm}", remedy)
        cache_compilations()
        self.task, self.settings, self.seed = task, settings, seed
        self._training = compiled.training_of(task, settings, [seed])
        self._draws = 0  # made by `predict`

    def __repr__(self) -> str:
        """Say what it is: task, seed and what is not as by default, then sizes and how far it is."""
        given = "".join(f", {name}={value!r}" for name, value in sets.changed(self.settings).items())
        sizes = f"{self.task.obs_size} observations, {self.task.action_size} actions, {self.num_timesteps:,} steps made"
        return f"<{type(self).__name__}({self.task.name!r}, seed={self.seed}{given}): {sizes}>"

    @property
    def num_timesteps(self) -> int:
        """Environment steps made so far."""
        return self._training.step

    @property
    def state(self) -> sac.State:
        """The learner's state, with which `entroflow.rl.policy` makes the policy."""
        compiling.refuse_forks()
        return jax.tree.map(lambda leaf: leaf[0], self._training.agents)

    @property
    def config(self) -> sac.Config:
        """Settings of soft actor-critic, with the target entropy of this task."""
        return self._training.config

    @property
    def policy(self) -> Any:
        """The policy that acts, in JAX: of a flow, a `FlowPolicy`."""
        return sac.policy(self.config, self.state, average=True)

    def learn(
        self: A,
        total_timesteps: int,
        callback: Callback | Sequence[Callback] | None = None,
        log_interval: int = 1000,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = False,
        progress_bar: bool | None = None,
        *,
        log: str | Path | None = None,
        resume: bool = False,
        evaluate_every: int = 5000,
        evaluation_episodes: int = 10,
    ) -> A:
        """Train.

        Args:
            total_timesteps: environment steps to make, on top of those made.
            callback: called every `log_interval` steps with the agent and a row of what happened since: step, the mean
                return and length of the training episodes that ended, and the learner's metrics. False ends training.
                Or several; `entroflow.agents.callbacks` has some.
            log_interval: environment steps between calls.
            tb_log_name: name of the folder that is made in `tensorboard_log`; the algorithm's if not given.
            reset_num_timesteps: not possible: steps are counted on.
            progress_bar: whether to show a bar, whatever `verbose` says.
            log: folder for records, evaluations, checkpoints and a learning curve, as `entroflow train` writes them.
            resume: go on from the last checkpoint in `log`, if there is one, with all that was learned and seen there.
                A new agent then ends at step `total_timesteps` of the run, one that has made steps as many later.
            evaluate_every: environment steps between evaluations, each with a checkpoint, where there is a `log`.
            evaluation_episodes: episodes of each. With `resume` both must be as the run has them.

        Returns:
            The agent itself.

        Raises:
            ValueError: if a number is no whole one above zero, a plan has come to its end, or the folder will not do.
            NotFinite: if the environment or the learner gives a number that is not finite. Learning can go on; if it
                was the learner's, from the agent as it was at most `log_interval` steps before.
        """
        compiling.refuse_forks()
        sb3.refuse_reset(reset_num_timesteps, self.num_timesteps)
        if resume and log is None:
            raise checks.error("resume", "True", "the folder of a run to go on with", "pass it, as in log=FOLDER")
        if log is None and self.tensorboard_log is not None:
            log = learning.numbered(Path(self.tensorboard_log), tb_log_name or self.settings.algorithm)
        tell, console = together(callback), progress.console_of(self.verbose, progress_bar)
        plan = {"total_timesteps": total_timesteps, "log_interval": log_interval}
        plan |= {"evaluate_every": evaluate_every, "evaluation_episodes": evaluation_episodes}
        learning.learn(self._training, plan, console, lambda row: tell(self, row), log, resume=resume)
        return self

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Choose actions, as Stable-Baselines3 calls it.

        Args:
            observation: one observation or a batch of them, in the form of the task's observations or flattened.
            state: returned as it is; policies here have no memory.
            episode_start: not used.
            deterministic: of `settings.action_candidates` new draws the one with the highest Q; otherwise one draw.

        Returns:
            The action or actions, and `state`.

        Raises:
            ValueError: for an observation of another form, or one that is not finite.
        """
        del episode_start
        flat, batch = self.task.flatten(observation)
        self._draws += 1
        # One compiled call and nothing beside it: for one action any further operation costs as much as the policy.
        count = self.settings.action_candidates if deterministic else 1
        seen = self._training.agents, flat[None], self._training.predict_keys, self._draws
        actions = loop_gym.act_well(self.config, *seen, candidates=count)
        return np.asarray(actions)[0].reshape((*batch, *self.task.action_space.shape)), state

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
        key, n = sampling.key_of(seed), checks.positive_int("n", n)
        actions = sampling.draw(self.policy, "sample", jax.numpy.asarray(flat), key, n)
        return np.asarray(actions).reshape((*batch, n, *self.task.action_space.shape))

    def sample_and_log_prob(
        self, observation: Any, n: int = 1, seed: int = 0
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Draw the actions of `sample` with log π(a|s), shape (..., n), if the policy has one; see `SAC.sample`."""
        sampling.needs_density("sample_and_log_prob", self.config.actor)
        flat, batch = self.task.flatten(observation)
        key, n = sampling.key_of(seed), checks.positive_int("n", n)
        actions, log_probs = sampling.draw(self.policy, "sample_and_log_prob", jax.numpy.asarray(flat), key, n)
        shaped = np.asarray(actions).reshape(*batch, n, *self.task.action_space.shape)
        return shaped, np.asarray(log_probs).reshape(*batch, n)

    def log_prob(self, observation: Any, action: ArrayLike) -> Float[np.ndarray, "..."]:
        """Return log π(a|s), the log-density of actions.

        Args:
            observation: as in `SAC.sample`.
            action: actions; leading axes broadcast against those of the observations.

        Returns:
            The log-densities, of the common leading shape.

        Raises:
            ValueError: for sizes that do not fit, numbers that are not finite, or a policy without a density.
        """
        sampling.needs_density("log_prob", self.config.actor)
        pairs, batch = sampling.paired(*self.task.flatten(observation), *self.task.flatten_action(action))
        return np.asarray(sampling.log_prob(self.policy, *map(jax.numpy.asarray, pairs))).reshape(batch)

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
            deterministic: as in `SAC.predict`.
            seed: seed of the first episode's reset; the next ones count up.
            perturbation: what to change about the task; nothing if not given.

        Returns:
            Returns and lengths.

        Raises:
            ValueError: for a number of episodes or a seed that cannot be, or a task that cannot be perturbed like that.
        """
        episodes, seed = checks.positive_int("n_episodes", n_episodes), checks.seed("seed", seed)
        changed = perturb(self.task, Perturbation() if perturbation is None else perturbation)
        rows = self._training.evaluate(episodes, deterministic=deterministic, seed=seed, task=changed)
        return Evaluation(np.array([row["return"] for row in rows]), np.array([row["length"] for row in rows], float))

    def save(self, path: str | Path, *, replay: bool = False) -> None:
        """Write the agent into a folder.

        Args:
            path: the folder; an agent that is there is replaced, a file or a run's folder refused (`ValueError`).
            replay: write the replay buffer, too, and the state of the environments, as far as that can be captured:
                once loaded, it learns on as if it had not been saved.
        """
        parts = self.task, self.settings, self.seed, self.num_timesteps, self._training.agents
        saved.write(Path(path), *parts, training=self._training.state() if replay else None)

    def export(self, path: str | Path, *, best_of: int = 1) -> None:
        """Write what acts as one file that runs without this library: observations and noise to actions.

        Args:
            path: the file, .stablehlo, .onnx or .h; see docs/export.md and docs/deploy-c.md.
            best_of: actions to draw, of which the best by Q is taken. A single draw comes with its log π(a|s), if the
                policy has a density.

        Raises:
            ValueError: for another ending, or where a package is missing.
        """
        export.write(path, export.acting(self.config, self.state, best_of))

    @classmethod
    def load(cls: type[A], path: str | Path, env: Env | None = None, **own: Any) -> A:
        """Read an agent, with its statistics of observations, to use it or to train it on.

        Unless it was saved with `replay=True`, its replay buffer is empty: when it is trained on, it first acts by its
        policy until `learning_starts` transitions are stored.

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
        settings = what.settings_of(path, own)
        if cls.algorithm not in (None, settings.algorithm):
            remedy = f"load it with {BY_NAME.get(settings.algorithm, SAC).__name__}"
            raise checks.error(str(path), f"an agent of {settings.algorithm}", f"one of {cls.algorithm}", remedy)
        kind = BY_NAME.get(settings.algorithm, cls) if cls is SAC else cls
        agent = kind.__new__(kind)
        agent._prepare(what.task_of(path, env), settings, what.seed)
        agent._training.agents, agent._training.step = saved.state(agent._training.agents, arrays), what.step
        if what.training is not None:
            with checkpoint.fitting(Path(path)):
                agent._training.restore(what.training, arrays)
        return agent

    if not TYPE_CHECKING:  # or any name would do for a type checker
        __getattr__ = sb3.explained


class SACISFM(SAC):
    """Soft actor-critic with a flow policy, improved by importance sampling flow matching. See `SAC`."""

    algorithm = "sac_isfm"


class GaussianSAC(SAC):
    """Soft actor-critic with a squashed Gaussian policy; all else as in `SACISFM`. See `SAC`."""

    algorithm = "gaussian_sac"


class DenoisingSAC(SAC):
    """Soft actor-critic with a diffusion policy in the style of SDAC, which has no density. See `SAC`."""

    algorithm = "denoising"


BY_NAME: dict[str, type[SAC]] = dict(zip(names.ALGORITHMS, (SACISFM, GaussianSAC, DenoisingSAC), strict=True))
