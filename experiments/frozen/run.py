"""Actors against critics that stand still: whether a training falls for its critic or for its actor.

Folders of trainings on tasks with a box of few action components are read, with what they remember. Of each learned Q
the policy exp(Q/α)/Z is known by weighting actions all over the box. How far the trained actor is from it, and how both
play, tells whether following the critic more closely would help. Then the actor goes on to learn, with the critic, its
temperature and the remembered states as they are, as in training and with one setting changed.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray
from rich.markdown import Markdown

import entroflow
from entroflow import checks
from entroflow.flow import Box, RungeKutta
from entroflow.rl import loop_gym, sac
from entroflow.storage import checkpoint

from .. import frame

STATES, RECENT = 64, 5000  # states that are looked at, of the last so many
DRAWS = 64
GRID, CHOICE = 2**15, 2**12  # actions all over the box: to tell exp(Q/α)/Z, and to draw from it in play
FINE = RungeKutta("rk4", 12, grading=1.5)
EPISODES = 5
UPDATES = 3000
CHANGES: dict[str, dict[str, Any]] = {
    "as in training": {},
    "64 candidates": {"candidates": 64},
    "256 states": {"states": 256},
    "three graded steps of rk4": {"solver": RungeKutta("rk4", 3, grading=1.5)},
}
PLAYED = "as in training"


@dataclass(frozen=True)
class Options(frame.Options):
    """Options."""

    trained: tuple[Path, ...] = ()
    """Folders of trainings, each of one seed."""
    refit: tuple[str, ...] = ()
    """Names of those whose flows learn on."""
    seed: int = 0
    """Seed of everything random."""


def plan(options: Options) -> frame.Work:
    """Check the options and return the work."""
    if not options.trained:
        raise checks.error("--trained", "none", "folders of trainings", "pass those of `entroflow train`")
    names = [path.name for path in options.trained]
    for name in options.refit:
        checks.choice("--refit", name, names)
    return functools.partial(run, options.trained, options.refit, checks.seed("seed", options.seed))


def run(trained: Sequence[Path], refit: Sequence[str], seed: int, job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Look at every agent, then let the flows learn on."""
    job.cells = len(trained) + len(refit) * len(CHANGES)
    agents, refits = [], []
    for path in trained:
        agents.append({"agent": path.name} | job.cell(path.name, functools.partial(look, path, seed)))
    for path in trained:
        for change in CHANGES if path.name in refit else ():
            found = job.cell(f"{path.name}: {change}", functools.partial(learn_on, path, change, seed))
            refits.append({"agent": path.name, "change": change} | found)
    found = {"agents": agents, "refits": refits}
    job.text("table.md", tables(found))
    return found, [Markdown(tables(found))]


@dataclass(frozen=True)
class Frozen:
    """An agent as it was at its last checkpoint, with the states that it remembered.

    Attributes:
        config: settings.
        state: the learner's state.
        task: the environment's id.
        obs: the states, oldest first, shape (b, n).
    """

    config: sac.Config
    state: sac.State
    task: str
    obs: Float[np.ndarray, "b n"]

    def looked_at(self, seed: int) -> Float[np.ndarray, "s n"]:
        """Return the states at which policies are compared."""
        recent = self.obs[-RECENT:]
        return recent[np.random.default_rng(seed).integers(0, len(recent), STATES)]


def read(folder: Path) -> Frozen:
    """Read the last checkpoint of a training of one seed in a box, with the actor as it learned last: no average."""
    agent = entroflow.load(folder)
    if not isinstance(agent.state.action_space, Box):
        raise checks.error(str(folder), "actions without bounds", "actions in a box", "choose another task")
    path = list(checkpoint.folders(folder / checkpoint.CHECKPOINTS).values())[-1] / checkpoint.HEADER
    header, arrays = checkpoint.read(path)
    training = agent._training
    training.restore(header["numbers"]["training"], arrays)
    obs = np.asarray(training.loop.replay.obs)[0, : int(training.loop.count)]
    return Frozen(agent.config, _unaveraged(agent.state), agent.task.name, obs)


def keys_of(seed: int) -> Key[Array, " 3"]:
    """Return the keys to compare, to play and to learn with."""
    return jax.random.split(jax.random.key(seed), 3)


