"""What `SAC.learn` calls at every `log_interval`: functions of the agent and of a row of what happened since.

One that returns False ends training. In a list, later ones find in the row what earlier ones put there:

    agent.learn(100_000, [callbacks.evaluation(every=5000, best="out/best"), callbacks.stop_at(-150, "evaluation")])
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks

Row = dict[str, Any]
Callback = Callable[[Any, Row], Any]


def together(callback: Callback | Sequence[Callback] | None) -> Callback:
    """Return callbacks as one, which calls all and returns False if one did; a `ValueError` if they are none."""
    given = list(callback) if isinstance(callback, list | tuple) else [callback]
    callbacks: list[Any] = [each for each in given if each is not None]
    for each in callbacks:
        if not callable(each):
            remedy = "write one, or take evaluation, checkpoints or stop_at of entroflow.agents.callbacks"
            raise checks.error("callback", f"a {type(each).__name__}", "a function of the agent and a row", remedy)
    return lambda agent, row: not any([_ends(each(agent, row)) for each in callbacks])


def evaluation(every: int = 5000, episodes: int = 10, *, best: str | Path | None = None) -> Callback:
    """Evaluate; the row gets the mean return as "evaluation".

    Args:
        every: environment steps between evaluations, which wait for the next row.
        episodes: episodes of each.
        best: folder in which the agent with the best evaluation so far is kept, if given.

    Returns:
        The callback.
    """
    due, highest = _due(every), -float("inf")

    def evaluate(agent: Any, row: Row) -> None:
        nonlocal highest
        if due(row["step"]):
            row["evaluation"] = score = agent.evaluate(episodes).mean
            if best is not None and score >= highest:
                agent.save(best)
            highest = max(highest, score)

    return evaluate


def checkpoints(folder: str | Path, every: int = 5000, *, replay: bool = False) -> Callback:
    """Save the agent into folders of its own, such as `step=5000`.

    Args:
        folder: where these are made.
        every: environment steps between them, which wait for the next row.
        replay: see `SAC.save`.

    Returns:
        The callback.
    """
    due = _due(every)

    def save(agent: Any, row: Row) -> None:
        if due(row["step"]):
            agent.save(Path(folder) / f"step={row['step']}", replay=replay)

    return save


def stop_at(reward: float, metric: str = "return") -> Callback:
    """End training once a number of the row is high enough.

    Args:
        reward: the least that is enough.
        metric: which: "return" of training episodes, "evaluation" after that callback, or one of the learner's.

    Returns:
        The callback.

    Raises:
        ValueError: for a reward that is no finite number; while learning, for a metric that no row has.
    """
    reward, before = checks.number("reward", reward), {}

    def stop(_: Any, row: Row) -> bool:
        nonlocal before
        if metric != "evaluation" and metric not in row and "policy_loss" in row:  # which random steps have not
            raise checks.error("metric", repr(metric), f"evaluation or one of {', '.join(row)}", "check the spelling")
        rows, before = (before, row), row  # callbacks after this one may have added to the row before
        going = all(each.get(metric) is None or each[metric] < reward for each in rows)
        before = before if going else {}
        return going

    return stop


def _ends(said: Any) -> bool:
    """Return whether a callback said False, and no other thing that equals it."""
    return isinstance(said, bool | np.bool_) and not said


def _due(every: int) -> Callable[[int], bool]:
    """Return what tells whether a step is the first one at or after a multiple of `every`."""
    every, done = checks.positive_int("every", every), 0

    def due(step: int) -> bool:
        nonlocal done
        before, done = done, step // every
        return done > before

    return due
