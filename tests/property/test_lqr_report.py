"""The errors that the study reports are the ones that the paper defines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entroflow.commands.lqr.evaluate import LQREvaluation
from entroflow.commands.lqr.plan import plan
from entroflow.commands.lqr.report import errors, floors
from entroflow.lqr import LQR
from entroflow.options import LQROptions

RNG = np.random.default_rng(0)
A = np.array([[0.9, 0.2, 0.0], [-0.1, 1.1, 0.3], [0.0, 0.0, 0.7]])
SYSTEM = LQR(A, RNG.standard_normal((3, 2)), np.eye(3), np.diag([0.5, 2.0]), 0.1 * np.eye(3), np.eye(3), 0.9)
(RUN,) = plan(LQROptions(temperature=(0.7,), seeds=1, seed=11), SYSTEM)
number = st.floats(-5, 5)


def evaluation(offset, excess):
    """What would be measured of the policy N(−K*s + offset, Σ* + excess) at some states."""
    states = RNG.standard_normal((7, 3))
    mean, covariance = -states @ RUN.K.T + offset, np.tile(RUN.covariance + excess, (7, 1, 1))
    return LQREvaluation(np.float64(-3.0), states, mean, covariance, np.float64(1.5))


@given(st.tuples(number, number), st.tuples(number, number, number))
def test_errors_are_two_norms(offset, excess):
    """‖mean + K*s‖₂ is the length of the offset; ‖cov − Σ*‖₂ the largest absolute eigenvalue of the excess."""
    a, b, c = excess
    measured = errors(RUN, evaluation(np.array(offset), np.array([[a, b], [b, c]])))
    length, size = np.hypot(*offset), abs((a + c) / 2) + np.hypot((a - c) / 2, b)
    assert measured["mean_error"] == pytest.approx(length, abs=1e-9)
    assert measured["covariance_error"] == pytest.approx(size, abs=1e-9)
    assert measured["mean_error_std"] == pytest.approx(0, abs=1e-9)
    assert measured["covariance_error_relative"] == pytest.approx(size / np.linalg.norm(RUN.covariance, 2), abs=1e-9)
    assert measured["mean_error_relative"] * measured["mean_scale"] == pytest.approx(length, abs=1e-9)


def test_the_scale_of_the_mean_is_the_average_optimal_action():
    """The relative error divides by the mean of ‖K*s‖₂ over the states that were visited."""
    case = evaluation(np.zeros(2), np.zeros((2, 2)))
    measured = errors(RUN, case._replace(mean=np.zeros((7, 2))))
    assert measured["mean_error_relative"] == pytest.approx(1)
    assert measured["mean_scale"] == pytest.approx(np.linalg.norm(case.states @ RUN.K.T, axis=1).mean())


def test_the_floor_falls_with_the_samples():
    """What sampling alone contributes: near zero for many points, and larger for few."""
    few, many = (floors(RUN, samples, mean_scale=2.0) for samples in (64, 16384))
    for kind in ("mean_error", "covariance_error"):
        assert 0 <= many[f"{kind}_floor"] < 0.2 * few[f"{kind}_floor"] < 0.1
    assert many["mean_error_relative_floor"] == pytest.approx(many["mean_error_floor"] / 2)
