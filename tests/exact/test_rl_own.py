"""Pieces of one's own at every seam, actor, critic, proposal, normalisation, through update and loops."""

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.envs.functional import FunctionalEnv
from entroflow.flow import ActionSpace, Box, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import BroadenedPolicy, CurrentPolicy, self_normalised
from entroflow.moments import forgetting_rate, standard
from entroflow.rl import Config, Flow, loop_gym, loop_jax, sac
from entroflow.rl.actors import Feedback, Goal, Step
from entroflow.types import Transition

SIZE, ALPHA, GAMMA, NOISE, RATE = 6, 0.5, 0.9, 0.3, 0.1


class Pointing(eqx.Module):
    """A policy without a density: a = W s, and noise."""

    weight: jax.Array
    action_space: ActionSpace

    def sample(self, key, obs, noise_scale=1.0):
        noise = jax.random.normal(key, (self.action_space.size,))
        return self.action_space.to_action(self.weight @ obs + NOISE * noise_scale * noise)

    def exploration_entropy(self):
        return jnp.float32(-1.5)


@dataclass(frozen=True)
class Ascent:
    """An actor that goes up the critic, and knows no more than the protocol asks for."""

    states: int = 4
    variance: float | None = None
    name: ClassVar[str] = "ascent"
    has_density: ClassVar[bool] = False
    values_are_soft: ClassVar[bool] = False
    rate: ClassVar[float] = 1e-2
    warmup: ClassVar[float] = 0.0
    average: ClassVar[float] = 0.0

    def network(self, obs_size, action_size, *, key):
        return jax.random.normal(key, (action_size, obs_size))

    def policy(self, network, action_space, obs_units, temperature):
        return Pointing(network, action_space)

    def loss_and_gradient(self, policy, network, key, goal):
        def loss(weight):
            values = jax.vmap(lambda obs: goal.q_function(obs, policy.action_space.to_action(weight @ obs)))(goal.obs)
            return -jnp.mean(values), values

        (error, values), gradient = jax.value_and_grad(loss, has_aux=True)(network)
        variance = None if self.variance is None else jnp.float32([self.variance, 1.0])
        return Step(error, gradient, values, {"climb": -error}, variance)


@dataclass(frozen=True)
class Linear:
    """A critic Q(s, a) = w·(s, a) without target networks or V; the policy climbs one that is twice as steep."""

    learns_v: ClassVar[bool] = False

    def init(self, keys, obs_units, action_size, updates):
        return {"w": jax.random.normal(keys[0], (obs_units.mean.size + action_size,))}

    def q(self, state, obs, action):
        return state["w"] @ jnp.concatenate([obs, action])

    def policy_q(self, state, obs, action):
        return 2 * self.q(state, obs, action)

    def update(self, state, experience):
        q = jax.vmap(functools.partial(self.q, state))
        inputs = jnp.concatenate([experience.obs, experience.action], axis=1)
        targets = experience.target(q(experience.next_obs, experience.next_action))
        error = inputs @ state["w"] - targets
        moved = {"w": state["w"] - RATE * error @ inputs / len(error)}
        return moved, {"critic_error": jnp.mean(error**2), "least": jnp.min(targets), "most": jnp.max(targets)}


LOW, HIGH = np.float32([-1.0, 0.0]), np.float32([2.0, 5.0])
CONFIG = Config(Ascent(), Linear(), batch_size=SIZE, target_entropy=0.0, temperature_rate=1e-2)


def begin(key, config=CONFIG, space=None):
    """A run before its first update."""
    numbers = {"temperature": jnp.float32(ALPHA), "discount": jnp.float32(GAMMA)}
    return sac.init(config, key, obs_size=3, action_space=space or Unbounded(2), **numbers)


def transitions(*shape):
    """Transitions of which some terminate, that differ in all they have."""
    rng = np.random.default_rng(0)
    real = lambda *size: jnp.asarray(rng.standard_normal((*shape, *size)), jnp.float32)  # noqa: E731
    ends = jnp.asarray(rng.random(shape) < 0.4)
    return Transition(real(3), real(2), real(), real(3), ends, ~ends)


