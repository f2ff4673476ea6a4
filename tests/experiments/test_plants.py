"""Plants of one to twelve states: the data against their sources, the problems made of them, what is reported."""

import csv
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from entroflow.lqr import design
from experiments import frame
from experiments.plants import report, run

ROOT = Path(__file__).parents[1]
SOURCE = {plant["name"]: plant for plant in json.loads((ROOT / "data" / "plants.json").read_text())["plants"]}
BY_NAME = {
    "double_integrator": "CAREX 1",
    "aircraft_pitch": "aircraft pitch",
    "inverted_pendulum": "inverted pendulum",
    "chemical_plant": "DAREX 9",
    "shift": "DAREX 10",
    "ammonia_reactor": "CAREX 5",
}


def test_the_matrices_are_those_of_the_collections():
    """To the last digit those that the tests of gains have; states from one to twelve, a source for each."""
    for name, known in BY_NAME.items():
        plant = run.PLANTS[name]
        assert (plant["dt"] is not None) == SOURCE[known]["continuous"]
        for key in "ABQR":
            np.testing.assert_allclose(plant[key], SOURCE[known][key], rtol=1e-9)
    assert [len(plant["A"]) for plant in run.PLANTS.values()] == [1, 2, 3, 4, 5, 6, 9, 12]
    assert all(plant["source"] for plant in run.PLANTS.values())


def quadrotor(state, inputs):
    """The rigid body: derivative of position, roll, pitch and yaw, velocity and body rates under thrust and torques."""
    (roll, pitch, yaw), velocity, rates = state[3:6], state[6:9], state[9:]
    mass, inertia, gravity = 0.468, np.array([4.856e-3, 4.856e-3, 8.801e-3]), 9.81
    c, s = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    up = np.array([c[2] * s[1] * c[0] + s[2] * s[0], s[2] * s[1] * c[0] - c[2] * s[0], c[1] * c[0]])
    turning = np.array([[1, s[0] * s[1] / c[1], c[0] * s[1] / c[1]], [0, c[0], -s[0]], [0, s[0] / c[1], c[0] / c[1]]])
    acceleration = up * (mass * gravity + inputs[0]) / mass - np.array([0, 0, gravity])
    spin = (inputs[1:] - np.cross(rates, inertia * rates)) / inertia
    return np.concatenate([velocity, turning @ rates, acceleration, spin])


