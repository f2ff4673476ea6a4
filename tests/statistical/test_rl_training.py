"""Training as a whole: probe environments with known soft values, and many runs in one program, compiled once."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.commands.lqr.plan import settings
from entroflow.envs.functional import FunctionalEnv
from entroflow.flow import Unbounded
from entroflow.rl import Flow, Gaussian, loop_jax, sac

BONUS, SLOPE = 1.0, np.array([1.0, -0.5])  # reward of the best action; best action over state
COST = np.array([1.0, 4.0])
TEMPERATURES, DISCOUNT = np.array([0.5, 0.5, 2.0, 2.0]), 0.6
RUNS, ENVIRONMENTS, UPDATES, SAMPLES = 4, 64, 500, 8192
STATES = np.array([[-1.0], [0.5]])
ACTOR = Flow(width=16, depth=1, state_width=16, candidates=8, pairs=2, states=32, target="pair", rate=1e-2, average=0.1)
LQR = settings(UPDATES)
CRITIC = dataclasses.replace(LQR.critic, width=32, rate=1e-2)
CONFIG = dataclasses.replace(LQR, actor=ACTOR, critic=CRITIC, batch_size=256)

TARGET_ENTROPY = 2.1
STEERED = dataclasses.replace(
    CONFIG,
    actor=Gaussian(width=16, depth=1, states=64, rate=1e-2, average=0.1),
    critic=dataclasses.replace(CRITIC, soft_value="action"),
    target_entropy=TARGET_ENTROPY,
    temperature_rate=2e-2,
)


class Probe(FunctionalEnv):
    """Reward BONUS − Σ COST (a − SLOPE s)²/2, whatever comes next; every step ends the episode, somehow.

    exp(Q/α) is Gaussian, with mean SLOPE s and variance α/COST. Since the state is drawn afresh at every step, its
    normaliser is log Z = ½ Σ log(2πα/COST) beside BONUS/α everywhere, so that V = BONUS + α log Z where the step
    terminates, and 1/(1−γ) times as much where it is only truncated.
    """

    terminates: jax.Array
    action_low: jax.Array
    action_high: jax.Array
    time_limit: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)

    def initial(self, key):
        return jax.random.normal(key, (1,))

    def observation(self, state):
        return state

    def transition(self, key, state, action):
        return self.initial(key)

    def reward(self, state, action, next_state):
        cost, slope = jnp.asarray(COST, jnp.float32), jnp.asarray(SLOPE, jnp.float32)
        return BONUS - 0.5 * jnp.sum(cost * (action - slope * state[0]) ** 2)

    def terminal(self, state):
        return self.terminates

    def out_of_region(self, state):
        return jnp.bool_(False)


def probe(*, terminates=False):
    high = jnp.full(2, jnp.inf)
    return Probe(terminates=jnp.bool_(terminates), action_low=-high, action_high=high, time_limit=1, obs_size=1)


@functools.partial(jax.jit, static_argnums=0)
def begin(config, env, temperatures, keys):
    """Runs of given temperatures and keys before their first step."""

    def one(run):
        key, temperature = run
        discount = jnp.float32(DISCOUNT)
        options = {"obs_size": 1, "action_space": Unbounded(2), "temperature": temperature, "discount": discount}
        return sac.init(config, key, **options)

    # Initial weights come from a generator that compiles fast, and whose numbers must not be drawn under `vmap`.
    bits = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(keys), (1, 2)), impl="unsafe_rbg")
    agents = jax.lax.map(one, (bits, temperatures))
    return loop_jax.start(env, agents, keys, environments=ENVIRONMENTS, capacity=ENVIRONMENTS * UPDATES)


traces = []


@functools.partial(jax.jit, static_argnums=0)
def advance(config, env, loop, noise_scales, iterations):
    traces.append(iterations)
    return loop_jax.advance(config, env, loop, noise_scales, iterations)


def run(iterations, *, config=CONFIG, env=None, temperatures=TEMPERATURES, seeds=range(RUNS)):
    """The runs and their metrics after chunks of iterations of the given lengths."""
    env = probe() if env is None else env
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    loop, metrics = begin(config, env, jnp.asarray(temperatures, jnp.float32), keys), []
    for chunk in iterations:
        loop, values = advance(config, env, loop, jnp.ones(ENVIRONMENTS), jnp.int32(chunk))
        metrics.append(values)
    return loop, metrics


def assert_same(found, expected):
    """Every leaf is the same, bit for bit."""
    leaves = [jax.tree.leaves(tree) for tree in (found, expected)]
    for first, second in zip(*leaves, strict=True):
        if jnp.issubdtype(first.dtype, jax.dtypes.prng_key):
            first, second = jax.random.key_data(first), jax.random.key_data(second)
        np.testing.assert_array_equal(first, second)


@functools.partial(jax.jit, static_argnums=0)
def look(config, agents, states, keys):
    """Mean and variance of the average policy's actions, their entropy and soft value, for each run and state."""

    def one(agent, obs, key):
        policy = sac.policy(config, agent, average=True)
        keys = jax.random.split(key, SAMPLES)
        actions, log_probs = jax.vmap(policy.sample_and_log_prob, in_axes=(0, None))(keys, obs)
        q = jax.vmap(functools.partial(sac.q_value, config, agent), in_axes=(None, 0))(obs, actions)
        soft_value = jnp.mean(q - agent.temperature * log_probs)
        return jnp.mean(actions, axis=0), jnp.var(actions, axis=0), -jnp.mean(log_probs), soft_value

    return jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, 0))(agents, states, keys)


