"""SAC-ISFM on one page: Algorithm 2 of *Max-Entropy Reinforcement Learning with Flow Matching* (arXiv 2512.23870).

    python examples/sac_isfm.py --env lqr              a linear system whose optimum is known in closed form
    python examples/sac_isfm.py --env Pendulum-v1      any Gymnasium task with a Box of actions

The policy is an ODE that carries noise to actions and knows its density; it follows exp(Q/α)/Z by regression on its own
actions, weighted. Numbers in brackets are the paper's equations. Functions are written for one state, `vmap` outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import tyro
from jax import Array

Network = list[tuple[Array, Array]]
Box = tuple[Array, Array] | None  # centre and half-width of the actions; None: no bounds


@dataclass(frozen=True)
class Settings:
    """SAC-ISFM on one page."""

    env: str = "lqr"  # "lqr", or the name of a Gymnasium task
    seed: int = 0
    temperature: float = 0.5  # α, the price of entropy in units of the reward
    discount: float = 0.9  # γ
    steps: int = 3000  # of every environment, each followed by one update
    environments: int = 16  # side by side
    warmup: int = 100  # steps of the untrained policy, to measure the units of observations and values
    batch: int = 2048  # transitions per critic step: large, since the policy follows the critic's curvature
    states: int = 128  # of these, where the policy is improved
    candidates: int = 16  # N, per state
    solver_steps: int = 4  # of the midpoint rule
    width: int = 64  # of both hidden layers of both networks
    rate: float = 3e-3  # of Adam, falling to zero along a cosine
    target_rate: float = 0.01  # at which the target critic follows the critic


# --- networks: v_θ(x, τ, s) and Q(s, a) ---------------------------------------------------------------------------------


def network(key: Array, sizes: tuple[int, ...], scale: float) -> Network:
    """Initial weights and biases; the last layer's are scaled."""
    scales = [*[1.0] * (len(sizes) - 2), scale]
    keys = jax.random.split(key, len(scales))
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return [
        (s * jax.random.normal(k, shape) / np.sqrt(shape[1]), jnp.zeros(shape[0]))
        for k, s, shape in zip(keys, scales, shapes, strict=True)
    ]


def apply(network: Network, *inputs: Array) -> Array:
    """A perceptron; smooth, since the flow's density needs its derivatives."""
    x = jnp.concatenate(inputs)
    for weight, bias in network[:-1]:
        x = jax.nn.silu(weight @ x + bias)
    return network[-1][0] @ x + network[-1][1]


def velocity(flow: Network, x: Array, time: Array, obs: Array) -> Array:
    """The velocity v_θ(x, τ, s)."""
    return apply(flow, x, time[None], obs)


def velocity_and_divergence(flow: Network, x: Array, time: Array, obs: Array) -> tuple[Array, Array]:
    """The velocity and its exact divergence tr ∂v/∂x, by one Jacobian-vector product per dimension."""
    value, jvp = jax.linearize(lambda x: velocity(flow, x, time, obs), x)
    return value, jnp.trace(jax.vmap(jvp)(jnp.eye(x.size)))


def q_value(critic: Network, obs: Array, action: Array) -> Array:
    """The soft action value Q(s, a)."""
    return apply(critic, obs, action)[0]


# --- the policy: x_0 ~ N(0, I), dx/dτ = v_θ(x, τ, s), u = x_1, a = u or, in a box, c + h tanh(u) ------------------------


def push(flow: Network, obs: Array, noise: Array, steps: int) -> tuple[Array, Array]:
    """(6): the latent u = x_1 of a noise x_0, and log π(u|s) = log N(x_0; 0, I) − ∫ tr ∂v/∂x dτ, by the midpoint rule."""
    h = 1 / steps

    def step(carry: tuple[Array, Array], time: Array) -> tuple[tuple[Array, Array], None]:
        x, integral = carry
        middle = x + h / 2 * velocity(flow, x, time, obs)
        slope, divergence = velocity_and_divergence(flow, middle, time + h / 2, obs)
        return (x + h * slope, integral + h * divergence), None

    (latent, integral), _ = jax.lax.scan(step, (noise, jnp.zeros(())), jnp.arange(steps) * h)
    return latent, jax.scipy.stats.norm.logpdf(noise).sum() - integral


