"""Flow policies: an action is a Gaussian noise carried by an ODE, with its exact log-density.

    x_0 ~ N(0, I),  dx_τ/dτ = v_θ(x_τ, τ, s),  u = x_1,  a = map of u into the action space,
    (6)  log π_u(u|s) = log N(x_0; 0, I) − ∫_0^1 tr ∂v_θ/∂x (x_τ, τ, s) dτ,
    log π(a|s) = log π_u(u|s) − log |det ∂a/∂u|.

All methods are for one state and one action; `vmap` over keys, states or actions. What depends on the state only is
computed once however many keys are mapped over. A policy is a tree of arrays: pass it to `jax.jit` as an argument, or
compile a method with `eqx.filter_jit`. What they have in common:

Args:
    key: random key; to `log_prob` and `push_and_log_prob`, for a divergence that is estimated.
    obs: observation s, shape (n,).
    action: action a, shape (d,).
    latent: latent u, shape (d,).
    noise: noise x_0, shape (d,).
    noise_scale: standard deviation of x_0, for densities positive; 1 is the policy, 0 its noiseless centre.

Returns:
    The action or the latent, shape (d,), and its log-density, shape ().
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..checks import error
from ..moments import Moments, standard
from .bounds import ActionSpace
from .divergence import DivergenceMethod
from .integrate import RungeKutta, Solver, Velocity
from .velocity import ClosedForm, VelocityAndDivergence, VelocityField

FloatScalar = Float[ArrayLike, ""]
WithLogProb = tuple[Float[Array, " d"], Float[Array, ""]]  # an action or a latent
MIDPOINT = RungeKutta("midpoint", 8)
CLOSED_FORM = ClosedForm()


class FlowPolicy(eqx.Module):
    """A policy π_θ(a|s) given by a velocity field.

    The observation statistics and the action space are constants: no gradient reaches them.

    Args:
        velocity: velocity field v_θ; its parameters are the policy's parameters.
        action_space: map from the flow's latent u ∈ R^d to actions.
        solver: integrator of the ODE.
        divergence: how to get tr ∂v/∂x; the closed form suits `VelocityNetwork`.
        obs_units: moments by which observations are normalised, leaves of shape (n,); mean zero and scale one if not
            given.

    Raises:
        ValueError: if sizes do not agree.

    Example:
        >>> from entroflow.flow import Unbounded, VelocityNetwork
        >>> policy = FlowPolicy(VelocityNetwork(3, 2, width=8, depth=1, key=jax.random.key(0)), Unbounded(2))
        >>> action, log_prob = policy.sample_and_log_prob(jax.random.key(1), jnp.zeros(3))
        >>> action.shape, bool(jnp.allclose(log_prob, policy.log_prob(jnp.zeros(3), action), atol=1e-3))
        ((2,), True)
    """

    velocity: VelocityField
    action_space: ActionSpace
    obs_units: Moments
    solver: Solver = eqx.field(static=True)
    divergence: DivergenceMethod = eqx.field(static=True)

    def __init__(
        self,
        velocity: VelocityField,
        action_space: ActionSpace,
        *,
        solver: Solver = MIDPOINT,
        divergence: DivergenceMethod = CLOSED_FORM,
        obs_units: Moments | None = None,
    ):
        if velocity.action_size != action_space.size:
            given = f"a velocity of size {velocity.action_size} and an action space of size {action_space.size}"
            raise error("action size", given, "one size", "make both for the same actions")
        self.velocity, self.action_space, self.solver, self.divergence = velocity, action_space, solver, divergence
        self.obs_units = standard(velocity.obs_size) if obs_units is None else obs_units
        if self.obs_units.mean.shape != (velocity.obs_size,):
            expected, remedy = f"shape ({velocity.obs_size},)", "give every observation component one number"
            raise error("obs_units", f"moments of shape {self.obs_units.mean.shape}", expected, remedy)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape (d,) of the standard normal noise that an action is made of."""
        return (self.action_space.size,)

    def with_solver(self, solver: Solver) -> "FlowPolicy":
        """Return the same policy with another integrator, for example a more accurate one for evaluation."""
        return dataclasses.replace(self, solver=solver)

    # Actions

    def sample(self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: FloatScalar = 1.0) -> Float[Array, " d"]:
        """Draw an action; the same one as `sample_and_log_prob` with the same key."""
        return self.action_space.to_action(self.sample_latent(key, obs, noise_scale))

    def sample_and_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> WithLogProb:
        """Draw the action of `sample` with log π(a|s), from one integration."""
        latent, log_prob = self.sample_latent_and_log_prob(key, obs)
        return self.action_space.to_action(latent), log_prob - self.action_space.log_det(latent)

    def sample_and_solver_log_prob(self, key: PRNGKeyArray, obs: Float[Array, " n"]) -> WithLogProb:
        """Draw the action of `sample` with the density that the solver's steps give it: the Jacobian of their map.

        Equation (6) is as right as the solver. A gradient through it finds fields that raise the solver's error; one
        through this has nothing to find. It costs d tangents, and a solver with fixed steps.
        """
        noise_key, _ = jax.random.split(key)
        noise = self._noise(noise_key, 1.0)
        # For the gradient it is faster to evaluate the network again than to keep what all tangents left in it.
        velocity = jax.checkpoint(functools.partial(self.velocity, context=self.condition(obs)))
        push = functools.partial(self.solver.solve, velocity)
        directions = jnp.eye(noise.shape[0], dtype=noise.dtype)
        latent, jacobian = jax.vmap(lambda v: jax.jvp(push, (noise,), (v,)), out_axes=(None, 1))(directions)
        log_prob = _normal_log_prob(noise, 1.0) - jnp.linalg.slogdet(jacobian)[1]
        return self.action_space.to_action(latent), log_prob - self.action_space.log_det(latent)

    def log_prob(
        self, obs: Float[Array, " n"], action: Float[Array, " d"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, ""]:
        """Return log π(a|s) of a given action, by integrating backwards.

        In a box an action on a bound is first moved strictly inside of it (see `Box.from_action`), and one beyond has
        the density zero.
        """
        latent = self.action_space.from_action(action)
        log_prob = self.latent_log_prob(obs, latent, key=key) - self.action_space.log_det(latent)
        return jnp.where(self.action_space.contains(action), log_prob, -jnp.inf)

    def push(self, obs: Float[Array, " n"], noise: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the action that a given noise x_0 is carried to."""
        return self.action_space.to_action(self._push_latent(obs, noise))

    def push_and_log_prob(
        self, obs: Float[Array, " n"], noise: Float[Array, " d"], *, key: PRNGKeyArray | None = None
    ) -> WithLogProb:
        """Return that action with its log-density."""
        noise = self._typed(noise)
        latent, integral = self.solver.solve_with_integral(*self._fields(obs, key), noise)
        log_prob = _normal_log_prob(noise, 1.0) - integral
        return self.action_space.to_action(latent), log_prob - self.action_space.log_det(latent)

    # Latents: the same before the map into the action space

    def sample_latent(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: FloatScalar = 1.0
    ) -> Float[Array, " d"]:
        """Draw a latent u."""
        noise_key, _ = jax.random.split(key)
        return self._push_latent(obs, self._noise(noise_key, noise_scale))

    def sample_latent_and_log_prob(
        self, key: PRNGKeyArray, obs: Float[Array, " n"], noise_scale: FloatScalar = 1.0
    ) -> WithLogProb:
        """Draw a latent u with log π_u(u|s)."""
        noise_key, probe_key = jax.random.split(key)
        noise = self._noise(noise_key, noise_scale)
        latent, integral = self.solver.solve_with_integral(*self._fields(obs, probe_key), noise)
        return latent, _normal_log_prob(noise, noise_scale) - integral

    def latent_log_prob(
        self,
        obs: Float[Array, " n"],
        latent: Float[Array, " d"],
        noise_scale: FloatScalar = 1.0,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, ""]:
        """Return log π_u(u|s) of a given latent, of which `log_prob` makes that of an action."""
        fields = self._fields(obs, key)
        noise, integral = self.solver.solve_with_integral(*fields, self._typed(latent), start=1.0, end=0.0)
        return _normal_log_prob(noise, noise_scale) + integral

    def condition(self, obs: Float[Array, " n"]) -> Any:
        """Normalise the observation and compute the velocity field's context of this state."""
        return self.velocity.condition(jax.lax.stop_gradient(self.obs_units).normalise(obs))

    def _push_latent(self, obs: Float[Array, " n"], noise: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.solver.solve(functools.partial(self.velocity, context=self.condition(obs)), self._typed(noise))

    def _typed(self, point: ArrayLike) -> Float[Array, " d"]:
        """Return a point in the policy's own precision, in which its solver's steps stay."""
        return jnp.asarray(point, self.obs_units.mean.dtype)

    def _fields(self, obs: Array, key: PRNGKeyArray | None) -> tuple[Velocity, VelocityAndDivergence]:
        """Return the velocity at one state, and the velocity with its divergence, functions of (x, τ)."""
        context = self.condition(obs)
        velocity = functools.partial(self.velocity, context=context)
        return velocity, self.divergence(self.velocity, context, key)

    def _noise(self, key: PRNGKeyArray, scale: FloatScalar) -> Float[Array, " d"]:
        return jnp.asarray(scale) * jax.random.normal(key, (self.action_space.size,), self.obs_units.mean.dtype)


def _normal_log_prob(x: Float[Array, " d"], scale: FloatScalar) -> Float[Array, ""]:
    """Return log N(x; 0, scale² I)."""
    return -0.5 * jnp.sum((x / scale) ** 2) - x.shape[0] * (jnp.log(scale) + 0.5 * np.log(2 * np.pi).item())
