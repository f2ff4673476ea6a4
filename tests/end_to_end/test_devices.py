"""Runs divided among devices: the same numbers as on one, whatever they train on."""

import os
import subprocess
import sys

import numpy as np
import pytest

from entroflow.devices import cores

TRAIN = """
import sys
import jax, numpy as np
from entroflow.agents.compiled import training_of
from entroflow.agents.settings import Settings
from entroflow.agents.tasks import task
from entroflow.rl import Config, Gaussian, MLPCritic
config = Config(Gaussian(width=4, depth=1), MLPCritic(width=4, depth=1), batch_size=8)
settings = Settings(config, num_envs=2, learning_starts=6, buffer_size=60, action_candidates=2)
training = training_of(task(sys.argv[1]), settings, [3, 4, 5, 6, 7, 8, 9, 10])
rows = training.advance(30) + training.evaluate(1)
leaf = training.agents.step
print(len(leaf.sharding.device_set), leaf.addressable_shards[0].data.shape[0])
numbers, arrays = training.state()
again = training_of(task(sys.argv[1]), settings, training.seeds)
again.restore(numbers, arrays)
assert again.advance(4) == training.advance(4)
loop = training.loop if sys.argv[1] == "Pendulum-v1" else training._loop
leaves = jax.tree.leaves((training.agents, loop.replay))
names = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
columns = {name: [row[name] for row in rows if name in row] for name in ("critic_error", "return", "seed")}
columns["return"] = columns["return"][8:]
np.savez(sys.argv[2], **names, **columns)
"""


def train(task, path, devices):
    """Train eight runs on so many devices of the CPU, in double precision; return what is left, and how it lay."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    words = [sys.executable, "-W", "error::UserWarning", "-c", TRAIN, task, str(path)]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as arrays:
        return done.stdout.split(), dict(arrays)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["jax/Pendulum", "Pendulum-v1"])
def test_eight_devices_give_the_numbers_of_one(tmp_path, task):
    """Of every run, to rounding: a device sums in another order, for it has one run alone.

    The learner computes in double precision, the environment in single: what differs is measured by the largest number
    of its kind, whose rounding the state of the environment carries on.
    """
    (where, found), (alone, expected) = (train(task, tmp_path / f"{n}.npz", n) for n in (8, 1))
    assert where == ["8", "1"] and alone == ["1", "8"] and found.keys() == expected.keys()
    assert found["seed"].tolist() == 2 * list(range(3, 11)) and len(set(found["critic_error"])) == 8
    for name, array in found.items():
        rounding = 1e-6 * np.abs(expected[name]).max() if array.dtype == np.float32 else 0.0
        np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=max(1e-7, rounding), err_msg=name)


def test_cores_are_counted_on_any_system(monkeypatch):
    """Those that the process may use, or where no system tells, all."""
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()
