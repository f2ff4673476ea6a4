"""Policies on disk under arbitrary damage, and where they lie."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entroflow.agents.load import policy_folder
from entroflow.flow import Box, FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.storage.policies import load_policy, save_policy


def make(d, obs, width, depth, boxed, solver, state_width=None):
    """A policy of these sizes with arbitrary numbers; nothing is compiled."""

    def build():
        space = Box(-2 * jnp.ones(d), jnp.ones(d)) if boxed else Unbounded(d)
        sizes = {"width": width, "depth": depth, "state_width": state_width}
        network = VelocityNetwork(obs, d, **sizes, key=jax.random.key(0))
        return FlowPolicy(network, space, solver=solver)

    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.random(leaf.shape, np.float32)), jax.eval_shape(build))


@settings(max_examples=10)
@given(st.data())
def test_any_policy_comes_back(tmp_path_factory, data):
    """Whatever its sizes, space and solver: the same arrays, the same structure, the same description."""
    d, obs, depth = (data.draw(st.integers(1, 3)) for _ in range(3))
    width, boxed = data.draw(st.integers(1, 9)), data.draw(st.booleans())
    solver = RungeKutta(data.draw(st.sampled_from(["euler", "midpoint", "heun", "rk4"])), data.draw(st.integers(1, 9)))
    folder = tmp_path_factory.mktemp("policy")
    saved = make(d, obs, width, depth, boxed, solver, data.draw(st.none() | st.integers(1, 9)))
    save_policy(folder, saved, {"temperature": 0.3, "seed": 5})
    loaded, header = load_policy(folder)
    assert (header["temperature"], header["seed"]) == (0.3, 5)
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    assert all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(loaded), jax.tree.leaves(saved), strict=True))


def test_a_policy_from_before_state_widths_comes_back(tmp_path):
    """A header without the width of the layers that read the state means that of all layers."""
    saved = make(2, 3, 5, 2, True, RungeKutta())
    save_policy(tmp_path, saved, {})
    header = json.loads((tmp_path / "policy.json").read_text())
    assert header.pop("state_width") == 5
    (tmp_path / "policy.json").write_text(json.dumps(header))
    loaded, _ = load_policy(tmp_path)
    assert all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(loaded), jax.tree.leaves(saved), strict=True))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    policy = make(2, 3, 4, 1, False, RungeKutta())
    save_policy(folder, policy, {})
    return folder, (folder / "policy.npz").read_bytes(), policy


@settings(max_examples=60)
@given(st.data())
def test_damage_never_goes_unnoticed(healthy, data):
    """Flip any byte of the arrays' file, or cut it anywhere: it is refused by name, or the arrays are unharmed."""
    folder, content, policy = healthy
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged = content[:place]
    else:
        damaged = bytearray(content)
        damaged[place] ^= data.draw(st.integers(1, 255))
    (folder / "policy.npz").write_bytes(bytes(damaged))
    try:
        loaded, _ = load_policy(folder)
    except ValueError as refusal:
        assert str(folder) in str(refusal)
    else:
        assert all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(loaded), jax.tree.leaves(policy), strict=True))


positive = st.floats(0, allow_infinity=False, exclude_min=True)


@settings(max_examples=300)
@given(st.lists(positive, min_size=2, max_size=8, unique=True), st.integers(0, 2**32))
def test_every_temperature_has_a_folder_of_its_own(alphas, seed):
    """Temperatures that differ in the last digit only do not overwrite each other's policies."""
    folders = {policy_folder(alpha, seed) for alpha in alphas}
    assert len(folders) == len(alphas)
    assert all(folder.count("/") == 1 and len(folder) < 100 for folder in folders)
