"""`lqr.design` against python-control, published gains, quadrature, closed forms and costs computed another way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import control
import numpy as np
import pytest
from scipy import integrate, linalg, signal

from entroflow import lqr
from entroflow.lqr import design
from entroflow.lqr.sampling import integral

PLANTS = json.loads((Path(__file__).parents[1] / "data" / "plants.json").read_text())["plants"]
A, B = np.array([[1.1, 0.2, 0.0], [0.0, 0.9, 0.3], [0.1, 0.0, 0.8]]), np.array([[0.0, 0.3], [0.0, 1.0], [1.0, 0.2]])
Q, R, N = np.diag([1.0, 0.5, 0.2]), np.array([[0.4, 0.1], [0.1, 0.3]]), np.array([[0.1, 0.0], [0.0, -0.2], [0.05, 0.1]])
W, X0 = np.diag([0.02, 0.01, 0.03]) + 0.005, np.diag([1.0, 2.0, 0.5])
F, ALPHA = np.array([[0.0, 1.0, 0.0], [2.0, -0.3, 0.5], [0.0, 0.0, -4.0]]), 0.3
WHOLE = np.block([[Q, N], [N.T, R]])
GIVEN = {"cross": N, "noise_cov": W, "initial_cov": X0, "temperature": ALPHA}


def joint(K: np.ndarray, X: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The covariance of (x, u) for u ~ N(−Kx, covariance) and x of covariance X."""
    return np.block([[X, -X @ K.T], [-K @ X, K @ X @ K.T + covariance]])


def soft_average(K: np.ndarray, covariance: np.ndarray, continuous: bool) -> float:
    """The long-run average of cost − α entropy, from the stationary covariance, which `design` does not use."""
    if continuous:
        X = linalg.solve_continuous_lyapunov(F - B @ K, -W)
    else:
        X = linalg.solve_discrete_lyapunov(A - B @ K, W + B @ covariance @ B.T)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance).logabsdet
    return float(np.sum(WHOLE * joint(K, X, covariance)) - ALPHA * entropy)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant["name"])
def test_textbook_plants(plant: dict) -> None:
    """Twenty plants: python-control's gain and cost matrix to 1e-9, published gains to the digits printed."""
    matrices = [np.array(plant[key]) for key in "ABQR"]
    K, P, poles = (control.lqr if plant["continuous"] else control.dlqr)(*matrices)
    found = design(*matrices, temperature=0.5, continuous=plant["continuous"])
    np.testing.assert_allclose(found.gain, K, rtol=0, atol=1e-9 * np.abs(K).max())
    np.testing.assert_allclose(found.cost_matrix, P, rtol=0, atol=1e-9 * np.abs(P).max())
    M = matrices[3] + (0 if plant["continuous"] else matrices[1].T @ P @ matrices[1])
    np.testing.assert_allclose(found.covariance, 0.25 * np.linalg.inv(M), rtol=1e-9, atol=1e-9 * 0.25 / np.abs(M).max())
    np.testing.assert_allclose(np.poly(found.poles), np.poly(poles), rtol=1e-5, atol=1e-5)
    if "gain" in plant:
        np.testing.assert_allclose(found.gain, plant["gain"], atol=3e-4)


def test_twenty_plants() -> None:
    """The table has as many as it says."""
    assert len(PLANTS) == 20


@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
def test_value_iteration_by_hand(discount: float) -> None:
    """Repeated minimisation of cost + γ next value, by the block inverse of one matrix, ends at the design."""
    P, both = np.zeros((3, 3)), WHOLE
    for _ in range(2000):
        both = WHOLE + discount * np.hstack([A, B]).T @ P @ np.hstack([A, B])
        P = np.linalg.inv(np.linalg.inv(both + 1e-14 * np.eye(5))[:3, :3])  # the Schur complement of the input's block
    found = design(A, B, Q, R, discount=discount, **GIVEN)
    np.testing.assert_allclose(found.cost_matrix, P, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.gain, np.linalg.solve(both[3:, 3:], both[3:, :3]), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.covariance, ALPHA / 2 * np.linalg.inv(both[3:, 3:]), rtol=1e-9)


