"""The example for control engineers runs as it is written."""

import runpy
from pathlib import Path

import matplotlib.image
import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "design.py"


def test_design(tmp_path, monkeypatch):
    """Ten lines, from matrices to a figure; the controller is stable, with a gain near that of continuous time."""
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLE))
    assert len([line for line in EXAMPLE.read_text().splitlines() if line]) <= 11
    # Control Tutorials for MATLAB and Simulink, Inverted Pendulum, for which Q and R are these and nothing is sampled.
    np.testing.assert_allclose(names["controller"].gain, [[-70.7107, -37.8345, 105.5298, 20.9238]], rtol=0.25)
    assert np.all(np.abs(names["controller"].poles) < 1)
    assert matplotlib.image.imread("response.png").std() > 0.02
