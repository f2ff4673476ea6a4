"""SAC-ISFM on one page: Algorithm 2 of *Max-Entropy Reinforcement Learning with Flow Matching* (arXiv 2512.23870).

    python examples/sac_isfm.py --env lqr              a linear system whose optimum is known in closed form
    python examples/sac_isfm.py --env Pendulum-v1      any Gymnasium task with a box of actions

The policy is an ODE that carries noise to actions and knows their density. It follows exp(Q/α)/Z by regression on its
own actions, weighted. Numbers in brackets are the paper's equations; functions are for one state, `vmap` outside.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import tyro
from gymnasium.wrappers import RescaleAction, TimeLimit, TransformObservation, TransformReward
from jax import Array
from numpy.typing import ArrayLike

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


# The policy: x_0 ~ N(0, I), dx/dτ = v_θ(x, τ, s) by the midpoint rule, u = x_1, and a = u or, if bounded, tanh(u).
def sample(settings: Settings, flow: Network, obs: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Return u of a noise x_0, a, and (6) log π(a|s) = log N(x_0; 0, I) − ∫ tr ∂v/∂x dτ − log |det ∂a/∂u|."""
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
    points = times[:, None] * latents + (1 - times[:, None]) * noises
    velocities = jax.vmap(lambda x, time: apply(flow, x, time[None], obs))(points, times)
    return weights @ jnp.sum((velocities - (latents - noises)) ** 2, axis=1)


class Agent(NamedTuple):
    """All that learns."""

    flow: Network
    critic: Network
    target: Network
    state: optax.OptState


def optimiser(settings: Settings) -> optax.GradientTransformation:
    """Muon: steps of one size in every direction of a weight matrix, which regress more precisely than Adam's."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.rate, settings.steps // 5, settings.steps)
    return optax.contrib.muon(schedule)


@partial(jax.jit, static_argnums=0)
def update(settings: Settings, agent: Agent, batch: Transition, key: Array) -> tuple[Agent, dict[str, Array]]:
    """One gradient step of policy evaluation and one of policy improvement."""
    flow, critic, target, state = agent
    keys = jax.random.split(key, 4)
    # Targets of policy evaluation
    noises = jax.random.normal(keys[0], batch.action.shape)
    y = jax.vmap(partial(soft_target, settings, flow, target))(batch, noises)
    # Weighted candidates of policy improvement
    obs, shape = batch.obs[: settings.states], (settings.states, settings.candidates)
    noises = jax.random.normal(keys[1], (*shape, batch.action.shape[1]))
    latents, weights, log_probs = jax.vmap(partial(weigh, settings, flow, target))(obs, noises)
    noises, times = jax.random.normal(keys[2], noises.shape), jax.random.uniform(keys[3], shape)

    def loss(flow: Network, critic: Network) -> tuple[Array, Array]:
        q = jax.vmap(partial(apply, critic))(batch.obs, batch.action)[:, 0]
        distances = jax.vmap(partial(isfm_loss, flow))(obs, latents, weights, noises, times)
        error = jnp.mean((q - y) ** 2)
        return error + jnp.mean(distances), error  # each network has a term of its own

    gradient, error = jax.grad(loss, argnums=(0, 1), has_aux=True)(flow, critic)
    changes, state = optimiser(settings).update(gradient, state, (flow, critic))
    flow, critic = jax.tree.map(jnp.add, (flow, critic), changes)
    target = jax.tree.map(lambda old, new: old + settings.target_rate * (new - old), target, critic)
    ess = jnp.mean(1 / jnp.sum(weights**2, axis=1)) / settings.candidates
    metrics = {"critic error": jnp.sqrt(error), "entropy": -jnp.mean(log_probs), "ESS/N": ess}
    return Agent(flow, critic, target, state), metrics


class LQR(gym.Env):
    """s' = A s + B a + w, w ~ N(0, 0.01 I), reward −(sᵀs + ½ aᵀa), s_0 ~ N(0, I); cut short where s leaves ±5."""

    A, B, discount = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.5, 0.1], [0.0, 0.4]]), 0.9
    K = np.array([[0.7800320, 0.1249958], [0.0322902, 0.6666479]])
    Sigma = np.array([[0.5699154, -0.0624979], [-0.0624979, 0.6666761]])  # the optimal policy is N(−K s, α Sigma)
    observation_space = action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Draw s_0."""
        super().reset(seed=seed)
        self.s = self.np_random.normal(size=2)
        return np.float32(self.s), {}

    def step(self, action):
        """Make one step."""
        reward = -(self.s @ self.s + 0.5 * action @ action)
        self.s = self.A @ self.s + self.B @ action + 0.1 * self.np_random.normal(size=2)
        return np.float32(self.s), float(reward), False, bool(np.any(np.abs(self.s) > 5)), {}

    @classmethod
    def compare(cls, temperature: float, states: np.ndarray, actions: np.ndarray) -> str:
        """Compare a policy's actions, (b, N, 2), at states, (b, 2), with the optimal policy."""
        gain, covariance = -np.linalg.lstsq(states, actions.mean(axis=1))[0].T, temperature * cls.Sigma
        gain_error = np.linalg.norm(gain - cls.K) / np.linalg.norm(cls.K)
        errors = [np.linalg.norm(np.cov(drawn.T) - covariance) / np.linalg.norm(covariance) for drawn in actions]
        return f"gain error {gain_error:.1%}, covariance error {np.mean(errors):.1%} at α = {temperature}"