@pytest.mark.parametrize("continuous", [False, True])
def test_average_cost_and_its_minimum(continuous: bool) -> None:
    """At discount 1 the average cost is the stationary covariance's, and no other policy's soft one is lower."""
    found = design(F if continuous else A, B, Q, R, continuous=continuous, **GIVEN)
    K, S = found.gain, found.covariance
    assert found.cost.soft_average == pytest.approx(soft_average(K, S, continuous), rel=1e-10)
    assert found.cost.exploration == pytest.approx(ALPHA * 2 / 2, rel=1e-12)
    assert found.cost.total == found.cost.duration == np.inf
    rng, h = np.random.default_rng(0), 1e-5
    for _ in range(10):
        dK, root = rng.standard_normal(K.shape), rng.standard_normal(S.shape)
        dS = root @ root.T
        up, down = (soft_average(K + s * h * dK, S + s * h * dS, continuous) for s in (1, -1))
        assert up > found.cost.soft_average < down
        assert abs(up - down) / (2 * h) < 1e-5  # the gradient
    other = found.cost_of(1.1 * K, 0.5 * S)
    assert other.soft_average == pytest.approx(soft_average(1.1 * K, 0.5 * S, continuous), rel=1e-10)


def test_discounted_cost_by_summation() -> None:
    """The total and each of its causes, summed over 400 steps with one of the causes present at a time."""
    found = design(A, B, Q, R, discount=0.9, **GIVEN)
    K, S, none = found.gain, found.covariance, np.zeros((3, 3))

    def summed(X: np.ndarray, noise: np.ndarray, covariance: np.ndarray) -> float:
        total = 0.0
        for step in range(400):
            total += 0.9**step * float(np.sum(WHOLE * joint(K, X, covariance)))
            X = (A - B @ K) @ X @ (A - B @ K).T + B @ covariance @ B.T + noise
        return total

    cost = found.cost
    assert cost.control == pytest.approx(summed(X0, none, 0 * S), rel=1e-9)
    assert 10 * cost.noise == pytest.approx(summed(none, W, 0 * S), rel=1e-9)
    assert 10 * cost.exploration == pytest.approx(summed(none, none, S), rel=1e-9)
    assert cost.total == pytest.approx(summed(X0, W, S), rel=1e-9)
    assert cost.soft_total == pytest.approx(cost.total - 10 * ALPHA * cost.entropy, rel=1e-12)


def test_discounted_design_is_that_of_lqr() -> None:
    """Costs and policy are the other sign of what `LQR` says, where it speaks too."""
    found = design(A, B, Q, R, discount=0.9, temperature=ALPHA, noise_cov=W, initial_cov=X0)
    optimum = lqr.LQR(A, B, Q, R, W, X0, 0.9).optimal(ALPHA)
    np.testing.assert_allclose(found.gain, optimum.K, rtol=1e-9)
    np.testing.assert_allclose(found.to_gaussian_policy().covariance, optimum.covariance, rtol=1e-9)
    assert (-found.cost.total, -found.cost.soft_total) == pytest.approx(
        (optimum.standard_return, optimum.soft_return), rel=1e-9
    )


def test_closed_form_of_wang_zariphopoulou_and_zhou() -> None:
    """The scalar case of exploratory control with noise in state and input, Theorem 4 there: mean and variance."""
    a, b, c, d, rho, q, n, r, alpha = 0.4, 0.8, 0.3, 0.5, 0.6, 1.5, 0.2, 0.7, 0.3
    settings = {"temperature": alpha, "discount": np.exp(-rho), "continuous": True, "multiplicative": [(c, d)]}
    found = design(a, b, q, r, cross=n, **settings)
    # Theirs maximises −(M/2 x² + S xu + N/2 u²) and has k₂ = −2P.
    m, s, size, lift = 2 * q, 2 * n, 2 * r, rho - (2 * a + c**2)
    middle, square = lift * size + 2 * (b + c * d) * s - d**2 * m, (b + c * d) ** 2 + lift * d**2
    k2 = (middle - np.sqrt(middle**2 - 4 * square * (s**2 - m * size))) / (2 * square)
    width = size - k2 * d**2
    assert found.gain[0, 0] == pytest.approx(-(k2 * (b + c * d) - s) / width, rel=1e-9)
    assert found.covariance[0, 0] == pytest.approx(alpha / width, rel=1e-9)
    assert found.cost_matrix[0, 0] == pytest.approx(-k2 / 2, rel=1e-9)


