"""The estimators of the ISFM loss that are compared: every lever in a few lines, on one state with Q/α known.

A pair is a candidate x_1 with a noise x_0 and a time τ; the loss is Σ_k w_k ‖v(x_τ, τ) − y_k‖² over pairs k.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import stein_control, stratified_times, temper
from entroflow.isfm.regression import LEAST_FISHER

SOLVER = RungeKutta("midpoint", 4)
OBS = jnp.zeros(1)
GOLDEN = 0.6180339887498949
KERNEL = 0.3  # width of the local proposals, of the latent's unit


class Mixture(NamedTuple):
    """exp(Q/α)/Z = Σ_k π_k N(m_k, diag σ²): its density, and the exact velocity of the path to it."""

    means: Float[Array, "k d"]
    sd: Float[Array, " d"]

    def log_density(self, x: Array) -> Array:
        """Return log density, shape ()."""
        z = (x[None] - self.means) / self.sd[None]
        logs = -0.5 * jnp.sum(z**2, axis=1) - jnp.sum(jnp.log(self.sd)) - self.means.shape[1] * 0.9189385
        return jax.nn.logsumexp(logs) - jnp.log(self.means.shape[0])

    def sample(self, key: Array, n: int) -> Array:
        """Draw n points, shape (n, d)."""
        which, noise = jax.random.split(key)
        means = self.means[jax.random.randint(which, (n,), 0, self.means.shape[0])]
        return means + self.sd[None] * jax.random.normal(noise, means.shape)

    def velocity(self, x: Array, time: Array) -> Array:
        """Return E[x_1 − x_0 | x_τ = x], shape (d,)."""
        variance = time**2 * self.sd**2 + (1 - time) ** 2
        offsets = x[None] - time * self.means
        responsibility = jax.nn.softmax(-0.5 * jnp.sum(offsets**2 / variance[None], axis=1))
        slope = (time * self.sd**2 - (1 - time)) / variance
        return responsibility @ (self.means + slope[None] * offsets)


CORNERS = jnp.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
TARGETS = {
    "gaussian": Mixture(jnp.tile(jnp.array([1.2, -0.8]), (4, 1)), jnp.array([0.8, 0.4])),
    "ring4": Mixture(1.2 * CORNERS, jnp.array([0.35, 0.35])),
}


class Flags(NamedTuple):
    """What a lever switches on; as arrays, so that one program serves all levers of a shape, or as constants."""

    stratified: bool | Array = True  # τ spread evenly over the pairs, instead of i.i.d.
    antithetic: bool | Array = False  # half of the x_0 are the others' negatives
    resample: bool | Array = False  # pairs go to candidates in proportion to their weights
    posterior: bool | Array = False  # average the targets of all candidates at x_τ
    stein: bool | Array = False  # control variate from ∇Q
    ess_floor: float | Array = 0.0  # tempering


NO_FLAGS = Flags()


@dataclass(frozen=True)
class Lever:
    """One estimator: pairs per candidate, candidates per sample of the policy (others around it), and its flags."""

    pairs: int = 1
    local: int = 1
    flags: Flags = NO_FLAGS


LEVERS = {
    "plain: i.i.d. τ, P = 1": Lever(flags=Flags(stratified=False)),
    "stratified τ, P = 1": Lever(),
    "stratified τ, P = 2": Lever(2),
    "stratified τ, P = 4": Lever(4),
    "stratified τ, P = 8": Lever(8),
    "i.i.d. τ, P = 2": Lever(2, flags=Flags(stratified=False)),
    "antithetic x_0, P = 2": Lever(2, flags=Flags(antithetic=True)),
    "resampled, P = 1": Lever(1, flags=Flags(resample=True)),
    "resampled, P = 2": Lever(2, flags=Flags(resample=True)),
    "posterior mean, P = 1": Lever(1, flags=Flags(posterior=True)),
    "posterior mean, P = 2": Lever(2, flags=Flags(posterior=True)),
    "posterior mean, P = 4": Lever(4, flags=Flags(posterior=True)),
    "tempered, P = 2": Lever(2, flags=Flags(ess_floor=0.3)),
    "Stein, P = 1": Lever(1, flags=Flags(stein=True)),
    "Stein, P = 2": Lever(2, flags=Flags(stein=True)),
    "Stein + posterior, P = 1": Lever(1, flags=Flags(posterior=True, stein=True)),
    "Stein + posterior, P = 2": Lever(2, flags=Flags(posterior=True, stein=True)),
    "Stein + posterior + antithetic, P = 2": Lever(2, flags=Flags(posterior=True, stein=True, antithetic=True)),
    "local, P = 2": Lever(2, local=4),
}


def new_policy(key: Array) -> FlowPolicy:
    """Return the policy of the LQR study's size."""
    return FlowPolicy(VelocityNetwork(1, 2, width=32, depth=1, key=key), Unbounded(2), solver=SOLVER)


def network_calls(lever: Lever, n: int) -> float:
    """Evaluations of the velocity per state: the ODE's for a candidate; forward and twice that backward for a pair."""
    return n / lever.local * 2 * SOLVER.steps + 3 * n * lever.pairs


