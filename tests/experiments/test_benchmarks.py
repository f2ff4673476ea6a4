"""The benchmarks: what they measure and write, what they keep, what they refuse. Nothing here asserts speed."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from matplotlib.image import imread

from benchmarks import accuracy, algorithms, exported, learning, operations, report, run, scaling
from benchmarks.measure import one_core, summary
from benchmarks.worker import Block
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import FitConfig

TIMES = {"cpu", "cpu_median", "wall", "wall_median", "system_median", "faults_median", "blocks"}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What two small calls wrote into one folder: Gaussian SAC's process, then scaling and accuracy."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    common = ["--task", "Pendulum-v1", "--rounds", "2", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algorithms, "OURS", ("gaussian_sac",))
        patch.setattr(scaling, "SIZES", {"action dimension": (1, 2)})
        patch.setattr(run, "DENSITIES", ("gaussian_2",))
        patch.setattr(accuracy, "FIT", FitConfig(steps=5, candidates=16))
        patch.setattr(accuracy, "POINTS", 8)
        patch.setattr(accuracy, "settings", lambda: [accuracy.Setting("closed form", "rk4", n) for n in (1, 4)])
        assert run.main(["update", *common]) == 0
        assert run.main(["scaling", "accuracy", *common]) == 0
    return folder


@pytest.mark.slow
def test_every_part_is_kept_with_its_machine(out):
    """A later call adds its parts to those of an earlier one; every entry says what it was measured on."""
    document = json.loads((out / "bench.json").read_text())
    assert set(document) == {"update", "scaling", "accuracy"}
    entries = [entry for part in document.values() for entry in part.values()]
    assert all({"processor", "cores", "date", "jax"} <= set(entry["machine"]) for entry in entries)
    update = document["update"]["Pendulum-v1"]["found"]["gaussian_sac"]
    assert update["versions"]["jax"] == jax.__version__
    assert TIMES == set(update["update"]) and update["update"]["blocks"] == 2
    assert 0 < update["update"]["cpu"] <= update["update"]["cpu_median"]


@pytest.mark.slow
def test_scaling_and_accuracy_hold_what_they_promise(out):
    """Sizes with operations, sampling alone beside sampling with densities; more RK4 steps are more accurate."""
    document = json.loads((out / "bench.json").read_text())
    found = document["scaling"]["action dimension"]["found"]
    assert [row["size"] for row in found["rows"]] == [1, 2] and found["matmul_rate"] > 0
    assert all(set(row["alone"]) == TIMES and row["operations"] > 0 and row["ratio"] > 0 for row in found["rows"])
    found = document["accuracy"]["gaussian_2"]["found"]
    assert found["references_differ_by"] < 1e-8
    coarse, fine = (row["error"] for row in found["rows"])
    assert fine < coarse < 0.1


@pytest.mark.slow
def test_the_report_shows_all_parts(out):
    """The Markdown report has a table of each part, and the figures can be read."""
    text = (out / "bench.md").read_text()
    for heading in ("Pendulum-v1", "How it grows", "What accuracy of log π costs", "Targets", "Measured on"):
        assert f"## {heading}" in text
    for name in ("scaling.png", "accuracy.png"):
        assert imread(out / name).ndim == 3


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The options of a call that measures an exported Gaussian at one observation."""
    monkeypatch.setattr(exported, "POLICIES", ("gaussian_sac",))
    monkeypatch.setattr(exported, "BATCHES", (1,))
    return ["export", "--task", "Pendulum-v1", "--rounds", "1", "--out", str(tmp_path / "out")]


def test_exported_policies_are_measured_once(tiny, tmp_path, monkeypatch):
    """Both files agree with the library, the table shows them, and --resume leaves alone what is there."""
    assert run.main(tiny) == 0
    before = (tmp_path / "out" / "bench.json").read_bytes()
    (row,) = json.loads(before)["export"]["gaussian_sac"]["found"]
    assert all(set(row[kind]) == TIMES | {"difference"} for kind in ("JAX", "StableHLO", "ONNX"))
    assert all(row[kind]["difference"] < 1e-5 for kind in ("StableHLO", "ONNX")) and row["bytes"]["onnx"] > 0
    assert "| gaussian_sac | 1 |" in (tmp_path / "out" / "bench.md").read_text()
    monkeypatch.setattr(exported, "measure", None)
    assert run.main([*tiny, "--resume"]) == 0
    assert (tmp_path / "out" / "bench.json").read_bytes() == before


