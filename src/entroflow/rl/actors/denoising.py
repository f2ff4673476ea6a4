"""A diffusion policy without a density, improved by reverse-sampling score matching in the style of SDAC.

Ma, Chen, Wang, Li, Dai, *Efficient Online Reinforcement Learning for Diffusion Policy*, arXiv 2502.00361. Actions are
x ∈ [−1, 1]^d in units of the box. With angles θ_t = ½π t/(T+1), t = 1, …, T, and noise ε ~ N(0, I),

    x_t = cos θ_t x + sin θ_t ε                                                     noises an action,
    E[ε|x_t] = Σ_k w_k ε_k,   w = softmax(Q(s, x_k)/α)                              is what the network learns,
    x_k = (x_t − sin θ_t ε_k) / cos θ_t,   ε_k ~ N(0, I) restricted to x_k ∈ [−1, 1]^d,

for the reverse kernel, times exp(Q/α), is the distribution of clean actions given x_t under the policy exp(Q/α)/Z. No
sample and no density of that policy is needed. Acting runs the T denoising steps of DDPM (Ho et al. 2020).

There is no log π(a|s): the critic's targets count no entropy, and α is tuned on that of Gaussian noise of scale ∝ α,
added to the actions. What differs from the authors' code: candidates are restricted to the box, not clipped to its
faces; angles and variances of the steps; no selection of actions by Q.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...checks import error
from ...fields import Count, Layers, NonNegative
from ...flow import ActionSpace, Box, VelocityNetwork
from ...flow.velocity import Context
from ...moments import Moments
from .protocol import ActorDefaults, Goal, Step


@dataclass(frozen=True)
class Denoising(ActorDefaults):
    """Settings of the diffusion policy and of its improvement, beside those of `ActorDefaults`.

    Attributes:
        width: width of the network that predicts the noise.
        depth: layers of the network that read the state.
        state_width: width of these.
        steps: denoising steps T of an action.
        states: states per policy update.
        candidates: candidates K per noised action.
        pairs: noised actions per state.
        exploration: standard deviation of the noise added to actions, over α and the box's half-width; the authors' is
            0.1 for their α, which is five times ours.
    """

    width: Count = 128
    depth: Layers = 2
    state_width: Count = 256
    steps: Count = 20
    states: Count = 32
    candidates: Count = 64
    pairs: Count = 1
    exploration: NonNegative = 0.5

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return "denoising"

    @property
    def has_density(self) -> bool:
        """Whether the policy's density is known."""
        return False

    @property
    def values_are_soft(self) -> bool:
        """Whether `Step.values` estimate the soft value of the policy: they are without entropy."""
        return False

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> VelocityNetwork:
        """Make the network that predicts the noise of a noised action, see `Actor.network`."""
        sizes = {"width": self.width, "depth": self.depth, "state_width": self.state_width}
        return VelocityNetwork(obs_size, action_size, **sizes, key=key)

    def policy(
        self,
        network: VelocityNetwork,
        action_space: ActionSpace,
        obs_units: Moments,
        temperature: Float[ArrayLike, ""],
    ) -> "DenoisingPolicy":
        """Return the diffusion policy of a network, see `Actor.policy`."""
        if not isinstance(action_space, Box):
            raise error("action_space", type(action_space).__name__, "a Box", "choose another actor, such as Flow")
        deviation = self.exploration * jnp.asarray(temperature)
        return DenoisingPolicy(network, action_space, obs_units, deviation, self.steps)

    def loss_and_gradient(
        self, policy: "DenoisingPolicy", network: VelocityNetwork, key: PRNGKeyArray, goal: Goal
    ) -> Step:
        """Regress on the weighted noise, at noised actions of the policy, see `Actor.loss_and_gradient`."""
        obs, q_function, temperature = goal

        def draw(key: PRNGKeyArray, obs: Float[Array, " n"]) -> tuple[_Noised, Float[Array, ""]]:
            action_key, level_key, *keys = jax.random.split(key, 2 + self.pairs)
            clean = policy.denoise(action_key, obs)
            # One level in each of as many equal parts of 1, …, T as there are pairs.
            places = (jnp.arange(self.pairs, dtype=float) + jax.random.uniform(level_key)) / self.pairs
            levels = 1 + jnp.minimum((places * self.steps).astype(int), self.steps - 1)

            def one(key: PRNGKeyArray, level: Array) -> _Noised:
                noise_key, candidate_key = jax.random.split(key)
                angle = _angle(level, self.steps)
                point = jnp.cos(angle) * clean + jnp.sin(angle) * jax.random.normal(noise_key, clean.shape)
                value = lambda x: q_function(obs, policy.to_action(x)) / temperature  # noqa: E731
                return _Noised(point, level, *reverse_sample(candidate_key, point, angle, value, self.candidates))

            return jax.vmap(one)(jnp.stack(keys), levels), q_function(obs, policy.to_action(clean))

        noised, values = jax.vmap(draw)(jax.random.split(key, obs.shape[0]), obs)

        def loss(network: VelocityNetwork) -> Float[Array, ""]:
            trained = eqx.tree_at(lambda policy: policy.network, policy, network)

            def one(obs: Float[Array, " n"], noised: _Noised) -> Float[Array, " p"]:
                context = trained.condition(obs)
                predicted = jax.vmap(trained._noise_in, in_axes=(0, 0, None))(noised.point, noised.level, context)
                return jnp.sum((predicted - noised.target) ** 2, axis=-1)

            return jnp.mean(jax.vmap(one)(obs, noised))

        error, gradient = jax.value_and_grad(loss)(network)
        return Step(error, gradient, values, {"ess": jnp.mean(noised.ess)})