@pytest.mark.parametrize("discount", [1.0, 0.6])
def test_sampling_is_exact(discount: float) -> None:
    """Held dynamics, noise and cost are the integrals that quadrature finds, the noise between samples included."""
    dt, rate = 0.7, -np.log(discount)
    plant = design(F, B, Q, R, continuous=True, dt=dt, discount=discount, **GIVEN).plant
    joined = np.block([[F, B], [np.zeros((2, 5))]])
    np.testing.assert_allclose(np.hstack([plant.A, plant.B]), linalg.expm(joined * dt)[:3], rtol=1e-11, atol=1e-12)
    quad = lambda f, end=dt: integrate.quad_vec(f, 0, end, epsabs=1e-13, epsrel=1e-13)[0]  # noqa: E731
    spread = lambda t: quad(lambda s: linalg.expm(F * s) @ W @ linalg.expm(F * s).T, t)  # noqa: E731
    cost = quad(lambda t: np.exp(-rate * t) * linalg.expm(joined * t).T @ WHOLE @ linalg.expm(joined * t))
    both = np.block([[plant.Q, plant.cross], [plant.cross.T, plant.R]])
    np.testing.assert_allclose(both, cost, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(plant.noise_cov, spread(dt), rtol=1e-10, atol=1e-12)
    offset = integrate.quad(lambda t: np.exp(-rate * t) * np.sum(Q * spread(t)), 0, dt, epsabs=1e-12)[0]
    assert plant.offset == pytest.approx(offset, rel=1e-9)
    assert plant.discount == pytest.approx(discount**dt, rel=1e-14)
    assert plant.temperature == pytest.approx(ALPHA * integrate.quad(lambda t: np.exp(-rate * t), 0, dt)[0], rel=1e-10)


def test_sampling_of_stiff_plants() -> None:
    """A fast mode that is over long before the next sample: its integral is that of all time."""
    step, total = integral(np.diag([-1e5, -1.0]), np.ones((2, 2)), 3.0)
    np.testing.assert_allclose(step, np.diag([0.0, np.exp(-3)]), atol=1e-15)
    expected = [[0.5e-5, 1 / (1e5 + 1)], [1 / (1e5 + 1), (1 - np.exp(-6)) / 2]]
    np.testing.assert_allclose(total, expected, rtol=1e-11)


def test_sampled_designs_converge_to_continuous_time() -> None:
    """Costs per unit of time, gain and covariance approach those of continuous time, at first order or better."""
    limit = design(F, B, Q, R, continuous=True, discount=0.8, **GIVEN)
    errors = []
    for dt in (0.02, 0.01):
        near = design(F, B, Q, R, continuous=True, discount=0.8, dt=dt, **GIVEN)
        assert near.cost.duration * near.cost.exploration == pytest.approx(limit.cost.duration * limit.cost.exploration)
        errors.append([near.cost.total - limit.cost.total, *(near.gain - limit.gain).flat])
        errors[-1] += [*(near.covariance - limit.covariance).flat]
    ratio = np.array(errors[0]) / np.array(errors[1])
    assert np.all(ratio > 1.8) and np.all(np.abs(errors[1]) < 0.05)


@pytest.mark.parametrize("continuous", [False, True])
def test_cost_that_can_be_avoided(continuous: bool) -> None:
    """Of the cost |Cx + Du|², singular with its cross term, the optimum u = −D⁻¹Cx pays nothing but for exploration."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        C, D, G, closed = rng.standard_normal((4, 3, 3))
        closed *= 0.7 / np.abs(np.linalg.eigvals(closed)).max()
        K = np.linalg.solve(D, C)
        plant = closed + G @ K - continuous * np.eye(3)
        found = design(plant, G, C.T @ C, D.T @ D, cross=C.T @ D, temperature=1.0, noise_cov=W, continuous=continuous)
        np.testing.assert_allclose(found.gain, K, rtol=0, atol=1e-7 * np.abs(K).max())
        assert abs(found.cost.noise) < 1e-9 and found.cost.exploration == pytest.approx(1.5)


PAIRS = [(0.2 * np.eye(3), np.zeros((3, 2))), (0.1 * A, 0.3 * B)]


@pytest.mark.parametrize("continuous", [False, True])
def test_multiplicative_noise_minimises_the_second_moments_cost(continuous: bool) -> None:
    """The average soft cost from the stationary second moments, by fixed-point iteration, is least at the design."""
    plant = F if continuous else A
    found = design(plant, B, Q, R, continuous=continuous, multiplicative=PAIRS, **GIVEN)
    K, S = found.gain, found.covariance

    def average(K: np.ndarray, S: np.ndarray) -> float:
        X, spread = np.zeros((3, 3)), W + sum(b @ S @ b.T for _, b in PAIRS)
        for _ in range(400):
            shaken = spread + sum((a - b @ K) @ X @ (a - b @ K).T for a, b in PAIRS)
            if continuous:
                X = linalg.solve_continuous_lyapunov(plant - B @ K, -shaken)
            else:
                X = linalg.solve_discrete_lyapunov(plant - B @ K, shaken + B @ S @ B.T)
        entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * S).logabsdet
        return float(np.sum(WHOLE * joint(K, X, S)) - ALPHA * entropy)

    assert found.cost.soft_average == pytest.approx(average(K, S), rel=1e-9)
    assert found.cost.exploration == pytest.approx(ALPHA, rel=1e-10)
    for scale in (0.99, 1.01):
        assert average(scale * K, S) > found.cost.soft_average < average(K, scale * S)
    assert found.cost.noise > design(plant, B, Q, R, continuous=continuous, **GIVEN).cost.noise


def test_multiplicative_noise_beyond_what_can_be_borne() -> None:
    """Of x' = 2x + u + ξ s u: stabilisable in mean square for s² < 1/3, where the uncertainty threshold lies."""
    share = lambda s: design(2.0, 1.0, 1.0, 1.0, temperature=1.0, multiplicative=[(0.0, s)])  # noqa: E731
    assert share(np.sqrt(0.33)).cost_matrix[0, 0] > 100
    with pytest.raises(ValueError, match="multiplicative: got noise of which at most 0.9.* can be borne"):
        share(np.sqrt(0.34))


@pytest.mark.parametrize("continuous", [False, True])
def test_policy_iteration(continuous: bool) -> None:
    """Lemma 1: from another gain each step lowers the soft cost, and the steps end at the design."""
    found = design(F if continuous else A, B, Q, R, continuous=continuous, multiplicative=PAIRS, **GIVEN)
    K = design(F if continuous else A, B, Q, 50 * R, continuous=continuous, temperature=ALPHA).gain
    costs, covariance = [], found.covariance
    for _ in range(12):
        K, covariance = found.policy_iteration_step(K)
        costs.append(found.cost_of(K, covariance).soft_average)
    assert costs[0] > costs[1] > costs[2] and costs[0] > costs[-1] + 1e-4
    np.testing.assert_allclose(K, found.gain, rtol=1e-9)
    np.testing.assert_allclose(covariance, found.covariance, rtol=1e-9)


@pytest.mark.parametrize("kind", ["discrete", "multiplicative", "sampled", "continuous"])
def test_trajectories_follow_the_response(kind: str) -> None:
    """Means and deviations of 4000 trajectories are those of the response, within five standard errors."""
    more = {"discrete": {}, "multiplicative": {"multiplicative": PAIRS}, "sampled": {"continuous": True, "dt": 0.1}}
    more["continuous"] = {"continuous": True}
    found = design(F if kind in ("sampled", "continuous") else A, B, Q, R, discount=0.9, **GIVEN, **more[kind])
    x0, steps, count = [1.0, -0.5, 2.0], 12, 4000
    response, run = found.response(x0, steps), found.simulate(x0, steps, count, seed=1)
    np.testing.assert_allclose(response.time, run.time)
    assert run.time[1] == pytest.approx(found.plant.dt or (response.time[-1] / 12 if kind == "continuous" else 1.0))
    np.testing.assert_array_equal(run.states[0], np.tile(x0, (count, 1)))
    for mean, deviation, seen in (
        (response.state_mean[1:], response.state_std[1:], run.states[1:]),
        (response.input_mean[:-1], response.input_std[:-1], run.inputs),
    ):
        assert np.all(np.abs(seen.mean(axis=1) - mean) < 5 * deviation / np.sqrt(count))
        heavy = 3 if kind == "multiplicative" else 1  # tails heavier than a normal's
        assert np.all(np.abs(seen.std(axis=1) / deviation - 1) < heavy * 5 / np.sqrt(2 * count))
    both = np.concatenate([run.states[:-1], run.inputs], axis=-1)
    weight = np.block([[found.plant.Q, found.plant.cross], [found.plant.cross.T, found.plant.R]])
    assert run.costs[3, 5] == pytest.approx(both[3, 5] @ weight @ both[3, 5] + found.plant.offset)


def test_trajectories_cost_what_the_design_says() -> None:
    """The long-run average cost of simulated trajectories, within five standard errors."""
    found = design(A, B, Q, R, **GIVEN)
    run = found.simulate(steps=400, trajectories=200, seed=3)
    averages = run.costs[100:].mean(axis=0)
    assert abs(averages.mean() - found.cost.average) < 5 * averages.std() / np.sqrt(200)
    assert np.cov(run.states[0].T) == pytest.approx(X0, abs=5 * 2 * np.sqrt(2 / 200))


def test_trajectories_of_a_sampled_plant_pay_for_noise_between_samples() -> None:
    """As the design does: here it is more than a third of the cost."""
    found = design(-1.0, 1.0, 1.0, 1.0, temperature=0.1, noise_cov=1.0, continuous=True, dt=0.5)
    run = found.simulate(steps=400, trajectories=200, seed=3)
    averages = run.costs[100:].mean(axis=0)
    assert abs(averages.mean() - found.cost.average) < 5 * averages.std() / np.sqrt(200)
    assert found.plant.offset > 0.35 * found.cost.average


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e-4, 1e4, 1e6])
def test_states_that_cost_nothing_have_any_units(unit: float) -> None:
    """Two that cost nothing and drive each other, the second in other units: the gain on the first is the same."""
    scale = np.array([1.0, 1.0, unit])
    rates = np.array([[0.9, 0.0, 0.0], [0.3, 0.6, 0.2], [0.0, 0.4, 0.5]])
    found = design(rates * scale[:, None] / scale, [[1.0], [0], [0]], np.diag([1.0, 0, 0]), 1.0, temperature=0.5)
    alone = design(0.9, 1.0, 1.0, 1.0, temperature=0.5)
    np.testing.assert_allclose(found.gain * scale, [[alone.gain.item(), 0, 0]], rtol=1e-10, atol=1e-10)


