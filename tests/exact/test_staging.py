"""Two stages are the function itself, and the second leaves nothing to do that the first could have done."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import entroflow
from entroflow.flow import Box, FlowPolicy, RungeKutta, VelocityNetwork
from entroflow.rl import loop_gym
from entroflow.staging import Ready, in_advance

HALF_PI = float(np.pi / 2)


def operations(jaxpr):
    """Every operation of a program, by name, those of inner programs too."""
    inner = [name for eqn in jaxpr.eqns for part in jaxprs_in_params(eqn.params) for name in operations(part)]
    return [eqn.primitive.name for eqn in jaxpr.eqns] + inner


def loop(known, x, scale):
    """A loop in which an angle of what is known is taken at every step."""
    turn = lambda x, time: (scale * (jnp.sin(time * known["angle"]) * known["matrix"].T @ x), None)  # noqa: E731
    return jax.lax.scan(turn, x, jnp.array([1.0, 3.0]))[0]


def test_the_first_stage_does_all_that_depends_on_the_first_argument():
    """By hand: sin(π/2) sin(3π/2) = −1; sines and transposition are gone, also out of the loop."""
    known, x = {"matrix": jnp.array([[1.0, 2.0], [0.0, 1.0]]), "angle": jnp.float32(HALF_PI)}, jnp.array([1.0, 1.0])
    ready = jax.jit(in_advance)(jax.tree_util.Partial(loop), known, x, jnp.float32(0))
    np.testing.assert_allclose(ready(x, jnp.float32(2)), [-4, -20], rtol=1e-6)
    assert not {"sin", "transpose"} & set(operations(ready.rest))


def test_a_call_takes_arguments_of_other_precision():
    """As a compiled function would: an observation in double precision is brought to the type of the example."""
    ready = in_advance(lambda known, x: known * x, jnp.float32(3), jnp.float32(0))
    with jax.enable_x64(True):
        assert ready(jnp.float64(2)).dtype == jnp.float32
    assert ready(jnp.float32(2)) == 6


def test_the_second_stage_may_read_its_leaves_as_first_arguments():
    """So JAX 0.11 traces it, where 0.10 has constants; by hand 3 · 2 + 1."""
    traced = jax.make_jaxpr(lambda leaf, x, y: [leaf * x + y])(3.0, 2.0, 1.0)
    assert Ready([jnp.float32(3)], traced.jaxpr)(jnp.float32(2), jnp.float32(1)) == 7


@pytest.mark.parametrize("method", ["rk4", "midpoint"])
def test_acting_evaluates_the_velocity_alone(method):
    """Per stage three products of matrices, two activations: no divergence, no part of the flow time or the state."""
    network = VelocityNetwork(3, 2, width=8, depth=2, key=jax.random.key(0))
    policy = FlowPolicy(network, Box(-np.ones(2), np.ones(2)), solver=RungeKutta(method, 5))
    ready = in_advance(lambda policy, *parts: policy.sample(*parts), policy, jax.random.key(0), jnp.zeros(3))
    (scan,) = [e for e in ready.rest.eqns if e.primitive.name == "scan" and e.params["length"] == 5]
    inside, everything = operations(scan.params["jaxpr"].jaxpr), operations(ready.rest)
    stages = {"rk4": 4, "midpoint": 2}[method]
    assert (inside.count("dot_general"), inside.count("logistic")) == (3 * stages, 2 * stages)
    assert everything.count("dot_general") == 3 * stages + 4  # of the state: two layers, shifts and gains
    assert not {"sin", "cos"} & set(everything)


def test_predicting_runs_one_program_and_prepares_once_for_an_agent(monkeypatch):
    """What is ready is used as long as the agent does not learn, then made anew, and not kept when it is gone."""
    sizes = {"width": 8, "depth": 1, "critic_width": 8, "states": 8, "batch_size": 16, "buffer_size": 64}
    made = entroflow.SACISFM("Pendulum-v1", learning_starts=4, **sizes)
    names, others = [], set(loop_gym._READY)  # what is left of other tests' agents
    for name in ("_prepare", "_act_well"):
        call = getattr(loop_gym, name)
        count = lambda *given, _call=call, _name=name, **more: names.append(_name) or _call(*given, **more)  # noqa: E731
        monkeypatch.setattr(loop_gym, name, count)
    first, _ = made.predict(np.ones(3))
    made.predict(np.ones((2, 3)))
    assert names == ["_prepare", "_act_well", "_act_well"]
    agent, key = made._training.agents, jax.random.fold_in(made._training.predict_keys[0], 1)
    one = jax.tree.map(lambda leaf: leaf[0], agent)
    expected = loop_gym.best_of(made.config, one, jax.random.split(key, 1)[0], jnp.ones(3), 1)
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-6)
    made.learn(8)
    made.predict(np.ones(3))
    assert names[3:] == ["_prepare", "_act_well"]
    own = set(loop_gym._READY) - others
    assert own
    del made, agent
    gc.collect()
    assert not own & set(loop_gym._READY)
