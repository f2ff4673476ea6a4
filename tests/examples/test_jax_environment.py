"""The tutorial's river, and an agent that learns to cross it."""

import runpy
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from entroflow import GaussianSAC
from entroflow.envs import EnvState, reset, step

PATH = Path(__file__).parents[2] / "examples" / "jax_environment.py"


def test_the_river_and_who_crosses_it(key):
    """The current carries along, the other shore ends the return, time cuts it off; an agent trains, at a tiny size."""
    names = runpy.run_path(str(PATH))
    env, boat = names["River"](), names["Boat"]
    lines = [line.strip() for line in PATH.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith('"""')]) <= 40
    start = reset(env, key)
    assert start.state.place[1] == 0 and abs(start.state.place[0]) <= 1
    drifted = env.transition(key, boat(jnp.array([0.5, 0.5]), jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(drifted.place, [0.5 + 0.1 * 0.5, 0.5], atol=0.01)
    landed = boat(jnp.array([0.3, 1.0]), jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(env.reward(landed, jnp.zeros(2), landed), -0.5 * 0.3 - 4 * 0.3, rtol=1e-5)
    move = jax.jit(step)
    _, crossed = move(env, key, EnvState(boat(jnp.array([0.0, 0.99]), jnp.ones(2)), jnp.int32(59)), jnp.ones(2))
    _, late = move(env, key, EnvState(boat(jnp.zeros(2), jnp.zeros(2)), jnp.int32(59)), jnp.zeros(2))
    assert crossed.terminated and not crossed.truncated and late.truncated and not late.terminated
    small = partial(GaussianSAC, width=16, depth=1, critic_width=16, critic_depth=1, batch_size=32)
    assert -300 < names["main"](steps=64, kind=small, num_envs=8) < 0
