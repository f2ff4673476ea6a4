"""Training on environments that others step: what is added where, what moves, and that runs do not see each other."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from entroflow.flow import Box, Unbounded
from entroflow.rl import Config, Gaussian, MLPCritic, loop_gym, sac
from entroflow.types import Transition

CONFIG = Config(Gaussian(width=8, depth=1, states=8, rate=1e-2), MLPCritic(width=8, depth=1, rate=1e-2), batch_size=16)
LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32)
RUNS, ENVIRONMENTS, CAPACITY, STEPS = 2, 4, 12, 5


@functools.partial(jax.jit, static_argnums=1)
def agents_of(keys, space=Box):
    """Agents of given keys, in the box or with unbounded actions."""
    action_space = Box(LOW, HIGH) if space is Box else Unbounded(2)
    options = {"obs_size": 3, "temperature": jnp.float32(0.2), "discount": jnp.float32(0.9)}
    return jax.vmap(lambda key: sac.init(CONFIG, key, action_space=action_space, **options))(keys)


def keys_of(seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def begin(seeds=(0, 1)):
    """Runs of given seeds before their first step."""
    agents = agents_of(keys_of([100 + seed for seed in seeds]))
    return loop_gym.start(agents, keys_of(seeds), obs_size=3, action_size=2, capacity=CAPACITY)


def experience(step, seeds=(0, 1)):
    """The transitions of one step of every environment; each run's stem from its seed, all rewards are different."""

    def one(seed):
        rng = np.random.default_rng([step, seed])
        normal = lambda *shape: rng.standard_normal((ENVIRONMENTS, *shape)).astype(np.float32)  # noqa: E731
        ends = rng.random((2, ENVIRONMENTS)) < 0.2
        return Transition(normal(3), normal(2), normal(), normal(3), *ends)

    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *[one(seed) for seed in seeds])


def train(seeds=(0, 1), further=False):
    """Runs after some steps, and their metrics; with a further update at every second step, if wanted."""
    loop, metrics = begin(seeds), []
    for step in range(STEPS):
        loop, values = loop_gym.learn(CONFIG, loop, experience(step, seeds), update_policy=True)
        metrics.append(values)
        if further and step % 2:
            loop, _ = loop_gym.learn(CONFIG, loop, None, update_policy=True)
    return loop, metrics


def numbers(tree):
    """The leaves of a tree as NumPy arrays, keys by their data; copies, since a loop's memory is used again."""
    leaves = jax.tree.leaves(tree)
    data = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return [np.array(leaf) for leaf in data]


def same(first, second):
    """Whether all leaves are the same, bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(numbers(first), numbers(second), strict=True))


@pytest.fixture(scope="module")
def agents():
    return agents_of(keys_of([100, 101]))


def test_exploration_is_uniform_in_the_box(agents):
    """Kolmogorov–Smirnov against the uniform distribution, each component and run, which draw independently."""
    obs = jnp.zeros((RUNS, 2000, 3))
    actions = np.asarray(loop_gym.act(CONFIG, agents, obs, keys_of([5, 6]), 3, explore=True))
    assert (actions >= LOW).all() and (actions <= HIGH).all()
    shares = ((actions - LOW) / (HIGH - LOW)).transpose(0, 2, 1).reshape(4, -1)
    assert min(scipy.stats.kstest(share, "uniform").pvalue for share in shares) > 1e-3
    correlation = np.corrcoef(shares) - np.eye(4)
    assert np.abs(correlation).max() < 4 / np.sqrt(2000)


@pytest.mark.parametrize("space", [Box, Unbounded])
def test_actions_are_those_of_each_run_s_policy(space):
    """Without exploring, and where there is no box to explore, every environment gets a draw of its run's policy."""
    agents, explore = agents_of(keys_of([100, 101]), space), space is Unbounded
    obs = jax.random.normal(jax.random.key(7), (RUNS, ENVIRONMENTS, 3))
    keys = keys_of([5, 6])
    actions = loop_gym.act(CONFIG, agents, obs, keys, 3, explore=explore)

    @jax.jit
    @jax.vmap
    def expected(agent, obs, key):
        step_keys = jax.random.split(jax.random.fold_in(key, 3), ENVIRONMENTS)
        return jax.vmap(sac.policy(CONFIG, agent).sample)(step_keys, obs)

    np.testing.assert_allclose(actions, expected(agents, obs, keys), rtol=1e-5, atol=1e-5)
    assert np.abs(actions - loop_gym.act(CONFIG, agents, obs, keys, 4, explore=explore)).min() > 1e-6


