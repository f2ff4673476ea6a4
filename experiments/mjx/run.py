"""How far MJX's tasks are from Gymnasium's, which MuJoCo simulates: one step from the same states and actions.

States are those of episodes of random actions, and the same bodies a meter higher, where nothing touches the ground.
MJX computes in single precision, MuJoCo in double.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from rich.markdown import Markdown

from entroflow.agents.specification import listen_to_mujoco
from entroflow.compiling import RUN_ONCE, jit
from entroflow.envs import make_compiled
from entroflow.envs.mjx import MJXEnv, MJXState
from entroflow.names import COMPILED

from .. import frame

TASKS = [name for name in COMPILED if name.startswith("mjx/")]
BREAK = 25  # steps after which an episode is left, so that states are of falling and lying bodies alike
HEIGHT = 1.0  # of a body that is lifted


@dataclass(frozen=True)
class Options(frame.Options):
    """Options of this experiment."""

    states: int = 100
    """States on the ground, and as many in the air."""


def reference(name: str, states: int, *, lifted: bool) -> list[dict[str, Any]]:
    """Make steps in Gymnasium.

    Args:
        name: the task's id in Gymnasium.
        states: number of steps.
        lifted: whether bodies are lifted before every step.

    Returns:
        Of every step: the states before and after it as MJX has them, action, reward, observations, whether it
        terminated, and whether anything touched in it.
    """
    listen_to_mujoco(name)
    mujoco: Any = importlib.import_module("mujoco")
    env: Any = gymnasium.make(name).unwrapped
    height, rng, found = 2 if env.model.jnt_type[0] == 0 else 1, np.random.default_rng(0), []
    for i in range(states):
        if i % BREAK == 0:
            env.reset(seed=i)
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        if lifted:
            qpos = env.data.qpos.copy()
            qpos[height] = env.init_qpos[height] + HEIGHT
            env.set_state(qpos, env.data.qvel.copy())
        before, watched = _state(env), mujoco.MjData(env.model)
        mujoco.mj_copyData(watched, env.model, env.data)
        watched.ctrl[:] = action
        mujoco.mj_forward(env.model, watched)
        touched = watched.ncon
        for _ in range(env.frame_skip):
            mujoco.mj_step(env.model, watched)
            touched += watched.ncon
        obs, reward, terminated, *_ = env.step(action)
        found.append({"before": before, "after": _state(env), "action": action, "reward": reward, "obs": obs})
        found[-1] |= {"terminated": terminated, "touched": touched > 0}
    return found


def _state(env: Any) -> MJXState:
    """Return the state of an environment of Gymnasium's, as Gymnasium itself computes its parts."""
    data, planar = env.data, env.model.jnt_type[0] != 0
    seen = data.qpos.size + data.qvel.size - (1 if planar else 2)
    mean = env.model.body_mass @ data.xipos[:, 0] / env.model.body_mass.sum()
    place = data.qpos[0] if planar else mean if "Humanoid" in type(env).__name__ else data.body(1).xpos[0]
    parts = data.qpos, data.qvel, data.qacc_warmstart, place, env._get_obs()[seen:], getattr(env, "contact_cost", 0.0)
    return MJXState(*(jnp.asarray(part, jnp.float32) for part in parts))


@jit(RUN_ONCE)
def simulate(env: MJXEnv, before: MJXState, actions: jax.Array, after: MJXState) -> dict[str, Any]:
    """Return what MJX makes of states and actions, and what it says of the states that Gymnasium comes to."""
    made = jax.vmap(env.transition, in_axes=(None, 0, 0))(jax.random.key(0), before, actions)
    return {"made": made} | judged(env, before, actions, made) | {"same": judged(env, before, actions, after)}


def judged(env: MJXEnv, before: MJXState, actions: jax.Array, after: MJXState) -> dict[str, Any]:
    """Return rewards, terminations and observations of transitions."""
    reward, terminal, obs = jax.vmap(env.reward), jax.vmap(env.terminal), jax.vmap(env.observation)
    return {"reward": reward(before, actions, after), "terminated": terminal(after), "obs": obs(after)}


def stacked(found: Sequence[dict[str, Any]], name: str) -> Any:
    """Return one of the parts of all steps."""
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *[step[name] for step in found])


