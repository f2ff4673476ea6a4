"""The training of one algorithm, evaluated as it goes: learner.py ALGORITHM TASK SEED STEPS EVERY EPISODES OUT.csv.

Run as a script by the Python of the environment that the algorithm is installed in, which need not have this library.
All have the names of Stable-Baselines3, so that all go through the same lines.
"""

import csv
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

FIELDS = ("algorithm", "task", "seed", "step", "seconds", "clock", "return")


def make(algorithm: str, task: str, seed: int) -> Any:
    """Return an agent that has learned nothing.

    Args:
        algorithm: "sb3" or "sbx", at their defaults but for the random steps at first, of which their authors' own
            benchmark takes 10,000 on these tasks; else ours, with a preset after a colon.
        task: id of a Gymnasium environment.
        seed: the seed.
    """
    if algorithm == "sb3":
        import_module("torch").set_num_threads(1)
    if algorithm in ("sb3", "sbx"):
        library = import_module({"sb3": "stable_baselines3", "sbx": "sbx"}[algorithm])
        return library.SAC("MlpPolicy", task, seed=seed, device="cpu", learning_starts=10_000)
    sys.path[0] = str(Path(__file__).parents[1])
    name, _, preset = algorithm.partition(":")
    return import_module("entroflow.agents.agent").BY_NAME[name](task, seed=seed, preset=preset or "default")


def evaluate(agent: Any, env: Any, episodes: int, seed: int) -> float:
    """Return the mean return of episodes of an agent's deterministic actions."""
    total = 0.0
    obs, _ = env.reset(seed=seed)
    for _ in range(episodes):
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(agent.predict(obs, deterministic=True)[0])
            total, ended = total + float(reward), terminated or truncated
        obs, _ = env.reset()
    return total / episodes


def main(algorithm: str, task: str, seed: int, steps: int, every: int, episodes: int, out: Path) -> None:
    """Train and evaluate; add a row for every evaluation, with the seconds of training alone before it."""
    agent, env = make(algorithm, task, seed), import_module("gymnasium").make(task)
    cpu = clock = 0.0
    for step in range(every, steps + 1, every):
        begun = time.process_time(), time.perf_counter()
        agent.learn(every, reset_num_timesteps=False)
        cpu, clock = cpu + time.process_time() - begun[0], clock + time.perf_counter() - begun[1]
        told = evaluate(agent, env, episodes, seed + 1000)
        with out.open("a", newline="") as file:
            csv.writer(file).writerow([algorithm, task, seed, step, f"{cpu:.3f}", f"{clock:.3f}", f"{told:.6g}"])


if __name__ == "__main__":
    name, environment, *numbers, path = sys.argv[1:]
    seed, steps, every, episodes = map(int, numbers)
    main(name, environment, seed, steps, every, episodes, Path(path))