def test_an_update_with_an_actor_and_a_critic_of_one_s_own():
    """By hand: the actor climbs the policy's Q, no log π enters targets, α follows the entropy of the noise."""
    state, batch, key = begin(jax.random.key(1)), transitions(SIZE), jax.random.key(2)
    after, metrics = jax.jit(functools.partial(sac.update, CONFIG))(state, batch, key)
    w, weight = np.asarray(state.critic["w"]), np.asarray(state.actor)

    slope = -2 * np.outer(w[3:], np.mean(batch.obs[:4], axis=0))
    assert np.abs(slope).min() > 1e-3
    np.testing.assert_allclose(after.actor, weight - 1e-2 * np.sign(slope), rtol=1e-3)  # Adam's first step
    points = np.asarray(batch.obs[:4]) @ weight.T
    climb = 2 * np.mean(np.concatenate([batch.obs[:4], points], axis=1) @ w)
    np.testing.assert_allclose(metrics["climb"], climb, rtol=1e-4)

    keys = jax.random.split(jax.random.split(key)[1], SIZE)
    actions = jax.vmap(Pointing(after.actor, state.action_space).sample)(keys, batch.next_obs)
    following = np.concatenate([batch.next_obs, actions], axis=1) @ w
    targets = np.asarray(batch.reward) + GAMMA * ~np.asarray(batch.terminated) * following
    inputs = np.concatenate([batch.obs, batch.action], axis=1)
    error = inputs @ w - targets
    np.testing.assert_allclose(metrics["least"], targets.min(), rtol=1e-4)
    np.testing.assert_allclose(after.critic["w"], w - RATE * error @ inputs / SIZE, rtol=1e-4)
    assert float(metrics["entropy"]) == -1.5
    np.testing.assert_allclose(after.log_temperature - state.log_temperature, 1e-2, rtol=1e-3)  # below its target


@pytest.mark.parametrize(("variance", "counted"), [(4.0, 4.0), (1e6, 10.0), (None, 1.0)])
def test_units_of_unbounded_actions_follow_the_variance_once(variance, counted):
    """By the forgetting rate toward the width that the actor tells of, a factor of √10 at most; others stay."""
    config, state = (
        replace(CONFIG, actor=Ascent(variance=variance)),
        replace(begin(jax.random.key(1)), step=jnp.float32(5)),
    )
    after, *_ = jax.jit(functools.partial(sac.improve_policy, config))(state, transitions(4).obs, jax.random.key(2))
    rate = float(forgetting_rate(state.step, np.inf))
    np.testing.assert_allclose(after.action_space.scale, [counted ** (rate / 2), 1.0], rtol=1e-5)


