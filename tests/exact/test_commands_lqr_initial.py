"""`entroflow lqr --initial-gain`: the flow begins as the given controller, and restored it is the same function."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import multivariate_normal

from entroflow.commands.lqr import initial, job, plan, units
from entroflow.envs import LQREnv
from entroflow.envs.functional import EnvState, advance
from entroflow.flow import RungeKutta, Unbounded
from entroflow.lqr import LQR, design, systems
from entroflow.options import LQROptions
from entroflow.rl import Flow, Gaussian, sac
from entroflow.rl.actors import Feedback, FeedbackPolicy, Goal
from entroflow.storage.keeping import Keeper

UNITS = units.Units(np.array([4.0, 0.25, 2.0]), np.array([0.5, 8.0, 1.0]), 16.0)
PLANT = systems.get("unstable")
SKEW = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
CONTROLLER = initial.Controller(0.7 * PLANT.optimal(1.0).K + 0.05, SKEW)
ACTING_SOLVER = RungeKutta("rk4", 4)
ACTORS = {
    "flow": Flow(width=4, depth=1, state_width=4, acting_solver=ACTING_SOLVER),
    "gaussian": Gaussian(width=4),
}
OBS = jnp.array([3.0, -40.0, 0.5])


def agent_of(actor, space=None, rest=True):
    """An agent that has learned nothing in its own units, and its settings."""
    config = dataclasses.replace(plan.settings(10), actor=actor)
    space = Unbounded(3, scale=jnp.asarray(1 / UNITS.action, jnp.float32)) if space is None else space
    numbers = {"temperature": jnp.float32(0.5), "discount": jnp.float32(0.95)}
    agent = sac.init(config, jax.random.key(0), obs_size=3, action_space=space, **numbers)
    return config, initial.at_rest(agent) if rest else agent


def gaussian(obs):
    """The controller at an observation, by SciPy."""
    return multivariate_normal(-CONTROLLER.gain @ np.asarray(obs, float), SKEW)


@jax.jit
def told(policy, actions):
    """log π of given actions, and the action of some noise with its log π."""
    return jax.vmap(policy.log_prob, (None, 0))(OBS, actions), policy.push_and_log_prob(
        OBS, jnp.array([0.3, -1.0, 2.0])
    )


def test_the_job_begins_as_the_controller(monkeypatch):
    """After no step, log π of the policy that is saved is that of N(−K s, Σ), in the plant's units, far out, too.

    The plant is open-loop unstable.
    """
    assert np.abs(np.linalg.eigvals(PLANT.A)).max() > 1.2
    options = LQROptions("unstable", (0.5,), seeds=1, initial_gain="gain.json")
    config = dataclasses.replace(plan.settings(10), actor=ACTORS["flow"])
    monkeypatch.setattr(plan, "ENVIRONMENTS", 2)
    keeper = object.__new__(Keeper)  # of a study that is about to begin
    keeper.step = 0
    made = job._Job(options, PLANT, plan.plan(options, PLANT), config, CONTROLLER, Console(), keeper)
    policy = sac.policy(*made._restored(jax.tree.map(lambda leaf: leaf[0], made._start().agent)), average=True)
    actions = gaussian(OBS).rvs(5, random_state=0).astype(np.float32)
    found, (action, log_prob) = told(policy, jnp.asarray(actions))
    np.testing.assert_allclose(found, gaussian(OBS).logpdf(actions.astype(float)), rtol=2e-5)
    np.testing.assert_allclose(log_prob, gaussian(OBS).logpdf(np.asarray(action, float)), rtol=2e-5)
    np.testing.assert_allclose(action, gaussian(OBS).mean + np.linalg.cholesky(SKEW) @ [0.3, -1.0, 2.0], rtol=1e-5)
    assert policy.inner.solver == ACTING_SOLVER


def test_a_gaussian_begins_as_the_controller():
    """The same of plain SAC's policy."""
    config, agent = agent_of(ACTORS["gaussian"])
    policy = sac.policy(*initial.unwrapped(config, units.restored(agent, UNITS), CONTROLLER))
    actions = gaussian(OBS).rvs(5, random_state=0).astype(np.float32)
    found, _ = told(policy, jnp.asarray(actions))
    np.testing.assert_allclose(found, gaussian(OBS).logpdf(actions.astype(float)), rtol=2e-5)


def test_the_flow_can_leave_the_controller():
    """The zeros of the beginning have gradients: every output is one step away."""
    actor = dataclasses.replace(ACTORS["flow"], states=4, candidates=2, pathwise=0.0)
    config, agent = agent_of(actor)
    goal = Goal(jnp.ones((4, 3)), lambda s, a: -jnp.sum((a - 1.0) ** 2), jnp.float32(0.5))
    key = jax.random.key(0)
    improve = jax.jit(lambda agent: actor.loss_and_gradient(sac.policy(config, agent), agent.actor, key, goal).gradient)
    found = improve(agent)
    assert np.all(np.abs(found.last.weight).max(axis=1) > 0)
    assert np.all(np.abs(found.state_layers[-1].weight[-6:]).max(axis=1) > 0)