def test_evaluations_act_by_the_best_of_several_draws(agents):
    """Every environment gets the best by Q of as many draws of its run's averaged policy as are asked for."""
    obs, keys = jax.random.normal(jax.random.key(7), (RUNS, ENVIRONMENTS, 3)), keys_of([5, 6])

    @functools.partial(jax.jit, static_argnums=0)
    def expected(candidates, agents):
        def one(agent, obs, key):
            choose = lambda key, obs: loop_gym.best_of(CONFIG, agent, key, obs, candidates)  # noqa: E731
            return jax.vmap(choose)(jax.random.split(jax.random.fold_in(key, 3), ENVIRONMENTS), obs)

        return jax.vmap(one)(agents, obs, keys)

    found = {m: np.asarray(loop_gym.act_well(CONFIG, agents, obs, keys, 3, candidates=m)) for m in (1, 8)}
    for candidates, actions in found.items():
        np.testing.assert_allclose(actions, expected(candidates, agents), rtol=1e-5, atol=1e-5)
    assert np.abs(found[1] - found[8]).max() > 1e-2


@pytest.mark.parametrize("learning", [True, False], ids=["learn", "remember"])
def test_transitions_go_to_the_next_rows(learning):
    """Each run's transitions stand in its own buffer, in order, the newest over the oldest when it is full."""
    loop, expected = begin(), np.zeros((RUNS, CAPACITY))
    for step in range(STEPS):
        transitions = experience(step)
        rows = step * ENVIRONMENTS % CAPACITY + np.arange(ENVIRONMENTS)
        expected[:, rows] = transitions.reward
        if learning:
            loop, _ = loop_gym.learn(CONFIG, loop, transitions, update_policy=True)
        else:
            loop = loop_gym.remember(loop, transitions)
        assert int(loop.count) == (step + 1) * ENVIRONMENTS
        np.testing.assert_array_equal(loop.replay.reward, expected)
        for name, leaf in transitions._asdict().items():
            np.testing.assert_array_equal(getattr(loop.replay, name)[:, rows], leaf)


def test_remembering_learns_nothing():
    """Neither the agents nor the keys change; learning changes both."""
    loop = begin()
    before = numbers((loop.agent, loop.key))
    loop = loop_gym.remember(loop, experience(0))
    assert all(map(np.array_equal, before, numbers((loop.agent, loop.key))))
    loop, _ = loop_gym.learn(CONFIG, loop, experience(1), update_policy=True)
    assert (np.asarray(loop.agent.step) == 1).all()
    assert not np.array_equal(before[-1], numbers(loop.key)[0])


def test_a_further_update_adds_nothing():
    """Without transitions the buffer stays, while agents move on with other keys."""
    loop, _ = loop_gym.learn(CONFIG, begin(), experience(0), update_policy=True)
    replay, agent, key = numbers(loop.replay), numbers(loop.agent), numbers(loop.key)
    loop, _ = loop_gym.learn(CONFIG, loop, None, update_policy=True)
    assert int(loop.count) == ENVIRONMENTS
    assert all(map(np.array_equal, replay, numbers(loop.replay)))
    assert not np.array_equal(key[0], numbers(loop.key)[0])
    assert not all(map(np.array_equal, agent, numbers(loop.agent)))
    assert (np.asarray(loop.agent.step) == 2).all()


