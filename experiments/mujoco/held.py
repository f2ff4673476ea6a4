"""The command line with the noise of the policy held for several steps, in one environment.

python -m experiments.mujoco.held train HalfCheetah-v5 --preset crossq --steps 100000 --out OUT

For how many is drawn from 1 to 16 with chances like 1/n², as FlashSAC does; random actions are not held.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from entroflow.cli import main
from entroflow.rl import loop_gym

LONGEST = 16
CHANCES = 1 / np.arange(1, LONGEST + 1) ** 2


def begins(step: int, rng: np.random.Generator) -> Iterator[int]:
    """Give for this step and all after it the step whose noise it takes."""
    while True:
        length = int(rng.choice(LONGEST, p=CHANCES / CHANCES.sum())) + 1
        yield from itertools.repeat(step, length)
        step += length


def run(argv: list[str] | None = None) -> int:
    """Run the command line so; return its exit code."""
    act, noise = loop_gym.act, None

    def held(config: Any, agent: Any, obs: Any, key: Any, step: int, *, explore: bool) -> Any:
        nonlocal noise
        if obs.shape[1] != 1:
            raise ValueError(f"num_envs: got {obs.shape[1]}, expected 1, the environment in which noise is held")
        if not explore:
            noise = noise or begins(step, np.random.default_rng(12345))
            step = next(noise)
        return act(config, agent, obs, key, step, explore=explore)

    loop_gym.act = held
    try:
        return main(argv)
    finally:
        loop_gym.act = act


if __name__ == "__main__":
    raise SystemExit(run())
