"""The squashed Gaussian policy of soft actor-critic (Haarnoja et al. 2018b), with the methods of `FlowPolicy`.

u = m(s) + σ(s) ∘ x_0,  x_0 ~ N(0, I),  a = map of u into the action space,
log π(a|s) = log N(u; m, diag σ²) − log |det ∂a/∂u|.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ...fields import Count, Layers
from ...flow import ActionSpace
from ...flow.policy import WithLogProb
from ...flow.velocity import linear_layers
from ...moments import Moments
from .protocol import ActorDefaults

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


@dataclass(frozen=True)
class Gaussian(ActorDefaults):
    """Settings of the Gaussian policy, improved along the gradient of Q: with it soft actor-critic is plain SAC.

    Those of `ActorDefaults` are beside them.

    Attributes:
        width: width of each hidden layer.
        depth: number of hidden layers.
    """

    width: Count = 256
    depth: Layers = 2

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return "gaussian_sac"

    def network(self, obs_size: int, action_size: int, *, key: PRNGKeyArray) -> "GaussianNetwork":
        """Make the network of mean and standard deviation, see `Actor.network`."""
        return GaussianNetwork(obs_size, action_size, width=self.width, depth=self.depth, key=key)

    def policy(
        self,
        network: "GaussianNetwork",
        action_space: ActionSpace,
        obs_units: Moments,
        temperature: Float[Array, ""],
    ) -> "GaussianPolicy":
        """Return the Gaussian policy of a network, see `Actor.policy`."""
        del temperature
        return GaussianPolicy(network, action_space, obs_units)


class GaussianNetwork(eqx.Module):
    """A perceptron s ↦ (m, log σ); log σ is squashed smoothly into [−5, 2]. For the sizes see `VelocityNetwork`."""

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, obs_size: int, action_size: int, *, width: int, depth: int, key: PRNGKeyArray):
        self.layers = linear_layers((obs_size, *[width] * depth, 2 * action_size), key)

    def __call__(self, obs: Float[Array, " n"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Return mean and log standard deviation of the latent, shapes (d,)."""
        for layer in self.layers[:-1]:
            obs = jax.nn.silu(layer(obs))
        mean, raw = jnp.split(self.layers[-1](obs), 2)
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (1 + jnp.tanh(raw))


class GaussianPolicy(eqx.Module):
    """A Gaussian over latents, carried into the action space; for one state and one action, `vmap` outside.

    The observation statistics and the action space are constants: no gradient reaches them.

    Args:
        network: s ↦ (m, log σ), such as a `GaussianNetwork`.
        action_space: map from the latent u ∈ R^d to actions.
        obs_units: moments by which observations are normalised, leaves of shape (n,).
    """

    network: Callable[[Array], tuple[Array, Array]]
    action_space: ActionSpace
    obs_units: Moments

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape (d,) of the standard normal noise that an action is made of."""
        return (self.action_space.size,)

    def sample(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: Float[ArrayLike, ""] = 1.0
    ) -> Float[Array, " d"]:
        """Draw an action, that of `sample_and_log_prob` at noise scale 1, see `Policy.sample`."""
        return self.push(obs, jnp.asarray(noise_scale) * self._noise(key))

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> WithLogProb:
        """Draw, with gradients through both results, see `Policy.sample`."""
        return self.push_and_log_prob(obs, self._noise(key))

    def log_prob(self, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log π(a|s) of an action moved strictly inside of a box, see `DensityPolicy.log_prob`."""
        mean, log_std = self._moments(obs)
        latent = self.action_space.from_action(action)
        log_prob = self._log_prob(latent, (latent - mean) / jnp.exp(log_std), log_std)
        return jnp.where(self.action_space.contains(action), log_prob, -jnp.inf)

    def push(self, obs: Float[Array, " n"], noise: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the action that a given noise x_0 becomes, see `NoisePolicy.push`."""
        mean, log_std = self._moments(obs)
        return self.action_space.to_action(mean + jnp.exp(log_std) * noise)

    def push_and_log_prob(self, obs: Float[Array, " n"], noise: Float[Array, " d"]) -> WithLogProb:
        """Return that action and its log-density, see `NoisePolicy.push`."""
        mean, log_std = self._moments(obs)
        latent = mean + jnp.exp(log_std) * noise
        return self.action_space.to_action(latent), self._log_prob(latent, noise, log_std)

    def _moments(self, obs: Float[Array, " n"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        return self.network(jax.lax.stop_gradient(self.obs_units).normalise(obs))

    def _log_prob(
        self, latent: Float[Array, " d"], noise: Float[Array, " d"], log_std: Float[Array, " d"]
    ) -> Float[Array, ""]:
        density = jnp.sum(jax.scipy.stats.norm.logpdf(noise) - log_std)
        return density - self.action_space.log_det(latent)

    def _noise(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        return jax.random.normal(key, (self.action_space.size,), self.obs_units.mean.dtype)