def test_restored_it_is_the_same_policy_and_the_same_critic():
    """Of a network that has learned: a is −K s + L u, and Q(s, a) is what Q(s, u) was, with all moments off centre."""
    config, agent = agent_of(
        ACTORS["flow"], Unbounded(3, jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 2.0, 0.5])), False
    )
    critic = dataclasses.replace(
        agent.critic,
        obs_units=dataclasses.replace(
            agent.critic.obs_units, mean=jnp.array([1.0, 2.0, 3.0]), scale=jnp.arange(1.0, 4)
        ),
        action_units=dataclasses.replace(
            agent.critic.action_units, mean=jnp.array([3.0, 1.0, 2.0]), scale=jnp.arange(2.0, 5)
        ),
    )
    agent = dataclasses.replace(agent, critic=critic)
    outer, there = initial.unwrapped(config, agent, CONTROLLER)
    root, noise = np.linalg.cholesky(SKEW), jnp.array([0.5, -1.0, 2.0])
    inner, log_prob = sac.policy(config, agent).push_and_log_prob(OBS, noise)
    action, told = sac.policy(outer, there).push_and_log_prob(OBS, noise)
    np.testing.assert_allclose(action, root @ inner - CONTROLLER.gain @ OBS, rtol=1e-5)
    np.testing.assert_allclose(told, log_prob - 0.5 * np.linalg.slogdet(SKEW)[1], rtol=1e-5)
    for name in ("q", "policy_q"):
        q = getattr(config.critic, name)
        np.testing.assert_allclose(q(there.critic, OBS, action), q(critic, OBS, inner), rtol=1e-4)
    fresh = sac.init(
        outer,
        jax.random.key(1),
        obs_size=3,
        action_space=there.action_space,
        temperature=jnp.float32(1),
        discount=jnp.float32(0),
    )
    assert jax.tree.structure(fresh) == jax.tree.structure(there)


def test_the_plant_as_the_learner_sees_it():
    """In the learner's units a step gives the plant's own state and reward, for the input −K s + L u."""
    plain = LQR(PLANT.A, PLANT.B, PLANT.Q, PLANT.R, 0 * PLANT.A, PLANT.initial_cov, PLANT.discount)
    seen = initial.about(
        LQREnv(plain.in_units(UNITS.state, np.ones(3), UNITS.reward), 9), CONTROLLER, UNITS.state, UNITS.action
    )
    s, u = np.array([0.1, -0.2, 0.3]), np.array([0.4, 0.5, -0.6])
    following, told = advance(
        seen,
        jax.random.key(0),
        EnvState(jnp.asarray(s / UNITS.state, jnp.float32), jnp.int32(0)),
        jnp.asarray(u / UNITS.action, jnp.float32),
    )
    a = CONTROLLER.root @ u - CONTROLLER.gain @ s
    np.testing.assert_allclose(following.state * UNITS.state, PLANT.A @ s + PLANT.B @ a, rtol=1e-5)
    np.testing.assert_allclose(told.reward * UNITS.reward, -(s @ PLANT.Q @ s + a @ PLANT.R @ a), rtol=1e-5)
    assert seen.time_limit == 9 and seen.obs_size == 3 and not np.isfinite(seen.action_high).any()


def test_the_improvement_is_that_of_the_other_actor():
    """On Q as a function of u; the controller has no gradient, and values count the entropy of the input."""
    config, agent = agent_of(ACTORS["gaussian"])
    outer, there = initial.unwrapped(config, agent, CONTROLLER)
    q = lambda s, a: -jnp.sum((a - 1.0) ** 2) - s[0]  # noqa: E731
    policy, goal = sac.policy(outer, there), Goal(jnp.ones((4, 3)), q, jnp.float32(0.5))
    found = outer.actor.loss_and_gradient(policy, there.actor, jax.random.key(0), goal)
    keys = jax.random.split(jax.random.key(0), 4)
    actions, log_probs = jax.vmap(policy.sample_and_log_prob)(keys, goal.obs)
    np.testing.assert_allclose(found.values, jax.vmap(q)(goal.obs, actions) - 0.5 * log_probs, rtol=1e-5)
    assert not found.gradient.gain.any() and not found.gradient.root.any()
    assert np.abs(found.gradient.inner.layers[-1].weight).max() > 0
    assert (
        isinstance(policy, FeedbackPolicy) and isinstance(outer.actor, Feedback) and outer.actor.name == "gaussian_sac"
    )


def test_files(tmp_path):
    """A gain, a gain with its covariance, and what `Design.to_json` wrote, read back to the last bit."""
    file = tmp_path / "gain.json"
    file.write_text(json.dumps({"gain": CONTROLLER.gain.tolist()}))
    read = initial.read(file, PLANT)
    assert read.covariance is None and (read.root == np.eye(3)).all() and (read.gain == CONTROLLER.gain).all()
    file.write_text(json.dumps(initial.document(CONTROLLER)))
    again = initial.read(file, PLANT)
    assert (again.gain == CONTROLLER.gain).all() and (again.covariance == SKEW).all()
    made = design(PLANT.A, PLANT.B, PLANT.Q, PLANT.R, temperature=0.3, discount=PLANT.discount)
    made.to_json(file)
    optimum = PLANT.optimal(0.3)
    read = initial.read(file, PLANT)
    assert read.covariance is not None
    np.testing.assert_allclose(read.gain, optimum.K, rtol=1e-8)
    np.testing.assert_allclose(read.covariance, optimum.covariance, rtol=1e-8)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "controller: got no gain"),
        ({"gain": [[1.0, 2.0]]}, r"K: got shape \(1, 2\)"),
        ({"gain": np.zeros((3, 3)).tolist()}, "K: got a closed loop .* spectral radius 1.2"),
        ({"K": [[1]]}, "key: got 'K', expected one of gain"),
        (
            {"gain": CONTROLLER.gain.tolist(), "covariance": np.ones((3, 3)).tolist()},
            "covariance: .* positive definite matrix; every direction must vary",
        ),
        ({"gain": CONTROLLER.gain.tolist(), "covariance": [[1.0]]}, r"covariance: got shape \(1, 1\)"),
        ({"gain": [["a"]]}, "an entry of K: got 'a'"),
    ],
)
def test_what_is_no_controller_is_refused(tmp_path, document, message):
    """With the file's name."""
    file = tmp_path / "gain.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"^{file}: {message}"):
        initial.read(file, PLANT)
