"""SAC-ISFM on one page: Algorithm 2 of *Max-Entropy Reinforcement Learning with Flow Matching* (arXiv 2512.23870).

    python examples/sac_isfm.py --env lqr              a linear system whose optimum is known in closed form
    python examples/sac_isfm.py --env Pendulum-v1      any Gymnasium task with a box of actions

The policy is an ODE that carries noise to actions and knows their density. It follows exp(Q/α)/Z by regression on its
own actions, weighted. Numbers in brackets are the paper's equations; functions are for one state, `vmap` outside.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import tyro
from gymnasium.wrappers import RescaleAction, TimeLimit, TransformObservation, TransformReward
from jax import Array

Network = list[tuple[Array, Array]]  # weight and bias of every layer


@dataclass(frozen=True)
class Settings:
    """SAC-ISFM on one page."""

    env: str = "lqr"  # "lqr" or the name of a Gymnasium task
    seed: int = 0
    temperature: float = 0.5  # α, in units of the reward
    discount: float = 0.95  # γ; the LQR has its own
    steps: int = 2000  # of all environments, each followed by one update
    environments: int = 16  # side by side
    batch: int = 2048  # transitions per critic update: many, since the policy follows the critic's curvature
    states: int = 128  # of these, where the policy is improved
    candidates: int = 16  # N, per state
    solver_steps: int = 4  # of the midpoint rule
    width: int = 64  # of the two hidden layers of both networks
    rate: float = 0.01  # rises to this over a fifth of the updates, then falls to zero along a cosine
    target_rate: float = 0.02  # at which the target critic follows the critic
    bounded: tyro.conf.Suppress[bool] = True  # whether actions lie in [−1, 1]; all but the LQR's do


def network(key: Array, *sizes: int) -> Network:
    """Draw the weights of a perceptron whose output starts near zero."""
    keys, scales = jax.random.split(key, len(sizes) - 1), [*(size**-0.5 for size in sizes[:-2]), 0.01]
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return [(c * jax.random.normal(k, s), jnp.zeros(s[0])) for k, c, s in zip(keys, scales, shapes, strict=True)]


def apply(network: Network, *inputs: Array) -> Array:
    """Apply a perceptron to its inputs, joined: v_θ(x, τ, s) or Q(s, a)."""
    *hidden, (weight, bias) = network
    x = jnp.concatenate(inputs)
    for w, b in hidden:
        x = jax.nn.silu(w @ x + b)  # smooth, since log π is made of derivatives
    return weight @ x + bias


# The policy: x_0 ~ N(0, I), dx/dτ = v_θ(x, τ, s), u = x_1, and the action is a = u or, where it is bounded, tanh(u).
def sample(settings: Settings, flow: Network, obs: Array, noise: Array) -> tuple[Array, Array, Array]:
    """(6) by the midpoint rule: the latent u of a noise x_0, its action, and log π(a|s).

    log π(u|s) = log N(x_0; 0, I) − ∫ tr ∂v/∂x dτ, and log π(a|s) = log π(u|s) − Σ log(1 − tanh² u).
    """
    h = 1 / settings.solver_steps

    def step(carry: tuple[Array, Array], time: Array) -> tuple[tuple[Array, Array], None]:
        x, integral = carry
        middle = x + h / 2 * apply(flow, x, time[None], obs)
        velocity, jvp = jax.linearize(lambda x: apply(flow, x, time[None] + h / 2, obs), middle)
        divergence = jnp.trace(jax.vmap(jvp)(jnp.eye(x.size)))  # exact
        return (x + h * velocity, integral + h * divergence), None

    times = jnp.linspace(0.0, 1.0, settings.solver_steps, endpoint=False)
    (latent, integral), _ = jax.lax.scan(step, (noise, jnp.zeros(())), times)
    log_prob = jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - integral
    if not settings.bounded:
        return latent, latent, log_prob
    log_slopes = 2 * (jnp.log(2.0) - latent - jax.nn.softplus(-2 * latent))  # log(1 − tanh² u), without overflow
    return latent, jnp.tanh(latent), log_prob - jnp.sum(log_slopes)


class Transition(NamedTuple):
    """One step of an environment. Termination ends the return, a time limit does not."""

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array


# Policy evaluation
def soft_target(settings: Settings, flow: Network, critic: Network, data: Transition, noise: Array) -> Array:
    """(1): r + γ [Q(s', a') − α log π(a'|s')], for the action a' ~ π(·|s') of a noise."""
    _, action, log_prob = sample(settings, flow, data.next_obs, noise)
    soft_value = apply(critic, data.next_obs, action)[0] - settings.temperature * log_prob
    return data.reward + settings.discount * (1 - data.terminated) * soft_value


# Policy improvement: importance sampling flow matching
def weigh(settings: Settings, flow: Network, critic: Network, obs: Array, noises: Array) -> tuple[Array, ...]:
    """(9): draw candidates from the policy; return latents, weights ∝ exp(Q/α)/π that sum to one, and log π."""
    latents, actions, log_probs = jax.vmap(partial(sample, settings, flow, obs))(noises)
    q = jax.vmap(partial(apply, critic, obs))(actions)[:, 0]
    return latents, jax.nn.softmax(q / settings.temperature - log_probs), log_probs


def isfm_loss(flow: Network, obs: Array, latents: Array, weights: Array, noises: Array, times: Array) -> Array:
    """(7): Σ w ‖v_θ(x_τ, τ, s) − (x_1 − x_0)‖² at x_τ = τ x_1 + (1 − τ) x_0, between noises x_0 and latents x_1."""

    def squared_error(x1: Array, x0: Array, time: Array) -> Array:
        return jnp.sum((apply(flow, time * x1 + (1 - time) * x0, time[None], obs) - (x1 - x0)) ** 2)

    return weights @ jax.vmap(squared_error)(latents, noises, times)


class Agent(NamedTuple):
    """All that learns."""

    flow: Network
    critic: Network
    target: Network
    flow_state: optax.OptState
    critic_state: optax.OptState


def optimiser(settings: Settings) -> optax.GradientTransformation:
    """Muon: steps of one size in every direction of a weight. Adam leaves errors twice as large."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.rate, settings.steps // 5, settings.steps)
    return optax.contrib.muon(schedule)