def test_both_of_one_s_own_pass_through_the_loop():
    """They act, are remembered and learn, run by run, and what they learn is what `sac.update` makes of the batches."""
    space = Box(LOW, HIGH)
    agents = jax.vmap(lambda key: begin(key, space=space))(jax.random.split(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(3))
    loop = loop_gym.start(agents, keys, obs_size=3, action_size=2, capacity=8)
    actions = np.asarray(loop_gym.act(CONFIG, agents, jnp.ones((2, 4, 3)), keys, 0, explore=False))
    assert actions.shape == (2, 4, 2) and (actions >= LOW).all() and (actions <= HIGH).all()
    assert len(np.unique(actions)) == actions.size
    before = np.asarray(agents.critic["w"])
    loop, metrics = loop_gym.learn(CONFIG, loop, transitions(2, 4), update_policy=True)
    assert (np.asarray(loop.fault) == 0).all() and set(metrics) > {"climb", "least", "critic_error", "policy_loss"}
    assert np.abs(np.asarray(loop.agent.critic["w"]) - before).min(axis=1).max() > 0
    loop = eqx.tree_at(lambda loop: loop.agent.critic["w"], loop, loop.agent.critic["w"].at[1, 0].set(jnp.nan))
    loop, _ = loop_gym.learn(CONFIG, loop, None, update_policy=False)
    assert list(np.asarray(loop.fault) > 0) == [False, True]


class Counting(FunctionalEnv):
    """The reward is the number of the step; nothing ever ends."""

    action_low: jax.Array
    action_high: jax.Array
    time_limit: int = eqx.field(static=True, default=10**6)
    obs_size: int = eqx.field(static=True, default=3)

    def initial(self, key):
        return jnp.zeros(())

    def observation(self, state):
        return jnp.zeros(3)

    def transition(self, key, state, action):
        return state + 1

    def reward(self, state, action, next_state):
        return state

    def terminal(self, state):
        return jnp.bool_(False)

    def out_of_region(self, state):
        return jnp.bool_(False)


@pytest.mark.parametrize("recent", [0.25, 1.0])
@pytest.mark.parametrize("loop", ["gym", "jax"])
def test_loops_draw_from_the_recent_part(loop, recent):
    """Of 40 steps whose rewards are their numbers, all in the newest quarter, or from everywhere; γ is zero here."""
    config = replace(CONFIG, recent=recent, batch_size=64)
    agents = jax.vmap(begin)(jax.random.split(jax.random.key(0), 1))
    agents = eqx.tree_at(lambda agents: agents.discount, agents, jnp.zeros(1))
    keys, steps = jax.random.split(jax.random.key(3), 1), 40
    if loop == "gym":
        runs = loop_gym.start(agents, keys, obs_size=3, action_size=2, capacity=64)
        for number in range(steps):
            rewards = transitions(1, 1)._replace(reward=jnp.full((1, 1), number, jnp.float32))
            runs = loop_gym.remember(runs, rewards)
        _, metrics = loop_gym.learn(config, runs, None, update_policy=False)
    else:
        env = Counting(action_low=jnp.full(2, -jnp.inf), action_high=jnp.full(2, jnp.inf))
        runs = loop_jax.start(env, agents, keys, environments=1, capacity=64)
        advance = jax.jit(functools.partial(loop_jax.advance, config, env))
        runs, _ = advance(runs, jnp.ones(1), jnp.int32(steps - 1))
        _, metrics = advance(runs, jnp.ones(1), jnp.int32(1))
    assert float(metrics["most"][0]) <= steps - 1
    assert 30 <= metrics["least"][0] if recent < 1 else metrics["least"][0] < 5


seen = []


def broadened(policy, q_function, temperature):
    """A proposal of one's own, which notes what it is given."""
    seen.append((policy, q_function, temperature))
    return BroadenedPolicy(policy, 1.5)


def flattened(log_weights):
    """A normalisation of one's own: all weights are equal."""
    return jnp.full_like(log_weights, 1 / log_weights.shape[0])


@pytest.fixture(scope="module")
def steps():
    """Steps of flow actors that differ in one piece, by their name, from one program."""
    plain = Flow(
        width=3,
        depth=1,
        state_width=3,
        solver=RungeKutta("euler", 1),
        candidates=4,
        target="pair",
        pathwise=0.0,
        ess_floor=0.0,
    )
    network = VelocityNetwork(2, 1, width=3, depth=1, state_width=3, key=jax.random.key(0))
    q_function = lambda obs, action: -jnp.sum((action - obs[0]) ** 2)  # noqa: E731
    copied = {"proposal": lambda policy, *_: CurrentPolicy(policy), "normalise": lambda logs: self_normalised(logs)}
    actors = {
        "plain": plain,
        "copied": replace(plain, **copied),
        "broadened": replace(plain, proposal=broadened),
        "flattened": replace(plain, normalise=flattened),
    }

    @jax.jit
    def program():
        alpha, obs = jnp.float32(0.7), jnp.float32([[0.3, -1.0], [1.2, 0.4]])
        policy = plain.policy(network, Unbounded(1), standard(2), alpha)
        arguments = policy, network, jax.random.key(1), Goal(obs, q_function, alpha)
        return {name: actor.loss_and_gradient(*arguments) for name, actor in actors.items()}

    return program()


def same(first, second):
    """Whether two steps are the same."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def test_a_proposal_of_one_s_own(steps):
    """It is given policy, Q and α; the policy by another name changes nothing, a broader one does."""
    policy, q_function, temperature = seen[-1]
    assert policy.velocity.action_size == 1 and callable(q_function) and temperature.shape == ()
    assert same(steps["plain"], steps["copied"]) and not same(steps["plain"], steps["broadened"])
    assert not Flow(proposal=broadened).values_are_soft and Flow().values_are_soft
    assert not Feedback.of(Flow(proposal=broadened)).values_are_soft and Feedback.of(Flow()).values_are_soft


def test_a_normalisation_of_one_s_own(steps):
    """Equal weights change the gradient, and not the diagnostics."""
    plain, flat = steps["plain"], steps["flattened"]
    assert not same(plain.gradient, flat.gradient)
    np.testing.assert_allclose(flat.metrics["ess"], plain.metrics["ess"], rtol=1e-5)
