"""A training: runs of one algorithm on one Gymnasium task, which differ in their seeds and learn in one program."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import SyncVectorEnv
from jaxtyping import Array, ArrayLike, Float, Key

from .. import checks
from ..flow import ActionSpace
from ..rl import buffer, loop_gym, sac
from ..types import Transition
from .settings import Settings
from .tasks import Task

Row = dict[str, Any]


class NotFinite(FloatingPointError):
    """A number that is not finite stopped training; the message says which, where and when."""


class Training:
    """Runs of one algorithm on one task, side by side.

    Attributes:
        task: the task.
        settings: the settings.
        seeds: one seed per run.
        config: settings of soft actor-critic, with the target entropy of this task.
        loop: what learning reads and writes.
        step: steps that every run has made, in all of its environments together.
    """

    def __init__(self, task: Task, settings: Settings, seeds: Sequence[int], steps: int | None = None):
        """Prepare runs that have made no step.

        Args:
            task: the task.
            settings: the settings.
            seeds: one seed per run.
            steps: steps that will be made in all, if that is known: no more memory is used than they need.
        """
        self.task, self.settings, self.seeds = task, settings, [checks.seed("seed", seed) for seed in seeds]
        self.config = dataclasses.replace(settings.config, target_entropy=_target_entropy(task, settings))
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(jnp.stack([jax.random.key(s) for s in self.seeds]))
        self._act_keys, self._evaluate_keys = keys[:, 1], jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys[:, 2])
        numbers = jnp.float32(settings.temperature), jnp.float32(settings.discount)
        agents = _init(self.config, keys[:, 0], task.obs_size, task.policy_space(), *numbers)
        capacity = _capacity(settings, steps)
        learn_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys[:, 2])
        sizes = {"obs_size": task.obs_size, "action_size": task.action_size}
        self.loop = loop_gym.start(agents, learn_keys, capacity=capacity, **sizes)
        self.step = 0
        self._updates = 0
        self._envs: SyncVectorEnv | None = None
        self._pending: Transition | None = None
        self._metrics: list[loop_gym.Metrics] = []

    @property
    def agents(self) -> sac.State:
        """States of soft actor-critic, leaves of shape (runs, ...)."""
        return self.loop.agent

    def advance(self, steps: int) -> list[Row]:
        """Make steps in the environments, and the updates that belong to them.

        Args:
            steps: steps of every run, rounded up to a multiple of its number of environments.

        Returns:
            One row per run: seed, step, the mean return and length of the training episodes that ended, their number,
            and the learner's metrics averaged over the updates.

        Raises:
            NotFinite: if an environment returns a number that is not finite, or the learner's metrics are not.
        """
        if self._envs is None:
            self._reset()
        assert self._envs is not None
        count = self.settings.num_envs
        ended: list[list[tuple[float, int]]] = [[] for _ in self.seeds]
        target = self.step + steps
        while self.step < target:
            # The action waits for the last update; the next one then runs while the environments step.
            actions = self._act(self._obs)
            self._learn()
            following, reward, terminated, truncated, info = self._envs.step(
                actions.reshape(-1, *self.task.action_space.shape)
            )
            final = following.copy()
            for i in np.flatnonzero(info.get("_final_obs", ())):
                final[i] = info["final_obs"][i]
            self.step += count
            self._check(final, reward)
            parts = self._obs, actions, reward, final, terminated, truncated
            self._pending = self._transition(*parts)
            self._obs = following.astype(np.float32)
            self._returns += reward
            self._lengths += 1
            for i in np.flatnonzero(terminated | truncated):
                ended[i // count].append((float(self._returns[i]), int(self._lengths[i])))
                self._returns[i], self._lengths[i] = 0.0, 0
        return self._rows(ended)

    def evaluate(
        self, episodes: int, *, deterministic: bool = True, seed: int = 0, task: Task | None = None
    ) -> list[Row]:
        """Run whole episodes with the policies as they are.

        Args:
            episodes: number of episodes of every run.
            deterministic: take the best by Q of `action_candidates` actions; otherwise draw from the policy.
            seed: seed of the first episode's reset; the next ones count up. The same for all runs.
            task: the task to run them in, if not the one of the training.

        Returns:
            One row per run and episode: seed, step, episode, return and length.
        """
        envs, runs = (task or self.task).vector(len(self.seeds) * episodes), len(self.seeds)
        obs, _ = envs.reset(seed=[seed + i for _ in self.seeds for i in range(episodes)])
        returns, lengths = np.zeros((2, runs * episodes))
        alive = np.ones(runs * episodes, bool)
        candidates = self.settings.action_candidates if deterministic else 1
        step = 0
        while alive.any():
            grouped = jnp.asarray(obs.reshape(runs, episodes, -1).astype(np.float32))
            actions = loop_gym.act_well(
                self.config, self.agents, grouped, self._evaluate_keys, step, candidates=candidates
            )
            flat = np.asarray(actions).reshape(-1, *self.task.action_space.shape)
            obs, reward, terminated, truncated, _ = envs.step(flat)
            returns += alive * reward
            lengths += alive
            alive &= ~(terminated | truncated)
            step += 1
        envs.close()
        return [
            {
                "seed": self.seeds[i // episodes],
                "step": self.step,
                "episode": i % episodes,
                "return": float(returns[i]),
                "length": int(lengths[i]),
            }
            for i in range(runs * episodes)
        ]

    def state(self) -> tuple[dict[str, Any], dict[str, int]]:
        """Return what a checkpoint holds, a tree of arrays and numbers, without environments and open episodes."""
        return {"loop": self.loop, "pending": self._pending}, {"step": self.step, "updates": self._updates}

    def restore(self, tree: dict[str, Any], numbers: dict[str, int]) -> None:
        """Go on from what `state` returned; the environments begin new episodes."""
        self.close()
        self.loop, self._pending = tree["loop"], tree["pending"]
        self.step, self._updates, self._metrics = numbers["step"], numbers["updates"], []

    def extend(self, steps: int) -> None:
        """Make room in memory for a longer training than was planned.

        Args:
            steps: steps that will be made in all.
        """
        have, wanted = self.loop.replay.reward.shape[1], _capacity(self.settings, steps)
        if have < wanted and int(self.loop.count) <= have:
            replay = jax.vmap(lambda replay: buffer.grow(replay, wanted))(self.loop.replay)
            self.loop = dataclasses.replace(self.loop, replay=replay)

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def _reset(self) -> None:
        """Make the environments, every one with a seed of its own that depends on its run's seed only."""
        count = self.settings.num_envs
        self._envs = self.task.vector(len(self.seeds) * count)
        # Environments that start again after a resumption must not repeat their first episodes.
        draws = [np.random.SeedSequence([seed, self.step]).generate_state(count) for seed in self.seeds]
        obs, _ = self._envs.reset(seed=[int(number) for draw in draws for number in draw])
        self._check(obs, np.zeros(len(obs)))
        self._obs = obs.astype(np.float32)
        self._returns, self._lengths = np.zeros(len(obs)), np.zeros(len(obs), int)

    def _act(self, obs: Float[np.ndarray, "runs_e n"]) -> Float[np.ndarray, "runs e d"]:
        explore = self.step < self.settings.learning_starts
        grouped = jnp.asarray(obs.reshape(len(self.seeds), self.settings.num_envs, -1))
        return np.asarray(loop_gym.act(self.config, self.agents, grouped, self._act_keys, self.step, explore=explore))

    def _transition(
        self, obs: Any, actions: Any, reward: Any, final: Any, terminated: Any, truncated: Any
    ) -> Transition:
        """Return a step of all environments with leaves of shape (runs, environments, ...), numbers as float32."""
        parts = obs, reward.astype(np.float32), final.astype(np.float32), terminated, truncated
        lead = len(self.seeds), self.settings.num_envs
        obs, reward, final, terminated, truncated = (
            jnp.asarray(part.reshape(*lead, *part.shape[1:])) for part in parts
        )
        return Transition(obs, jnp.asarray(actions), reward, final, terminated, truncated)

    def _learn(self) -> None:
        """Store the last transitions; once there are enough, make the updates that belong to one step."""
        transitions, self._pending = self._pending, None
        if transitions is None:
            return
        if self.step <= self.settings.learning_starts:
            self.loop = loop_gym.remember(self.loop, transitions)
            return
        for _ in range(self.settings.updates_per_step * self.settings.num_envs):
            improve = self._updates % self.settings.policy_delay == 0
            self.loop, metrics = loop_gym.learn(self.config, self.loop, transitions, improve=improve)
            self._metrics.append(metrics)
            self._updates, transitions = self._updates + 1, None

    def _rows(self, ended: list[list[tuple[float, int]]]) -> list[Row]:
        """Average what happened since the last rows."""
        metrics, self._metrics = self._metrics, []
        names = dict.fromkeys(name for part in metrics for name in part)
        means = {name: np.mean([part[name] for part in metrics if name in part], axis=0) for name in names}
        rows = []
        for i, (seed, episodes) in enumerate(zip(self.seeds, ended, strict=True)):
            returns, lengths = (np.mean(part) for part in zip(*episodes, strict=True)) if episodes else (None, None)
            row = {"seed": seed, "step": self.step, "return": returns, "length": lengths, "episodes": len(episodes)}
            row |= {name: float(mean[i]) for name, mean in means.items()}
            if self.config.target_entropy is not None:
                row["target_entropy"] = self.config.target_entropy
            rows.append(row)
        for name, mean in means.items():
            if not np.isfinite(mean).all():
                seed = self.seeds[int(np.flatnonzero(~np.isfinite(mean))[0])]
                raise NotFinite(f"{name} of the run with seed {seed} is not finite at step {self.step}")
        return rows

    def _check(self, obs: Float[np.ndarray, "runs_e n"], reward: Float[np.ndarray, " runs_e"]) -> None:
        """Stop at the first number from an environment that is not finite."""
        if np.isfinite(reward).all() and np.isfinite(obs).all():
            return
        what, values = ("reward", reward[:, None]) if not np.isfinite(reward).all() else ("observation", obs)
        i = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        seed = self.seeds[i // self.settings.num_envs]
        raise NotFinite(f"{self.task.name} returned an {what} that is not finite at step {self.step}, seed {seed}")


@partial(jax.jit, static_argnames=("config", "obs_size"))
def _init(
    config: sac.Config,
    keys: Key[Array, " runs"],
    obs_size: int,
    space: ActionSpace,
    temperature: Float[ArrayLike, ""],
    discount: Float[ArrayLike, ""],
) -> sac.State:
    """Make the agents of all runs."""
    numbers = {"temperature": jnp.asarray(temperature), "discount": jnp.asarray(discount)}
    return jax.vmap(lambda key: sac.init(config, key, obs_size=obs_size, action_space=space, **numbers))(keys)


def _capacity(settings: Settings, steps: int | None) -> int:
    """Return how many transitions to remember: no more than there will be, a multiple of the environments."""
    wanted = settings.buffer_size if steps is None else min(settings.buffer_size, steps + settings.num_envs)
    return -(-wanted // settings.num_envs) * settings.num_envs


def _target_entropy(task: Task, settings: Settings) -> float | None:
    """Return the target entropy in the units of the task's actions."""
    if settings.target_entropy == "auto":
        return -float(task.action_size) + task.entropy_of_unit()
    return None if settings.target_entropy is None else float(settings.target_entropy)