def descend(settings: Settings, loss: Callable[[Network], Array], network: Network, state: optax.OptState):
    """Make one gradient step; return the network, the optimiser's state and the loss."""
    value, gradient = jax.value_and_grad(loss)(network)
    changes, state = optimiser(settings).update(gradient, state, network)
    return optax.apply_updates(network, changes), state, value


@partial(jax.jit, static_argnums=0)
def update(settings: Settings, agent: Agent, batch: Transition, key: Array) -> tuple[Agent, dict[str, Array]]:
    """Algorithm 2 between two roll-outs: one step of policy evaluation and one of policy improvement."""
    flow, critic, target, flow_state, critic_state = agent
    keys = jax.random.split(key, 4)

    noises = jax.random.normal(keys[0], batch.action.shape)
    y = jax.vmap(partial(soft_target, settings, flow, target))(batch, noises)

    def critic_loss(critic: Network) -> Array:
        return jnp.mean((jax.vmap(partial(apply, critic))(batch.obs, batch.action)[:, 0] - y) ** 2)

    critic, critic_state, error = descend(settings, critic_loss, critic, critic_state)
    target = jax.tree.map(lambda old, new: old + settings.target_rate * (new - old), target, critic)

    obs, shape = batch.obs[: settings.states], (settings.states, settings.candidates)
    noises = jax.random.normal(keys[1], (*shape, batch.action.shape[1]))
    latents, weights, log_probs = jax.vmap(partial(weigh, settings, flow, target))(obs, noises)
    noises, times = jax.random.normal(keys[2], noises.shape), jax.random.uniform(keys[3], shape)

    def flow_loss(flow: Network) -> Array:
        return jnp.mean(jax.vmap(partial(isfm_loss, flow))(obs, latents, weights, noises, times))

    flow, flow_state, _ = descend(settings, flow_loss, flow, flow_state)
    ess = jnp.mean(1 / jnp.sum(weights**2, axis=1)) / settings.candidates
    metrics = {"critic error": jnp.sqrt(error), "entropy": -jnp.mean(log_probs), "ESS/N": ess}
    return Agent(flow, critic, target, flow_state, critic_state), metrics


class LQR(gym.Env):
    """s' = A s + B a + w, w ~ N(0, 0.01 I), reward −(sᵀQs + aᵀRa), s_0 ~ N(0, I); cut short where s leaves ±5."""

    A, B = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.5, 0.1], [0.0, 0.4]])
    Q, R, discount = np.eye(2), 0.5 * np.eye(2), 0.9
    observation_space = action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = self.np_random.normal(size=2)
        return np.float32(self.s), {}

    def step(self, action):
        reward = -(self.s @ self.Q @ self.s + action @ self.R @ action)
        self.s = self.A @ self.s + self.B @ action + 0.1 * self.np_random.normal(size=2)
        return np.float32(self.s), float(reward), False, bool(np.any(np.abs(self.s) > 5)), {}


def report_lqr(temperature: float, states: np.ndarray, actions: np.ndarray):
    """Compare actions at states, (b, 2) and (b, N, 2), with the optimal policy N(−K* s, Σ*) of Theorem 3."""
    A, B, Q, R, discount = LQR.A, LQR.B, LQR.Q, LQR.R, LQR.discount
    P = Q
    for _ in range(1000):
        M = R + discount * B.T @ P @ B
        K = discount * np.linalg.solve(M, B.T @ P @ A)
        P = Q + discount * A.T @ P @ (A - B @ K)
    covariance = temperature / 2 * np.linalg.inv(M)
    gain = -np.linalg.lstsq(states, actions.mean(axis=1))[0].T
    errors = [np.linalg.norm(np.cov(samples.T) - covariance) for samples in actions]
    print(
        f"gain error {np.linalg.norm(gain - K) / np.linalg.norm(K):.1%}, covariance error "
        f"{np.mean(errors) / np.linalg.norm(covariance):.1%} at α = {temperature}"
    )