def test_the_committed_tables_are_those_of_the_committed_times():
    """bench.md is what the report makes of bench.json, and one of its tables is among the results."""
    folder = Path(run.__file__).parent / "results"
    measured = json.loads((folder / "bench.json").read_text())
    assert report.text(measured) == (folder / "bench.md").read_text()
    assert f"\n\n{report.of_task(measured, 'HalfCheetah-v5')}\n\n" in (folder / "../../docs/results.md").read_text()


def test_the_report_sets_ratios_against_their_targets():
    """Ratios are those of the 10th percentiles, and a target is met at equality."""
    times = {"sac_isfm": 6.0, "gaussian_sac": 2.0, "sbx": 1.5, "sbx_alike": 2.5}
    calls = {"update": ("update",), "act": ("act_1", "act_256", "best_1", "best_of_4")}
    found = {
        part: {name: {key: {"cpu": value, "cpu_median": value} for key in keys} for name, value in times.items()}
        for part, keys in calls.items()
    }
    found["act"]["sbx"]["best_1"]["cpu"] = 1.0
    document = {part: {"T": {"machine": {}, "found": rows}} for part, rows in found.items()}
    lines = report.text(document).splitlines()
    assert "| update, SAC-ISFM / Gaussian SAC, T | 3.00 | 3 | met |" in lines
    assert "| update, SAC-ISFM / SBX, T | 4.00 | 3 | missed |" in lines
    assert "| update, Gaussian SAC / SBX, T | 1.33 | 1 | missed |" in lines
    assert "| update, Gaussian SAC / SBX with its networks, T | 0.80 | 1.1 | met |" in lines
    assert "| 256 drawn actions, SAC-ISFM / SBX, T | 4.00 | 2.5 | missed |" in lines
    assert "| the deterministic action, SAC-ISFM / SBX, T | 6.00 | 4 | missed |" in lines
    assert "| the same with `action_candidates=4`, T | 4.00 | 4 | met |" in lines


def test_operations_agree_with_xla():
    """The formula for drawing actions counts what XLA counts, but for elementwise work, where nothing loops."""
    solver, states = RungeKutta("midpoint", 1), 64
    policy = FlowPolicy(VelocityNetwork(17, 6, width=128, key=jax.random.key(0)), Unbounded(6), solver=solver)
    keys, obs = jax.random.split(jax.random.key(1), states), jnp.zeros((states, 17))
    draw = jax.jit(lambda policy, keys, obs: jax.vmap(policy.sample_and_log_prob)(keys, obs))
    costs = draw.lower(policy, keys, obs).compile().cost_analysis()
    assert costs is not None
    counted = costs["flops"]
    expected = operations.Flow(17, 6, 128, solver=solver).draw(states, 1)
    assert expected <= counted < 1.15 * expected


def test_operations_of_the_pathwise_gradient_agree_with_xla():
    """The same for the gradient through actions and the density of the solver's steps."""
    solver, states = RungeKutta("midpoint", 1), 32
    network = VelocityNetwork(17, 6, width=128, state_width=256, key=jax.random.key(0))
    policy = FlowPolicy(network, Unbounded(6), solver=solver)
    keys, obs = jax.random.split(jax.random.key(1), states), jnp.zeros((states, 17))

    def mean(network: VelocityNetwork):
        draw = dataclasses.replace(policy, velocity=network).sample_and_solver_log_prob
        actions, log_probs = jax.vmap(draw)(keys, obs)
        return jnp.mean(log_probs + jnp.sum(actions, axis=1))

    costs = jax.jit(jax.grad(mean)).lower(network).compile().cost_analysis()
    assert costs is not None
    flow, sizes = operations.Flow(17, 6, 128, 2, 256, solver), (states, 8, 1, 0, 256)
    expected = flow.improve(*sizes, pathwise=True) - flow.improve(*sizes, pathwise=False)
    assert expected <= costs["flops"] < 1.15 * expected


