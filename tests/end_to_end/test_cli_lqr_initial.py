"""`entroflow lqr --initial-gain`: from the controller's file over a kill to an agent, a header and a refusal."""

import ctypes
import json
import re
import signal
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import entroflow
from entroflow import cli
from entroflow.commands.lqr import job as lqr_job
from entroflow.commands.lqr import report as lqr_report
from entroflow.lqr import systems

from .test_cli_lqr import refused, small
from .test_export_c import compiled

PLANT = systems.get("unstable")
GAIN = 0.8 * PLANT.optimal(0.5).K
SKEW = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study from a controller: its folder, its file, its command, and its programs."""
    folder = tmp_path_factory.mktemp("initial")
    found = SimpleNamespace(out=folder / "out", file=folder / "gain.json", programs=[], compile=lqr_job._Job._compile)
    found.file.write_text(json.dumps({"gain": GAIN.tolist(), "covariance": SKEW.tolist()}))
    found.command = ["lqr", "--system", "unstable", "--alpha", "0.5", "--seeds", "1", "--steps", "4"]
    found.command += ["--initial-gain", str(found.file)]

    def remember(job, function, *arguments):
        found.programs.append(found.compile(job, function, *arguments))
        return found.programs[-1]

    with small(_compile=remember) as patch:
        patch.setattr(lqr_report, "draw", lambda *_: None)
        assert cli.main([*found.command, "--out", str(found.out)]) == 0
    return found


@pytest.mark.slow
def test_a_killed_study_goes_on_without_the_file(study, tmp_path):
    """The controller is in the study's own folder; the records are those of the study that was not killed."""
    out, remaining = tmp_path / "out", iter(study.programs)
    kept = study.file.read_text()

    def recall(job, function, *arguments):
        program = next(remaining)
        if program is not study.programs[1]:
            return program

        def train(*arguments):
            result = program(*arguments)
            signal.raise_signal(signal.SIGTERM)
            return result

        return train

    with small(_compile=recall) as patch:
        patch.setattr(lqr_report, "draw", lambda *_: None)
        assert cli.main([*study.command, "--out", str(out)]) == 128 + signal.SIGTERM
    study.file.unlink()
    remaining = iter(study.programs)
    with small(_compile=lambda *_: next(remaining)) as patch:
        patch.setattr(lqr_report, "draw", lambda *_: None)
        assert cli.main(["resume", str(out)]) == 0
    study.file.write_text(kept)
    assert (out / "metrics.csv").read_bytes() == (study.out / "metrics.csv").read_bytes()
    told = json.loads((out / "results.json").read_text())["controller"]
    assert told == {"gain": GAIN.tolist(), "covariance": SKEW.tolist()}


@pytest.mark.slow
def test_the_agent_is_loaded_and_exported(study, tmp_path):
    """Its settings and numbers come back; the C header and the density tell the same as the agent."""
    agent = entroflow.load(study.out)
    assert agent.settings.algorithm == "sac_isfm" and agent.settings.config.actor.actor.width == 8
    obs = np.array([0.3, -0.2, 0.1], np.float32)
    assert agent.predict(obs, deterministic=True)[0].shape == (3,)
    header = tmp_path / "plant.h"
    assert cli.main(["export", str(study.out), "--format", "c", "--out", str(header)]) == 0
    act = ctypes.CDLL(str(compiled(tmp_path, header, "plant"))).act
    noise, action, log_prob = np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(1, np.float32)
    act(*(ctypes.c_void_p(part.ctypes.data) for part in (obs, noise, action, log_prob)))
    np.testing.assert_allclose(action, agent.policy.push(jnp.asarray(obs), jnp.asarray(noise)), rtol=1e-5)
    np.testing.assert_allclose(log_prob[0], agent.log_prob(obs, action), rtol=1e-2, atol=1e-2)  # backwards, by rk4
    assert re.search(r"from obs\[3\] and noise\[3\] to action\[3\] and log_prob\[1\]", header.read_text())


def test_what_cannot_begin_is_refused(tmp_path, capsys):
    """A file that is not there, one for another plant, and the paper's preset of a Gaussian."""
    gone, file = tmp_path / "gone.json", tmp_path / "gain.json"
    file.write_text(json.dumps({"gain": GAIN.tolist()}))
    assert "No such file" in refused(capsys, ["lqr", "--initial-gain", str(gone)], tmp_path / "out")
    said = refused(capsys, ["lqr", "--initial-gain", str(file)], tmp_path / "out")
    assert said.startswith(f"entroflow: {file}: K: got shape (3, 3)")
    said = refused(capsys, ["lqr", "--algorithm", "gaussian_sac", "--preset", "paper"], tmp_path / "out")
    assert "--preset: got 'paper' with gaussian_sac" in said


@pytest.mark.slow
def test_gaussian_sac_learns_from_the_controller_too(study, tmp_path):
    """A whole tiny study by plain SAC: records without weights' statistics, and an agent that can be loaded."""
    out = tmp_path / "out"
    with small(_compile=study.compile):
        assert cli.main([*study.command, "--algorithm", "gaussian_sac", "--out", str(out)]) == 0
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert run["ess"] is None and run["candidates_drawn"] == 4 * 16 and np.isfinite(run["mean_error_relative"])
    agent = entroflow.load(out)
    assert agent.settings.algorithm == "gaussian_sac"
    obs, action = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
    draws, told = agent.sample_and_log_prob(obs, n=3)
    np.testing.assert_allclose(agent.log_prob(obs[:, None], draws), told, rtol=1e-3, atol=1e-3)
    assert agent.log_prob(obs, action).shape == (2,)