def looks(config, loop):
    """What `look` finds after training, as NumPy arrays of shape (runs, states, ...)."""
    keys = jax.random.split(jax.random.key(1), (RUNS, len(STATES)))
    return [np.asarray(leaf, np.float64) for leaf in look(config, loop.agent, jnp.asarray(STATES, jnp.float32), keys)]


@pytest.fixture(scope="module", params=[True, False], ids=["terminated", "truncated"])
def learned(request):
    """Values of the network V, what `look` finds, and what values are multiplied with."""
    loop, _ = run([UPDATES], env=probe(terminates=request.param))
    v = jax.jit(jax.vmap(jax.vmap(CRITIC.v, in_axes=(None, 0)), in_axes=(0, None)))
    values = np.asarray(v(loop.agent.critic, jnp.asarray(STATES, jnp.float32)), np.float64)
    return values, *looks(CONFIG, loop), 1.0 if request.param else 1 / (1 - DISCOUNT)


@pytest.fixture(scope="module")
def steered():
    """Gaussian policies, trained with values from actions and a target entropy: their agents and what `look` finds."""
    loop, _ = run([UPDATES], config=STEERED)
    return loop.agent, *looks(STEERED, loop)


def log_z():
    """log Z of every run."""
    return 0.5 * np.sum(np.log(2 * np.pi * TEMPERATURES[:, None] / COST), axis=1)


def test_value_is_the_soft_value(learned):
    """V is BONUS + α log Z once, or at every step that only a time limit ends; entropy and termination have their sign.

    A policy at a distance KL from the optimum is worth α KL per step less: the allowance is 0.02 nats.
    """
    values, *_, steps = learned
    exact = (BONUS + TEMPERATURES * log_z()) * steps
    np.testing.assert_array_less(np.abs(np.mean(values, axis=1) - exact), 0.02 * TEMPERATURES * steps)


def test_policy_is_the_soft_optimum(learned):
    """KL(policy‖optimum) = log Z − H + E[Σ COST (a − SLOPE s)²]/2α is below 0.02 nats, up to 4 standard errors.

    Per state the error is below √(2d/SAMPLES), that of half a sum of d squared normals and as much for the entropy. The
    solver's own error in the log-density, for which KL may come out negative, has to stay below 0.02 nats as well.
    """
    _, means, variances, entropies, _, _ = learned
    squares = variances + (means - SLOPE * STATES) ** 2
    kl = log_z()[:, None] - entropies + 0.5 * squares @ COST / TEMPERATURES[:, None]
    error = np.sqrt(2 * len(COST) / SAMPLES) / np.sqrt(kl.size)
    assert abs(np.mean(kl)) < 0.02 + 4 * error