def squash(box: Box, latent: Array) -> tuple[Array, Array]:
    """The action of a latent and log |det ∂a/∂u|, in a form that does not overflow."""
    if box is None:
        return latent, jnp.zeros(())
    center, half = box
    log_slope = jnp.log(half) + 2 * (jnp.log(2.0) - latent - jax.nn.softplus(-2 * latent))
    return center + half * jnp.tanh(latent), log_slope.sum()


def act(flow: Network, box: Box, obs: Array, noise: Array, steps: int) -> tuple[Array, Array]:
    """The action a that a noise is carried to, and log π(a|s)."""
    latent, log_prob = push(flow, obs, noise, steps)
    action, log_det = squash(box, latent)
    return action, log_prob - log_det


# --- policy evaluation --------------------------------------------------------------------------------------------------


class Transition(NamedTuple):
    """What one step tells; `terminated` where the return ends, which it does not at a time limit."""

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array


def soft_target(
    reward: Array, terminated: Array, q: Array, log_prob: Array, discount: float, temperature: Array
) -> Array:
    """(1): r + γ [Q(s', a') − α log π(a'|s')], a' ~ π(·|s')."""
    return reward + discount * (1 - terminated) * (q - temperature * log_prob)


# --- policy improvement -------------------------------------------------------------------------------------------------


def candidates(
    flow: Network, critic: Network, box: Box, obs: Array, noises: Array, steps: int, temperature: Array
) -> tuple[Array, Array]:
    """(9): latents of the current policy, weighted by exp(Q/α)/π over their sum; the density of Q/α is that of latents."""
    latents, log_probs = jax.vmap(lambda noise: push(flow, obs, noise, steps))(noises)
    actions, log_dets = jax.vmap(lambda latent: squash(box, latent))(latents)
    q = jax.vmap(lambda action: q_value(critic, obs, action))(actions)
    return latents, jax.nn.softmax(q / temperature + log_dets - log_probs)


def isfm_loss(flow: Network, obs: Array, latents: Array, weights: Array, noises: Array, times: Array) -> Array:
    """(7): Σ w ‖v_θ(x_τ, τ, s) − (x_1 − x_0)‖² on the path x_τ = τ x_1 + (1 − τ) x_0 from noise to candidate."""

    def squared_error(x1: Array, x0: Array, time: Array) -> Array:
        return jnp.sum((velocity(flow, time * x1 + (1 - time) * x0, time, obs) - (x1 - x0)) ** 2)

    return weights @ jax.vmap(squared_error)(latents, noises, times)


# --- Algorithm 2 --------------------------------------------------------------------------------------------------------


class Agent(NamedTuple):
    """All that learns."""

    flow: Network
    critic: Network
    target: Network
    optimiser: Any


def update(
    settings: Settings, box: Box, temperature: Array, agent: Agent, batch: Transition, key: Array
) -> tuple[Agent, dict[str, Array]]:
    """One step of policy evaluation and one of policy improvement."""
    next_key, candidate_key, noise_key, time_key = jax.random.split(key, 4)
    size, steps = batch.action.shape[-1], settings.solver_steps

    noises = jax.random.normal(next_key, (settings.batch, size))
    next_actions, log_probs = jax.vmap(lambda s, x0: act(agent.flow, box, s, x0, steps))(batch.next_obs, noises)
    next_q = jax.vmap(partial(q_value, agent.target))(batch.next_obs, next_actions)
    y = soft_target(batch.reward, batch.terminated, next_q, log_probs, settings.discount, temperature)

    shape = settings.states, settings.candidates
    obs, noises = batch.obs[: settings.states], jax.random.normal(candidate_key, (*shape, size))
    weigh = lambda s, x0: candidates(agent.flow, agent.target, box, s, x0, steps, temperature)  # noqa: E731
    latents, weights = jax.vmap(weigh)(obs, noises)
    x0, times = jax.random.normal(noise_key, latents.shape), jax.random.uniform(time_key, shape)

    def loss(learned: tuple[Network, Network]) -> tuple[Array, tuple[Array, Array]]:
        flow, critic = learned
        critic_loss = jnp.mean((jax.vmap(partial(q_value, critic))(batch.obs, batch.action) - y) ** 2)
        policy_loss = jnp.mean(jax.vmap(partial(isfm_loss, flow))(obs, latents, weights, x0, times))
        return critic_loss + policy_loss, (critic_loss, policy_loss)

    learned = agent.flow, agent.critic
    gradient, (critic_loss, policy_loss) = jax.grad(loss, has_aux=True)(learned)
    changes, optimiser = adam(settings).update(gradient, agent.optimiser, learned)
    flow, critic = optax.apply_updates(learned, changes)
    target = jax.tree.map(lambda old, new: old + settings.target_rate * (new - old), agent.target, critic)
    ess = jnp.mean(1 / jnp.sum(weights**2, axis=1)) / settings.candidates
    metrics = {"critic": critic_loss, "policy": policy_loss, "entropy": -jnp.mean(log_probs), "ess": ess}
    return Agent(flow, critic, target, optimiser), metrics


