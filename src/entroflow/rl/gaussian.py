"""The squashed Gaussian policy of soft actor-critic (Haarnoja et al. 2018b), with the methods of `FlowPolicy`.

u = m(s) + σ(s) ∘ x_0,  x_0 ~ N(0, I),  a = map of u into the action space,
log π(a|s) = log N(u; m, diag σ²) − log |det ∂a/∂u|.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..flow import ActionSpace

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class GaussianNetwork(eqx.Module):
    """A perceptron s ↦ (m, log σ); log σ is squashed smoothly into [−5, 2].

    Args:
        obs_size: number of components of the (normalised) observation s.
        action_size: number of components d of the action.
        width: width of each hidden layer.
        depth: number of hidden layers.
        key: random key of the initial parameters.
    """

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, obs_size: int, action_size: int, *, width: int, depth: int, key: PRNGKeyArray):
        sizes = (obs_size, *[width] * depth, 2 * action_size)
        keys = jax.random.split(key, depth + 1)
        self.layers = tuple(eqx.nn.Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))

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
        network: s ↦ (m, log σ).
        action_space: map from the latent u ∈ R^d to actions.
        obs_mean: subtracted from every observation, shape (n,).
        obs_scale: divides every observation thereafter, positive, shape (n,).
    """

    network: GaussianNetwork
    action_space: ActionSpace
    obs_mean: Float[Array, " n"]
    obs_scale: Float[Array, " n"]

    def sample(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> Float[Array, " d"]:
        """Draw an action; the same one as `sample_and_log_prob` with the same key. Shape (d,)."""
        return self.push(obs, self._noise(key))

    def sample_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Draw an action a with log π(a|s), shapes (d,) and (); gradients reach the network through both."""
        return self.push_and_log_prob(obs, self._noise(key))

    def log_prob(self, obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log π(a|s) of a given action, first moved strictly inside of a box (see `Box.from_action`)."""
        mean, log_std = self._moments(obs)
        latent = self.action_space.from_action(action)
        return self._log_prob(latent, (latent - mean) / jnp.exp(log_std), log_std)

    def push(self, obs: Float[Array, " n"], noise: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the action that a given noise x_0 becomes, shape (d,)."""
        mean, log_std = self._moments(obs)
        return self.action_space.to_action(mean + jnp.exp(log_std) * noise)

    def push_and_log_prob(
        self, obs: Float[Array, " n"], noise: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Return the action that a given noise x_0 becomes and its log-density, shapes (d,) and ()."""
        mean, log_std = self._moments(obs)
        latent = mean + jnp.exp(log_std) * noise
        return self.action_space.to_action(latent), self._log_prob(latent, noise, log_std)

    def _moments(self, obs: Float[Array, " n"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        mean, scale = jax.lax.stop_gradient((self.obs_mean, self.obs_scale))
        return self.network((obs - mean) / scale)

    def _log_prob(
        self, latent: Float[Array, " d"], noise: Float[Array, " d"], log_std: Float[Array, " d"]
    ) -> Float[Array, ""]:
        density = jnp.sum(jax.scipy.stats.norm.logpdf(noise) - log_std)
        return density - self.action_space.log_det(latent)

    def _noise(self, key: PRNGKeyArray) -> Float[Array, " d"]:
        return jax.random.normal(key, (self.action_space.size,), self.obs_mean.dtype)