def make(settings: Settings, mean: Any = 0.0, scale: Any = 1.0, unit: float = 1.0) -> gym.Env:
    """Make the environment, with observations and rewards in these units, and actions in [−1, 1] if bounded."""
    env = RescaleAction(gym.make(settings.env), -1.0, 1.0) if settings.bounded else TimeLimit(LQR(), 50)
    env = TransformObservation(env, lambda obs: np.float32((obs - mean) / scale), env.observation_space)
    return TransformReward(env, lambda reward: float(reward) / unit)


def train(settings: Settings):
    """Algorithm 2: roll out, evaluate, improve; then report what was learned."""
    if settings.env == "lqr":
        settings = replace(settings, discount=LQR.discount, bounded=False)
    alpha, size, rng = settings.temperature, settings.environments, np.random.default_rng(settings.seed)
    envs = gym.vector.SyncVectorEnv([partial(make, settings)] * size)
    obs, d = envs.reset(seed=settings.seed)[0], envs.single_action_space.shape[0]
    seen, rewards = zip(*[envs.step(rng.uniform(-1, 1, (size, d)))[:2] for _ in range(200)], strict=True)
    units = np.mean(seen, axis=(0, 1)), np.std(seen, axis=(0, 1)) + 1e-3, float(np.std(rewards))
    settings = replace(settings, temperature=alpha / units[2])
    one = partial(make, settings, *units)
    envs = gym.vector.SyncVectorEnv([one] * size, autoreset_mode=gym.vector.AutoresetMode.DISABLED)

    flow_key, critic_key, *keys = jax.random.split(jax.random.key(settings.seed), 2 + settings.steps)
    flow = network(flow_key, d + 1 + obs.shape[1], settings.width, settings.width, d)
    critic = network(critic_key, obs.shape[1] + d, settings.width, settings.width, 1)
    critic[-1] = critic[-1][0], critic[-1][1] + np.mean(rewards) / units[2] / (1 - settings.discount)
    agent = Agent(flow, critic, critic, optimiser(settings).init(flow), optimiser(settings).init(critic))
    act = jax.jit(jax.vmap(partial(sample, settings), (None, 0, 0)))
    replay = Transition(
        *(np.zeros((settings.steps * size, *s), np.float32) for s in [obs.shape[1:], (d,), (), obs.shape[1:], ()])
    )
    obs, start = envs.reset(seed=settings.seed)[0], time.time()
    for i, key in enumerate(keys, start=1):
        action = np.asarray(act(agent.flow, obs, np.float32(rng.normal(size=(size, d))))[1])
        next_obs, reward, terminated, truncated, _ = envs.step(action)
        for rows, new in zip(replay, (obs, action, reward, next_obs, terminated), strict=True):
            rows[(i - 1) * size : i * size] = new
        ended = terminated | truncated
        obs = envs.reset(options={"reset_mask": ended})[0] if ended.any() else next_obs
        chosen = rng.integers(i * size, size=settings.batch)
        agent, metrics = update(settings, agent, Transition(*(rows[chosen] for rows in replay)), key)
        if i % max(1, settings.steps // 10) == 0:
            recent = np.mean(replay.reward[(i - settings.steps // 10) * size : i * size]) * units[2]
            print(
                f"{i:6d} {time.time() - start:4.0f} s  reward {recent:.3f}",
                *(f" {k} {v:.3f}" for k, v in metrics.items()),
                flush=True,
            )

    if settings.env == "lqr":
        states = rng.choice(replay.obs[-100 * size :], 100)
        noises = np.float32(rng.normal(size=(100 * 4096, d)))
        actions = np.asarray(act(agent.flow, np.repeat(states, 4096, axis=0), noises)[1])
        return report_lqr(alpha, units[0] + units[1] * states, actions.reshape(100, 4096, d))
    returns = []
    env = one()
    for episode in range(20):
        obs, total, ended = env.reset(seed=10_000 + episode)[0], 0.0, False
        while not ended:
            action = act(agent.flow, obs[None], np.float32(rng.normal(size=(1, d))))[1]
            obs, reward, terminated, truncated, _ = env.step(np.asarray(action[0]))
            total, ended = total + float(reward) * units[2], terminated or truncated
        returns.append(total)
    print(f"mean return of {len(returns)} episodes: {np.mean(returns):.1f}")


if __name__ == "__main__":
    train(tyro.cli(Settings))