def test_numbers_columns_and_systems_of_python_control() -> None:
    """A scalar plant, a list for one input, and StateSpace in the place of A and B, of both kinds of time."""
    P = 2 + np.sqrt(5)
    assert design(2.0, 1.0, 1.0, 1.0, temperature=1.0).gain[0, 0] == pytest.approx(2 * P / (1 + P))
    column = design([[1, 0.1], [0, 1]], [0, 0.1], np.eye(2), 1, temperature=1.0, cross=[0.1, 0.0])
    whole = design([[1, 0.1], [0, 1]], [[0], [0.1]], np.eye(2), [[1]], temperature=1.0, cross=[[0.1], [0.0]])
    np.testing.assert_array_equal(column.gain, whole.gain)
    assert design(2.0, [1.0, 3.0], 1.0, np.eye(2), temperature=1.0).gain.shape == (2, 1)
    system = control.ss(F, B, np.eye(3), np.zeros((3, 2)))
    found = design(system, Q, R, temperature=1.0, continuous=True)
    np.testing.assert_array_equal(found.gain, design(F, B, Q, R, temperature=1.0, continuous=True).gain)
    sampled = design(control.ss(A, B, np.eye(3), np.zeros((3, 2)), 0.2), Q, R, temperature=1.0)
    np.testing.assert_array_equal(sampled.gain, design(A, B, Q, R, temperature=1.0).gain)
    assert sampled.response(steps=5).time[-1] == pytest.approx(1.0)
    assert design(control.ss(A, B, np.eye(3), np.zeros((3, 2)), True), Q, R, temperature=1.0).plant.dt is None
    for own, named in (((Q,), {"R": R}), ((), {"Q": Q, "R": R})):
        again = design(system, *own, **named, temperature=1.0, continuous=True)
        np.testing.assert_array_equal(again.gain, found.gain)
    for parts, lacks in (((system, Q), "R"), ((A, B), "R"), ((A,), "R"), ((A, None, Q, R), "B")):
        with pytest.raises(ValueError, match=f"^{lacks}: got none, expected one; pass"):
            design(*parts, temperature=1.0, continuous=parts[0] is system)


