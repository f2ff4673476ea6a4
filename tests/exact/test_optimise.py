"""Gradient steps: which optimiser a training has, what one step does, and how averages follow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from entroflow.optimise import LIMIT, descend, follow, limited, optimiser, planned


def rates(steps, warmup=0.25, rate=0.5, rest=0.0):
    """How far planned steps on a weight matrix go, whose gradient is the identity."""
    plan = planned(rate, warmup, steps, rest)

    def step(carry, _):
        after, state = descend(plan, jnp.eye(2), *carry)
        return (after, state), carry[0][0, 0] - after[0, 0]

    return np.asarray(jax.jit(lambda w: jax.lax.scan(step, (w, plan.init(w)), length=steps)[1])(jnp.zeros((2, 2))))


def test_a_planned_training_warms_up_and_comes_to_rest():
    """Steps grow to the peak over the warm-up, then fall along a cosine to nothing: (1 + cos πs)/2 of the peak."""
    moved = rates(16) / rates(16).max()
    np.testing.assert_allclose(moved[:5], np.arange(5) / 4, atol=0.02)
    np.testing.assert_allclose(moved[4:], (1 + np.cos(np.pi * np.arange(12) / 12)) / 2, atol=0.02)


def test_a_planned_training_may_warm_up_to_its_end():
    """Steps grow all along, and fall in none."""
    moved = rates(8, warmup=1.0)
    assert (np.diff(moved[:-1]) > 0).all() and moved[-1] > 0.9 * moved[:-1].max()
    assert np.isfinite(rates(1, warmup=1.0)).all()


def test_a_planned_training_may_rest_first():
    """No step for the rest's share; then the plan of what is left."""
    moved = rates(20, rest=0.2)
    assert not moved[:4].any()
    np.testing.assert_allclose(moved[4:] / moved.max(), rates(16) / rates(16).max(), atol=0.02)


def test_planned_steps_are_of_equal_size_in_every_direction():
    """Muon: a gradient a hundred times larger in one direction moves a weight matrix as far in both."""
    plan, weights = planned(0.1, 0.0, 10), jnp.zeros((2, 2))
    turn = jnp.float32([[0.6, -0.8], [0.8, 0.6]])
    after, _ = descend(plan, turn @ jnp.diag(jnp.float32([10.0, 0.1])), weights, plan.init(weights))
    sizes = np.linalg.svd(after, compute_uv=False)
    assert sizes[0] / sizes[1] < 2


@pytest.mark.parametrize("steps", [None, 40])
def test_a_training_without_an_end_has_adam(steps):
    """At a constant rate; with an end it is the plan."""
    made, twin = optimiser(0.1, 0.0, steps), optax.adam(0.1) if steps is None else planned(0.1, 0.0, steps)
    models = [{"w": jnp.float32([[1.0, -2.0], [0.5, 3.0]])}] * 2
    states = [each.init(models[0]) for each in (made, twin)]
    for gradient in (1.0, 3.0):
        gradients = {"w": gradient * jnp.float32([[1.0, 2.0], [-0.1, 4.0]])}
        pairs = [descend(each, gradients, *pair) for each, *pair in zip((made, twin), models, states, strict=True)]
        models, states = zip(*pairs, strict=True)
    np.testing.assert_array_equal(models[0]["w"], models[1]["w"])
    if steps is None:  # Adam's first step is the rate in every component, against the gradient's sign
        first, _ = descend(made, gradients, models[0], made.init(models[0]))
        np.testing.assert_allclose(models[0]["w"] - first["w"], 0.1 * np.sign(gradients["w"]), rtol=1e-4)


@pytest.mark.parametrize("wild", [3.0, 100.0, 1e8])
def test_one_wild_gradient_does_not_stop_adam(wild):
    """A gradient is cut to ten times the root mean square before it, over all leaves; shorter ones pass as they are."""
    usual = {"a": jnp.float32([0.6, -0.8]), "b": jnp.float32([[2.4]])}
    length = np.sqrt(0.6**2 + 0.8**2 + 2.4**2)
    plain, adam = optax.adam(0.1), optimiser(0.1, 0.0, None)
    model: Any = jax.tree.map(jnp.zeros_like, usual)
    states: list[Any] = [each.init(usual) for each in (plain, adam)]
    for scale in (1.0, 1.0, 1.0, wild, 1.0):
        told = scale, min(scale, LIMIT)  # every gradient before has the length of the usual one
        gradients = [jax.tree.map(lambda part, by=by: by * part, usual) for by in told]
        if scale == 1.0 and states[0][0].count == 4:  # after the wild one
            root = np.sqrt(sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(states[1][0].nu)) / (1 - 0.999**4))
            np.testing.assert_allclose(root, length * np.sqrt((3 + min(wild, LIMIT) ** 2) / 4), rtol=1e-3)
        given = gradients[1], jax.tree.map(lambda part, by=scale: by * part, usual)
        found = [descend(each, g, model, s) for each, g, s in zip((plain, adam), given, states, strict=True)]
        for one, other in zip(*(jax.tree.leaves(step) for step, _ in found), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        states = [state for _, state in found]


def test_adam_begins_with_any_gradient():
    """Nothing is remembered at first, nor after gradients of zero."""
    zero, one = jnp.zeros(2), jnp.float32([3.0, -1e6])
    steps = []
    for adam in (optax.adam(0.1), limited(optax.adam(0.1))):
        _, state = descend(adam, zero, zero, adam.init(zero))
        steps.append(descend(adam, one, zero, state)[0])
    np.testing.assert_allclose(*steps, rtol=1e-6)
    assert np.abs(steps[0]).min() > 0.01


def test_an_average_goes_a_share_of_the_way():
    """Zero of the way, a quarter, all of it; leaf by leaf."""
    old, new = (
        {"a": jnp.float32([1.0, 2.0]), "b": jnp.float32(0.0)},
        {"a": jnp.float32([3.0, -2.0]), "b": jnp.float32(8.0)},
    )
    for rate, a, b in ((0.0, [1.0, 2.0], 0.0), (0.25, [1.5, 1.0], 2.0), (1.0, [3.0, -2.0], 8.0)):
        found = follow(old, new, rate)
        np.testing.assert_allclose(found["a"], a)
        assert float(found["b"]) == b
