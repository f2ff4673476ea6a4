"""The page `examples/sac_isfm.py` beside the library: same parameters, batch and noises, same numbers; and it runs."""

import importlib.util
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box, ExactJVP, FlowPolicy, RungeKutta, Unbounded
from entroflow.isfm import draw_candidates, isfm_loss
from entroflow.lqr import systems
from entroflow.rl.soft_bellman import soft_target, soft_value

PAGE = Path(__file__).parents[2] / "examples" / "sac_isfm.py"
spec = importlib.util.spec_from_file_location("sac_isfm", PAGE)
assert spec is not None and spec.loader is not None
page = importlib.util.module_from_spec(spec)
sys.modules["sac_isfm"] = page  # where `dataclass` looks the module up
spec.loader.exec_module(page)

OBS_SIZE, ACTION_SIZE, STATES, N = 3, 2, 4, 8
TEMPERATURE = 0.3
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


class PageField(eqx.Module):
    """The page's velocity network, as the library wants it."""

    network: list
    obs_size: int = eqx.field(static=True, default=OBS_SIZE)
    action_size: int = eqx.field(static=True, default=ACTION_SIZE)

    def condition(self, obs):
        return obs

    def __call__(self, x, time, context):
        return page.apply(self.network, x, time[None], context)


def draw_network(key, *sizes):
    """A network of the page far from its near-zero start, so that no term of the density is small."""
    *hidden, (weight, bias) = page.network(key, *sizes)
    return [*hidden, (50 * weight, bias + 0.5)]


@pytest.fixture(params=[True, False], ids=["box", "unbounded"])
def both(request):
    """The page's settings, flow and critic, and the library's policy and Q made of the same parameters."""
    settings = page.Settings(temperature=TEMPERATURE, discount=0.8, bounded=request.param)
    flow_key, critic_key = jax.random.split(jax.random.key(0))
    flow = draw_network(flow_key, ACTION_SIZE + 1 + OBS_SIZE, 16, 16, ACTION_SIZE)
    critic = draw_network(critic_key, OBS_SIZE + ACTION_SIZE, 16, 16, 1)
    space = Box(-jnp.ones(ACTION_SIZE), jnp.ones(ACTION_SIZE)) if request.param else Unbounded(ACTION_SIZE)
    solver = RungeKutta("midpoint", settings.solver_steps)
    policy = FlowPolicy(PageField(flow), space, solver=solver, divergence=ExactJVP())
    return settings, flow, critic, policy, lambda obs, action: page.apply(critic, obs, action)[0]


@pytest.fixture
def obs(key):
    return jax.random.normal(jax.random.fold_in(key, 1), (STATES, OBS_SIZE))


def test_soft_targets_are_the_librarys(both, obs, key):
    """(1) for a batch, of which one transition is terminal."""
    settings, flow, critic, policy, q_function = both
    noises, rewards = jax.random.normal(key, (STATES, ACTION_SIZE)), jnp.linspace(-1.0, 1.0, STATES)
    batch = page.Transition(obs, jnp.zeros((STATES, ACTION_SIZE)), rewards, obs + 1, jnp.array([0.0, 1.0, 0.0, 0.0]))

    actions, log_prob = jax.vmap(policy.push_and_log_prob)(batch.next_obs, noises)
    values = soft_value(jax.vmap(q_function)(batch.next_obs, actions), log_prob, TEMPERATURE)
    expected = soft_target(rewards, 0.8, batch.terminated, values)
    close(jax.vmap(partial(page.soft_target, settings, flow, critic))(batch, noises), expected)


def test_candidates_and_loss_are_the_librarys(both, obs, key):
    """(9) and (7) at every state, on the noises that the library draws from its keys; the gradient of (7), too."""
    settings, flow, critic, policy, q_function = both
    keys = jax.random.split(key, STATES)
    drawn = jax.vmap(lambda k, s: draw_candidates(k, policy, s, q_function, TEMPERATURE, n=N))(keys, obs)

    def noises_of(key):  # one key per candidate, of which the first half is for its noise
        return jax.vmap(lambda k: jax.random.normal(jax.random.split(k)[0], (ACTION_SIZE,)))(jax.random.split(key, N))

    latents, weights, log_probs = jax.vmap(partial(page.weigh, settings, flow, critic))(obs, jax.vmap(noises_of)(keys))
    close(latents, drawn.latents)
    close(weights, drawn.weights)
    assert np.max(weights) > 2 / N, "the weights are no test of (9) where they are equal"
    actions = jax.vmap(jax.vmap(policy.action_space.to_action))(latents)
    backwards = jax.vmap(jax.vmap(policy.log_prob, (None, 0)))(obs, actions)
    close(log_probs, backwards, atol=0.1)  # the solver's error

    times = jax.random.uniform(jax.random.fold_in(key, 2), (N,))

    def theirs(flow):
        policy_of = eqx.tree_at(lambda policy: policy.velocity, policy, PageField(flow))
        loss = lambda k, s, u, w: isfm_loss(policy_of, k, s, u, w, times[:, None])  # noqa: E731
        return jnp.mean(jax.vmap(loss)(keys, obs, drawn.latents, drawn.weights))

    def ours(flow):
        noises = jax.vmap(lambda k: jax.random.normal(k, (N, 1, ACTION_SIZE))[:, 0])(keys)
        loss = lambda s, u, w, x0: page.isfm_loss(flow, s, u, w, x0, times)  # noqa: E731
        return jnp.mean(jax.vmap(loss)(obs, latents, weights, noises))

    (expected, gradient), (value, own) = (jax.value_and_grad(loss)(flow) for loss in (theirs, ours))
    close(value, expected)
    jax.tree.map(partial(close, atol=1e-4), own, gradient)