def test_systems_of_scipy_know_their_kind_of_time() -> None:
    """Those in continuous time have no time step, and are not taken for discrete ones."""
    system = signal.StateSpace(F, B, np.eye(3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="got a continuous-time system.*pass continuous=True, and dt"):
        design(system, Q, R, temperature=1.0)
    found = design(system, Q, R, temperature=1.0, continuous=True)
    np.testing.assert_array_equal(found.gain, design(F, B, Q, R, temperature=1.0, continuous=True).gain)
    sampled = design(system.to_discrete(0.2), Q, R, temperature=1.0)
    np.testing.assert_allclose(sampled.plant.A, linalg.expm(0.2 * F))
    assert sampled.plant.dt == 0.2


def test_json(tmp_path: Path) -> None:
    """What is written is designed again, to the last bit; four matrices and a price are enough."""
    given = dict(GIVEN, discount=0.9, continuous=True, dt=0.1)
    found, path = design(F, B, Q, R, **given), tmp_path / "design.json"
    assert found.to_json(path) == path.read_text() == found.to_json()
    again = lqr.load_design(path)
    assert again.to_json() == found.to_json() and again.cost == found.cost
    assert json.loads(path.read_text())["design"]["gain"] == found.gain.tolist()
    path.write_text(json.dumps({"A": [[2.0]], "B": 1.0, "Q": 1.0, "R": 1.0, "temperature": 0.5}))
    few = lqr.load_design(path)
    assert (few.plant.discount, few.cost.noise, few.plant.initial_cov[0, 0]) == (1.0, 0.0, 1.0)
    assert lqr.load_design(path, temperature=1.0).covariance == pytest.approx(2 * few.covariance)
    for change, message in (
        ({"Qq": 1.0}, "key: got 'Qq', expected one of A, B"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"A": [[1.0], [2.0]]}, "A: got shape"),
    ):
        with pytest.raises(ValueError, match=f"^{path}: {message}"):
            lqr.load_design(path, **change)
    path.write_text(json.dumps({"A": 2.0, "B": 1.0, "Q": 1.0}))
    with pytest.raises(ValueError, match="got no R, temperature"):
        lqr.load_design(path)
    with pytest.raises(ValueError, match=f"^{tmp_path}: got 'Is a directory' from the system"):
        found.to_json(tmp_path)


