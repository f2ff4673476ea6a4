"""A training: runs of one algorithm on one Gymnasium task, which differ in their seeds and learn in one program."""

import dataclasses
import fractions
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, UInt

from .. import checks
from ..compiling import RUN_ONCE, jit
from ..flow import ActionSpace
from ..rl import finite, loop_gym, sac
from ..storage import checkpoint, environment_state, legacy
from ..types import Transition
from .settings import Settings
from .tasks import Task

Row = dict[str, Any]


class NotFinite(FloatingPointError):
    """A number that is not finite stopped training; the message says which, where and when."""


class Training:
    """Runs of one algorithm on one task, side by side.

    Args:
        task: the task.
        settings: the settings.
        seeds: one seed per run.
        steps: steps that will be made in all, if that is known: no more memory is used than they need.

    Raises:
        ValueError: for a seed that is none.

    Attributes:
        config: settings of soft actor-critic, with the target entropy of this task.
        step: steps that every run has made, in all of its environments together.
        obstacle: why the environments' state is not in a checkpoint, or was not restored from one; None if it is.
    """

    def __init__(self, task: Task, settings: Settings, seeds: Sequence[int], steps: int | None = None):
        self.task, self.settings, self.seeds = task, settings, [checks.seed("seed", seed) for seed in seeds]
        self.config = dataclasses.replace(settings.config, target_entropy=_target_entropy(task, settings))
        numbers = np.float32(settings.temperature), np.float32(settings.discount)
        given = np.array(self.seeds, np.uint32), task.obs_size, task.policy_space()
        self._agents, keys = _init(self.config, *given, *numbers)
        self._act_keys, self._evaluate_keys, self._learn_keys = keys["act"], keys["evaluate"], keys["learn"]
        self.predict_keys = keys["predict"]
        self._capacity = _capacity(settings, steps)
        self._loop: loop_gym.Loop | None = None  # made when learning begins, for the replay is large
        self.step = 0
        self._stored = 0  # transitions of each run, which a loaded agent does not bring along
        self._updates = 0
        self._rollout: loop_gym.Rollout | None = None
        self._pending: Transition | None = None
        self._metrics: dict[str, list[Any]] = {}
        self.obstacle: str | None = None

    @property
    def agents(self) -> sac.State:
        """States of soft actor-critic, leaves of shape (runs, ...)."""
        return self._agents if self._loop is None else self._loop.agent

    @agents.setter
    def agents(self, agents: sac.State) -> None:
        self._agents, self._loop, self._stored = agents, None, 0

    @property
    def loop(self) -> loop_gym.Loop:
        """What learning reads and writes."""
        if self._loop is None:
            sizes = {"obs_size": self.task.obs_size, "action_size": self.task.action_size}
            self._loop = loop_gym.start(self._agents, self._learn_keys, capacity=self._capacity, **sizes)
        return self._loop

    @loop.setter
    def loop(self, loop: loop_gym.Loop) -> None:
        self._loop = loop

    def advance(self, steps: int, stop: Callable[[], bool] = lambda: False) -> list[Row]:
        """Make steps in the environments, and the updates that belong to them.

        Args:
            steps: steps of every run, rounded up to a multiple of its number of environments.
            stop: asked before every step whether to leave it at that.

        Returns:
            One row per run: seed, step, the mean return and length of the training episodes that ended since the last
            rows, their number, and the learner's metrics averaged over the updates. None if it was stopped.

        Raises:
            NotFinite: if an environment returns a number that is not finite, or the learner's metrics are not.
        """
        rollout = self._rolling_out()
        target = self.step + steps
        while self.step < target:
            if stop():
                return []
            # The action waits for the last update; the next one then runs while the environments step.
            actions = self._act(rollout.obs)
            self._check_learner()
            self._learn()
            transitions = rollout.step(actions)
            self.step += self.settings.num_envs
            self._check(np.asarray(transitions.next_obs), np.asarray(transitions.reward))
            self._pending = transitions
        self._check_learner()
        return self._rows(rollout)

    def evaluate(
        self,
        episodes: int,
        *,
        deterministic: bool = True,
        seed: int = 0,
        task: Task | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Row]:
        """Run whole episodes with the policies as they are.

        Args:
            episodes: number of episodes of every run.
            deterministic: take the best by Q of `action_candidates` actions; otherwise draw from the policy.
            seed: seed of the first episode's reset; the next ones count up. The same for all runs.
            task: the task to run them in, if not the one of the training.
            stop: asked before every step whether to leave it at that.

        Returns:
            One row per run and episode: seed, step, episode, return and length. None if it was stopped.
        """
        envs, runs = (task or self.task).vector(len(self.seeds) * episodes), len(self.seeds)
        obs, _ = envs.reset(seed=[seed + i for _ in self.seeds for i in range(episodes)])
        returns, lengths = np.zeros((2, runs * episodes))
        alive = np.ones(runs * episodes, bool)
        candidates = self.settings.action_candidates if deterministic else 1
        step = 0
        while alive.any() and not stop():
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
        if alive.any():
            return []
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

    def state(self) -> tuple[dict[str, Any], checkpoint.Arrays]:
        """Return all that going on needs: numbers in types that JSON knows, and arrays.

        Of the replay, only what is filled. Where the environments' state is not known, `obstacle` says so, and their
        episodes are left behind.

        Raises:
            NotFinite: if the last update left a number that is not finite.
        """
        self._check_learner()
        parts = vars(self.loop) | {"replay": self._filled(self.loop.replay)}
        arrays = checkpoint.flatten("loop", parts) | checkpoint.flatten("pending", self._pending)
        arrays |= {f"metrics.{name}": np.stack(parts) for name, parts in self._metrics.items()}
        numbers = {"step": self.step, "updates": self._updates, "remembered": int(self.loop.count), "envs": None}
        rollout, ended = self._rollout, []
        if rollout is not None:
            ended = [(i, *episode) for i, episodes in enumerate(rollout.ended) for episode in episodes]
            try:
                numbers["envs"], more = environment_state.capture(rollout.envs)
                obs = rollout.obs.reshape(-1, rollout.obs.shape[-1])
                arrays |= more | {"obs": obs, "returns": rollout.returns, "lengths": rollout.lengths}
            except environment_state.NotCaptured as problem:
                self.obstacle = str(problem)
        arrays["ended"] = np.array(ended, np.float64).reshape(-1, 3)
        return numbers, arrays

    def restore(self, numbers: dict[str, Any], arrays: checkpoint.Arrays) -> None:
        """Go on from what `state` returned; `obstacle` tells why, if the environments begin new episodes.

        Args:
            numbers: what it returned first.
            arrays: what it returned second.

        Raises:
            ValueError: if the arrays are not those of such a training.
        """
        self.close()
        if "loop.agent.critic.q.layers.0.weight" not in arrays:
            arrays = legacy.renamed(arrays)
        capacity = self.loop.replay.reward.shape[1]
        full = {n: _with_room(part, capacity) for n, part in arrays.items() if n.startswith("loop.replay.")}
        shapes = jax.eval_shape(lambda: self.loop)
        self.loop = checkpoint.unflatten("loop", shapes, arrays | full)
        if numbers["step"]:
            count = self.settings.num_envs
            pending = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((leaf.shape[0], count, *leaf.shape[2:]), leaf.dtype), shapes.replay
            )
            self._pending = checkpoint.unflatten("pending", pending, arrays)
        self.step, self._updates, self._stored = numbers["step"], numbers["updates"], numbers["remembered"]
        self._metrics = {
            name.removeprefix("metrics."): list(parts) for name, parts in arrays.items() if name.startswith("metrics.")
        }
        rollout = self._rolling_out()
        if numbers["envs"] is not None:
            try:
                environment_state.restore(rollout.envs, numbers["envs"], arrays)
                rollout.obs = arrays["obs"].reshape(rollout.obs.shape)
                rollout.returns, rollout.lengths = arrays["returns"], arrays["lengths"]
            except environment_state.NotCaptured as problem:
                self.close()
                rollout = self._rolling_out()
                self.obstacle = str(problem)
        rollout.ended = [
            [(float(total), int(length)) for run, total, length in arrays["ended"] if run == i]
            for i in range(len(self.seeds))
        ]

    def close(self) -> None:
        """Close the environments."""
        if self._rollout is not None:
            self._rollout.envs.close()
            self._rollout = None

    def _filled(self, replay: Transition) -> Any:
        """Return the transitions that are in a replay so far, without copying them where NumPy can look at them."""
        filled = min(int(self.loop.count), replay.reward.shape[1])
        return jax.tree.map(lambda ring: np.asarray(ring)[:, :filled], replay)

    def _rolling_out(self) -> loop_gym.Rollout:
        """Return the environments; at first make them, each with a seed of its own that depends on its run's alone."""
        if self._rollout is None:
            count = self.settings.num_envs
            # Environments that start again after a resumption must not repeat their first episodes.
            draws = [np.random.SeedSequence([seed, self.step]).generate_state(count) for seed in self.seeds]
            seeds = [int(number) for draw in draws for number in draw]
            self._rollout = loop_gym.Rollout(self.task.vector(len(seeds)), len(self.seeds), seeds)
            self._check(self._rollout.obs, np.zeros(self._rollout.obs.shape[:2]))
        return self._rollout

    def _act(self, obs: Float[np.ndarray, "runs e n"]) -> Float[np.ndarray, "runs e d"]:
        explore = self.step < self.settings.learning_starts
        actions = loop_gym.act(self.config, self.agents, jnp.asarray(obs), self._act_keys, self.step, explore=explore)
        return np.asarray(actions)

    def _learn(self) -> None:
        """Store the last transitions; once there are enough, make the updates that belong to one step."""
        transitions, self._pending = self._pending, None
        if transitions is None:
            return
        count = self.settings.num_envs
        self._stored += count
        # Counted from the last step without updates, so that no fraction of one is lost, nor has to be stored.
        steps = self._stored - self.settings.learning_starts // count * count
        ratio = fractions.Fraction(str(self.settings.updates_per_step))
        due = int(ratio * steps) - int(ratio * (steps - count)) if self._stored > self.settings.learning_starts else 0
        if due == 0:
            self.loop = loop_gym.remember(self.loop, transitions)
        for _ in range(due):
            update_policy = self._updates % self.settings.policy_delay == 0
            self.loop, metrics = loop_gym.learn(self.config, self.loop, transitions, update_policy=update_policy)
            for name, value in metrics.items():
                self._metrics.setdefault(name, []).append(value)
            self._updates, transitions = self._updates + 1, None

    def _rows(self, rollout: loop_gym.Rollout) -> list[Row]:
        """Average what happened since the last rows."""
        means = {name: np.mean(parts, axis=0) for name, parts in self._metrics.items()}
        rows = []
        for i, (seed, episodes) in enumerate(zip(self.seeds, rollout.ended, strict=True)):
            returns, lengths = (np.mean(part) for part in zip(*episodes, strict=True)) if episodes else (None, None)
            row = {"seed": seed, "step": self.step, "return": returns, "length": lengths, "episodes": len(episodes)}
            row |= {name: float(mean[i]) for name, mean in means.items()}
            if self.config.target_entropy is not None:
                row["target_entropy"] = self.config.target_entropy
            rows.append(row)
        self._metrics, rollout.ended = {}, [[] for _ in self.seeds]
        return rows

    def _check_learner(self) -> None:
        """Stop at the first update that left a number that is not finite; the update is done when this is called."""
        faults = np.zeros(1) if self._loop is None else np.asarray(self._loop.fault)
        if faults.any():
            i = int(np.flatnonzero(faults)[0])
            metrics = {name: np.stack(parts)[:, i] for name, parts in self._metrics.items()}
            what = finite.describe(int(faults[i]), metrics)
            raise NotFinite(f"{what} of the run with seed {self.seeds[i]} is not finite at step {self.step}")

    def _check(self, obs: Float[np.ndarray, "runs e n"], reward: Float[np.ndarray, "runs e"]) -> None:
        """Stop at the first number from an environment that is not finite in single precision."""
        for what, values in {"reward": reward[..., None], "observation": obs}.items():
            bad = ~np.isfinite(values).all(axis=(1, 2))
            if bad.any():
                seed = self.seeds[int(np.argmax(bad))]
                raise NotFinite(
                    f"{self.task.name} returned an {what} that is not finite at step {self.step}, seed {seed}"
                )