def test_the_quadrotor_is_the_linearisation_about_hover():
    """Its matrices are the central differences of the nonlinear body, within their error."""
    h, plant, zero = 1e-5, run.PLANTS["quadrotor"], (np.zeros(12), np.zeros(4))
    assert np.abs(quadrotor(*zero)).max() == 0
    A = [(quadrotor(h * e, zero[1]) - quadrotor(-h * e, zero[1])) / (2 * h) for e in np.eye(12)]
    B = [(quadrotor(zero[0], h * e) - quadrotor(zero[0], -h * e)) / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(np.transpose(A), plant["A"], atol=1e-8)
    np.testing.assert_allclose(np.transpose(B), plant["B"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", run.PLANTS)
def test_a_problem_is_the_sampled_plant(name):
    """Its optimum, less the feedback that took the cross term away, is that of the design; initial states cost 5."""
    lqr, gain = run.system(name)
    plant = run.PLANTS[name]
    dt = plant["dt"]
    timed = {"continuous": True, "dt": dt, "discount": 0.95 ** (1 / dt)} if dt else {"discount": 0.95}
    made = design(*(plant[key] for key in "ABQR"), temperature=1.0, **timed)
    best = lqr.optimal(1.0)
    feedback = np.linalg.solve(made.plant.R, made.plant.cross.T)
    np.testing.assert_allclose(best.P, made.cost_matrix, rtol=1e-6, atol=1e-9 * np.abs(best.P).max())
    np.testing.assert_allclose(best.K + feedback, made.gain, rtol=1e-6, atol=1e-9 * np.abs(made.gain).max())
    np.testing.assert_allclose(np.diag(best.P) * np.diag(lqr.initial_cov), 5 / len(lqr.A), rtol=1e-6)
    np.testing.assert_allclose(lqr.noise_cov, lqr.initial_cov / 100)
    assert run.distance(lqr, best.K) < 1e-9 < 0.3 < run.distance(lqr, gain) < 1
    assert run.distance(lqr, 0 * gain) == pytest.approx(1)


def test_the_mean_is_told_in_deviations_of_the_exploration():
    """On one state as the recursion of its variance has it; on several in any units of inputs."""
    lqr = run.system("cruise")[0]
    best, variance, total = lqr.optimal(0.1), lqr.initial_cov, 0.0
    for _ in range(101):
        total += (best.K @ variance @ best.K.T / best.covariance).item() / 101
        closed = lqr.A - lqr.B @ best.K
        variance = closed @ variance @ closed.T + lqr.B @ best.covariance @ lqr.B.T + lqr.noise_cov
    assert run.signal(lqr, 0.1) == pytest.approx(total**0.5, rel=1e-9)
    plant = run.system("shift")[0]
    scaled = plant.in_units(np.ones(6), np.array([2.0, 0.25]), 1.0)
    assert run.signal(scaled, 1.0) == pytest.approx(run.signal(plant, 1.0), rel=1e-9)


def test_a_run_calls_the_command_and_keeps_what_it_found(tmp_path, monkeypatch):
    """With system, gain and method; a study that breaks down leaves its curve and no errors; table and figure."""
    calls = []

    def study(command, **_):
        calls.append(command)
        options = dict(word.removeprefix("--").split("=") for word in command if "=" in word)
        alphas = [float(word) for word in command[command.index("--alpha") + 1 :]]
        out = Path(options["out"])
        out.mkdir(parents=True)
        if "initial-gain" in options:
            gain = json.loads(Path(options["initial-gain"]).read_text())["gain"]
            assert np.shape(gain) == np.shape(json.loads(Path(options["system"]).read_text())["B"])[::-1]
        errors = {"mean_error_relative": 0.05, "covariance_error_relative": 0.02}
        counts = (2048, 4096)
        runs = [{"alpha": alpha, "seed": 0, "transitions": count} | errors for count in counts for alpha in alphas]
        with (out / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, runs[0])
            writer.writeheader()
            writer.writerows(runs)
        returns = {"standard_return": -11.0, "optimal_standard_return": -10.0}
        (out / "results.json").write_text(json.dumps({"runs": [run | returns for run in runs[-len(alphas) :]]}))
        broken = options.get("preset") == "paper" or ("cruise" in options["system"] and 0.01 in alphas)
        return SimpleNamespace(returncode=int(broken), stdout="", stderr="")

    spent = itertools.count()
    monkeypatch.setattr(run.subprocess, "run", study)
    monkeypatch.setattr(
        run.resource, "getrusage", lambda _: SimpleNamespace(ru_utime=7.0 * next(spent), ru_stime=float(next(spent)))
    )
    out = tmp_path / "out"
    assert run.main(["--plants", "cruise", "double_integrator", "--steps", "2", "--out", str(out)]) == 0
    said = [" ".join(call) for call in calls]
    assert [sum(f"--{word}" in each for each in said) for word in ("algorithm=gaussian_sac", "preset=paper")] == [1, 1]
    assert ["initial-gain" in each for each in said] == [True] * 6 + [False] * 3  # together, each alone; together
    assert [each[each.index("--alpha") :] for each in said[1:6]] == [
        *(f"--alpha {alpha}" for alpha in run.ALPHAS),
        f"--alpha {' '.join(map(str, run.ALPHAS))}",
    ]
    assert [("--steps=1 " in each, "--steps=2 " in each) for each in said] == [(True, False)] * 6 + [(False, True)] * 3
    text = (out / "table.md").read_text()
    assert text.count("5.0%, 2.0%") == 2 * len(run.ALPHAS) - 1 + 2 and text.count("broke down") == 2
    rows = frame.read_rows(out / "results.csv")
    assert list(rows[0]) == report.COLUMNS and report.table(rows) == text
    assert float(rows[0]["gap"]) == pytest.approx(-0.1) and [row["seconds"] for row in rows[:2]] == ["16.0", "16.0"]
    assert [row["seconds"] for row in rows if row["plant"] == "double_integrator"] == [*["4.0"] * 4, "16.0", "", "16.0"]
    assert all(imread(out / f"{name}.png").std() > 0.01 for name in ("plants", "methods"))
    assert run.main(["--plants", "boat", "--out", str(tmp_path / "other")]) == 2


def test_runs_that_all_broke_down_are_drawn():
    """As empty panels: the study ends with its table and figures."""
    lost = dict.fromkeys(report.COLUMNS) | {"plant": "cruise", "method": "sac_isfm", "states": 1, "alpha": 1.0}
    lost["signal"] = 0.5
    assert "broke down" in report.table([lost]) and "0.5: broke down" in report.beside_exploration([lost])
    report.plants_figure([lost]).draw_without_rendering()


def test_the_committed_table_is_that_of_the_committed_rows():
    """To the letter, and in the README; no row is of a plant or an α that the plan does not have."""
    rows = frame.read_rows(run.HERE / "results.csv")
    for name, text in (("table", report.table(rows)), ("beside_exploration", report.beside_exploration(rows))):
        assert text == (run.HERE / f"{name}.md").read_text() and text in (run.HERE / "README.md").read_text()
    for row in rows:  # the problems have not changed since
        assert float(row["signal"]) == pytest.approx(run.signal(run.system(row["plant"])[0], float(row["alpha"])))
    assert {row["plant"] for row in rows} <= run.PLANTS.keys() and {float(row["alpha"]) for row in rows} <= {
        *run.ALPHAS
    }


def test_the_quadrotor_is_learned_within_the_goals():
    """The committed runs of 4000 steps: means within 5 %, covariances within 8 %, at both α; as the README says."""
    rows = frame.read_rows(run.HERE / "quadrotor.csv")
    assert {float(row["alpha"]) for row in rows} == {0.1, 1.0} and {row["plant"] for row in rows} == {"quadrotor"}
    means, covariances = [[float(row[key]) for row in rows] for key in report.ERRORS]
    assert max(means) < 0.05 and max(covariances) < 0.08
    told = (
        " and ".join(f"{100 * mean:.1f}" for mean in means[:2]),
        " and ".join(f"{100 * mean:.1f}" for mean in means[2:]),
    )
    assert f"to {told[0]} % at α = 0.1 and to {told[1]} % at 1" in (run.HERE / "README.md").read_text()
