"""Saved agents under arbitrary damage, and where those of lqr lie."""

import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entroflow
from entroflow.storage.places import policy_folder

SMALL = {"width": 3, "depth": 1, "batch_size": 16, "critic_width": 3, "critic_depth": 1}


def equal(first, second):
    """Whether two states are the same, bit for bit."""
    return all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (first, second)), strict=True))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    agent = entroflow.GaussianSAC("Pendulum-v1", **SMALL)
    agent.save(folder / "agent")
    return folder / "agent", agent


@settings(max_examples=30)
@given(st.data())
def test_damage_never_goes_unnoticed(healthy, data):
    """Flip any byte of either file, or cut it anywhere: it is refused in one line, or the agent is unharmed."""
    folder, agent = healthy
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    path = data.draw(st.sampled_from(sorted(copy.iterdir())))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[:place] if data.draw(st.booleans()) else bytes(damaged))
    try:
        loaded = entroflow.load(copy)
    except ValueError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert equal(loaded.state, agent.state)


positive = st.floats(0, allow_infinity=False, exclude_min=True)


@settings(max_examples=300)
@given(st.lists(positive, min_size=2, max_size=8, unique=True), st.integers(0, 2**32))
def test_every_temperature_has_a_folder_of_its_own(temperatures, seed):
    """Temperatures that differ in the last digit only do not overwrite each other's agents."""
    folders = {policy_folder(temperature, seed) for temperature in temperatures}
    assert len(folders) == len(temperatures)
    assert all(folder.count("/") == 1 and len(folder) < 100 for folder in folders)
