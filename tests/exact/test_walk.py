"""How far a reader walks through one update: which files it enters, and how deep it stands in them."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

import entroflow
from entroflow.flow import Box
from entroflow.rl import Config, sac
from entroflow.types import Transition

ROOT = os.path.dirname(entroflow.__file__)


class Walk:
    """A profiler that notes the frames of the package; those of the type checks around them are not the package's."""

    def __init__(self):
        self.files, self.stack, self.deepest = set(), [], []

    def __call__(self, frame, event, argument):
        path = frame.f_code.co_filename
        if not path.startswith(ROOT):
            return
        if event == "call":
            self.files.add(os.path.relpath(path, ROOT))
            self.stack.append(f"{os.path.relpath(path, ROOT)}:{frame.f_code.co_name}")
            if len(self.stack) > len(self.deepest):
                self.deepest = list(self.stack)
        elif event == "return" and self.stack:
            self.stack.pop()


def test_one_update_is_a_short_walk():
    """Tracing a default update enters at most 15 files and stands at most 12 frames deep."""
    config, space = Config(target_entropy=-1.0), Box(np.float32([-1.0]), np.float32([1.0]))
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.99)}
    state = jax.eval_shape(
        lambda key: sac.init(config, key, obs_size=3, action_space=space, **numbers), jax.random.key(0)
    )
    real = lambda *shape: jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.float32)  # noqa: E731
    flag = jax.ShapeDtypeStruct((config.batch_size,), jnp.bool_)
    batch = Transition(real(3), real(1), real(), real(3), flag, flag)
    walk = Walk()
    sys.setprofile(walk)
    try:
        jax.eval_shape(lambda *arguments: sac.update(config, *arguments), state, batch, jax.random.key(0))
    finally:
        sys.setprofile(None)
    assert len(walk.files) <= 15, sorted(walk.files)
    assert len(walk.deepest) <= 12, walk.deepest
    assert walk.files >= {"rl/sac.py", "rl/soft_bellman.py", "isfm/weights.py"} and len(walk.deepest) > 8
