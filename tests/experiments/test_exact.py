"""The exact experiment, a tiny size of it: distances that are known, what it writes, what it refuses."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from entroflow.envs import DoubleWell
from entroflow.exact import Axis, solve
from experiments.exact import measure, report, run
from experiments.exact.systems import SYSTEMS
from experiments.multigoal import run as multigoal

FOLDER = Path(run.__file__).parent


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One tiny study of the Gaussian on the double well; the flow's program would take long to trace."""
    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SYSTEMS, "double_well", SYSTEMS["double_well"]._replace(grid=(Axis(-2.0, 2.0, 41),)))
        patch.setitem(run.ALGORITHMS, "gaussian_sac", dataclasses.replace(run.ALGORITHMS["gaussian_sac"], width=8))
        patch.setattr(run, "CRITIC", dataclasses.replace(run.CRITIC, width=8, depth=1))
        patch.setattr(run, "NODES", 16)
        patch.setattr(multigoal, "ENVIRONMENTS", 4)
        for name, value in {"STATES": 5, "EPISODES": 16, "HORIZON": 30, "ACROSS": 5, "PATHS": 2}.items():
            patch.setattr(measure, name, value)
        options = "--system double_well --algorithm gaussian_sac --steps 2 --seeds 2 --batch 16".split()
        assert run.main([*options, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_files_and_numbers(study):
    """Figures that are not blank; an exact policy at distance zero from itself, and others that are worse."""
    for name in ("densities", "values", "trajectories", "robustness"):
        assert imread(study / f"{name}.png").std() > 0.01
    results = json.loads((study / "results.json").read_text())
    (exact,), runs = results["systems"], results["runs"]
    assert exact["total_variation"] == exact["w2"] == exact["return_gap"] == 0
    assert exact["mode_weight"] == pytest.approx(0.5, abs=1e-3) and exact["mass"] == pytest.approx(1, abs=0.01)
    assert exact["value_error"] < 0.01 and abs(exact["soft_return_gap"]) < 0.01 and exact["error"] < 0.2
    assert [(row["system"], row["algorithm"], row["seed"]) for row in runs] == [
        ("double_well", "gaussian_sac", i) for i in (0, 1)
    ]
    for row in runs:
        assert 0.1 < row["total_variation"] <= row["total_variation_worst"] <= 1
        assert row["soft_return_gap"] > 0.1 and row["w2"] > 0.1 and row["value_error"] > 0.1
        assert len(row["disturbed"]) == len(measure.DISTURBANCES)
    assert (study / "table.md").read_text().count("double_well, Gaussian SAC") == 1


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "paper", FOLDER / "large"], ids=lambda folder: folder.name)
def test_the_committed_table_is_that_of_the_committed_data(folder):
    """table.md from results.json, and in the README; what the exact policies score is nothing."""
    results, found = json.loads((folder / "results.json").read_text()), (folder / "table.md").read_text()
    assert report.markdown(results["runs"]) == found and found in (FOLDER / "README.md").read_text()
    assert all(row["total_variation"] == 0 and abs(row["soft_return_gap"]) < 0.01 for row in results["systems"])


def test_every_problem_is_learned_within_the_goals():
    """Total variation at most 0.1 and returns within 2 %, every seed; of two problems with more data."""
    runs = [
        run
        for folder in (FOLDER, FOLDER / "large")
        for run in json.loads((folder / "results.json").read_text())["runs"]
    ]
    learned = [run for run in runs if run["algorithm"] == "sac_isfm"]
    by_system = {run["system"]: [each for each in learned if each["system"] == run["system"]][-3:] for run in learned}
    assert by_system.keys() == SYSTEMS.keys()
    for found in by_system.values():
        assert max(run["total_variation"] for run in found) < 0.1
        assert max(max(run["return_gap"], run["soft_return_gap"]) for run in found) < 0.02


def test_distances_that_are_known():
    """W₂ of two uniform densities that are shifted, and of a narrow one from a wide one of the same mean."""
    actions = np.linspace(-1, 1, 201)
    box = lambda low, high: ((actions >= low) & (actions <= high)).astype(float)  # noqa: E731
    assert measure.wasserstein(actions, box(-0.905, -0.405), box(0.095, 0.595)) == pytest.approx(1.0, abs=1e-3)
    assert measure.wasserstein(actions, box(-0.505, 0.505), box(-0.255, 0.255)) == pytest.approx(
        0.25 / np.sqrt(3), abs=1e-4
    )


class Uniform:
    """The policy that knows nothing."""

    def __init__(self, env):
        self.low, self.high = env.action_low, env.action_high
        self.entropy = jnp.sum(jnp.log(self.high - self.low))

    def sample_and_log_prob(self, key, obs):
        return jax.random.uniform(key, (1,), minval=self.low, maxval=self.high), -self.entropy

    def log_prob(self, obs, action):
        return -self.entropy


def test_a_uniform_policy_lacks_what_its_returns_do(monkeypatch):
    """V* less its returns and its entropies is what the gaps say, within 4 standard errors and 2 % for the horizon."""
    for name, value in {"STATES": 4, "EPISODES": 512, "HORIZON": 60, "ACROSS": 5, "PATHS": 2}.items():
        monkeypatch.setattr(measure, name, value)
    monkeypatch.setattr(measure, "DISTURBANCES", (0.0,))
    alpha, discount = 0.2, 0.9
    solution = solve(DoubleWell(), (Axis(-2.0, 2.0, 161),), temperature=alpha, discount=discount, nodes=32)
    policy = Uniform(solution.env)
    critic = lambda obs, action: solution.q(solution.env.state_of(obs), action)  # noqa: E731

    @jax.jit
    def found():
        starts, states = measure.visited(solution, jax.random.key(0))
        seen = measure.look(solution, SYSTEMS["double_well"], policy, critic, starts, states, jax.random.key(1))
        return jax.vmap(solution.soft_maximum)(starts), seen.returns[0], seen.gaps

    best, returns, gaps = map(np.asarray, found())
    bonus = alpha * float(policy.entropy) * (1 - discount**measure.HORIZON) / (1 - discount)
    lacking = best - returns - bonus
    error = np.hypot(lacking.std(), gaps.std()) / np.sqrt(len(gaps))
    assert gaps.mean() > 10 * error
    assert abs(gaps.mean() - lacking.mean()) < 4 * error + 0.02 * gaps.mean()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "double_wel"], "did you mean 'double_well'"),
        (["--algorithm", "sac_isfm", "sac_isfm"], "name each once"),
        (["--steps", "0"], "--steps: got 0"),
        (["--seeds", "0"], "--seeds: got 0"),
        (["--batch", "0"], "--batch: got 0"),
    ],
)
def test_bad_options_are_refused(capsys, tmp_path, arguments, words):
    """Exit code 2, the option in the message, nothing written."""
    assert run.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert words in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()
