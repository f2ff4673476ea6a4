"""Autoreset, termination against truncation, and the LQR environment against NumPy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from entroflow.envs import EnvState, FunctionalEnv, GymAdapter, LQREnv, make_compiled, reset, step
from entroflow.envs.episodes import time_limit
from entroflow.envs.functional import check
from entroflow.lqr import LQR, sample_noise, simulate, systems
from experiments.plants.horizon import state_covariances


class Counter(FunctionalEnv):
    """Counts up from 10; ends by itself at `end`, by time after `time_limit`, and leaves its region at 15."""

    end: Float[Array, ""]
    action_low: Float[Array, "1"]
    action_high: Float[Array, "1"]
    time_limit: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True, default=1)

    def initial(self, key: PRNGKeyArray) -> Float[Array, ""]:
        return jnp.float32(10.0)

    def observation(self, state: Any) -> Float[Array, "1"]:
        return state[None]

    def transition(self, key: PRNGKeyArray, state: Any, action: Float[Array, "1"]) -> Float[Array, ""]:
        return state + action[0]

    def reward(self, state: Any, action: Float[Array, "1"], next_state: Any) -> Float[Array, ""]:
        return 100 * state + next_state

    def terminal(self, state: Any) -> Bool[Array, ""]:
        return state >= self.end

    def out_of_region(self, state: Any) -> Bool[Array, ""]:
        return state >= 15


def run_counter(end: float, time_limit: int, action: float = 1.0) -> list[tuple[float, float, float, bool, bool]]:
    """Three steps of a batch of one: observation, reward, next observation, terminated, truncated."""
    one = jnp.ones(1, jnp.float32)
    env = Counter(end=jnp.float32(end), action_low=-one, action_high=one, time_limit=time_limit)
    keys = jax.random.split(jax.random.key(0), 1)
    current = jax.vmap(reset, in_axes=(None, 0))(env, keys)
    rows = []
    for _ in range(3):
        current, t = jax.vmap(step, in_axes=(None, 0, 0, 0))(env, keys, current, jnp.full((1, 1), action, jnp.float32))
        row = (t.obs[0, 0], t.reward[0], t.next_obs[0, 0], t.terminated[0], t.truncated[0])
        rows.append(tuple(value.item() for value in row))
    return rows


def test_two_step_episode_keeps_its_final_observation() -> None:
    """An episode of two steps ends at 12, not at the 10 of the next one, and the next one starts at 10."""
    assert run_counter(end=1e9, time_limit=2) == [
        (10, 1011, 11, False, False),
        (11, 1112, 12, False, True),
        (10, 1011, 11, False, False),
    ]


def test_rewards_may_be_whole_numbers() -> None:
    """They are summed with others of the actions' type."""

    class Counted(Counter):
        def reward(self, state: Any, action: Any, next_state: Any) -> Any:
            return super().reward(state, action, next_state).astype(jnp.int32)

    one = jnp.ones(1, jnp.float32)
    env = Counted(end=jnp.float32(1e9), action_low=-one, action_high=one, time_limit=2)
    following, seen = step(env, jax.random.key(0), reset(env, jax.random.key(1)), one)
    assert seen.reward.dtype == jnp.float32 and seen.reward == 1011 and following.time == 1


def test_termination_is_not_truncation() -> None:
    """A terminal state terminates, and takes precedence where the time limit falls on the same step."""
    ended = (11, 1112, 12, True, False)
    assert run_counter(end=12, time_limit=99)[1] == ended
    assert run_counter(end=12, time_limit=2)[1] == ended


def test_leaving_the_region_truncates() -> None:
    """Outside its region an episode is cut, not ended, and the state outside is what is recorded."""
    assert run_counter(end=1e9, time_limit=99, action=3.0) == [
        (10, 1013, 13, False, False),
        (13, 1316, 16, False, True),
        (10, 1013, 13, False, False),
    ]


