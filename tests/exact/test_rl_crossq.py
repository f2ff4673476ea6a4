"""CrossQ's critic against the same by hand in NumPy: one pass for both pairs, statistics, targets, and the gradient."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from entroflow.moments import Moments, standard
from entroflow.rl import CrossQ
from entroflow.rl.critics import BatchNormMLP, Experience

EPSILON = 0.02
CRITIC = CrossQ(width=4, depth=2, rate=0.01, epsilon=EPSILON)
OBS, ACTIONS, BATCH = 3, 2, 6


def by_hand(network, inputs, known=None):
    """Values of one network, a tree of NumPy arrays, and the statistics that it used."""
    used = []

    def normalise(x):
        used.append((x.mean(axis=0), x.var(axis=0)) if known is None else known[len(used)])
        return (x - used[-1][0]) / np.sqrt(used[-1][1] + EPSILON)

    x = normalise(inputs)
    *hidden, last = network.layers
    for layer, (gain, shift) in zip(hidden, network.gains, strict=True):
        x = normalise(np.maximum(x @ layer.weight.T + layer.bias, 0)) * gain + shift
    return (x @ last.weight.T + last.bias)[:, 0], used


def member(tree, i):
    """One of the members, in double precision."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[i], np.float64), tree)


@pytest.fixture(scope="module")
def state():
    """A critic with units, statistics and gains that are not those of the beginning."""
    keys = jax.random.split(jax.random.key(1), 5)
    state = CRITIC.init(keys[:2], standard(OBS), ACTIONS, None)
    noise = lambda leaf, key: leaf + 0.3 * jax.random.uniform(key, leaf.shape)  # noqa: E731
    statistics, gains = (
        jax.tree.map(noise, tree, jax.tree.unflatten(jax.tree.structure(tree), list(jax.random.split(key, size))))
        for tree, key, size in ((state.statistics, keys[2], 6), (state.q.gains, keys[3], 4))
    )
    state = dataclasses.replace(state, statistics=statistics, value_units=Moments(jnp.float32(2.0), jnp.float32(3.0)))
    return eqx.tree_at(lambda state: state.q.gains, state, gains)


@pytest.fixture(scope="module")
def batch():
    """Observations, actions, and those that follow, far from the first ones."""
    keys = jax.random.split(jax.random.key(2), 4)
    obs, next_obs = jax.random.normal(keys[0], (BATCH, OBS)), 2.0 + jax.random.normal(keys[1], (BATCH, OBS))
    return obs, jax.random.normal(keys[2], (BATCH, ACTIONS)), next_obs, jax.random.normal(keys[3], (BATCH, ACTIONS))


def experience_of(batch, target, step):
    """What an update learns from."""
    obs, action, next_obs, next_action = batch
    return Experience(obs, action, next_obs, next_action, target, None, standard(OBS), jnp.float32(step), None)


def update(state, batch, step, target=lambda q: 0.5 + 0.9 * q):
    """One update, of targets that follow from Q(s', a')."""
    experience = experience_of(batch, target, step)
    return CRITIC.update(state, experience)


def joint(batch):
    """Both pairs, one after the other: in the fixture's units the networks see them as they are."""
    parts = [np.asarray(part, np.float64) for part in batch]
    return np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])


def targets_by_hand(state, batch):
    """The targets, r = 0.5 and γ = 0.9: the least of both members at (s', a'), normalised with (s, a)."""
    after = [by_hand(member(state.q, i), joint(batch))[0][BATCH:] for i in range(2)]
    return 0.5 + 0.9 * (2.0 + 3.0 * np.min(after, axis=0))


def test_q_is_the_least_by_running_statistics(state, batch):
    """Q(s, a) of a single action needs no batch, and is in the units of the return."""
    obs, action = batch[0][0], batch[1][0]
    inputs = np.concatenate([obs, action])[None].astype(np.float64)
    found = [by_hand(member(state.q, i), inputs, member(state.statistics, i))[0][0] for i in range(2)]
    np.testing.assert_allclose(CRITIC.q(state, obs, action), 2.0 + 3.0 * min(found), rtol=1e-5)
    assert CRITIC.policy_q(state, obs, action) == CRITIC.q(state, obs, action)
    mean = dataclasses.replace(CRITIC, ensemble="mean").q(state, obs, action)
    np.testing.assert_allclose(mean, 2.0 + 3.0 * np.mean(found), rtol=1e-5)


def test_one_pass_makes_targets_errors_and_statistics(state, batch):
    """The mean target, the error before the step, and running statistics that come a hundredth closer."""
    after, metrics = update(state, batch, 500)
    targets = targets_by_hand(state, batch)
    np.testing.assert_allclose(metrics["q"], targets.mean(), rtol=1e-5)
    now = np.stack([by_hand(member(state.q, i), joint(batch))[0][:BATCH] for i in range(2)])
    np.testing.assert_allclose(metrics["critic_error"], np.sqrt(np.mean((2 + 3 * now - targets) ** 2)), rtol=1e-5)
    for i in range(2):
        used, old = by_hand(member(state.q, i), joint(batch))[1], member(state.statistics, i)
        for new, seen, before in zip(member(after.statistics, i), used, old, strict=True):
            np.testing.assert_allclose(new, np.asarray(before) + 0.01 * (np.asarray(seen) - before), rtol=1e-5)