def test_summary_takes_percentiles_of_processor_and_clock():
    """The 10th percentile and the median belong to the right column."""
    blocks = [Block(wall=10.0 * i, cpu=float(i), system=0.1, faults=3.0) for i in range(11)]
    found = summary(blocks)
    assert (found["cpu"], found["cpu_median"], found["wall"], found["wall_median"]) == (1.0, 5.0, 10.0, 50.0)
    assert (found["system_median"], found["faults_median"], found["blocks"]) == (0.1, 3.0, 11)


def test_slope_and_pareto():
    """A power law has its exponent as slope; only settings that nothing beats are on the Pareto front."""
    assert scaling.slope([(x, 3 * x**1.5) for x in (1, 2, 4)]) == pytest.approx(1.5)
    rows = [{"cpu": c, "error": e} for c, e in [(3, 1e-4), (1, 1e-1), (2, 1e-1), (4, 1e-3)]]
    assert [row["cpu"] for row in accuracy.pareto(rows)] == [1, 3]


def test_one_core_gives_back_what_it_took():
    """Afterwards the process may use all the cores that it could use before."""
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1 and os.environ["OMP_NUM_THREADS"] == "1"
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["updat"], "part: got 'updat', expected one of start, update.*did you mean 'update'"),
        (["update", "--rounds", "0"], "--rounds: got 0"),
        (["update", "--task", "Nope-v0"], "env: got 'Nope-v0'"),
        (["update", "--peers", sys.executable], "--peers: got .* expected a Python that has stable-baselines3"),
        (["update", "--peers", "no/such/python"], "--peers: got 'no/such/python'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, message, tmp_path, capsys):
    """Nothing is measured or written for bad input."""
    folder = tmp_path / "out"
    assert run.main([*options, "--out", str(folder)]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1 and re.search(message, printed), printed
    assert not folder.exists()


def test_damaged_results_are_refused(tmp_path, capsys):
    """A results file that cannot be read is left as it is."""
    (tmp_path / "bench.json").write_text("{")
    assert run.main(["update", "--task", "Pendulum-v1", "--out", str(tmp_path)]) == 2
    assert "which is damaged" in capsys.readouterr().err
    assert (tmp_path / "bench.json").read_text() == "{"


def test_a_process_that_ends_says_why():
    """A worker whose algorithm cannot be made is an error that names the reason."""
    with pytest.raises(ValueError, match=r"a process of sbx that ended \(ModuleNotFoundError.*sbx"):
        algorithms.Worker("sbx", "Pendulum-v1", Path(sys.executable))


def test_times_to_a_return(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "EVERY", 300)
    monkeypatch.setattr(learning, "EPISODES", 1)
    asked = ["--task", "Pendulum-v1", "--algorithm", "gaussian_sac", "--steps", "600", "--out", str(tmp_path)]
    assert learning.main(asked) == 0
    rows = learning.read(tmp_path / "learning.csv")
    assert [(row["algorithm"], row["step"]) for row in rows] == [("gaussian_sac", "300"), ("gaussian_sac", "600")]
    assert 0 < float(rows[0]["seconds"]) < float(rows[1]["seconds"])
    assert learning.main(asked) == 0 and learning.read(tmp_path / "learning.csv") == rows  # nothing is trained again
    assert imread(tmp_path / "learning-Pendulum-v1.png").size


def test_the_committed_table_of_times_to_a_return():
    """Is that of the committed trainings, and in the README."""
    folder = Path(learning.__file__).parent
    text = learning.table(learning.read(folder / "results" / "learning.csv"))
    assert text == (folder / "results" / "learning.md").read_text() and text in (folder / "README.md").read_text()


def test_when_a_return_is_reached_is_read_off_the_mean_of_three_evaluations():
    told = {"sb3": (0, 40, 70, 100), "gaussian_sac": (90, 60, 60, 90)}
    rows = [
        {
            "algorithm": name,
            "task": "T",
            "seed": "0",
            "step": str(100 * i),
            "seconds": str(60 * i),
            "return": str(value),
        }
        for name, returns in told.items()
        for i, value in enumerate(returns, 1)
    ]
    lines = [[cell.strip() for cell in line.split("|")[2:-1]] for line in learning.table(rows).splitlines()[2:]]
    assert [(line[0], *line[4:]) for line in lines] == [
        ("Gaussian SAC", "70", "–", "1.0 (100)"),  # 90 at once, where 70 was asked for
        ("SB3 SAC", "70", "–", "4.0 (400)"),
    ]