def test_width_of_the_policy_follows_temperature_and_cost(learned):
    """Averaged over runs and states, variances are α/COST within 4 standard errors of the sampling plus 3 per cent."""
    _, _, variances, *_ = learned
    ratio = variances * COST / TEMPERATURES[:, None, None]
    error = np.sqrt(2 / SAMPLES / (RUNS * len(STATES)))
    np.testing.assert_allclose(np.mean(ratio, axis=(0, 1)), 1.0, atol=4 * error + 0.03)


def test_network_and_actions_agree_about_the_value(learned):
    """The network V is the mean of Q − α log π over the policy's actions, within 0.02 nats."""
    values, *_, from_actions, steps = learned
    np.testing.assert_array_less(np.abs(np.mean(values - from_actions, axis=1)), 0.02 * TEMPERATURES * steps)


STEERED_OPTIMUM = np.exp(TARGET_ENTROPY - 0.5 * np.sum(np.log(2 * np.pi * np.e / COST)))  # α, since d/2 = 1


def test_temperature_finds_the_target_entropy(steered):
    """From above and from below, α arrives where exp(Q/α) has the target entropy, and the policy has it there.

    The steps of log α stay as long as its rate, 0.02: it keeps moving by a few of them, the entropy with it (d/2 = 1).
    """
    agents, _, variances, entropies, _ = steered
    alpha = STEERED_OPTIMUM
    assert TEMPERATURES.min() < 0.8 * alpha and TEMPERATURES.max() > 1.25 * alpha
    np.testing.assert_allclose(agents.log_temperature, np.log(alpha), atol=0.15)
    np.testing.assert_allclose(np.mean(entropies), TARGET_ENTROPY, atol=0.1)
    np.testing.assert_allclose(np.mean(variances, axis=(0, 1)), alpha / COST, rtol=0.1)


def test_gaussian_finds_the_soft_optimum(steered):
    """Means are those of exp(Q/α), and Q − α log π its soft value, for ever and not once.

    Each run is judged by its own α of the moment, which Q lags behind: a tenth of a nat per step is allowed.
    """
    agents, means, _, _, values = steered
    width = np.sqrt(STEERED_OPTIMUM / COST)
    assert np.sqrt(np.mean(((means - SLOPE * STATES) / width) ** 2)) < 0.1
    alpha = np.exp(np.asarray(agents.log_temperature, np.float64))
    optimum = (BONUS + alpha * 0.5 * np.sum(np.log(2 * np.pi * alpha[:, None] / COST), axis=1)) / (1 - DISCOUNT)
    assert abs(np.mean((np.mean(values, axis=1) - optimum) / alpha)) < 0.1 / (1 - DISCOUNT)


def test_same_key_same_run():
    """Training twice from the same keys gives the same metrics and parameters, bit for bit; another key does not."""
    first, second = run([5]), run([5])
    assert_same(first, second)
    _, (other,) = run([5], seeds=range(1, 1 + RUNS))
    assert (np.asarray(other["policy_loss"]) != np.asarray(first[1][0]["policy_loss"])).all()


def test_chunks_join_and_compile_once():
    """Chunks of any length are one program and add up: 2 + 3 iterations are 5, and metrics are means over a chunk."""
    before = len(traces)
    joined, chunks = run([2, 3])
    whole, (metrics,) = run([5], env=probe(terminates=False))
    assert_same(joined, whole)
    for name, value in metrics.items():
        np.testing.assert_allclose((2 * chunks[0][name] + 3 * chunks[1][name]) / 5, value, rtol=1e-4, atol=1e-5)
    assert int(whole.count) == 5 * ENVIRONMENTS
    assert len(traces) == max(before, 1)


def test_runs_do_not_see_each_other():
    """A run is the same whatever runs beside it, and wherever it stands among them."""
    _, (metrics,) = run([5])
    _, (swapped,) = run([5], temperatures=TEMPERATURES[::-1], seeds=range(RUNS)[::-1])
    assert_same(metrics, jax.tree.map(lambda value: value[::-1], swapped))
    _, (beside,) = run([5], temperatures=[TEMPERATURES[0], 10.0, 0.01, 3.0], seeds=[0, 7, 8, 9])
    assert_same(jax.tree.map(lambda value: value[0], metrics), jax.tree.map(lambda value: value[0], beside))