def test_running_statistics_are_averages_at_first(state, batch):
    """Of the first batches all count alike, but for the very first, which has no units."""
    seen, old = by_hand(member(state.q, 0), joint(batch))[1], member(state.statistics, 0)
    for step, expected in ((1, seen[1][0]), (2, (seen[1][0] + old[1][0]) / 2)):
        after, _ = update(state, batch, step)
        np.testing.assert_allclose(after.statistics[1][0][0], expected, rtol=1e-5)


def test_step_goes_against_the_gradient(state, batch):
    """Adam's first step is the learning rate against the sign of the derivative, taken by differences in NumPy.

    Targets follow from Q(s', a') of the networks that learn, and carry no gradient.
    """
    targets = 0.5 + 0.9 * (targets_by_hand(state, batch) - 0.5 - 0.9 * 2.0) / (0.9 * 3.0)
    unmoved = eqx.tree_at(lambda state: state.value_units, state, standard())  # so that the step alone moves networks
    target = lambda q: 0.5 + 0.9 * q  # noqa: E731
    experience = experience_of(batch, target, 10**9)
    after, _ = CRITIC.update(unmoved, experience)
    checked, moments = 0, [optax.tree_utils.tree_get(after.q_optimiser, name) for name in ("mu", "nu")]
    slopes = jax.tree.leaves(jax.tree.map(lambda first, second: jnp.max(jnp.abs(first) / jnp.sqrt(second)), *moments))
    np.testing.assert_allclose(max(slopes), 0.5 / np.sqrt(0.001), rtol=1e-4)  # (1 − momentum) g / √((1 − 0.999) g²)
    for i in range(2):
        network = member(unmoved.q, i)
        leaves, structure = jax.tree.flatten(network)
        moved = jax.tree.leaves(jax.tree.map(jnp.subtract, member(after.q, i), member(unmoved.q, i)))

        def loss(leaves, structure=structure):
            now = by_hand(jax.tree.unflatten(structure, leaves), joint(batch))[0][:BATCH]
            return np.mean((now - targets) ** 2)

        for k, leaf in enumerate(leaves):
            for place in np.ndindex(leaf.shape):
                sides = []
                for sign in (1, -1):
                    changed = leaf.copy()
                    changed[place] += sign * 1e-6
                    sides.append(loss([*leaves[:k], changed, *leaves[k + 1 :]]))
                derivative = (sides[0] - sides[1]) / 2e-6
                if abs(derivative) > 1e-3:
                    np.testing.assert_allclose(moved[k][place], -0.01 * np.sign(derivative), rtol=2e-2)
                    checked += 1
    assert checked > 40


@pytest.mark.parametrize("width", [5, 25, 400])
def test_a_step_of_the_last_layer_moves_values_alike_at_any_width(batch, width):
    """Adam's first step is the rate for every weight; those of the last layer sum to 25.6 rates, or less."""
    critic = CrossQ(width=width, rate=0.01)
    before = critic.init(jax.random.split(jax.random.key(3)), standard(OBS), ACTIONS, None)
    after, _ = critic.update(before, experience_of(batch, lambda q: 0.5 + 0.9 * q, 10**9))
    moved = jax.tree.map(lambda new, old: np.abs(np.asarray(new) - np.asarray(old)), after.q, before.q)
    share, last = min(1, 25.6 / width), moved.layers[-1]
    reached = (last.weight > 0).sum(axis=(1, 2))  # units that are never awake have no gradient
    assert reached.min() >= 0.8 * width
    np.testing.assert_allclose(last.weight.sum(axis=(1, 2)), 0.01 * share * reached, rtol=2e-2)
    np.testing.assert_allclose(last.bias, 0.01 * share, rtol=2e-2)
    np.testing.assert_allclose(moved.gains[-1][1].max(), 0.01, rtol=2e-2)


def test_first_batch_tells_the_units_alone(state, batch):
    """The networks say the same of a batch before and after it, in the units of the return."""
    after, _ = update(state, batch, 0)
    assert not np.allclose(after.value_units.scale, state.value_units.scale, rtol=0.1)
    assert not np.allclose(after.action_units.mean, state.action_units.mean, atol=0.1)
    inputs = jnp.asarray(joint(batch), jnp.float32)
    for i in range(2):
        old, new = (jax.tree.map(lambda leaf, i=i: leaf[i], each.q) for each in (state, after))
        said = state.value_units.restore(old(inputs)[0])
        np.testing.assert_allclose(after.value_units.restore(new(inputs)[0]), said, rtol=1e-4, atol=1e-4)


def test_inputs_may_have_any_units():
    """Batch normalisation takes out shift and scale of what the first layer reads."""
    network = BatchNormMLP(3, width=4, depth=1, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (8, 3))
    np.testing.assert_allclose(network(5.0 + 100.0 * x)[0], network(x)[0], rtol=2e-3, atol=2e-3)


def test_a_wild_target_does_not_stop_the_networks(state, batch):
    """Its gradient is cut to ten times the root mean square of those before."""
    squares = lambda state: sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(state.q_optimiser[0].nu))  # noqa: E731
    known, _ = update(state, batch, 1)
    usual, _ = update(known, batch, 2)
    wild, _ = update(known, batch, 2, lambda q: 1e6 + q)
    assert squares(usual) < 50 * squares(known)
    np.testing.assert_allclose(squares(wild), (0.999 + 10**2) * squares(known), rtol=1e-4)
