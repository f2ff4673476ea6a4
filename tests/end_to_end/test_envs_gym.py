"""The registered Gymnasium environment, as a user of Gymnasium meets it."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from entroflow.lqr import systems
from experiments.plants.horizon import finite_horizon_return

ID = "entroflow.envs:entroflow/LQR-v0"


# The checker advises bounded spaces. LQR has none by definition: its optimal policy is a Gaussian on all of R^d.
@pytest.mark.filterwarnings("ignore:.*A Box (action|observation) space (minimum|maximum) value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.parametrize("system", ["coupled", "cartpole"])
def test_gymnasium_checker_passes(system: str) -> None:
    """Gymnasium's own checker finds nothing beyond the unbounded spaces."""
    check_env(gymnasium.make(ID, system=system).unwrapped)


def test_gymnasium_checker_passes_for_multigoal() -> None:
    """Gymnasium's own checker finds nothing in the multi-goal world beyond the unbounded observations."""
    with pytest.warns(UserWarning, match="observation space"):
        check_env(gymnasium.make("entroflow.envs:entroflow/MultiGoal-v0").unwrapped)


def test_optimal_policy_earns_its_return() -> None:
    """Episodes of the registered environment under the optimal policy average to the finite-horizon return."""
    lqr, episodes, horizon = systems.get("coupled"), 200, 15
    optimum, rng = lqr.optimal(0.5), np.random.default_rng(0)
    env = gymnasium.make(ID, system=lqr, time_limit=horizon)
    root = np.linalg.cholesky(optimum.covariance)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        for h in range(horizon):
            action = -optimum.K @ obs + root @ rng.standard_normal(2)
            obs, reward, terminated, truncated, _ = env.step(action)
            returns[episode] += lqr.discount**h * float(reward)
            assert not terminated
            assert truncated == (h == horizon - 1)
    expected = finite_horizon_return(lqr, optimum.K, optimum.covariance, 0.5, horizon).standard_return
    error = returns.std(ddof=1) / np.sqrt(episodes)
    assert error < 0.1 * abs(expected)
    assert abs(returns.mean() - expected) < 4 * error


def test_step_obeys_the_system_and_the_seed(tmp_path: Path) -> None:
    """A system read from a file moves and pays by its own matrices, and a seed repeats an episode exactly."""
    given = systems.get("double_integrator").to_dict()
    given["noise_cov"] = [[0.0, 0.0], [0.0, 0.0]]
    path = tmp_path / "quiet.json"
    path.write_text(json.dumps(given))
    lqr = systems.load(path)
    env = gymnasium.make(ID, system=path)
    obs, _ = env.reset(seed=7)
    action = np.array([0.5], np.float32)
    following, reward, *_ = env.step(action)
    np.testing.assert_allclose(following, lqr.A @ obs + lqr.B @ action, rtol=1e-5)
    assert float(reward) == pytest.approx(-(obs @ lqr.Q @ obs + action @ lqr.R @ action), rel=1e-5)
    again, _ = env.reset(seed=7)
    other, _ = env.reset(seed=8)
    np.testing.assert_array_equal(again, obs)
    assert np.all(other != obs)


def test_noise_differs_from_step_to_step_and_episode_to_episode() -> None:
    """No random key is used twice: from the origin, with no action, every step shows fresh noise."""
    env = gymnasium.make(ID, system="coupled", time_limit=5)
    A = systems.get("coupled").A
    noises = []
    for _ in range(2):
        obs, _ = env.reset()
        for _ in range(5):
            following, *_ = env.step(np.zeros(2, np.float32))
            noises.append(following - A @ obs)
            obs = following
    assert len(np.unique(np.round(noises, 4), axis=0)) == 10


def test_vector_environment_keeps_the_final_observation() -> None:
    """Gymnasium's vector environment with same-step autoreset hands out the last observation of the old episode."""
    env = gymnasium.make_vec(
        ID,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
        system="coupled",
        time_limit=1,
    )
    env.reset(seed=0)
    obs, _, terminated, truncated, info = env.step(np.zeros((2, 2), np.float32))
    assert truncated.all() and not terminated.any()
    assert not np.allclose(np.stack(list(info["final_obs"])), obs)


def test_misuse_is_explained() -> None:
    """An unknown system, a wrong action and a step before reset each say what to do."""
    with pytest.raises(ValueError, match="did you mean 'coupled'"):
        gymnasium.make(ID, system="couple")
    env = gymnasium.make(ID).unwrapped
    with pytest.raises(ValueError, match=r"call env\.reset\(\)"):
        env.step(np.zeros(2, np.float32))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action: got shape \(1,\), expected \(2,\)"):
        env.step(np.zeros(1, np.float32))
