"""`lqr.finite_horizon` against one large quadratic problem, simulation-free sums and the infinite horizon."""

from dataclasses import replace

import numpy as np
import pytest

from entroflow import lqr

A, B = np.array([[1.2, 0.3], [-0.2, 0.9]]), np.array([[0.1], [1.0]])
Q, R, N, LAST = np.diag([1.0, 0.3]), np.array([[0.2]]), np.array([[0.1], [-0.1]]), np.array([[3.0, 0.5], [0.5, 1.0]])
W, X0, ALPHA, GAMMA, H = 0.05 * np.eye(2) + 0.01, np.diag([1.0, 2.0]), 0.4, 0.9, 6
GIVEN = {"temperature": ALPHA, "discount": GAMMA, "cross": N, "noise_cov": W, "initial_cov": X0}
PLANT = lqr.design(A, B, Q, R, multiplicative=[(0.1 * A, 0.2 * B)], **GIVEN).plant
ADDITIVE = replace(PLANT, multiplicative=())


def batch() -> tuple[np.ndarray, np.ndarray]:
    """The Hessian of the whole cost in (u_0, …, u_{H−1}), and its mixed part with x_0, all states written out."""
    states, inputs = [np.eye(2)], [np.zeros((2, H))]
    for t in range(H):
        states.append(A @ states[-1])
        inputs.append(A @ inputs[-1] + B @ np.eye(H)[t : t + 1])
    hessian, mixed = np.zeros((H, H)), np.zeros((H, 2))
    for t in range(H + 1):
        weight, picked = GAMMA**t, np.eye(H)[t : t + 1]
        hessian += weight * inputs[t].T @ (LAST if t == H else Q) @ inputs[t]
        mixed += weight * inputs[t].T @ (LAST if t == H else Q) @ states[t]
        if t < H:
            hessian += weight * (picked.T @ R @ picked + inputs[t].T @ N @ picked + picked.T @ N.T @ inputs[t])
            mixed += weight * picked.T @ N.T @ states[t]
    return hessian, mixed


def test_first_input_is_that_of_one_large_minimisation() -> None:
    """u_0 = −K_0 x_0 minimises the whole cost, and Σ_0 is α/2 over its curvature when later inputs follow."""
    found = lqr.finite_horizon(ADDITIVE, H, LAST)
    hessian, mixed = batch()
    plan = -np.linalg.solve(hessian, mixed)
    np.testing.assert_allclose(-found.gains[0], plan[:1], rtol=1e-11)
    np.testing.assert_allclose(found.covariances[0], ALPHA / 2 * np.linalg.inv(hessian)[:1, :1], rtol=1e-11)
    state = A - B @ found.gains[0]  # without noise the plan is what feedback does
    np.testing.assert_allclose(-found.gains[1] @ state, plan[1:2], rtol=1e-10)
    np.testing.assert_array_equal(found.cost_matrices[-1], LAST)


def expected_cost(plant: lqr.Plant, gains: np.ndarray, covariances: np.ndarray) -> tuple[float, float]:
    """The cost and the entropy of H steps, by second moments forward in time."""
    X, cost, entropy = X0, 0.0, 0.0
    whole = np.block([[Q, N], [N.T, R]])
    for t, (K, S) in enumerate(zip(gains, covariances, strict=True)):
        joint = np.block([[X, -X @ K.T], [-K @ X, K @ X @ K.T + S]])
        cost += GAMMA**t * float(np.sum(whole * joint))
        entropy += GAMMA**t * 0.5 * np.linalg.slogdet(2 * np.pi * np.e * S).logabsdet
        X = W + sum(np.hstack([a, b]) @ joint @ np.hstack([a, b]).T for a, b in [(A, B), *plant.multiplicative])
    return cost + GAMMA**H * float(np.sum(LAST * X)), entropy


@pytest.mark.parametrize("plant", [ADDITIVE, PLANT], ids=["additive", "multiplicative"])
def test_cost_and_its_minimum(plant: lqr.Plant) -> None:
    """The cost by its causes adds up to the one computed forward, and no change of any step lowers the soft cost."""
    found = lqr.finite_horizon(plant, H, LAST)
    cost, entropy = expected_cost(plant, found.gains, found.covariances)
    assert found.cost.total == pytest.approx(cost, rel=1e-12)
    assert found.cost.soft_total == pytest.approx(cost - ALPHA * entropy, rel=1e-12)
    assert found.cost.exploration == pytest.approx(sum(GAMMA**t for t in range(H)) * ALPHA / 2, rel=1e-12)
    silent, _ = expected_cost(plant, found.gains, 1e-30 * found.covariances)
    assert cost - silent == pytest.approx(found.cost.exploration, rel=1e-9)
    for t in range(H):
        for gain, spread in ((1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98)):
            gains, covariances = found.gains.copy(), found.covariances.copy()
            gains[t], covariances[t] = gain * gains[t], spread * covariances[t]
            other, change = expected_cost(plant, gains, covariances)
            assert other - ALPHA * change > found.cost.soft_total


def test_long_horizons_end_at_the_design() -> None:
    """Far from its end a long horizon has the design's gain; from its cost matrix on, at every step."""
    design = lqr.design(A, B, Q, R, temperature=ALPHA, discount=GAMMA, cross=N)
    np.testing.assert_allclose(lqr.finite_horizon(design, 200).gains[0], design.gain, rtol=1e-9)
    still = lqr.finite_horizon(design.plant, 3, design.cost_matrix)
    np.testing.assert_allclose(still.gains, np.tile(design.gain, (3, 1, 1)), rtol=1e-9)
    np.testing.assert_allclose(still.covariances, np.tile(design.covariance, (3, 1, 1)), rtol=1e-9)


def test_sampled_plants_pay_for_noise_between_samples() -> None:
    """The last step of a sampled plant costs what the noise does until its end, whatever the input."""
    plant = lqr.design(A, B, Q, R, temperature=ALPHA, noise_cov=W, continuous=True, dt=0.3).plant
    assert lqr.finite_horizon(plant, 1).cost.noise == plant.offset > 0


def test_what_overflows_is_told() -> None:
    """A plant that no input reaches, over so many steps that its cost is no number any more."""
    unreached = replace(ADDITIVE, A=2 * np.eye(2), B=0 * B, discount=1.0)
    with pytest.raises(ValueError, match=r"steps: got a cost that overflows \d+ steps before the end"):
        lqr.finite_horizon(unreached, 600)


def test_refusals() -> None:
    """Continuous time, a number of steps and a final cost that cannot be."""
    moving = lqr.design(A, B, Q, R, temperature=ALPHA, continuous=True).plant
    for arguments, message in (
        ((moving, 3), "plant: got continuous time, expected discrete time"),
        ((PLANT, 0), "steps: got 0"),
        ((PLANT, 3, np.eye(3)), r"final_cost: got shape \(3, 3\)"),
        ((PLANT, 3, -np.eye(2)), "final_cost: got a smallest eigenvalue of -1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            lqr.finite_horizon(*arguments)