def look(folder: Path, seed: int) -> frame.Row:
    """Return how far the trained policy is from exp(Q/α)/Z, and the returns of both."""
    agent = read(folder)
    pi = sac.policy(agent.config, agent.state, average=True)
    best = functools.partial(loop_gym.best_of, agent.config, candidates=16)
    return compare(agent, agent.state, seed) | {
        "drawn": play(agent, lambda state, key, obs: pi.sample(key, obs), seed),
        "best": play(agent, lambda state, key, obs: best(state, key, obs), seed),
        "target": play(agent, functools.partial(soft_greedy, agent.config, count=CHOICE), seed),
    }


def compare(agent: Frozen, state: sac.State, seed: int) -> frame.Row:
    """Return what is known of π and of exp(Q/α)/Z at the states that are looked at.

    Returns:
        α as "temperature"; the entropies of both as "entropy" and "target_entropy"; KL(π‖exp(Q/α)/Z), its mean as "kl"
        and its median; the mean of Q under both, and of the largest Q, as "q", "target_q" and "largest_q"; "sharpness",
        the temperature at which exp(Q/α)/Z would have the entropy that α is steered to.
    """
    temperature = float(state.temperature)
    found = [
        jax.tree.map(lambda part: np.asarray(part, np.float64), _at(agent.config, state, jnp.asarray(obs), key))
        for obs, key in zip(agent.looked_at(seed), jax.random.split(keys_of(seed)[0], STATES), strict=True)
    ]
    grid, drawn, log_prob = (np.stack(parts) for parts in zip(*found, strict=True))
    box: Any = state.action_space
    volume = float(np.sum(np.log(box.high - box.low)))

    def target(alpha: float) -> tuple[np.ndarray, ...]:
        scaled = grid / alpha
        largest = scaled.max(axis=1, keepdims=True)
        weights = np.exp(scaled - largest)
        log_z = largest[:, 0] + np.log(weights.mean(axis=1)) + volume
        mean = (weights * grid).sum(axis=1) / weights.sum(axis=1)
        return log_z, mean, log_z - mean / alpha

    log_z, target_q, target_entropy = target(temperature)
    kl = log_z - (drawn / temperature - log_prob).mean(axis=1)
    wanted, low, high = -float(box.size), 1e-4, 1e4
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if target(middle)[2].mean() > wanted else (middle, high)
    return {
        "temperature": temperature,
        "entropy": -log_prob.mean(),
        "target_entropy": target_entropy.mean(),
        "kl": kl.mean(),
        "kl_median": float(np.median(kl)),
        "q": drawn.mean(),
        "target_q": target_q.mean(),
        "largest_q": grid.max(axis=1).mean(),
        "sharpness": high,
    }


@eqx.filter_jit
def _at(config: sac.Config, state: sac.State, obs: Float[Array, " n"], key: PRNGKeyArray) -> tuple[Array, ...]:
    """Return Q all over the box, and Q and log π of draws of the policy."""
    box: Any = state.action_space
    grid_key, draw_key = jax.random.split(key)
    q = jax.vmap(functools.partial(sac.q_value, config, state, obs))
    pi = sac.policy(config, state)
    pi = pi.with_solver(FINE) if hasattr(pi, "with_solver") else pi
    actions, log_prob = jax.vmap(pi.sample_and_log_prob, (0, None))(jax.random.split(draw_key, DRAWS), obs)
    return q(_all_over(box, grid_key, GRID)), q(actions), log_prob


def _all_over(box: Box, key: PRNGKeyArray, count: int) -> Float[Array, "n d"]:
    return jax.vmap(functools.partial(loop_gym.uniform, box))(jax.random.split(key, count))


def soft_greedy(
    config: sac.Config, state: sac.State, key: PRNGKeyArray, obs: Float[Array, " n"], count: int
) -> Float[Array, " d"]:
    """Draw from exp(Q/α)/Z: one of `count` actions all over the box, by its weight."""
    box: Any = state.action_space
    grid_key, choice_key = jax.random.split(key)
    actions = _all_over(box, grid_key, count)
    q = jax.vmap(functools.partial(sac.q_value, config, state, obs))(actions)
    return actions[jax.random.categorical(choice_key, q / state.temperature)]


