"""Programs that are kept: the next process traces nothing, and whatever differs makes another program."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from entroflow import kept
from entroflow.kept import Unknown, fingerprint

FACTOR = 2.0


def scaled(x):
    return FACTOR * x


class Offset:
    """Whose method is a part of what reaches it."""

    def __call__(self, x):
        return x + 1


OFFSET = Offset()


class Own:
    """A setting of a user's own."""

    __module__ = "own"

    def __radd__(self, x):
        return x + 1


def step(config, tree, x):
    noise = jax.random.normal(tree["key"], (3,))
    following = {"a": tree["a"] + OFFSET(scaled(x)) * noise + config, "key": jax.random.split(tree["key"])[0]}
    return following, {"x": x}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder for compiled programs; what this file defines is taken for the package's own."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    monkeypatch.setattr(kept, "PACKAGE", __name__.partition(".")[0])
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def run(function=step, config=1):
    """Return how often a process that begins now traces the function, and its results."""
    traced = []
    sys.setprofile(lambda frame, event, _: traced.append(event) if frame.f_code is function.__code__ else None)
    try:
        tree = {"a": jnp.arange(3.0), "key": jax.random.key(1)}
        found = jax.jit(kept.kept(function), static_argnums=0)(config, tree, np.float32(3))
    finally:
        sys.setprofile(None)
    keys = found[0].pop("key")
    return traced.count("call"), jax.tree.leaves((found, jax.random.key_data(keys)))


def test_the_next_process_traces_nothing(folder):
    """With the same numbers, bit for bit; a file that is damaged is written anew."""
    (first, numbers), (second, same) = run(), run()
    assert (first, second) == (1, 0)
    (file,) = folder.glob("*.stablehlo")
    whole = file.read_bytes()
    for damaged in (whole[:-9], b"", whole[:90] + b"x" + whole[91:]):
        file.write_bytes(damaged)
        traced, again = run()
        assert traced == 1 and file.read_bytes() != damaged
        jax.tree.map(np.testing.assert_array_equal, again, numbers)
    jax.tree.map(np.testing.assert_array_equal, same, numbers)
    assert run()[0] == 0


def test_whatever_differs_makes_another_program(monkeypatch):
    """Constants, functions and methods that are reached, settings, and JAX's configuration."""
    run()
    assert run(config=2)[0] == 1
    with jax.default_matmul_precision("float32"):
        assert run()[0] == 1
    changes = [("FACTOR", 3.0), ("scaled", lambda x: x), ("OFFSET", scaled)]
    for name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[__name__], name, value)
            assert run()[0] == 1, name
    monkeypatch.setattr(Offset, "__call__", lambda self, x: x - 1)
    traced, numbers = run()
    plain, _ = step(1, {"a": jnp.arange(3.0), "key": jax.random.key(1)}, np.float32(3))
    assert traced == 1
    np.testing.assert_allclose(numbers[0], plain["a"], rtol=1e-6)


def test_what_is_not_seen_is_not_kept(folder):
    """Something of a package of unknown version, or that says nothing of itself."""
    for value in (pytest.approx, [object()], {"rate": pytest.approx(1)}):
        with pytest.raises(Unknown):
            fingerprint([value])
    assert run(config=Own())[0] == 1
    assert list(folder.glob("*.stablehlo")) == []


UPDATE = """
import sys
import jax
from entroflow import kept
from entroflow.agents.settings import change, of_algorithm
from entroflow.agents.tasks import task
from entroflow.agents.training import Training
from entroflow.rl import loop_gym

told, tell = set(), kept._told
def noted(value):
    told.add(value if hasattr(value, "co_code") else None)
    return tell(value)
kept._told = noted
flow = change(of_algorithm("sac_isfm"), {"target": "stein", "proposal": "defensive"})
for settings in (flow, of_algorithm("gaussian_sac", "crossq")):
    training, ran = Training(task("Pendulum-v1"), change(settings, {"buffer_size": 300}), [0]), set()
    learn, loop = loop_gym.learn.__wrapped__.__wrapped__, training.loop
    assert all(leaf.committed for leaf in jax.tree.leaves(loop)), "the second update would be lowered again"
    print(kept.fingerprint([learn, training.config]))
    if sys.argv[1:] == ["name"]:
        continue
    sys.setprofile(lambda frame, event, _: ran.add(frame.f_code))
    jax.eval_shape(lambda loop: learn(training.config, loop, None, update_policy=True), loop)
    sys.setprofile(None)
    assert loop_gym.learn.__wrapped__.__code__ is kept.kept(learn).__code__, "updates are not kept"
    missed = {code.co_qualname for code in ran - told if "entroflow" in code.co_filename}
    assert not missed, missed
"""


def test_all_that_an_update_runs_is_in_its_name():
    """Every function of the package that is called while it is traced; and the name is the same in every process."""
    names = set()
    for seed, more in {"0": [], "1": ["name"]}.items():
        env = os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", UPDATE, *more]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        names.add(done.stdout)
    assert len(names) == 1