def make(settings: Settings, size: int, mean: ArrayLike = 0.0, scale: ArrayLike = 1.0, unit: float = 1.0):
    """Make environments with observations and rewards in these units, and actions in [−1, 1] where bounded."""

    def one() -> gym.Env:
        env = RescaleAction(gym.make(settings.env), -1, 1) if settings.bounded else TimeLimit(LQR(), 50)
        env = TransformObservation(env, lambda obs: np.float32((obs - mean) / scale), env.observation_space)
        return TransformReward(env, lambda reward: float(reward) / unit)

    return gym.vector.SyncVectorEnv([one] * size, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


def train(settings: Settings):
    """Algorithm 2: roll out, update, and so on; then report what was learned."""
    alpha, size, rng = settings.temperature, settings.environments, np.random.default_rng(settings.seed)
    if settings.env == "lqr":
        settings = replace(settings, discount=LQR.discount, bounded=False)
    envs = make(settings, size)  # random actions there give the units of observations, rewards, values and α
    n, d = envs.reset(seed=settings.seed)[0].shape[1], envs.action_space.sample().shape[1]
    seen, rewards = zip(*[envs.step(rng.uniform(-1, 1, (size, d)))[:2] for _ in range(200)], strict=True)
    mean, scale, unit = np.mean(seen, axis=(0, 1)), np.std(seen, axis=(0, 1)) + 1e-3, float(np.std(rewards)) or 1.0
    envs, settings = make(settings, size, mean, scale, unit), replace(settings, temperature=alpha / unit)

    flow_key, critic_key, *keys = jax.random.split(jax.random.key(settings.seed), 2 + settings.steps)
    flow = network(flow_key, d + 1 + n, settings.width, settings.width, d)
    critic = network(critic_key, n + d, settings.width, settings.width, 1)
    critic[-1] = critic[-1][0], critic[-1][1] + np.mean(rewards) / unit / (1 - settings.discount)
    agent = Agent(flow, critic, critic, optimiser(settings).init((flow, critic)))
    draw = jax.jit(jax.vmap(partial(sample, settings), (None, 0, 0)))
    act = lambda obs: np.asarray(draw(agent.flow, obs, rng.standard_normal((len(obs), d), np.float32))[1])  # noqa: E731
    replay = Transition(*(np.zeros((settings.steps, size, *s), np.float32) for s in [(n,), (d,), (), (n,), ()]))

    obs, period = envs.reset(seed=settings.seed)[0], max(1, settings.steps // 10)
    for i, key in enumerate(keys, start=1):
        action = act(obs)
        start, reward, terminated, truncated, info = envs.step(action)
        next_obs, ended = start.copy(), terminated | truncated
        if ended.any():  # there `start` belongs to the next episode
            next_obs[ended] = np.stack(info["final_obs"][ended])
        for rows, new in zip(replay, (obs, action, reward, next_obs, terminated), strict=True):
            rows[i - 1] = new
        obs, chosen = start, (rng.integers(i, size=settings.batch), rng.integers(size, size=settings.batch))
        agent, metrics = update(settings, agent, Transition(*(rows[chosen] for rows in replay)), key)
        if i % period == 0:
            metrics["reward"] = unit * np.mean(replay.reward[i - period : i])
            print(f"{i:6d} steps:", ", ".join(f"{k} {value:.3f}" for k, value in metrics.items()), flush=True)

    if settings.env == "lqr":
        states = rng.choice(np.concatenate(replay.obs[-period:]), 100)
        actions = act(np.repeat(states, 4096, axis=0)).reshape(100, 4096, d)
        print(LQR.compare(alpha, mean + scale * states, actions))
        return
    envs = make(settings, 20, mean, scale, unit)
    obs, total, running = envs.reset(seed=settings.seed + 10_000)[0], np.zeros(20), np.ones(20, bool)
    while running.any():
        obs, reward, terminated, truncated, _ = envs.step(act(obs))
        total, running = total + unit * running * reward, running & ~(terminated | truncated)
    print(f"return {total.mean():.1f} ± {total.std() / 20**0.5:.1f}, mean and standard error of 20 episodes")


if __name__ == "__main__":
    train(tyro.cli(Settings))