def play(agent: Frozen, act: Callable[..., Array], seed: int) -> list[float]:
    """Return the returns of episodes in which `act(state, key, obs)` acts."""
    chosen, env, returns = eqx.filter_jit(act), gym.make(agent.task), []
    for episode in range(EPISODES):
        (obs, _), total, ended, steps = env.reset(seed=seed + episode), 0.0, False, 0
        episode_key = jax.random.fold_in(keys_of(seed)[1], episode)
        while not ended:
            key = jax.random.fold_in(episode_key, steps)
            action = np.asarray(chosen(agent.state, key, jnp.asarray(obs, jnp.float32)))
            obs, reward, terminated, truncated, _ = env.step(action)
            total, ended, steps = total + float(reward), terminated or truncated, steps + 1
        returns.append(total)
    env.close()
    return returns


def learn_on(folder: Path, change: str, seed: int) -> frame.Row:
    """Return what is known of the flow after more steps of policy improvement, and its returns where it is played."""
    agent = read(folder)
    actor = dataclasses.replace(agent.config.actor, **CHANGES[change])  # pyright: ignore
    config = dataclasses.replace(agent.config, actor=actor)
    state = _improved(config, agent.state, jnp.asarray(agent.obs), keys_of(seed)[2])
    found = compare(agent, state, seed)
    if change == PLAYED:
        pi = sac.policy(agent.config, state, average=True)
        found["drawn"] = play(agent, lambda _, key, obs: pi.sample(key, obs), seed)
    return found


@eqx.filter_jit
def _improved(config: sac.Config, state: sac.State, obs: Float[Array, "b n"], key: PRNGKeyArray) -> sac.State:
    """Improve the policy at states drawn anew for every step."""

    def step(state: sac.State, key: PRNGKeyArray) -> tuple[sac.State, None]:
        state_key, step_key = jax.random.split(key)
        chosen = obs[jax.random.randint(state_key, (config.actor.states,), 0, obs.shape[0])]
        return sac.improve_policy(config, state, chosen, step_key)[0], None

    return _unaveraged(jax.lax.scan(step, state, jax.random.split(key, UPDATES))[0])


def _unaveraged(state: sac.State) -> sac.State:
    """Let the actor itself act, whatever average its settings ask for."""
    return dataclasses.replace(state, actor_average=state.actor)


def tables(found: frame.Row) -> str:
    """Return both tables, the second if there is something in it."""
    return agents_table(found["agents"]) + ("\n" + refits_table(found["refits"]) if found["refits"] else "")


def agents_table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table: what policies are, and mean returns with the lowest and the highest episode."""
    headers = ["agent", "α", "α by sharpness", "entropy", "of exp(Q/α)/Z", "KL, mean (median)"]
    headers += ["Q", "of exp(Q/α)/Z", "largest", "drawn", "best of 16", "exp(Q/α)/Z"]
    lines = []
    for row in rows:
        numbers = [f"{row['temperature']:.3f}", f"{row['sharpness']:.3f}", *_compared(row)]
        numbers += [f"{row[name]:.1f}" for name in ("q", "target_q", "largest_q")]
        lines.append(
            [row["agent"], *numbers, *(frame.told(row[name], "{:.0f}") for name in ("drawn", "best", "target"))]
        )
    return frame.markdown(headers, lines)


def refits_table(rows: Sequence[frame.Row]) -> str:
    """Return a Markdown table of the flows that learned on."""
    headers = ["agent", "learned on", "entropy", "of exp(Q/α)/Z", "KL, mean (median)", "Q", "of exp(Q/α)/Z", "drawn"]
    lines = []
    for row in rows:
        played = frame.told(row["drawn"], "{:.0f}") if "drawn" in row else ""
        numbers = [f"{row[name]:.1f}" for name in ("q", "target_q")]
        lines.append([row["agent"], row["change"], *_compared(row), *numbers, played])
    return frame.markdown(headers, lines)


def _compared(row: frame.Row) -> list[str]:
    entropies = [f"{row[name]:.1f}" for name in ("entropy", "target_entropy")]
    return [*entropies, f"{row['kl']:.0f} ({row['kl_median']:.0f})"]


main = frame.command("frozen", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