def test_the_pages_lqr_is_the_librarys():
    """System, discount and optimum are those of `coupled`."""
    lqr = systems.get("coupled")
    optimum = lqr.optimal(1.0)
    pairs = [(page.LQR.A, lqr.A), (page.LQR.B, lqr.B), (page.LQR.K, optimum.K), (page.LQR.Sigma, optimum.covariance)]
    for own, expected in [*pairs, (page.LQR.discount, lqr.discount)]:
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6)

    env = page.LQR()
    state, _ = env.reset(seed=0)
    action = np.array([0.5, -1.0])
    assert env.step(action)[1] == pytest.approx(-(state @ lqr.Q @ state + action @ lqr.R @ action), rel=1e-5)


def test_comparison_with_the_optimum_is_right():
    """The optimal policy has errors near zero; another gain and covariance have theirs."""
    rng, K, covariance = np.random.default_rng(0), page.LQR.K, 0.5 * page.LQR.Sigma
    states = rng.normal(size=(50, 2))
    actions = rng.multivariate_normal(np.zeros(2), covariance, (50, 4096)) - (states @ K.T)[:, None]
    errors = [float(number) for number in re.findall(r"([\d.]+)%", page.LQR.compare(0.5, states, actions))]
    assert max(errors) < 5
    wrong = [float(number) for number in re.findall(r"([\d.]+)%", page.LQR.compare(0.5, states, 1.2 * actions))]
    assert wrong == pytest.approx([20, 44], abs=3)


class Counter(gym.Env):
    """Observes its time and whether this episode terminates, after four steps, or else is truncated, after three."""

    observation_space = gym.spaces.Box(0, 9, (2,), np.float32)
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)
    ends = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.ends = 0, not self.ends
        return np.float32([self.time, self.ends]), {}

    def step(self, action):
        self.time += 1
        return np.float32([self.time, self.ends]), 1.0, self.ends and self.time == 4, self.time == 3 + self.ends, {}


def test_critic_sees_the_last_observation_of_every_episode(monkeypatch):
    """Each transition leads one step ahead, also where an episode ended; what was truncated is not terminated."""
    gym.register("Counter-v0", Counter, order_enforce=False, disable_env_checker=True)
    batches = []

    def record(settings, agent, batch, key):
        batches.append(batch)
        return agent, {}

    monkeypatch.setattr(page, "update", record)
    try:
        page.train(page.Settings("Counter-v0", steps=14, environments=2, batch=256))
    finally:
        del gym.registry["Counter-v0"]
    obs, action, reward, next_obs, terminated = batches[-1]
    steps = next_obs - obs
    np.testing.assert_allclose(steps, np.broadcast_to([steps[0, 0], 0], steps.shape), atol=1e-5)
    assert steps[0, 0] > 0 and np.all(reward == 1) and np.all(np.abs(action) <= 1)
    np.testing.assert_array_equal(terminated, np.isclose(obs[:, 0], obs[:, 0].max()))  # only these begin at time three


def run(*args):
    command = [sys.executable, str(PAGE), "--steps", "10", "--environments", "2", "--batch", "16", "--states", "4"]
    done = subprocess.run([*command, "--width", "8", *args], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_page_runs_on_lqr():
    """A tiny training prints its metrics, all finite, and ends with the two errors."""
    *metrics, last = run("--env", "lqr").splitlines()
    assert len(metrics) == 10 and "nan" not in "".join(metrics)
    assert re.fullmatch(r"gain error [\d.]+%, covariance error [\d.]+% at α = 0.5", last)


def test_page_runs_on_pendulum():
    """A Gymnasium task ends with the mean return of fresh episodes, which an untrained policy finds near -1200."""
    *metrics, last = run("--env", "Pendulum-v1").splitlines()
    assert len(metrics) == 10 and "nan" not in "".join(metrics)
    found = re.match(r"return (-[\d.]+) ± ", last)
    assert found and -1700 < float(found[1]) < -700


def test_page_is_one_page():
    """At most 250 lines, none of them from the package."""
    text = PAGE.read_text()
    assert len(text.splitlines()) <= 250
    assert "entroflow" not in text
