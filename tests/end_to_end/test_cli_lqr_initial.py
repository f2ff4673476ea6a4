"""`entroflow lqr --initial-gain`: from the controller's file over a kill to an agent, a header and a refusal."""

import ctypes
import json
import re
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import entroflow
from entroflow import cli
from entroflow.commands.lqr import job as lqr_job
from entroflow.commands.lqr import report as lqr_report
from entroflow.lqr import systems
from entroflow.rl import sac
from entroflow.rl.actors import FeedbackPolicy

from .test_cli_lqr import refused, small
from .test_export_c import compiled

PLANT = systems.get("unstable")
GAIN = 0.8 * PLANT.optimal(0.5).K
SKEW = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study from a controller: its folder, its file, its job, and its programs with what the first one gave."""
    folder = tmp_path_factory.mktemp("initial")
    found = SimpleNamespace(out=folder / "out", file=folder / "gain.json", programs=[], compile=lqr_job._Job._compile)
    found.file.write_text(json.dumps({"gain": GAIN.tolist(), "covariance": SKEW.tolist()}))
    found.command = ["lqr", "--system", "unstable", "--alpha", "0.5", "--seeds", "1", "--steps", "4"]
    found.command += ["--initial-gain", str(found.file)]

    def remember(job, function, *arguments):
        program, found.job = found.compile(job, function, *arguments), job
        if not found.programs:  # that of the beginning, whose result training takes over
            found.begun = jax.tree.map(lambda leaf: leaf.copy(), program(*arguments).agent)
        found.programs.append(program)
        return program

    with small(_compile=remember) as patch:
        patch.setattr(lqr_report, "draw", lambda *_: None)
        assert cli.main([*found.command, "--out", str(found.out)]) == 0
    return found


def test_the_study_begins_as_the_controller(study):
    """After no step, log π of the policy that would be saved is that of N(−K s, Σ) by SciPy, in the plant's units."""
    policy = sac.policy(*study.job._restored(jax.tree.map(lambda leaf: leaf[0], study.begun)), average=True)
    obs = np.array([3.0, -20.0, 0.5], np.float32)
    exact = multivariate_normal(-GAIN @ obs, SKEW)
    actions = exact.rvs(4, random_state=0).astype(np.float32)
    found = jax.jit(jax.vmap(policy.log_prob, (None, 0)))(obs, actions)
    np.testing.assert_allclose(found, exact.logpdf(actions.astype(float)), rtol=2e-5)
    assert isinstance(policy, FeedbackPolicy) and policy.inner.solver == lqr_job.planned.ACTING_SOLVER


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
    np.testing.assert_allclose(action, agent.policy.push(obs, noise), rtol=1e-5)
    np.testing.assert_allclose(log_prob[0], agent.log_prob(obs, action), rtol=1e-2, atol=1e-2)  # backwards, by rk4
    assert re.search(r"from obs\[3\] and noise\[3\] to action\[3\] and log_prob\[1\]", header.read_text())


def test_what_cannot_begin_is_refused(study, tmp_path, capsys):
    """A file that is not there, one for another plant, and the paper's preset of a Gaussian."""
    gone = tmp_path / "gone.json"
    assert "No such file" in refused(capsys, ["lqr", "--initial-gain", str(gone)], tmp_path / "out")
    said = refused(capsys, ["lqr", "--initial-gain", str(study.file)], tmp_path / "out")
    assert said.startswith(f"entroflow: {study.file}: K: got shape (3, 3)")
    said = refused(capsys, ["lqr", "--algorithm", "gaussian_sac", "--preset", "paper"], tmp_path / "out")
    assert "--preset: got 'paper' with gaussian_sac" in said
