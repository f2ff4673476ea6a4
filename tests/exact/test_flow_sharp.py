"""Densities of sharp policies, whose flows are known in closed form: mixtures of narrow Gaussians.

Along the straight path from N(0, I) to a mixture Σ_k w_k N(m_k, σ² I) the points at τ are distributed as
Σ_k w_k N(τ m_k, s² I), s² = (1 − τ)² + σ² τ², and the velocity is that of every part, weighted by the part's
probability given the point.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import AdaptiveSolver, ExactJVP, FlowPolicy, Unbounded
from entroflow.rl import Flow


class Mixture(eqx.Module):
    """The velocity to a mixture of narrow Gaussians."""

    means: jax.Array
    width: float = eqx.field(static=True)
    obs_size: int = eqx.field(static=True, default=1)

    @property
    def action_size(self):
        return self.means.shape[1]

    def condition(self, obs):
        return None

    def __call__(self, x, time, context):
        square = (1 - time) ** 2 + (self.width * time) ** 2
        apart = x[None] - time * self.means
        shares = jax.nn.softmax(-0.5 * jnp.sum(apart**2, axis=1) / square)
        contraction = (self.width**2 * time - (1 - time)) / square
        return shares @ (self.means + contraction * apart)

    def log_prob(self, x):
        """Return the log-density of the mixture."""
        apart = jnp.sum((x[None] - self.means) ** 2, axis=1) / self.width**2
        size = x.size * jnp.log(self.width * jnp.sqrt(2 * jnp.pi))
        return jax.nn.logsumexp(-0.5 * apart) - jnp.log(len(self.means)) - size


MIXTURES = {
    "one dimension": Mixture(jnp.array([[-1.0], [0.5], [1.2]]), 0.25),
    "four goals": Mixture(jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 0.3),
    "one narrow goal": Mixture(jnp.array([[0.5, -0.3, 0.8]]), 0.1),
}


def policy_of(velocity, solver):
    return FlowPolicy(velocity, Unbounded(velocity.action_size), solver=solver, divergence=ExactJVP())


@eqx.filter_jit
def draws(policy, count):
    obs = jnp.zeros_like(policy.obs_units.mean)
    return jax.vmap(policy.sample_and_log_prob, (0, None))(jax.random.split(jax.random.key(0), count), obs)


@eqx.filter_jit
def log_probs(policy, actions):
    return jax.vmap(policy.log_prob, (None, 0))(jnp.zeros_like(policy.obs_units.mean), actions)


@pytest.mark.parametrize("velocity", MIXTURES.values(), ids=MIXTURES)
def test_density_by_which_agents_act(velocity):
    """The density told of draws, that of `log_prob`, Diffrax's at 1e-8 and the closed form agree."""
    policy = policy_of(velocity, Flow().acting_solver)
    actions, drawn = draws(policy, 512)
    again, exact = log_probs(policy, actions), jax.vmap(velocity.log_prob)(actions)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), policy.with_solver(AdaptiveSolver(1e-8, 1e-8)))
        fine = log_probs(wide, jnp.asarray(actions, jnp.float64))
    np.testing.assert_allclose(fine, exact, atol=1e-4)
    for told in (drawn, again):
        gap = np.abs(np.asarray(told) - np.asarray(fine))
        assert gap.mean() < 0.01 and gap.max() < 0.1


def test_mass():
    """exp(`log_prob`) of the sharp density in one dimension integrates to one."""
    grid = jnp.linspace(-3.0, 3.0, 6001)[:, None]
    policy = policy_of(MIXTURES["one dimension"], Flow().acting_solver)
    assert abs(float(jnp.trapezoid(jnp.exp(log_probs(policy, grid)), grid[:, 0])) - 1) < 0.005
