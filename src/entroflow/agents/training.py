"""A training: runs of one algorithm on one Gymnasium task, which differ in their seeds and learn in one program."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from operator import index
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, UInt

from .. import checks, memory
from ..compiling import RUN_ONCE, jit, shapes_of
from ..envs.episodes import reset, step, time_limit
from ..flow import ActionSpace
from ..kept import committed
from ..rl import finite, loop_gym, sac
from ..storage import checkpoint, environment_state, legacy
from ..types import Transition
from . import units
from .settings import Settings
from .tasks import Task

Row = dict[str, Any]
Stop = Callable[[], bool]  # by default `bool`, which returns False: never
LIMIT = 10_000  # steps of an episode in an evaluation, unless the task has a longer time limit


class NotFinite(FloatingPointError):
    """A number that is not finite stopped training; the message says which, where and when."""


class Training:
    """Runs of one algorithm on one task, side by side.

    Args:
        task: the task.
        settings: the settings of all runs.
        seeds: one seed per run.
        steps: steps that will be made in all, if that is known: no more memory is used than they need.

    Raises:
        ValueError: for a seed that is none, or an environment that cannot be copied where several are needed.

    Attributes:
        config: settings of soft actor-critic, with the target entropy of this task.
        step: steps that every run has made, in all of its environments together.
        obstacle: why the environments' state is not in a checkpoint, or was not restored from one; None if it is.
    """

    def __init__(self, task: Task, settings: Settings, seeds: Sequence[int], steps: int | None = None):
        self.task, self.settings, self.seeds = task, settings, [checks.seed("seed", seed) for seed in seeds]
        target = task.target_entropy() if settings.target_entropy == "auto" else settings.target_entropy
        self.config = dataclasses.replace(settings.config, target_entropy=None if target is None else float(target))
        numbers = np.float32(settings.temperature), np.float32(settings.discount)
        given = np.array(self.seeds, np.uint32), task.obs_size, task.policy_space(), *numbers
        if task.instance is not None and settings.num_envs * len(self.seeds) > 1:
            task.make()
        wanted = settings.buffer_size if steps is None else min(settings.buffer_size, steps + settings.num_envs)
        self._capacity = -(-wanted // settings.num_envs) * settings.num_envs
        shapes, _ = shapes_of(_init, self.config, *given)
        memory.check(memory.of_training(self, shapes, self._capacity if steps else 0))  # replay: to learn
        agents, keys = committed(_init(self.config, *given))
        self._act_keys, self._evaluate_keys, self._learn_keys, self.predict_keys = keys
        self._learner: sac.State | loop_gym.Loop = agents  # the replay is large, and made when learning begins
        self._good = agents
        self.step = self._updates = 0
        self._rollout: loop_gym.Rollout | None = None
        self._pending: Transition | None = None
        self._metrics: dict[str, list[Any]] = {}
        self.obstacle: str | None = None

    @property
    def agents(self) -> sac.State:
        """States of soft actor-critic, leaves of shape (runs, ...)."""
        return self._learner if isinstance(self._learner, sac.State) else self._learner.agent

    @agents.setter
    def agents(self, agents: sac.State) -> None:
        self._learner = agents

    @property
    def loop(self) -> loop_gym.Loop:
        """What learning reads and writes."""
        if isinstance(self._learner, sac.State):
            sizes = {"obs_size": self.task.obs_size, "action_size": self.task.action_size}
            keys = self._learn_keys  # those of an agent loaded without its memory are other ones than it began with
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, self.step) if self.step else keys
            self._learner = loop_gym.start(self._learner, keys, capacity=self._capacity, **sizes)
        return self._learner

    def advance(self, steps: int, stop: Stop = bool) -> list[Row]:
        """Make steps in the environments, and the updates that belong to them.

        Args:
            steps: steps of every run, rounded up to a multiple of its number of environments.
            stop: asked before every step whether to leave it at that.

        Returns:
            One row per run, none if it was stopped: seed, step, the mean return and length of the training episodes
            that ended since the last rows, their number, and the learner's metrics averaged over the updates.

        Raises:
            NotFinite: for a number that is not finite; where the learner found it, agents are those of the last rows.
            Broken: if an environment fails.
        """
        rollout = self._rolling_out()
        self._good = jax.tree.map(np.array, self.agents)
        target = self.step + steps
        while self.step < target:
            if stop():
                return []
            # The action waits for the last update; the next one then runs while the environments step.
            explore = self.step < self.settings.learning_starts
            actions = loop_gym.act(self.config, self.agents, rollout.obs, self._act_keys, self.step, explore=explore)
            self._check_learner()
            self._learn()
            transitions = rollout.step(np.asarray(actions))
            self.step += self.settings.num_envs
            self._check("a reward", transitions.reward)
            self._check("an observation", transitions.next_obs)
            self._pending = transitions
            self._check("an observation", rollout.obs)  # the first one of a new episode
        self._check_learner()
        ended = [(*np.mean(part, axis=0), len(part)) if part else (None, None, 0) for part in rollout.ended]
        means = {name: np.mean(parts, axis=0) for name, parts in self._metrics.items()}
        self._metrics, rollout.ended = {}, [[] for _ in self.seeds]
        return self._rows(ended, means)

    def evaluate(
        self, episodes: int, *, deterministic: bool = True, seed: int = 0, task: Task | None = None, stop: Stop = bool
    ) -> list[Row]:
        """Run whole episodes with the policies as they are.

        Args:
            episodes: number of episodes of every run.
            deterministic: take the best by Q of `action_candidates` actions; otherwise draw from the policy.
            seed: seed of the first reset of every run; the next ones count up.
            task: the task to run them in, if not the one of the training.
            stop: asked before every step whether to leave it at that.

        Returns:
            One row per run and episode: seed, step, episode, return and length. None if it was stopped.

        Raises:
            NotFinite, Broken: as in `advance`.
        """
        memory.check({"episodes": len(self.seeds) * episodes * memory.ENVIRONMENT})
        runs, shape, steps = len(self.seeds), self.task.action_space.shape, 0
        candidates = self.settings.action_candidates if deterministic else 1
        act = functools.partial(loop_gym.act_well, self.config, self.agents, candidates=candidates)
        totals = np.zeros((2, runs, episodes))  # returns and lengths
        with self._for_evaluation(task or self.task, runs * episodes) as envs:
            at_once, limit = len(envs) // runs, max([LIMIT, *map(time_limit, envs)])
            for first in range(0, episodes, at_once):
                places = [(run, first + i) for run in range(runs) for i in range(at_once)]
                obs = [reset(env, seed + episode) for env, (_, episode) in zip(envs, places, strict=False)]
                alive = [i for i, (_, episode) in enumerate(places) if episode < episodes]
                while alive:
                    if stop():
                        return []
                    grouped = np.reshape(obs, (runs, at_once, -1))
                    self._check("an observation", grouped)
                    actions = np.asarray(act(jnp.asarray(grouped), self._evaluate_keys, steps)).reshape(-1, *shape)
                    steps, going = steps + 1, []
                    for i in alive:
                        obs[i], reward, *ended = step(envs[i], actions[i])
                        totals[:, *places[i]] += reward, 1
                        going += [] if any(ended) else [i]
                    alive = going
                    if alive and totals[1, *places[alive[0]]] == limit:
                        told = f"{self.task.name} did not end within {limit} steps and was cut off there"
                        warnings.warn(f"{told}; give it another limit with gymnasium.wrappers.TimeLimit", stacklevel=3)
                        break
        self._check("a reward", totals[0])
        return self._played(*totals)

    @contextlib.contextmanager
    def _for_evaluation(self, task: Task, count: int) -> Iterator[Sequence[gymnasium.Env]]:
        """Give as many new environments as can be had; if there are none, those of the training, which begin anew."""
        made: list[gymnasium.Env] = []
        taken = [] if self._rollout is None else [env.unwrapped for env in self._rollout.envs]
        try:
            while len(made) < count and (env := task.make()).unwrapped not in taken:
                made.append(env)
                taken.append(env.unwrapped)
        except ValueError:
            if len(made) < len(self.seeds) and task is not self.task:
                raise
        envs = made
        if len(made) < len(self.seeds):
            rollout = self._rolling_out()
            envs, rollout.running = rollout.envs, False
        try:
            yield envs
        finally:
            task.close(made)

    def state(self) -> tuple[dict[str, Any], checkpoint.Arrays]:
        """Return all that going on needs, JSON and arrays; `obstacle` tells what it cannot."""
        self._check_learner()
        filled = min(int(self.loop.count), self._capacity)
        parts = vars(self.loop) | {"replay": jax.tree.map(lambda ring: np.asarray(ring)[:, :filled], self.loop.replay)}
        arrays = checkpoint.flatten("loop", parts) | checkpoint.flatten("pending", self._pending)
        arrays |= {f"metrics.{name}": np.stack(parts) for name, parts in self._metrics.items()}
        rollout, numbers = self._rollout, {"step": self.step, "updates": self._updates, "envs": None}
        ended = [(i, *episode) for i, episodes in enumerate(rollout.ended if rollout else []) for episode in episodes]
        if rollout is not None and rollout.running:  # otherwise episodes begin anew, here as after a resumption
            try:
                numbers["envs"], more = environment_state.capture(rollout.envs)
                obs = rollout.obs.reshape(-1, rollout.obs.shape[-1])
                arrays |= more | {"obs": obs, "returns": rollout.returns, "lengths": rollout.lengths}
            except environment_state.NotCaptured as problem:
                self.obstacle = str(problem)
        arrays["ended"] = np.array(ended, np.float64).reshape(-1, 3)
        return numbers, arrays

    def restore(self, numbers: dict[str, Any], arrays: checkpoint.Arrays) -> None:
        """Go on from what `state` returned; `obstacle` tells why, if the environments begin new episodes."""
        self.close()
        if "loop.agent.critic.q.layers.0.weight" not in arrays:
            arrays = legacy.renamed(arrays)
        shapes = self.loop  # made, not traced: it is compiled with options of its own
        self._learner = committed(checkpoint.unflatten("loop", shapes, self._filled_up(arrays)))
        self._pending = None
        if "pending.reward" in arrays:  # not in those of one that has made no step since it was loaded
            pending = jax.tree.map(lambda ring: ring[:, : self.settings.num_envs], self.loop.replay)
            self._pending = checkpoint.unflatten("pending", pending, arrays)
        self.step, self._updates = index(numbers["step"]), index(numbers["updates"])
        self._metrics = {name[8:]: list(part) for name, part in arrays.items() if name[:8] == "metrics."}
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
        for run, total, length in arrays["ended"]:
            rollout.ended[int(run)].append((float(total), int(length)))

    def _filled_up(self, arrays: checkpoint.Arrays) -> checkpoint.Arrays:
        """Return the arrays with a replay of the full capacity."""
        full = {name: part for name, part in arrays.items() if name.startswith("loop.replay.")}
        for name, part in full.items():
            room = (0, max(0, self._capacity - part.shape[1]))
            full[name] = np.pad(part, [(0, 0), room, *[(0, 0)] * (part.ndim - 2)])
        return arrays | full

    def close(self) -> None:
        """Close the environments."""
        if self._rollout is not None:
            self.task.close(self._rollout.envs)
            self._rollout = None

    def _rolling_out(self) -> loop_gym.Rollout:
        """Return the environments; at first make them, each with a seed of its own that depends on its run's alone."""
        count = self.settings.num_envs
        if self._rollout is None:
            memory.check(memory.of_training(self, self.agents, self._capacity))
            self._rollout = loop_gym.Rollout(self.task.environments(count * len(self.seeds)), len(self.seeds))
            if self.step == 0:
                self._learner = units.begin(self.agents, self._rollout.envs[0], self.settings)
        if not self._rollout.running:
            # Environments that start again after a resumption must not repeat their first episodes.
            draws = [np.random.SeedSequence([seed, self.step]).generate_state(count) for seed in self.seeds]
            self._rollout.begin([int(number) for draw in draws for number in draw])
            self._check("an observation", self._rollout.obs)
        return self._rollout

    def _learn(self) -> None:
        """Store the last transitions; once there are enough, make the updates that belong to one step."""
        transitions, self._pending = self._pending, None
        if transitions is None:
            return
        due = self.settings.updates_due(int(self.loop.count) + self.settings.num_envs)
        if due == 0:
            self._learner = loop_gym.remember(self.loop, transitions)
        for _ in range(due):
            update_policy = self._updates % self.settings.policy_delay == 0
            self._learner, metrics = loop_gym.learn(self.config, self.loop, transitions, update_policy=update_policy)
            for name, value in metrics.items():
                self._metrics.setdefault(name, []).append(value)
            self._updates, transitions = self._updates + 1, None

    def _rows(self, episodes: Sequence[tuple[Any, Any, int]], means: dict[str, Any]) -> list[Row]:
        """Return rows, from the mean return and length of episodes and their number, and from metrics, by run."""
        names, target = ("return", "length", "episodes"), self.config.target_entropy
        last = {} if target is None else {"target_entropy": target}
        heads = [{"seed": seed, "step": self.step} for seed in self.seeds]
        parts = [dict(zip(names, ended, strict=True)) for ended in episodes]
        learned = [{name: float(mean[i]) for name, mean in means.items()} for i in range(len(heads))]
        return [head | part | more | last for head, part, more in zip(heads, parts, learned, strict=True)]

    def _played(self, returns: Float[np.ndarray, "runs n"], lengths: Float[np.ndarray, "runs n"]) -> list[Row]:
        """Return rows of whole episodes, see `evaluate`."""
        rows = [{"seed": run, "step": self.step, "episode": i} for run in self.seeds for i in range(returns.shape[1])]
        pairs = zip(rows, returns.ravel().tolist(), lengths.ravel().tolist(), strict=True)
        return [row | {"return": total, "length": int(length)} for row, total, length in pairs]

    def _check_learner(self) -> None:
        """Stop after the first update that left a number that is not finite, with the last good agents."""
        if isinstance(self._learner, sac.State) or not (faults := np.asarray(self._learner.fault)).any():
            return
        i = int(np.flatnonzero(faults)[0])
        what = finite.describe(int(faults[i]), {name: np.stack(parts)[:, i] for name, parts in self._metrics.items()})
        good, loop, self._metrics = jax.tree.map(jnp.array, self._good), self.loop, {}
        self._learner = loop_gym.Loop(good, loop.replay, loop.key, loop.count, jnp.zeros_like(loop.fault))
        raise NotFinite(f"{what} of the run with seed {self.seeds[i]} is not finite at step {self.step}")

    def _check(self, what: str, values: Any) -> None:
        """Stop at the first number from an environment that is not finite in single precision."""
        with np.errstate(over="ignore"):
            single = np.asarray(values, np.float32)
        bad = ~np.isfinite(single.reshape(len(self.seeds), -1))
        if bad.any():
            if self._rollout is not None:
                self._rollout.running = False
            what += f" that is not finite at step {self.step}, seed {self.seeds[int(np.argmax(bad.any(axis=1)))]}"
            *_, component = np.argwhere(~np.isfinite(single))[0]
            named = f", in component {component}" if what.startswith("an ") else ""
            raise NotFinite(f"{self.task.name} returned {what}{named}")


@jit(RUN_ONCE, static_argnames=("config", "obs_size"))
def _init(
    config: sac.Config,
    seeds: UInt[ArrayLike, " runs"],
    obs_size: int,
    space: ActionSpace,
    temperature: Float[ArrayLike, ""],
    discount: Float[ArrayLike, ""],
) -> tuple[sac.State, list[Key[Array, " runs"]]]:
    """Make the agents of all runs, and the random keys by which these act, are evaluated, learn and predict."""
    numbers = {"temperature": jnp.asarray(temperature), "discount": jnp.asarray(discount)}

    def one(seed: UInt[Array, ""]) -> tuple[sac.State, list[Key[Array, ""]]]:
        agent_key, act_key, other_key = jax.random.split(jax.random.key(seed), 3)
        agent = sac.init(config, agent_key, obs_size=obs_size, action_space=space, **numbers)
        return agent, [act_key, *(jax.random.fold_in(other_key, i) for i in range(3))]

    return jax.vmap(one)(jnp.asarray(seeds))