def _with_room(ring: np.ndarray, capacity: int) -> np.ndarray:
    """Return transitions, an array of shape (runs, fewer, ...), with room for more."""
    full = np.zeros((ring.shape[0], max(capacity, ring.shape[1]), *ring.shape[2:]), ring.dtype)
    full[:, : ring.shape[1]] = ring
    return full


@jit(RUN_ONCE, static_argnames=("config", "obs_size"))
def _init(
    config: sac.Config,
    seeds: UInt[ArrayLike, " runs"],
    obs_size: int,
    space: ActionSpace,
    temperature: Float[ArrayLike, ""],
    discount: Float[ArrayLike, ""],
) -> tuple[sac.State, dict[str, Key[Array, " runs"]]]:
    """Make the agents of all runs, and the random keys by which these act, learn, are evaluated and predict."""
    numbers = {"temperature": jnp.asarray(temperature), "discount": jnp.asarray(discount)}

    def one(seed: UInt[Array, ""]) -> tuple[sac.State, dict[str, Key[Array, ""]]]:
        agent_key, act_key, other_key = jax.random.split(jax.random.key(seed), 3)
        agent = sac.init(config, agent_key, obs_size=obs_size, action_space=space, **numbers)
        keys = {name: jax.random.fold_in(other_key, i) for i, name in enumerate(("evaluate", "learn", "predict"))}
        return agent, {"act": act_key} | keys

    return jax.vmap(one)(jnp.asarray(seeds))


def _capacity(settings: Settings, steps: int | None) -> int:
    """Return how many transitions to remember: no more than there will be, a multiple of the environments."""
    wanted = settings.buffer_size if steps is None else min(settings.buffer_size, steps + settings.num_envs)
    return -(-wanted // settings.num_envs) * settings.num_envs


def _target_entropy(task: Task, settings: Settings) -> float | None:
    """Return the target entropy in the units of the task's actions."""
    if settings.target_entropy == "auto":
        return -float(task.action_size) + task.entropy_of_unit()
    return None if settings.target_entropy is None else float(settings.target_entropy)