def compare(name: str, states: int) -> list[frame.Row]:
    """Return the errors of MJX at every state.

    Args:
        name: the task's id.
        states: number of states of each kind.

    Returns:
        A row for every state.
    """
    ground, air = (reference(COMPILED[name], states, lifted=lifted) for lifted in (False, True))
    found = ground + air
    parts = (stacked(found, part) for part in ("before", "action", "after"))
    made = jax.tree.map(np.asarray, simulate(make_compiled(name), *parts))
    rows = []
    for i, step in enumerate(found):
        error = lambda part, i=i, step=step: float(  # noqa: E731
            np.max(np.abs(getattr(made["made"], part)[i] - np.asarray(getattr(step["after"], part))), initial=0.0)
        )
        rows.append(
            {
                "task": name,
                "where": "ground" if i < states else "air",
                "touched": bool(step["touched"]),
                "position": error("qpos"),
                "velocity": error("qvel"),
                "speed": float(np.abs(step["after"].qvel).max()),
                "more": error("more"),
                "reward": float(abs(made["reward"][i] - step["reward"])),
                "reward_of_the_same": float(abs(made["same"]["reward"][i] - step["reward"])),
                "observation_of_the_same": float(np.abs(made["same"]["obs"][i] - step["obs"]).max()),
                "terminated": bool(step["terminated"]),
                "terminated_in_mjx": bool(made["terminated"][i]),
                "terminated_of_the_same": bool(made["same"]["terminated"][i]),
            }
        )
    return rows


def cones(states: int) -> dict[str, float]:
    """Return the largest difference between accelerations of Ant in double precision, by the cone of its friction.

    Args:
        states: number of states, of random actions on the ground.

    Returns:
        The difference by the cone's name, and the largest acceleration.
    """
    mujoco: Any = importlib.import_module("mujoco")
    steps = reference("Ant-v5", states, lifted=False)
    qpos, qvel, ctrl = (np.array(parts, float) for parts in zip(*map(_given, steps), strict=True))
    found: dict[str, float] = {}
    with jax.enable_x64(True):
        for name in ("pyramidal", "elliptic"):
            model: Any = gymnasium.make("Ant-v5").unwrapped.model  # type: ignore[attr-defined]
            model.opt.cone, model.opt.tolerance = getattr(mujoco.mjtCone, f"mjCONE_{name.upper()}"), 1e-14
            mjx: Any = importlib.import_module("mujoco.mjx")
            there, data = mjx.put_model(model, impl="jax"), mujoco.MjData(model)

            def one(qpos: Any, qvel: Any, ctrl: Any, mjx: Any = mjx, there: Any = there) -> Any:
                return mjx.forward(there, mjx.make_data(there).replace(qpos=qpos, qvel=qvel, ctrl=ctrl)).qacc

            made, expected = np.asarray(jax.jit(jax.vmap(one))(qpos, qvel, ctrl)), []
            for data.qpos[:], data.qvel[:], data.ctrl[:] in zip(qpos, qvel, ctrl, strict=True):
                data.qacc_warmstart[:] = 0
                mujoco.mj_forward(model, data)
                expected.append(data.qacc.copy())
            found |= {name: float(np.abs(made - expected).max()), "largest": float(np.abs(expected).max())}
    return found


def _given(step: dict[str, Any]) -> tuple[Any, Any, Any]:
    return step["before"].qpos, step["before"].qvel, step["action"]


def table(rows: Sequence[frame.Row]) -> str:
    """Write the errors in Markdown, free flight and contacts apart."""
    cells = []
    for name in dict.fromkeys(row["task"] for row in rows):
        for touched in ("False", "True"):
            some = [row for row in rows if row["task"] == name and str(row["touched"]) == touched]
            if not some:
                continue
            error = lambda part, some=some: np.array([float(row[part]) for row in some])  # noqa: E731
            both = lambda part, error=error: f"{np.median(error(part)):.0e} ({error(part).max():.0e})"  # noqa: E731
            ends = sum(str(row["terminated"]) != str(row["terminated_in_mjx"]) for row in some)
            wrong = sum(str(row["terminated"]) != str(row["terminated_of_the_same"]) for row in some)
            of = f"{sum(str(row['terminated']) == 'True' for row in some)}"
            kind = "contacts" if touched == "True" else "none touches"
            parts = both("position"), both("velocity"), both("reward"), f"{error('reward_of_the_same').max():.0e}"
            cells.append([f"`{name}`", kind, str(len(some)), *parts, of, str(ends), str(wrong)])
    head = ["task", "states", "number", "position", "velocity", "reward", "reward of the same next state"]
    return frame.markdown([*head, "terminations", "other in MJX", "other of the same"], cells)


def read(folder: Path) -> list[frame.Row]:
    """Read the rows of a run."""
    return list(frame.read_rows(folder / "results.csv"))


def plan(options: Options) -> frame.Work:
    """Check the options."""
    frame.checks.positive_int("--states", options.states)
    list(map(make_compiled, TASKS[:1]))  # says now if MJX is missing

    def work(job: frame.Job) -> tuple[frame.Row, list[Any]]:
        rows, job.cells = [], len(TASKS) + 1
        for name in TASKS:
            rows += job.cell(name, lambda name=name: compare(name, options.states))
            job.rows("results.csv", rows)
        job.text("table.md", table(rows))
        found = job.cell("cones of Ant", lambda: cones(options.states))
        return {"accelerations_of_ant": found}, [Markdown(table(rows))]

    return work


main = frame.command("mjx", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
