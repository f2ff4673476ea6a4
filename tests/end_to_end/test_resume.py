"""Trainings that are stopped, killed or damaged, and gone on with: the numbers of those that were not, or a clear error."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import entroflow
from entroflow.run import checkpoint, train
from entroflow.run.cli import main
from entroflow.run.folder import lock
from entroflow.run.learner import change
from entroflow.run.settings import of_algorithm
from entroflow.run.tasks import task
from entroflow.run.training import Training

SMALL = {"learning_starts": 20, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16, "buffer_size": 200}
ALGORITHMS = ["sac_isfm", "gaussian_sac", "denoising"]
TASK = "entroflow/MultiGoal-v0"


def numbers_of(training):
    """All that a training is, as numbers and arrays."""
    numbers, arrays = training.state()
    return json.dumps(numbers), {name: array.copy() for name, array in arrays.items()}


def same(first, second):
    """Whether two states are the same, bit for bit."""
    return first[0] == second[0] and {name: array.tobytes() for name, array in first[1].items()} == {
        name: array.tobytes() for name, array in second[1].items()
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_training_is_the_uninterrupted_one(algorithm, tmp_path):
    """Parameters, optimisers, replay, keys, environments, open averages and rows, stopped in the midst of an interval."""
    begin = lambda: Training(task(TASK), change(of_algorithm(algorithm), SMALL), [3])  # noqa: E731
    whole, first, second = begin(), begin(), begin()
    rows = whole.advance(30) + whole.advance(30)
    assert first.advance(30) == rows[:1]
    assert first.advance(30, stop=lambda: first.step == 43) == []
    checkpoint.save(tmp_path, first.step, {}, *first.state())
    header, arrays, problems = checkpoint.latest(tmp_path, {})
    second.restore(header["numbers"], arrays)
    assert second.obstacle is None and not problems
    assert second.advance(60 - 43) == rows[1:]
    assert same(numbers_of(second), numbers_of(whole))
    assert not same(numbers_of(second), numbers_of(first))