class _Noised(NamedTuple):
    """A noised action: the point x_t, its level t, the noise to predict there, and ESS/K of its candidates."""

    point: Float[Array, "*p d"]
    level: Array
    target: Float[Array, "*p d"]
    ess: Float[Array, "*p"]


def reverse_sample(
    key: PRNGKeyArray,
    point: Float[Array, " d"],
    angle: Float[Array, ""],
    log_density: Callable[[Array], Array],
    candidates: int,
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Estimate E[ε|x_t] for actions in [−1, 1]^d whose density is known up to its normaliser: log_density, Q(s, x)/α.

    With it comes ESS/K of the candidates' weights.
    """
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    lower, upper = (point - cosine) / sine, (point + cosine) / sine
    noise = jax.random.truncated_normal(key, lower[None], upper[None], (candidates, *point.shape))
    clean = jnp.clip((point[None] - sine * noise) / cosine, -1.0, 1.0)  # but for rounding, it is in the box
    weights = jax.nn.softmax(jax.vmap(log_density)(clean))
    return weights @ noise, 1 / jnp.sum(weights**2) / candidates


class DenoisingPolicy(eqx.Module):
    """A diffusion over the box, whose density nobody knows; for one state and one action, `vmap` outside.

    Args:
        network: (x_t, t/T, s) ↦ predicted noise.
        action_space: the box.
        obs_units: moments by which observations are normalised, leaves of shape (n,).
        deviation: standard deviation of the noise added to actions, over the box's half-width.
        steps: denoising steps T.
    """

    network: VelocityNetwork
    action_space: Box
    obs_units: Moments
    deviation: Float[Array, ""]
    steps: int = eqx.field(static=True)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape (T + 2, d) of the standard normal noise that an action is made of, see `push`."""
        return self.steps + 2, self.action_space.size

    def sample(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: Float[ArrayLike, ""] = 1.0
    ) -> Float[Array, " d"]:
        """Draw an action, with the added noise, all noise scaled, see `Policy.sample`."""
        clean_key, added_key = jax.random.split(key)
        added = jax.random.normal(added_key, (1, self.action_space.size), self.obs_units.mean.dtype)
        noise = jnp.concatenate([self._noise(clean_key), added])
        return self.push(obs, jnp.asarray(noise_scale) * noise)

    def exploration_entropy(self) -> Float[Array, ""]:
        """Return the entropy of the added noise, not of the policy: ½ d log(2πe σ²); −∞ of none."""
        size = self.action_space.size
        scales = jnp.sum(jnp.log((self.action_space.high - self.action_space.low) / 2))
        return size * (0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(self.deviation)) + scales

    def to_action(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the action of a point, first clipped to [−1, 1]^d."""
        low, high = jax.lax.stop_gradient((self.action_space.low, self.action_space.high))
        return jnp.clip(low + 0.5 * (high - low) * (jnp.clip(x, -1.0, 1.0) + 1), low, high)

    def condition(self, obs: Float[Array, " n"]) -> Context:
        """Compute what depends on the state only."""
        return self.network.condition(jax.lax.stop_gradient(self.obs_units).normalise(obs))

    def _noise_in(self, point: Float[Array, " d"], level: Array, context: Context) -> Float[Array, " d"]:
        """Return the noise that the network sees in a point x_t of level t."""
        return self.network(point, level.astype(point.dtype) / self.steps, context)

    def denoise(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> Float[Array, " d"]:
        """Draw a clean action x ∈ [−1, 1]^d by the T steps of DDPM, see `Policy.sample`."""
        return self._denoise(obs, self._noise(key))

    def push(self, obs: Float[Array, " n"], noise: Float[Array, "t d"]) -> Float[Array, " d"]:
        """Return the action that given noise becomes, see `NoisePolicy.push`."""
        return self.to_action(self._denoise(obs, noise[:-1]) + self.deviation * noise[-1])

    def _noise(self, key: PRNGKeyArray) -> Float[Array, "t d"]:
        return jax.random.normal(key, (self.steps + 1, self.action_space.size), self.obs_units.mean.dtype)

    def _denoise(self, obs: Float[Array, " n"], noise: Float[Array, "t d"]) -> Float[Array, " d"]:
        context = self.condition(obs)

        def step(point: Float[Array, " d"], inputs: tuple) -> tuple[Float[Array, " d"], None]:
            level, noise, (sine, cosine, from_clean, from_point, deviation) = inputs
            clean = (point - sine * self._noise_in(point, level, context)) / cosine
            return from_clean * jnp.clip(clean, -1.0, 1.0) + from_point * point + deviation * noise, None

        levels = jnp.arange(self.steps, 0, -1)
        table = tuple(jnp.asarray(column[::-1], self.obs_units.mean.dtype) for column in _ancestral(self.steps))
        return jax.lax.scan(step, noise[0], (levels, noise[1:], table))[0]


def _angle(level: Array, steps: int) -> Float[Array, ""]:
    """Return θ_t."""
    return 0.5 * jnp.pi * level.astype(float) / (steps + 1)


def _ancestral(steps: int) -> tuple[np.ndarray, ...]:
    """Return, for t = 1, …, T: sin θ_t, cos θ_t, and x_{t−1} given x and x_t: both factors and the deviation.

    DDPM's two variances, exact for wide and for narrow distributions, are interpolated as by Nichol and Dhariwal 2021.
    With T = 20 a quarter of the way keeps Gaussians of width 0.1 to 0.4 within 5 per cent of it. The smaller variance,
    which the authors' code uses, makes them 15 to 33 per cent too narrow.
    """
    angles = 0.5 * np.pi * np.arange(steps + 1) / (steps + 1)
    kept = np.cos(angles) ** 2  # the usual ᾱ_t
    before, after = kept[:-1], kept[1:]
    lost = 1 - after / before  # the usual β_t
    ratio = (1 - before) / (1 - after)
    factors = np.sqrt(before) * lost / (1 - after), np.sqrt(after / before) * ratio
    return np.sin(angles[1:]), np.cos(angles[1:]), *factors, np.sqrt(lost * ratio**0.25)
