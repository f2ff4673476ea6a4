"""The update of soft actor-critic with values from actions: the critics' targets, the temperature, who judges whom."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import Box, RungeKutta
from entroflow.isfm import CurrentPolicy, current_policy
from entroflow.moments import Moments, forgetting_rate
from entroflow.rl import Config, Flow, Gaussian, MLPCritic, best_of, sac
from entroflow.rl.soft_bellman import temperature_loss
from entroflow.types import Transition

ALPHA, GAMMA, SIZE = 0.7, 0.9, 24
FLOW = Config(
    Flow(width=4, depth=1, solver=RungeKutta("midpoint", 1), candidates=4, pairs=1, states=SIZE),
    MLPCritic(width=8, depth=1),
    batch_size=SIZE,
)
GAUSSIAN = dataclasses.replace(FLOW, actor=Gaussian(width=4, depth=1, states=SIZE))
CONFIGS = {"flow": FLOW, "gaussian": GAUSSIAN}
LOW, HIGH = jnp.float32([-1.0, 0.0]), jnp.float32([2.0, 5.0])


@functools.cache
def make(config):
    """A run in which the two critics, their targets, the policy and its average all differ, and units matter."""

    @jax.jit
    def build():
        # A generator that compiles fast; what numbers it draws does not matter.
        keys = jax.random.split(jax.random.key(1, impl="unsafe_rbg"), 2)
        options = {"obs_size": 3, "action_space": Box(LOW, HIGH)}
        options |= {"temperature": jnp.float32(ALPHA), "discount": jnp.float32(GAMMA)}
        state, other = (sac.init(config, key, **options) for key in keys)
        # Steep, and without the offset 0.2 = E silu of their hidden layer, each critic is the least somewhere.
        last = other.critic.q.layers[-1]
        parts = 3 * last.weight, -0.6 * jnp.sum(last.weight, axis=2)
        steep = eqx.tree_at(lambda q: (q.layers[-1].weight, q.layers[-1].bias), other.critic.q, parts)
        obs_units = Moments(jnp.float32([0.5, -1.0, 0.2]), jnp.float32([0.5, 2.0, 1.0]))
        critic = dataclasses.replace(
            state.critic,
            q_target=steep,
            obs_units=obs_units,
            action_units=Moments(jnp.float32([0.3, 3.0]), jnp.float32([0.8, 1.5])),
            value_units=Moments(jnp.float32(4.0), jnp.float32(5.0)),
        )
        return dataclasses.replace(state, actor_average=other.actor, critic=critic, obs_units=obs_units)

    return build()


@pytest.fixture(scope="module")
def batch():
    """Transitions of which about a third each terminate, are truncated and go on."""
    keys = jax.random.split(jax.random.key(2), 5)
    end = jax.random.randint(keys[4], (SIZE,), 0, 3)
    found = Transition(
        obs=jax.random.normal(keys[0], (SIZE, 3)),
        action=jax.random.uniform(keys[1], (SIZE, 2)),
        reward=3.0 * jax.random.normal(keys[2], (SIZE,)),
        next_obs=jax.random.normal(keys[3], (SIZE, 3)),
        terminated=end == 1,
        truncated=end == 2,
    )
    assert found.terminated.any() and found.truncated.any() and not (found.terminated | found.truncated).all()
    return found


KEYS = jax.random.split(jax.random.key(3), SIZE)


VARIANTS = {"soft": {}, "hard": {"entropy_in_target": False}, "scaled": {"reward_scale": 0.1}}
VARIANTS |= {"mean": {"critic": dataclasses.replace(FLOW.critic, ensemble="mean")}}


@functools.cache
def targets_with(config, *variants):
    """A program of every transition's target: the metric "q" of an update on it alone, with a key of its own.

    It also returns the actions at the next states that these updates draw, and their log-densities.
    """

    def target(variant, state, transition, key):
        alone = jax.tree.map(lambda leaf: leaf[None], transition)
        return sac.evaluate_policy(dataclasses.replace(config, **VARIANTS[variant]), state, alone, key)[1]["q"]

    @jax.jit
    def targets(state, batch):
        def one(transition, key):
            found = {variant: target(variant, state, transition, key) for variant in variants}
            next_action = sac.policy(config, state).sample_and_log_prob
            return found, *next_action(jax.random.split(key, 1)[0], transition.next_obs)

        return jax.vmap(one)(batch, KEYS)

    return lambda state, batch: jax.tree.map(np.asarray, targets(state, batch))


def each_critic(state, name, obs, action):
    """Values of the single networks "q" or "q_target" in the units of the return, by hand, shape (members, batch)."""
    critic = jax.tree.map(np.asarray, state.critic)
    units = critic.obs_units, critic.action_units
    parts = [(np.asarray(x) - unit.mean) / unit.scale for x, unit in zip((obs, action), units, strict=True)]
    x = np.concatenate(parts, axis=1)[None]
    *hidden, last = getattr(critic, name).layers
    for layer in hidden:
        x = x @ layer.weight.transpose(0, 2, 1) + layer.bias[:, None]
        x = (x - x.mean(axis=2, keepdims=True)) / np.sqrt(x.var(axis=2, keepdims=True) + 1e-5)
        x = x / (1 + np.exp(-x))
    values = (x @ last.weight.transpose(0, 2, 1) + last.bias[:, None])[..., 0]
    return critic.value_units.mean + critic.value_units.scale * values


@pytest.mark.parametrize(("actor", "variants"), [("flow", ["soft"]), ("gaussian", list(VARIANTS))])
def test_target_is_the_soft_bellman_target(actor, variants, batch):
    """Every target is r + γ (1 − terminated) (min Q_target(s', a') − α log π(a'|s')), with a' from the policy.

    Without entropy exactly γ α log π is missing; rewards alone are scaled; "mean" is the mean of the twins.
    """
    state = make(CONFIGS[actor])
    found, actions, log_prob = targets_with(CONFIGS[actor], *variants)(state, batch)
    q = each_critic(state, "q_target", batch.next_obs, actions)
    assert set(np.argmin(q, axis=0)) == {0, 1} and np.ptp(log_prob) > 0.5
    going_on, reward = GAMMA * ~np.asarray(batch.terminated), np.asarray(batch.reward)
    expected = {
        "soft": reward + going_on * (np.min(q, axis=0) - ALPHA * log_prob),
        "hard": reward + going_on * np.min(q, axis=0),
        "scaled": 0.1 * reward + going_on * (np.min(q, axis=0) - ALPHA * log_prob),
        "mean": reward + going_on * (np.mean(q, axis=0) - ALPHA * log_prob),
    }
    for variant, values in found.items():
        np.testing.assert_allclose(values, expected[variant], rtol=1e-4, atol=1e-4, err_msg=variant)


STEERED = dataclasses.replace(GAUSSIAN, target_entropy=0.0)


@pytest.fixture(scope="module")
def evaluate_policy():
    """The compiled update of critics and temperature."""
    return jax.jit(functools.partial(sac.evaluate_policy, STEERED))


@functools.partial(jax.jit, static_argnames="average")
def draw(state, keys, obs, average=False):
    """Draws of the Gaussian policy with their log-densities."""
    return jax.vmap(sac.policy(GAUSSIAN, state, average=average).sample_and_log_prob)(keys, obs)


def test_online_critics_regress_on_the_targets(batch, evaluate_policy):
    """The error before the step is that of both online critics; they move, and their targets a little after them."""
    state, key = make(GAUSSIAN), jax.random.key(4)
    after, metrics = evaluate_policy(state, batch, key)
    actions, log_prob = jax.tree.map(np.asarray, draw(state, jax.random.split(key, SIZE), batch.next_obs))
    q = np.min(each_critic(state, "q_target", batch.next_obs, actions), axis=0)
    target = np.asarray(batch.reward) + GAMMA * ~np.asarray(batch.terminated) * (q - ALPHA * log_prob)
    errors = each_critic(state, "q", batch.obs, batch.action) - target
    np.testing.assert_allclose(metrics["critic_error"], np.sqrt(np.mean(errors**2)), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], -np.mean(log_prob), rtol=1e-4)

    # The units moved, too, so that functions have to be compared, not parameters.
    before, moved = (each_critic(one, "q", batch.obs, batch.action) for one in (state, after))
    old, followed = (each_critic(one, "q_target", batch.obs, batch.action) for one in (state, after))
    assert (np.mean((moved - target) ** 2, axis=1) < np.mean((before - target) ** 2, axis=1)).all()
    # Linear in the parameters to first order: each target critic goes a share `target_rate` of the way.
    assert 0 < np.abs(followed - old).max() < 10 * STEERED.critic.target_rate * np.abs(before - old).max()


@pytest.mark.parametrize("normalise", [True, False])
def test_observations_are_normalised_on_demand(normalise, batch, evaluate_policy):
    """Units of observations follow the data, or stay one; those of actions follow in any case."""
    config = dataclasses.replace(STEERED, normalise_obs=normalise)
    before = make(GAUSSIAN)
    evaluate = evaluate_policy if normalise else jax.jit(functools.partial(sac.evaluate_policy, config))
    after, _ = evaluate(before, batch, jax.random.key(4))
    assert np.array_equal(after.obs_units.mean, before.obs_units.mean) is not normalise
    assert np.array_equal(after.obs_units.scale, before.obs_units.scale) is not normalise
    assert not np.array_equal(after.critic.action_units.mean, before.critic.action_units.mean)
    jax.tree.map(np.testing.assert_array_equal, after.critic.obs_units, after.obs_units)


def test_units_are_updated_once(batch, evaluate_policy):
    """One update moves the moments of observations, actions and targets by the forgetting rate, and not a bit more."""
    state = dataclasses.replace(make(GAUSSIAN), step=jnp.float32(5))
    batch = batch._replace(terminated=jnp.ones(SIZE, bool))  # targets are the rewards
    after, _ = evaluate_policy(state, batch, jax.random.key(4))
    rate = float(forgetting_rate(state.step, np.inf))
    assert 0.3 < rate < 0.7
    old, new = ((s.obs_units, s.critic.obs_units, s.critic.action_units, s.critic.value_units) for s in (state, after))
    for before, found, data in zip(old, new, (batch.obs, batch.obs, batch.action, batch.reward), strict=True):
        mean, deviation = np.mean(data, axis=0), np.std(data, axis=0)
        np.testing.assert_allclose(found.mean, before.mean + rate * (mean - before.mean), rtol=1e-4)
        np.testing.assert_allclose(found.scale, before.scale + rate * (deviation - before.scale), rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_far_observations_are_seen_at_the_limit(name):
    """Policy and critics see what is a million standard deviations away as ten."""
    config, key = CONFIGS[name], jax.random.key(5)
    state = make(config)
    units = dataclasses.replace(state.obs_units, limit=config.obs_limit)
    state = dataclasses.replace(state, obs_units=units, critic=dataclasses.replace(state.critic, obs_units=units))
    far, edge = (state.obs_units.mean + n * state.obs_units.scale for n in (1e6, 10.0))
    actions = [sac.policy(config, state).sample(key, obs) for obs in (far, edge)]
    np.testing.assert_allclose(*actions, rtol=1e-4)
    np.testing.assert_allclose(*(sac.q_value(config, state, obs, actions[1]) for obs in (far, edge)), rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_component_that_first_moves_late_does_no_harm(name, batch):
    """Constant over many updates and then not, as a contact force: everything stays finite, and Q moderate."""
    config, state = CONFIGS[name], make(CONFIGS[name])
    update = jax.jit(functools.partial(sac.update, config))
    still = batch.obs.at[:, 2].set(0.0)
    moves, metrics = still.at[0, 2].set(10.0), {}
    for i, obs in enumerate([still] * 4 + [moves]):
        state, metrics = update(state, batch._replace(obs=obs, next_obs=obs), jax.random.key(i))
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0.1 < state.obs_units.scale[2] < 10
    assert np.abs(each_critic(state, "q", moves, batch.action)).max() < 1e3


def test_gradient_of_the_temperature_is_the_excess_entropy():
    """∂/∂log α of the loss is H − H̄, whatever α is."""
    log_prob = jnp.float32([0.5, -1.0, 2.0, -0.3])
    for log_temperature in (-2.0, 1.0):
        gradient = jax.grad(temperature_loss)(jnp.float32(log_temperature), -jnp.mean(log_prob), 0.25)
        np.testing.assert_allclose(gradient, -np.mean(log_prob) - 0.25, rtol=1e-6)


def test_temperature_moves_toward_the_target_entropy(batch, evaluate_policy):
    """α rises while the entropy is below its target and falls above, first by the factor e^rate.

    A wider action space gives the same network more entropy: log h of every component's half-width h.
    """
    state = make(GAUSSIAN)
    for width, sign in ((0.01, 1.0), (100.0, -1.0)):
        bounds = jnp.full(2, width)
        resized = dataclasses.replace(
            state, action_space=dataclasses.replace(state.action_space, low=-bounds, high=bounds)
        )
        after, metrics = evaluate_policy(resized, batch, jax.random.key(4))
        assert sign * float(metrics["entropy"]) < -1.0
        change = float(after.log_temperature - state.log_temperature)
        assert change == pytest.approx(sign * STEERED.temperature_rate, rel=1e-2)
        assert float(metrics["temperature"]) == pytest.approx(ALPHA)


def test_a_network_of_values_cannot_steer_the_temperature():
    """It draws no actions that could tell the entropy: refused in one sentence."""
    with pytest.raises(ValueError, match="soft_value"):
        Config(critic=MLPCritic(soft_value="network"), target_entropy=-1.0)


def test_a_value_network_needs_candidates_of_the_policy():
    """Its targets are means over them; those of another proposal would be wrong without notice."""
    critic = MLPCritic(soft_value="network")
    for proposal in ("defensive", lambda policy, *_: CurrentPolicy(policy)):
        with pytest.raises(
            ValueError, match="soft_value: got a network V with values of sac_isfm that are not those of"
        ):
            Config(Flow(proposal=proposal), critic)
    for proposal in ("policy", current_policy):
        assert Config(Flow(proposal=proposal), critic).critic.learns_v


@pytest.mark.parametrize("actor", CONFIGS)
def test_the_policy_is_improved_on_the_critics_it_is_told_to(actor, batch):
    """Soft values come from the online critics alone or from the target critics alone, whichever is asked for."""
    config, key = CONFIGS[actor], jax.random.key(5)

    @jax.jit
    def values(state):
        both = [dataclasses.replace(config.critic, improve_on=networks) for networks in ("online", "target")]
        configs = [dataclasses.replace(config, critic=critic) for critic in both]
        return [sac.improve_policy(config, state, batch.obs, key)[1][1] for config in configs]

    state = make(config)
    online, target = values(state)
    swapped = dataclasses.replace(state.critic, q=state.critic.q_target, q_target=state.critic.q)
    swapped_online, swapped_target = values(dataclasses.replace(state, critic=swapped))
    assert np.abs(online - target).max() > 0.1
    np.testing.assert_allclose(online, swapped_target, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(target, swapped_online, rtol=1e-5, atol=1e-5)


def test_a_step_of_policy_improvement(batch):
    """The Gaussian's values are min Q − α log π of one action per state; its critics stay, and so does the temperature.

    The network steps up its own gradient, and nothing else moves.
    """
    state, key = make(GAUSSIAN), jax.random.key(5)
    after, (seen, values), metrics = jax.jit(functools.partial(sac.improve_policy, STEERED))(state, batch.obs, key)
    np.testing.assert_array_equal(seen, batch.obs)
    keys = jax.random.split(key, SIZE)

    def soft_values(state_of_policy):
        actions, log_prob = jax.tree.map(np.asarray, draw(state_of_policy, keys, batch.obs))
        return np.min(each_critic(state, "q", batch.obs, actions), axis=0) - ALPHA * log_prob

    np.testing.assert_allclose(values, soft_values(state), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"], -np.mean(soft_values(state)), rtol=1e-4)
    assert np.mean(soft_values(after)) > np.mean(soft_values(state)) + 1e-4
    kept = ("actor_average", "critic", "log_temperature", "action_space", "obs_units")
    for name in kept:
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))


@pytest.mark.parametrize(("average", "delay"), [(0.0, 3), (0.5, 1), (0.5, 3)])
def test_the_average_is_over_updates(batch, average, delay):
    """It moves to the actor by 1/(1 + A n) at update n, whether that one improves the policy or not."""
    config = dataclasses.replace(STEERED, actor=dataclasses.replace(STEERED.actor, average=average))
    step = jax.jit(functools.partial(sac.update, config), static_argnames="update_policy")
    state = make(config)
    expected = np.asarray(jax.tree.leaves(state.actor)[0])
    for n in range(7):
        state, _ = step(state, batch, jax.random.key(n), update_policy=n % delay == 0)
        expected = expected + (np.asarray(jax.tree.leaves(state.actor)[0]) - expected) / (1 + average * n)
        np.testing.assert_allclose(jax.tree.leaves(state.actor_average)[0], expected, atol=1e-6)


def test_best_of_several_actions():
    """Of M draws of the averaged policy it is the best by the target critics; of one it is that draw."""
    state, obs = make(GAUSSIAN), jnp.float32([0.3, -0.7, 1.1])
    same_obs = jnp.asarray(np.tile(obs, (SIZE, 1)))
    choose = jax.jit(lambda state, key: [best_of(GAUSSIAN, state, key, obs, m) for m in (1, SIZE)])
    best_by_online = []
    for seed in range(3):
        key = jax.random.key(seed)
        first, best = choose(state, key)
        actions, _ = draw(state, jax.random.split(key, SIZE), same_obs, average=True)
        values = np.min(each_critic(state, "q_target", same_obs, actions), axis=0)
        np.testing.assert_allclose(best, actions[np.argmax(values)], rtol=1e-5, atol=1e-6)
        others = np.min(each_critic(state, "q", same_obs, actions), axis=0)
        best_by_online.append(np.argmax(others) == np.argmax(values))
        alone = jnp.stack([jax.random.split(key, 1)[0]] * SIZE)
        np.testing.assert_allclose(first, draw(state, alone, same_obs, average=True)[0][0], rtol=1e-5, atol=1e-6)
        assert np.abs(first - draw(state, alone, same_obs)[0][0]).max() > 1e-2
    assert not all(best_by_online), "the choice tells which critics made it"


def test_a_solver_that_fails_is_not_believed(batch):
    """Where the field is stiff the latents fly; targets, entropy, gradient and the next steps survive it."""
    config = dataclasses.replace(FLOW, actor=dataclasses.replace(FLOW.actor, pathwise=1.0, normalise=jnp.zeros_like))
    state = make(config)
    stiff = jax.tree.map(lambda leaf: 7 * leaf, state.actor)
    most = 30 * 2 + float(jnp.sum(jnp.log((HIGH - LOW) / 2)))

    @jax.jit
    def learned(state, actor):
        state = dataclasses.replace(state, actor=actor)
        keys = jax.random.split(jax.random.key(0), SIZE)
        told = jax.vmap(sac.policy(config, state).sample_and_log_prob)(keys, batch.next_obs)[1]
        improved, _, metrics = sac.improve_policy(config, state, batch.obs, keys[0])
        _, more = sac.evaluate_policy(config, state, batch, keys[1])
        return told, improved, metrics | more

    _, before, _ = learned(state, state.actor)
    told, after, metrics = learned(dataclasses.replace(before, actor=state.actor), stiff)
    assert np.abs(told).max() > 1e4  # nats
    assert np.abs(float(metrics["entropy"])) < most and np.abs(float(metrics["q"])) < 100 + ALPHA * most
    assert np.abs(float(metrics["policy_loss"])) < (100 + ALPHA * most) / ALPHA  # pathwise alone: no candidate weighs
    squares = [
        sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(each.actor_optimiser[0].nu)) for each in (before, after)
    ]
    assert squares[1] < 101.1 * squares[0]