def test_the_first_fault_is_told_apart_from_what_follows():
    """A run whose replay holds a NaN says at which iteration its loss was one; metrics stop there, others go on."""
    loop, _ = run([2])
    rewards = loop.replay.reward.at[1].set(jnp.nan)
    loop = dataclasses.replace(loop, replay=loop.replay._replace(reward=rewards))
    _, metrics = advance(CONFIG, probe(), loop, jnp.ones(ENVIRONMENTS), jnp.int32(5))
    np.testing.assert_array_equal(metrics["broke"], [-1, 0, -1, -1])
    np.testing.assert_array_equal(np.isfinite(metrics["critic_error"]), [True, False, True, True])
    assert np.isfinite(metrics["ess"]).all()  # the policy was sound when the critic met the NaN


def test_the_iteration_of_a_fault_is_the_one_that_single_steps_find():
    """With one NaN in each replay, met sooner or later: the same iteration as in chunks of one."""
    loop, _ = run([8])
    rewards = loop.replay.reward.at[:, 8 * ENVIRONMENTS - 1].set(jnp.nan)
    loop = dataclasses.replace(loop, replay=loop.replay._replace(reward=rewards))
    _, metrics = advance(CONFIG, probe(), loop, jnp.ones(ENVIRONMENTS), jnp.int32(12))
    found, ess = np.full(RUNS, -1), [[] for _ in range(RUNS)]
    for number in range(12):
        loop, single = advance(CONFIG, probe(), loop, jnp.ones(ENVIRONMENTS), jnp.int32(1))
        for i in np.flatnonzero(found < 0):
            ess[i].append(float(single["ess"][i]))
        found[(found < 0) & ~np.isfinite(single["critic_error"])] = number
    np.testing.assert_array_equal(metrics["broke"], found)
    np.testing.assert_allclose(metrics["ess"], [np.mean(values) for values in ess], rtol=1e-5)
    assert found.max() > 0


def test_extreme_temperatures_stay_finite():
    """At α from 1e-3 to 1e3, a few updates from scratch give finite metrics and parameters."""
    loop, (metrics,) = run([20], temperatures=[1e-3, 1e-2, 1e2, 1e3])
    for leaf in jax.tree.leaves((eqx.filter(loop.agent, eqx.is_inexact_array), metrics)):
        assert np.isfinite(leaf).all()
    assert isinstance(ACTOR.candidates, int)
    assert (metrics["ess"] >= 1 / ACTOR.candidates - 1e-6).all() and (metrics["ess"] <= 1 + 1e-6).all()
    assert (np.asarray(loop.agent.action_space.scale) > 0).all()


def test_environments_of_every_run_have_noise_of_their_own():
    """One run in place of all may be bold: the first actions of the others are as they were, its own twice as far."""
    loop, _ = run([])
    scales = jnp.ones((RUNS, ENVIRONMENTS)).at[1].set(2.0)
    first = []
    for given in (jnp.ones(ENVIRONMENTS), scales):
        moved, _ = advance(CONFIG, probe(), jax.tree.map(jnp.copy, loop), given, jnp.int32(1))
        first.append(np.asarray(moved.replay.action[:, :ENVIRONMENTS]))
    spread = np.std(first[1], axis=(1, 2)) / np.std(first[0], axis=(1, 2))
    np.testing.assert_array_equal(first[1][[0, 2, 3]], first[0][[0, 2, 3]])
    assert spread[1] == pytest.approx(2, rel=0.05)


@pytest.mark.slow
def test_runs_together_are_the_runs_one_by_one():
    """Mapped over runs, training is what it is run by run, up to the order of float sums."""
    _, (together,) = run([3])
    for i in range(RUNS):
        _, (alone,) = run([3], temperatures=TEMPERATURES[i : i + 1], seeds=[i])
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][i], rtol=1e-3, atol=1e-4)