def adam(settings: Settings) -> optax.GradientTransformation:
    """The optimiser of both networks."""
    import os; return (optax.contrib.muon if os.environ.get('MUON') else optax.adam)(optax.warmup_cosine_decay_schedule(0.0, settings.rate, settings.steps // 5, settings.steps))


@partial(jax.jit, static_argnums=0, donate_argnums=(3, 4))
def learn(settings, box, temperature, agent, replay, new, count, key):
    """Store one transition of every environment, then update on a batch of the replay."""
    batch_key, update_key = jax.random.split(key)
    slots = count + jnp.arange(settings.environments)
    replay = jax.tree.map(lambda old, rows: old.at[slots].set(rows), replay, new)
    chosen = jax.random.randint(batch_key, (settings.batch,), 0, count + settings.environments)
    batch = jax.tree.map(lambda rows: rows[chosen], replay)
    agent, metrics = update(settings, box, temperature, agent, batch, update_key)
    return agent, replay, metrics


class LQR(gym.vector.VectorEnv):
    """s' = A s + B a + w, w ~ N(0, 0.01 I), reward −(sᵀs + aᵀa/2), s_0 ~ N(0, I); 50 steps."""

    A, B = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.5, 0.1], [0.0, 0.4]])
    Q, R = np.eye(2), 0.5 * np.eye(2)
    single_observation_space = single_action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
            self.time = self.rng.integers(0, 50, self.num_envs)
            self.state = self.rng.normal(size=(self.num_envs, 2))
        if options is not None:
            mask = options["reset_mask"]
            self.time = np.where(mask, 0, self.time)
            self.state = np.where(mask[:, None], self.rng.normal(size=(self.num_envs, 2)), self.state)
        return self.state.astype(np.float32), {}

    def step(self, actions):
        s, a = self.state, actions
        reward = -np.einsum("ei,ij,ej->e", s, self.Q, s) - np.einsum("ei,ij,ej->e", a, self.R, a)
        self.state = s @ self.A.T + a @ self.B.T + 0.1 * self.rng.normal(size=s.shape)
        self.time = self.time + 1
        return self.state.astype(np.float32), reward, np.zeros(len(s), bool), (self.time >= 50) | (np.abs(self.state) > 5).any(1), {}

    @classmethod
    def optimum(cls, discount: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """Theorem 3."""
        P = cls.Q
        for _ in range(10_000):
            M = cls.R + discount * cls.B.T @ P @ cls.B
            K = discount * np.linalg.solve(M, cls.B.T @ P @ cls.A)
            P = cls.Q + discount * cls.A.T @ P @ (cls.A - cls.B @ K)
        return K, temperature / 2 * np.linalg.inv(M)


def main(settings: Settings):
    make = LQR if settings.env == "lqr" else lambda n: gym.make_vec(
        settings.env, n, vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.DISABLED})
    envs = make(settings.environments)
    space = envs.single_action_space
    box = None
    if np.isfinite(space.low).all():
        box = jnp.asarray((space.low + space.high) / 2), jnp.asarray((space.high - space.low) / 2)
    n, d = envs.single_observation_space.shape[0], space.shape[0]
    key = jax.random.key(settings.seed)
    flow_key, critic_key, key = jax.random.split(key, 3)
    w = settings.width
    flow = network(flow_key, (d + 1 + n, w, w, d), 0.01)

    @jax.jit
    def actions(flow, obs, noise):
        return jax.vmap(lambda s, x0: act(flow, box, s, x0, settings.solver_steps)[0])(obs, noise)

    rng = np.random.default_rng(settings.seed)
    obs = envs.reset(seed=settings.seed)[0]
    seen, G, returns = [], np.zeros(len(obs)), []
    def roll(flow, obs, observe, noise):
        action = np.asarray(actions(flow, observe(obs), noise))
        next_obs, reward, terminated, truncated, _ = envs.step(action)
        done = terminated | truncated
        after = envs.reset(options={"reset_mask": done})[0] if done.any() else next_obs
        return Transition(obs, action, reward, next_obs, terminated.astype(np.float32)), done, after
    noise = lambda: rng.normal(size=(len(obs), d)).astype(np.float32)
    for _ in range(settings.warmup):
        t, done, obs = roll(flow, obs, lambda o: o, noise())
        G = t.reward + settings.discount * G
        seen.append(t); returns.append(G); G = np.where(done, 0, G)
    seen = jax.tree.map(lambda *x: np.concatenate(x), *seen)
    mean, sd = seen.obs.mean(0), seen.obs.std(0)
    value_mean, unit = seen.reward.mean() / (1 - settings.discount), seen.reward.std()
    print("units", mean, sd, value_mean, unit)
    observe = lambda o: ((o - mean) / sd).astype(np.float32)
    critic = network(critic_key, (n + d, w, w, 1), 1.0)
    critic[-1] = critic[-1][0], critic[-1][1] + value_mean / unit
    agent = Agent(flow, critic, jax.tree.map(jnp.copy, critic), adam(settings).init((flow, critic)))
    capacity = settings.steps * settings.environments
    normal = lambda t: t._replace(obs=observe(t.obs), next_obs=observe(t.next_obs), reward=(t.reward / unit).astype(np.float32))
    replay = jax.tree.map(lambda rows: jnp.concatenate([rows, jnp.zeros((capacity, *rows.shape[1:]))]), normal(seen))
    temperature = jnp.float32(settings.temperature / unit)
    G, finished = np.zeros(len(obs)), []
    import time
    start = time.time()
    for step in range(settings.steps):
        key, sub = jax.random.split(key)
        t, done, after = roll(agent.flow, obs, observe, noise())
        G += t.reward
        finished += list(G[done]); G[done] = 0
        new = normal(t)
        agent, replay, metrics = learn(settings, box, temperature, agent, replay, new, (settings.warmup + step) * settings.environments, sub)
        obs = after
        if (step + 1) % (settings.steps // 10) == 0:
            print(f"{step+1:6d} {time.time()-start:5.0f} s  return {np.mean(finished[-20:]):8.1f} ", *[f"{k} {float(v):.4f}" for k, v in metrics.items()], flush=True)
            if settings.env == "lqr":
                evaluate_lqr(settings, lambda s, x0: actions(agent.flow, observe(s), x0), t.obs, rng)
    if settings.env != "lqr":
        envs = make(20)
        obs = envs.reset(seed=10_000)[0]
        for scale in (0.0, 1.0):
            obs = envs.reset(seed=10_000)[0]
            total = np.zeros(20)
            for _ in range(200):
                obs, r, term, trunc, _ = envs.step(np.asarray(actions(agent.flow, observe(obs), scale * rng.normal(size=(20, d)).astype(np.float32))))
                total += r
            print("return", scale, total.mean(), total.min())

def evaluate_lqr(settings, actions, states, rng):
    K, Sigma = LQR.optimum(settings.discount, settings.temperature)
    N = 2000
    means, covs = [], []
    for s in states:
        a = np.asarray(actions(np.repeat(s[None], N, 0), rng.normal(size=(N, 2)).astype(np.float32)))
        means.append(a.mean(0)); covs.append(np.cov(a.T))
    Khat = -np.linalg.lstsq(states, np.array(means), rcond=None)[0].T
    print("  gain error", np.linalg.norm(Khat - K) / np.linalg.norm(K), "cov error", np.mean([np.linalg.norm(c - Sigma, 2) for c in covs]) / np.linalg.norm(Sigma, 2),
     "pooled", np.linalg.norm(np.mean(covs, 0) - Sigma) / np.linalg.norm(Sigma))

if __name__ == "__main__":
    main(tyro.cli(Settings))