def test_without_improvement_the_actor_stays():
    """Not a bit of the actor, its average or its optimiser changes, while the critics move and the step counts."""
    loop = loop_gym.remember(begin(), experience(0))
    parts = lambda agent: (agent.actor, agent.actor_average, agent.action_space, agent.actor_optimiser)  # noqa: E731
    actor, q, target = numbers(parts(loop.agent)), numbers(loop.agent.critic.q), numbers(loop.agent.critic.q_target)
    loop, metrics = loop_gym.learn(CONFIG, loop, experience(1), update_policy=False)
    assert all(map(np.array_equal, actor, numbers(parts(loop.agent))))
    assert not any(map(np.array_equal, q, numbers(loop.agent.critic.q)))
    assert not any(map(np.array_equal, target, numbers(loop.agent.critic.q_target)))
    assert "critic_error" in metrics and "policy_loss" not in metrics
    loop, metrics = loop_gym.learn(CONFIG, loop, None, update_policy=True)
    assert not all(map(np.array_equal, actor, numbers(parts(loop.agent))))
    assert metrics["policy_loss"].shape == (RUNS,)


def test_updates_draw_from_what_was_added():
    """Where every transition ends the return the targets are the rewards, and these tell whose they are."""
    transitions = experience(0)
    rewards = transitions.reward + jnp.float32([[10.0], [-10.0]])
    transitions = transitions._replace(reward=rewards, terminated=jnp.ones((RUNS, ENVIRONMENTS), bool))
    _, metrics = loop_gym.learn(CONFIG, begin(), transitions, update_policy=False)
    error = np.std(rewards, axis=1) / np.sqrt(CONFIG.batch_size)
    assert (np.abs(metrics["q"] - np.mean(rewards, axis=1)) < 4 * error).all() and (error < 1).all()


def test_same_keys_same_numbers():
    """Training twice from the same keys gives the same runs, bit for bit; other seeds give others."""
    first, second = train(further=True), train(further=True)
    assert same(first, second)
    _, other = train(seeds=(2, 3))
    assert (np.asarray(other[0]["policy_loss"]) != np.asarray(first[1][0]["policy_loss"])).all()


def test_runs_side_by_side_are_the_runs_alone():
    """Two runs together are each of them alone, up to the order of float sums, and do not see what stands beside."""
    loop, metrics = train()
    for place, seed in enumerate((0, 1)):
        alone, values = train(seeds=(seed,))
        for name, value in values[-1].items():
            np.testing.assert_allclose(value[0], metrics[-1][name][place], rtol=1e-3, atol=1e-4)
        for one, both in zip(numbers(alone.agent), numbers(loop.agent), strict=True):
            np.testing.assert_allclose(one[0], both[place], rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(alone.replay.reward[0], loop.replay.reward[place])
    beside, _ = train(seeds=(7, 1))
    at = lambda tree, place: [leaf[place] for leaf in numbers(tree)]  # noqa: E731
    assert all(map(np.array_equal, at(beside.agent, 1), at(loop.agent, 1)))
    assert not any(map(np.array_equal, at(beside.agent.critic.q, 0), at(loop.agent.critic.q, 0)))


class Counting(gymnasium.Env):
    """Pays its number at every step, and ends after as many steps."""

    observation_space, action_space = gymnasium.spaces.Box(-9, 9, (1,)), gymnasium.spaces.Box(-1, 1, (2,))

    def __init__(self, number):
        self.number, self.seeds = number, []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.time = 0
        return np.zeros(1), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time), self.number, self.time == self.number, False, {}


def test_a_roll_out_tells_every_run_its_own_episodes():
    """Environments of the first run stand first; where an episode ends, the next one begins without a seed."""
    envs = [Counting(number) for number in (1, 2, 3, 4)]
    rollout = loop_gym.Rollout(envs, 2)
    rollout.begin([5, 6, 7, 8])
    steps = [rollout.step(np.zeros((2, 2, 2), np.float32)) for _ in range(4)]
    assert rollout.ended == [[(1.0, 1), (1.0, 1), (4.0, 2), (1.0, 1), (1.0, 1), (4.0, 2)], [(9.0, 3), (16.0, 4)]]
    np.testing.assert_array_equal(steps[2].next_obs[..., 0], [[1, 1], [3, 3]])
    np.testing.assert_array_equal(steps[2].terminated, [[True, False], [True, False]])
    np.testing.assert_array_equal(steps[2].reward, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(rollout.obs[..., 0], [[0, 0], [1, 0]])
    np.testing.assert_array_equal(rollout.returns, [0, 0, 3, 0])
    assert envs[2].seeds == [7, None]