@pytest.mark.parametrize("continuous", [False, True])
def test_plot(continuous: bool) -> None:
    """Four panels: the response's lines, a pole for each state, and the exploration."""
    figure = design(F if continuous else A, B, Q, R, continuous=continuous, **GIVEN).plot([1, 0, 0], steps=20)
    states, inputs, poles, exploration = figure.axes
    assert (len(states.lines), len(inputs.lines), len(exploration.lines)) == (3, 2, 3)
    assert len(states.lines[0].get_xdata()) == 21 and len(poles.lines[-1].get_xdata()) == 3
    assert states.get_xlabel() == ("time" if continuous else "step")
    one = design(2.0, 1.0, 1.0, 1.0, temperature=1.0)
    line = one.plot().axes[3].lines[0]
    assert np.max(line.get_ydata()) == pytest.approx(1 / np.sqrt(2 * np.pi * one.covariance[0, 0]))


SYSTEM = control.ss([[0.0]], [[1.0]], [[1.0]], [[0.0]])


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ((np.diag([1.2, 0.5]), [0, 1], np.eye(2), 1), {}, r"A, B: got a mode of size 1\.2 that B cannot reach"),
        (
            (np.diag([0.2, -1]), [0, 1], np.eye(2), 1),
            {"continuous": True},
            "A, B, Q: got .* not stabilisable",
        ),
        ((np.eye(2), np.eye(2), np.diag([1, 0]), np.eye(2)), {}, "A, Q: got a mode of size 1 that costs nothing"),
        ((0.0, 1.0, 0.0, 1.0), {"continuous": True}, "A, B, Q: got a plant that is not detectable"),
        ((2.0, 1.0, 1.0, 1.0), {"cross": 1.5}, r"the cost \[Q cross; cross.T R\]: got a smallest eigenvalue of -0.5"),
        ((2.0, 1.0, 1.0, 1.0), {"dt": 0.0}, "dt: got 0.0, expected a finite number above 0"),
        ((1.0, 1.0, 1.0, 1.0), {"dt": 1e3, "continuous": True}, "dt: got 1000, in which the plant grows beyond all n"),
        ((1.0, 1.0, 1.0, 1.0), {"dt": 1e3, "continuous": True, "discount": 0.01}, "dt: got 1000, in which the plant"),
        ((1.0, 1.0, 1.0, 1.0), {"dt": 100, "continuous": True}, "A, B, Q, R: got numbers that overflow"),
        ((2.0, 1.0, 1.0, 1.0), {"dt": -1, "continuous": True}, "dt: got -1, expected a finite number above 0"),
        ((SYSTEM, 1.0, 1.0), {}, "system: got a continuous-time system, expected a discrete-time system"),
        ((control.ss(1, 1, 1, 0, 1), 1.0, 1.0), {"continuous": True}, "system: got a discrete-time system, expected a"),
        ((control.ss(1, 1, 1, 0, 0.5), 1.0, 1.0), {"dt": 0.1}, "dt: got 0.1 for a system of time step 0.5"),
        ((SYSTEM, 1.0, 1.0, 1.0), {"continuous": True}, "B: got an input matrix beside a system"),
        ((2.0, 1.0, 1.0), {}, "R: got none"),
        ((np.eye(2), [1, 1, 1], np.eye(2), 1), {}, r"B: got shape \(3, 1\)"),
        ((np.eye(2), np.eye(2), np.eye(3), np.eye(2)), {}, r"Q: got shape \(3, 3\)"),
        ((np.eye(2), np.eye(2), np.eye(2), 1.0), {}, r"R: got shape \(1, 1\)"),
        (([[1, 2], [3]], np.eye(2), np.eye(2), np.eye(2)), {}, "A: got rows of unequal length"),
        ((np.eye(2), np.eye(2), np.eye(2), np.eye(2)), {"cross": np.eye(3)}, r"cross: got shape \(3, 3\)"),
        ((2.0, 1.0, 1.0, 0.0), {}, "R: got a smallest eigenvalue of 0"),
        ((2.0, 1.0, 1.0, 1.0), {"temperature": 0}, "temperature: got 0"),
        ((2.0, 1.0, 1.0, 1.0), {"discount": 1.1}, "discount: got 1.1, expected a number of at least 0 and at most 1"),
        ((2.0, 1.0, 1.0, 1.0), {"discount": 0, "continuous": True}, "discount: got 0, expected a number above 0"),
        ((2.0, 1.0, 1.0, 1.0), {"multiplicative": [(0.1,)]}, r"multiplicative: got \(0.1,\), expected pairs"),
        ((2.0, 1.0, 1.0, 1.0), {"multiplicative": [0.1]}, r"multiplicative: got 0.1, expected pairs"),
        ((2.0, 1.0, 1.0, 1.0), {"noise_cov": -1.0}, "noise_cov: got a smallest eigenvalue of -1"),
        (
            (1.0, 1.0, 1.0, 1.0),
            {"continuous": True, "dt": 1, "multiplicative": [(0.1, 0)]},
            "multiplicative: got noise",
        ),
    ],
)
def test_refusals(arguments: tuple, changes: dict, message: str) -> None:
    """One sentence that names what is wrong."""
    with pytest.raises(ValueError, match=f"^{message}"):
        design(*arguments, **{"temperature": 1.0, **changes})