def stacked(*envs: LQREnv) -> LQREnv:
    """Several environments of the same sizes as one, to be vmapped."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *envs)


def test_lqr_environment_follows_the_given_noise() -> None:
    """On the same draws the float32 environment and the NumPy simulation visit the same states and pay the same."""
    lqr, horizon, count = systems.get("cartpole"), 40, 3
    env, optimum = LQREnv(lqr), lqr.optimal(0.5)
    noise = sample_noise(lqr, np.random.default_rng(0), count, horizon)
    expected = simulate(lqr, optimum.K, optimum.covariance, noise)

    def one(state: Float[Array, "n"], actions: Float[Array, "h d"], process: Float[Array, "h n"]) -> Any:
        def advance(state: Any, drawn: Any) -> Any:
            action, w = drawn
            following = env.drift(state, action) + w
            return following, (following, env.reward(state, action, following))

        return jax.lax.scan(advance, state, (actions, process))[1]

    given = (noise.initial_states, expected.actions, noise.process)
    states, rewards = jax.jit(jax.vmap(one, in_axes=(0, 1, 1), out_axes=1))(
        *(jnp.asarray(x, jnp.float32) for x in given)
    )
    np.testing.assert_allclose(states, expected.states[1:], atol=1e-4)
    np.testing.assert_allclose(rewards, expected.rewards, rtol=1e-3, atol=1e-5)


def test_unstable_system_never_overflows() -> None:
    """Under wild actions an unstable system is truncated, never terminated, and every number stays finite."""
    env = LQREnv(systems.get("unstable"))

    def body(current: EnvState, key: PRNGKeyArray) -> Any:
        return step(env, key, current, jax.random.normal(key, (3,), jnp.float32))

    keys = jax.random.split(jax.random.key(1), 2000)
    _, t = jax.jit(lambda: jax.lax.scan(body, reset(env, keys[0]), keys))()
    t, bound = jax.tree.map(np.asarray, (t, env.bound))
    outside = np.any(np.abs(t.next_obs) > bound, axis=-1)
    assert not np.any(t.terminated)
    assert np.all(np.isfinite(t.next_obs)) and np.all(np.isfinite(t.reward))
    assert outside.sum() > 20
    assert np.all(t.truncated[outside])
    assert np.all(np.abs(t.obs) <= bound)


def test_not_a_number_leaves_the_region() -> None:
    """A state that is not a number cannot be continued: it is truncated like one that is too large."""
    env = LQREnv(systems.get("coupled"))
    assert env.out_of_region(jnp.array([jnp.nan, 0.0], jnp.float32))
    assert not env.out_of_region(jnp.zeros(2, jnp.float32))


@pytest.mark.parametrize("name", list(systems.CATALOGUE))
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_region_is_generous_for_the_optimum(name: str, temperature: float) -> None:
    """At the study's temperatures the optimal policy's states leave the region only beyond three deviations."""
    lqr = systems.get(name)
    optimum = lqr.optimal(temperature)
    spread = np.sqrt(np.max([np.diag(c) for c in state_covariances(lqr, optimum.K, optimum.covariance, 100)], axis=0))
    assert np.all(LQREnv(lqr).bound >= 3 * spread)


def test_every_coordinate_that_can_move_has_room() -> None:
    """Without noise on a position, the region still leaves room for what its velocity does to it."""
    still = np.diag([0.0, 1.0])
    bound = LQREnv(LQR([[1, 0.1], [0, 1]], [[0], [0.1]], np.eye(2), [[1]], 0 * still, still, 0.9)).bound
    assert np.all(np.isfinite(bound)) and np.all(bound > 0.1)
    frozen = LQREnv(LQR([[0.5]], [[0.0]], [[1]], [[1]], [[0.0]], [[0.0]], 0.9))
    assert not frozen.out_of_region(frozen.initial(jax.random.key(0)))


def test_environments_can_be_vmapped() -> None:
    """Two systems of the same sizes step side by side in one program, each with its own matrices."""
    small, large = systems.get("coupled").to_dict(), systems.get("coupled").to_dict()
    large["A"], large["Q"] = [[0.1, 0.0], [0.0, 0.2]], [[5.0, 0.0], [0.0, 5.0]]
    both = [LQREnv(LQR.from_dict(system)) for system in (small, large)]
    state, action = jnp.array([1.0, 2.0], jnp.float32), jnp.array([0.5, -1.0], jnp.float32)
    drift = jax.vmap(lambda env: env.drift(state, action))(stacked(*both))
    reward = jax.vmap(lambda env: env.reward(state, action, state))(stacked(*both))
    np.testing.assert_allclose(drift, np.stack([env.drift(state, action) for env in both]), rtol=1e-6)
    np.testing.assert_allclose(reward, [-(5 + 0.625), -(25 + 0.625)], rtol=1e-6)


def test_time_limit_must_be_positive() -> None:
    """An episode has at least one step."""
    with pytest.raises(ValueError, match="^time_limit: got 0, expected a whole number above 0"):
        LQREnv(systems.get("coupled"), time_limit=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_high": jnp.array([2])}, r"Counter.action_high = .*expected real numbers, an array of shape \(d,\)"),
        ({"action_low": -1.0}, "Counter.action_low = -1.0"),
        ({"time_limit": None}, "Counter.time_limit: got None"),
        ({"time_limit": 2.5}, "Counter.time_limit: got 2.5"),
    ],
)
def test_what_cannot_be_an_environment_is_refused(changes: dict[str, Any], message: str) -> None:
    """Bounds, a time limit and an end that no episode can be made of, in one sentence."""
    env = Counter(end=jnp.float32(5), action_low=-jnp.ones(1), action_high=jnp.ones(1), time_limit=3)
    check(env)
    for name, value in changes.items():
        object.__setattr__(env, name, value)
    with pytest.raises(ValueError, match=message):
        check(env)


def test_an_end_is_true_or_false() -> None:
    """Not a number."""

    class Wrong(Counter):
        def terminal(self, state: Any) -> Any:
            return state

    with pytest.raises(ValueError, match="Wrong.terminal, which returns .*expected True or False"):
        check(Wrong(end=jnp.float32(5), action_low=-jnp.ones(1), action_high=jnp.ones(1), time_limit=3))


def test_gymnasium_is_told_the_time_limit() -> None:
    """So that evaluations of long episodes are not cut off."""
    env = Counter(end=jnp.float32(5), action_low=-jnp.ones(1), action_high=jnp.ones(1), time_limit=12_345)
    assert time_limit(GymAdapter(env)) == 12_345


def test_a_task_in_jax_that_is_misspelt_is_answered_by_the_names():
    """As everywhere else."""
    with pytest.raises(ValueError, match=r"^env: got 'mjx/Hoper', expected one of .*; did you mean 'mjx/Hopper'\.$"):
        make_compiled("mjx/Hoper")