def loss(lever: Lever, n: int, policy: FlowPolicy, key: Array, target: Mixture, flags: Flags | None = None) -> Array:
    """Estimate the ISFM loss at one state; its gradient reaches the velocity through the regression only."""
    flags = lever.flags if flags is None else flags
    draw_key, noise_key, time_key, slot_key = jax.random.split(key, 4)
    count = n * lever.pairs

    latents, log_proposal = candidates(lever, n, jax.lax.stop_gradient(policy), draw_key)
    log_target, scores = jax.vmap(jax.value_and_grad(target.log_density))(latents)
    log_weights = log_target - log_proposal
    tempered, _ = temper(log_weights, jnp.zeros_like(log_weights), flags.ess_floor)
    log_weights = jax.nn.log_softmax(jnp.where(jnp.asarray(flags.ess_floor) > 0, tempered, log_weights))

    # Pairs of a candidate, a noise and a time
    numbers = jnp.arange(count, dtype=jnp.float32)
    slots = (numbers + jax.random.uniform(slot_key)) / count
    drawn = jnp.clip(jnp.searchsorted(jnp.cumsum(jnp.exp(log_weights)), slots), 0, n - 1)
    index = jnp.where(flags.resample, drawn, jnp.tile(jnp.arange(n), lever.pairs))
    weights = jnp.where(flags.resample, 1 / count, jnp.exp(log_weights)[index] / lever.pairs)
    even = stratified_times(time_key, n, lever.pairs).T.reshape(count)
    golden = (GOLDEN * numbers + jax.random.uniform(time_key)) % 1.0  # neighbours are far apart
    times = jnp.where(flags.resample, golden, even)
    times = jnp.where(flags.stratified, times, jax.random.uniform(time_key, (count,)))
    noises = jax.random.normal(noise_key, (count, 2))
    mirrored = jnp.concatenate([noises[: count // 2], -noises[: count // 2]])
    noises = jnp.where(flags.antithetic, mirrored, noises)

    # What the regression is on
    control = stein_control(scores[None], jnp.exp(log_weights)[None], jnp.ones(1))
    fisher = jnp.maximum(control.fisher[0], LEAST_FISHER)

    def regress(x1: Array, x0: Array, time: Array, score: Array, fisher: Array) -> Array:
        # τ x_0 + (1−τ) ∇ log target has zero mean at every x_τ (Stein); the factor makes it cancel for a Gaussian.
        stein = (time * x0 + (1 - time) * score) / (time**2 + (1 - time) ** 2 * fisher)
        return x1 - x0 + jnp.where(flags.stein, stein, 0.0)

    def target_at(x1: Array, x0: Array, time: Array, score: Array, own_fisher: Array) -> Array:
        others = x0[None] + time / (1 - time) * (
            x1[None] - latents
        )  # the noises that lead from all candidates to the same x_τ
        posterior = jax.nn.softmax(log_weights - 0.5 * jnp.sum(others**2, axis=1))
        average = posterior @ jax.vmap(regress, in_axes=(0, 0, None, 0, 0))(latents, others, time, scores, fisher)
        return jnp.where(flags.posterior, average, regress(x1, x0, time, score, own_fisher))

    y = jax.vmap(target_at)(latents[index], noises, times, scores[index], fisher[index])
    context = policy.condition(OBS)

    def error(x1: Array, x0: Array, time: Array, y: Array) -> Array:
        return jnp.sum((policy.velocity(time * x1 + (1 - time) * x0, time, context) - y) ** 2)

    return weights @ jax.vmap(error)(latents[index], noises, times, jax.lax.stop_gradient(y))


def candidates(lever: Lever, n: int, policy: FlowPolicy, key: Array) -> tuple[Array, Array]:
    """Draw candidates of the policy, or local ones around fewer of them with the density of their mixture."""
    if lever.local == 1:
        return jax.vmap(policy.sample_latent_and_log_prob, in_axes=(0, None))(jax.random.split(key, n), OBS)
    center_key, noise_key = jax.random.split(key)
    centers = jax.vmap(policy.sample_latent, in_axes=(0, None))(jax.random.split(center_key, n // lever.local), OBS)
    latents = jnp.tile(centers, (lever.local, 1)) + KERNEL * jax.random.normal(noise_key, (n, 2))
    squares = jnp.sum((latents[:, None] - centers[None]) ** 2, axis=2)
    return latents, jax.nn.logsumexp(-0.5 * squares / KERNEL**2, axis=1)


def exact_loss(policy: FlowPolicy, key: Array, target: Mixture, n: int) -> Array:
    """Return E ‖v_θ − v*‖² on the path to exact samples: the excess of the flow matching loss, zero at the optimum."""
    sample_key, noise_key, time_key = jax.random.split(key, 3)
    x1, x0 = target.sample(sample_key, n), jax.random.normal(noise_key, (n, 2))
    times = stratified_times(time_key, n, 1)[:, 0]
    context = policy.condition(OBS)

    def error(x1: Array, x0: Array, time: Array) -> Array:
        x = time * x1 + (1 - time) * x0
        return jnp.sum((policy.velocity(x, time, context) - target.velocity(x, time)) ** 2)

    return jnp.mean(jax.vmap(error)(x1, x0, times))


def with_velocity(policy: FlowPolicy, velocity: VelocityNetwork) -> FlowPolicy:
    """Return the policy with another velocity."""
    return replace(policy, velocity=velocity)