def test_refusals_of_methods() -> None:
    """Gains that do not stabilise, wrong shapes and numbers of steps."""
    found = design(2.0, 1.0, 1.0, 1.0, temperature=1.0)
    shaken = design(1.0, 1.0, 1.0, 1.0, temperature=1.0, continuous=True, multiplicative=[(0.1, 0.1)])
    for call, message in (
        (lambda: found.cost_of(0.5, [[1.0]]), r"gain: got shape \(\)"),
        (lambda: found.cost_of([[0.5]], [[1.0]]), "gain: got one that does not stabilise"),
        (lambda: found.cost_of([[1.5]], [[-1.0]]), "covariance: got a smallest eigenvalue"),
        (lambda: found.response([1.0, 2.0]), r"x0: got shape \(2,\)"),
        (lambda: found.simulate(steps=0), "steps: got 0"),
        (lambda: found.simulate(trajectories=0), "trajectories: got 0"),
        (lambda: found.response(step=0.1), "step: got 0.1, expected none in discrete time"),
        (lambda: shaken.simulate(), "multiplicative: got noise in continuous time"),
        (lambda: shaken.response(step=-1.0), "step: got -1.0"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def test_what_is_no_truth_value_is_refused():
    """Without the tests' own check of types, by which it would not get there."""
    code = "from entroflow import lqr; lqr.design(2.0, 1.0, 1.0, 1.0, temperature=1.0, continuous='no')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "continuous: got 'no', expected True or False; pass continuous=True for dx/dt = Ax + Bu." in done.stderr


def test_notebooks_show_its_picture() -> None:
    """By themselves, as IPython asks for it."""
    assert design(A, B, Q, R, **GIVEN).plot()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_it_says_what_it_is() -> None:
    """In one line, also with several inputs."""
    found = design(A, B, Q, R, **GIVEN)
    start, rows = repr(found).split("K = ")
    assert start == "<Design(temperature=0.3, discount=1): discrete time, " and "\n" not in rows
    entries = [float(part) for part in rows.translate(str.maketrans("[]>", "   ")).split()]
    np.testing.assert_allclose(entries, found.gain.ravel(), atol=1e-4)
    assert repr(design(F, B, Q, R, **GIVEN, continuous=True)).startswith("<Design(temperature=0.3, discount=1): contin")


def test_a_cost_says_the_sum_that_counts() -> None:
    """The average for ever, the total with a discount, whose parts make up the sum as they stand there."""
    forever = design(A, B, Q, R, **GIVEN).cost
    whole, noise, exploration, *_ = numbers_in(repr(forever))
    assert repr(forever).startswith("<Cost(average=") and whole == pytest.approx(forever.average, rel=1e-5)
    assert noise + exploration == pytest.approx(whole, rel=1e-3)
    discounted = design(A, B, Q, R, **GIVEN | {"discount": 0.9}).cost
    whole, control, duration, noise, exploration, *_ = numbers_in(repr(discounted))
    assert repr(discounted).startswith("<Cost(total=") and whole == pytest.approx(discounted.total, rel=1e-5)
    assert control + duration * (noise + exploration) == pytest.approx(whole, rel=1e-3)


def numbers_in(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d+\.?\d*(?:e[-+]\d+)?", text)]
