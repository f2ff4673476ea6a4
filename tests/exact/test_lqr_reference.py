"""`lqr.design` against reference values, to the digits given: they come from value iteration in another program."""

import numpy as np
import pytest

from entroflow.lqr import design, finite_horizon

ALPHA = 0.5
I2 = np.eye(2)
NOISE = {"noise_cov": 0.01 * I2, "temperature": ALPHA}
COUPLED = {"A": [[0.9, 0.2], [-0.1, 0.8]], "B": [[0.5, 0.1], [0.0, 0.4]], "Q": I2, "R": 0.5 * I2, **NOISE}
DOUBLE_INTEGRATOR = {"A": [[1, 0.1], [0, 1]], "B": [[0.005], [0.1]], "Q": I2, "R": [[0.1]], **NOISE}
CONTINUOUS = {"A": [[0, 1], [0, 0]], "B": [[0], [1]], "Q": I2, "R": [[0.1]], "temperature": ALPHA, "continuous": True}


def same(found, expected, digits=10):
    """Equal but for one in the last decimal."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=10.0**-digits)


@pytest.mark.parametrize(
    ("plant", "gain", "size", "average", "soft"),
    [
        (
            COUPLED,
            [[0.8427741732, 0.1264305815], [0.0257340456, 0.7297139382]],
            [[0.9440873386, 0.0939642768], [0.0939642768, 0.7965764473]],
            -0.5350606329,
            0.2649253992,
        ),
        (DOUBLE_INTEGRATOR, [[2.5857008967, 3.4434359178]], [[0.149569633]], -0.4292073846, 0.4086865972),
    ],
    ids=["coupled", "double_integrator"],
)
def test_average_reward(plant, gain, size, average, soft):
    """At γ = 1: K, M = R + BᵀPB, and both averages per step."""
    found = design(**plant)
    same(found.gain, gain)
    same(ALPHA / 2 * np.linalg.inv(found.covariance), size, 10 if len(size) == 2 else 9)
    same([-found.cost.average, -found.cost.soft_average], [average, soft])


def test_cross_term():
    """2sᵀNa in the cost."""
    found = design(**COUPLED, discount=0.9, cross=[[0.1, 0.0], [0.05, -0.1]])
    same(found.gain, [[0.8539839760, 0.1592045524], [-0.0121342629, 0.5591251502]])
    same(found.cost_matrix, [[1.5210535630, -0.0560468881], [-0.0560468881, 1.8070774375]])


def test_multiplicative_noise():
    """K, M and the soft value of the state (1, 0)."""
    noise = [(np.diag([0.2, 0.0]), np.zeros((2, 2))), (np.zeros((2, 2)), 0.3 * np.array(COUPLED["B"]))]
    found = design(**COUPLED, discount=0.9, multiplicative=noise, initial_cov=np.diag([1.0, 0.0]))
    same(found.gain, [[0.7758542842, 0.1233590769], [0.0325670283, 0.6523209423]])
    size = [[0.9491691176, 0.0990143955], [0.0990143955, 0.7861420186]]
    same(ALPHA / 2 * np.linalg.inv(found.covariance), size)
    same(-found.cost.soft_total, 0.8749714438)


def test_finite_horizon():
    """With one step to go nothing is done, with two and three what is told."""
    found = finite_horizon(design(**COUPLED, discount=0.9), 3)
    last = [[0.0, 0.0], [0.0, 0.0]]
    two = [[0.5567246500, 0.0954603309], [0.0305473059, 0.4620280017]]
    same(found.gains, [[[0.7237911825, 0.1215438150], [0.0360631199, 0.6109192719]], two, last])
    same(found.covariances[0], [[0.3002745515, -0.0303859537], [-0.0303859537, 0.3472701820]])


def test_continuous_time():
    """Discounted at the rate ρ = 0.5."""
    found = design(**CONTINUOUS, discount=np.exp(-0.5))
    same(found.gain, [[2.3027309559, 3.5798775322]])
    same(found.cost_matrix, [[0.9394860290, 0.2302730956], [0.2302730956, 0.3579877532]])


def test_zero_order_hold():
    """State, input and cost of the double integrator, sampled."""
    plant = design(**CONTINUOUS, dt=0.1).plant
    same(plant.A, [[1.0, 0.1], [0.0, 1.0]])
    same(plant.B, [[0.005], [0.1]])
    same(plant.Q, [[0.1, 0.005], [0.005, 0.1003333333]])
    same(plant.cross, [[0.0001666667], [0.0050125]])
    same(plant.R, [[0.0103338333]])
