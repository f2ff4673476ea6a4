"""The film: what it measures has the right values, and a short one is one."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from experiments.film import run as film
from experiments.multigoal.exact import World, solve


@pytest.fixture(scope="module")
def solution():
    return solve(World(), film.ALPHA, steps_per_unit=8, tolerance=1e-5)


@pytest.mark.slow
def test_a_short_film(tmp_path, monkeypatch, solution):
    """It shows every moment of the flow, ends with a rest, and says how far both are from the density."""
    for name, value in {"STEPS": 4, "CANDIDATES": 8, "WIDTH": 4, "GRID": 20, "POINTS": 20, "DPI": 30}.items():
        monkeypatch.setattr(film, name, value)
    monkeypatch.setattr(film, "solve", lambda *_: solution)
    assert film.main(["--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out/film.gif") as frames:
        assert frames.n_frames == 33 and frames.size == (192, 111)
        assert frames.info["duration"] == film.MILLISECONDS
        frames.seek(32)
        assert frames.info["duration"] == film.REST * film.MILLISECONDS
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert 0 < found["Gaussian"]["total_variation"] < found["flow"]["total_variation"] < 1


def test_the_committed_film_says_what_was_found():
    """The flow is much closer than the best Gaussian, and the file is small enough for a README."""
    found = json.loads((Path(film.__file__).parent / "results.json").read_text())
    assert found["flow"]["total_variation"] < 0.06 and found["Gaussian"]["total_variation"] > 0.4
    assert (Path(film.__file__).parent / "film.gif").stat().st_size < 1.5e6


def test_the_density_of_a_squashed_gaussian():
    """By the change of variables with SciPy's normal density, and with mass one on the box."""
    mean, sd = np.array([0.3, -0.2]), np.array([0.9, 0.5])
    latent = np.random.default_rng(0).normal(size=(50, 2))
    expected = scipy.stats.norm.logpdf(latent, mean, sd) - np.log(1 - np.tanh(latent) ** 2)
    np.testing.assert_allclose(film.gaussian_log_density(latent, mean, sd), expected.sum(axis=1), rtol=1e-10)


def test_no_gaussian_is_better(solution):
    """The divergence agrees with the sum over a grid of the box, and rises on every side of the best."""
    mean, sd, best = film.best_gaussian(solution)
    actions, exact = solution.action_density(film.ORIGIN, 400)

    def divergence(mean, sd):
        log_q = film.gaussian_log_density(np.arctanh(actions), mean, sd)
        return 4 * np.mean(np.exp(log_q) * (log_q - np.log(exact)))

    assert divergence(mean, sd) == pytest.approx(best, rel=2e-3)
    for part in np.eye(2):
        for step in (-0.1, 0.1):
            assert divergence(mean + step * part, sd) > best
            assert divergence(mean, sd * (1 + step * part)) > best


def test_q_is_that_of_the_world(solution):
    """In JAX, between the points of its grid, up to the error of linear interpolation."""
    actions = np.random.default_rng(0).uniform(-0.99, 0.99, (20, 2))
    q, origins = film.target(solution), np.zeros((20, 2))
    found = [float(q(None, jnp.asarray(action, jnp.float32))) for action in actions]
    np.testing.assert_allclose(found, solution.q(origins, actions), atol=2e-3)


def test_total_variation_of_halves():
    """Uniform on one half against uniform on the whole of the box: one half."""
    half = np.zeros((4, 4))
    half[:2] = 0.5
    assert film.variation(half, np.full((4, 4), 0.25)) == pytest.approx(0.5)
