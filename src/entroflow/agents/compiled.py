"""A training on an environment in pure JAX: environments, replay and updates advance in one compiled program."""

import dataclasses
from collections.abc import Sequence
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.utils import seeding

from .. import memory
from ..rl import finite, loop_scheduled
from ..rl.loop_scheduled import CHUNK
from ..storage import checkpoint
from . import units
from .settings import Settings
from .tasks import Task
from .training import NotFinite, Row, Stop, Training

OF_TASK = {loop_scheduled.REWARD: "a reward", loop_scheduled.OBSERVATION: "an observation"}


def training_of(task: Task, settings: Settings, seeds: Sequence[int], steps: int | None = None) -> Training:
    """Return a training on a task of either kind; `steps` are those that will be made in all, if that is known."""
    kind = Training if task.functional is None else CompiledTraining
    return kind(task, settings, seeds, steps)


class CompiledTraining(Training):
    """Runs on a task whose environment is a `FunctionalEnv`; see `Training`.

    The schedule is that of `Training`, except that updates do not wait for the next action. After a number that is not
    finite what the runs remember begins anew.
    """

    _loop: loop_scheduled.Loop | None = None  # the replay is large, and made when learning begins
    _count = 0  # transitions that each run has seen, since its memory began

    def _begun(self) -> loop_scheduled.Loop:
        """Return where the runs stand; at first begin episodes."""
        if self._loop is None:
            memory.check(memory.of_training(self, self.agents, self._capacity))
            if self.step == 0:
                self.agents = units.begin(self.agents, self.task.make(), self.settings)
            sizes = {"environments": self.settings.num_envs, "capacity": self._capacity}
            parts = self.config, self.task.functional, self.agents, self._learn_keys, self.step
            self._loop = loop_scheduled.start(*parts, **sizes)
        return self._loop

    def advance(self, steps: int, stop: Stop = bool) -> list[Row]:
        """Make steps and updates, see `Training.advance`; whether to leave it at that is asked after every chunk."""
        self._begun()
        good, target, count = self.agents, self.step + steps, self.settings.num_envs
        while self.step < target:
            if stop():
                return []
            iterations = min(CHUNK, -(-(target - self.step) // count))
            due = [self.settings.updates_due(self._count + (i + 1) * count) for i in range(iterations)]
            exploring = max(0, -(-(self.settings.learning_starts - self.step) // count))
            self.agents, self._loop = loop_scheduled.advance(
                self.config,
                self.task.functional,
                self.agents,
                self._loop,
                self._count,
                np.array(due + (CHUNK - iterations) * [0], np.int32),
                iterations,
                exploring,
                self._updates % self.settings.policy_delay,
                delay=self.settings.policy_delay,
            )
            self._check_faults(good)
            self.step, self._count = self.step + iterations * count, self._count + iterations * count
            self._updates += sum(due)
        return self._told()

    def _told(self) -> list[Row]:
        """Return the rows of what happened since the last ones."""
        loop = self._begun()
        means = {
            name: np.asarray(part[:, 0] / part[:, 1]) for name, part in loop.sums.items() if np.asarray(part)[0, 1]
        }
        episodes: list[Any] = []
        for total, length, number in np.asarray(loop.ended, float):
            episodes.append((total / number, length / number, int(number)) if number else (None, None, 0))
        zero = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
        self._loop = dataclasses.replace(loop, ended=zero(loop.ended), sums=zero(loop.sums))
        return self._rows(episodes, means)

    def _check_faults(self, good: Any) -> None:
        """Stop where a number was not finite, with the last good agents and no memory."""
        loop = self._begun()
        if not (faults := np.asarray(loop.fault))[:, 0].any():
            return
        i = int(np.flatnonzero(faults[:, 0])[0])
        fault, step = int(faults[i, 0]), self.step + (int(faults[i, 1]) + 1) * self.settings.num_envs
        self.agents, self._loop, self._count, self.step = good, None, 0, step
        if fault in OF_TASK:
            told = f"{OF_TASK[fault]} that is not finite at step {step}, seed {self.seeds[i]}"
            raise NotFinite(f"{self.task.name} returned {told}")
        what = finite.describe(fault, {name: np.asarray(part)[i, :1] for name, part in loop.sums.items()})
        raise NotFinite(f"{what} of the run with seed {self.seeds[i]} is not finite at step {step}")

    def evaluate(
        self, episodes: int, *, deterministic: bool = True, seed: int = 0, task: Task | None = None, stop: Stop = bool
    ) -> list[Row]:
        """Run whole episodes, the same ones, all at once, see `Training.evaluate`; a changed task is stepped there."""
        if task is not None and task is not self.task:
            return super().evaluate(episodes, deterministic=deterministic, seed=seed, task=task, stop=stop)
        memory.check({"episodes": len(self.seeds) * episodes * memory.ENVIRONMENT})
        draws = [seeding.np_random(seed + i)[0].integers(2**32, dtype=np.uint32) for i in range(episodes)]
        env, candidates = self.task.functional, self.settings.action_candidates if deterministic else 1
        running, steps = loop_scheduled.begin_episodes(env, self.agents, np.array(draws)), 0
        while np.asarray(running.alive).any():
            if stop():
                return []
            parts = self.config, env, self.agents, running, self._evaluate_keys, steps
            running, steps = loop_scheduled.play(*parts, candidates=candidates), steps + CHUNK
        totals = np.asarray(running.totals)
        self._check("a reward or an observation", totals[..., 0])
        return self._played(totals[..., 0], totals[..., 1])

    def state(self) -> tuple[dict[str, Any], checkpoint.Arrays]:
        """Return all that going on needs, see `Training.state`."""
        loop, filled = self._begun(), min(self._count, self._capacity)
        kept = dataclasses.replace(loop, replay=jax.tree.map(lambda ring: np.asarray(ring)[:, :filled], loop.replay))
        arrays = checkpoint.flatten("loop", kept) | checkpoint.flatten("loop.agent", self.agents)
        return {"step": self.step, "updates": self._updates, "count": self._count}, arrays

    def restore(self, numbers: dict[str, Any], arrays: checkpoint.Arrays) -> None:
        """Go on from what `state` returned, see `Training.restore`."""
        loop = self._begun()
        found = checkpoint.unflatten("loop", loop, self._filled_up(arrays))
        self._loop = jax.tree.map(lambda leaf, there: jax.device_put(leaf, there.sharding), found, loop)
        self.agents = checkpoint.unflatten("loop.agent", self.agents, arrays)
        self.step, self._updates, self._count = (index(numbers[name]) for name in ("step", "updates", "count"))
