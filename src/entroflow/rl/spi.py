"""Soft policy iteration (Algorithm 1) with flow policies, where the soft Q of a policy can be known exactly.

    repeat
        policy evaluation: Q_k, the fixed point of equation (1) for π_k
        policy improvement: (4)  π_{k+1} = exp(Q_k/α)/Z, by ISFM to convergence (`entroflow.isfm.fit`)

On LQR the soft Q of a policy follows from the gain and the covariance of its actions (Lemma 1), in a finite world from
the value of every state. All but the iteration itself is for one policy: `vmap` over seeds and temperatures.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..flow import FlowPolicy

Policy = TypeVar("Policy")
Evaluation = TypeVar("Evaluation")


def soft_policy_iteration(
    policy: Policy,
    evaluate: Callable[[Policy], Evaluation],
    improve: Callable[[Policy, Evaluation, int], Policy],
    iterations: int,
) -> Iterator[tuple[Policy, Evaluation]]:
    """Algorithm 1: evaluate and improve in turn.

    Args:
        policy: π_0.
        evaluate: policy ↦ whatever determines its soft Q.
        improve: (π_k, its evaluation, k) ↦ π_{k+1}.
        iterations: number of improvements.

    Yields:
        Every policy with its evaluation, from π_0 on: iterations + 1 pairs.
    """
    yield policy, (evaluation := evaluate(policy))
    for k in range(iterations):
        policy = improve(policy, evaluation, k)
        yield policy, (evaluation := evaluate(policy))


class LinearFit(NamedTuple):
    """The linear Gaussian policy N(−K s, covariance) nearest to a policy.

    Attributes:
        K: gain of the least-squares regression of the actions' means on the states, shape (d, n).
        covariance: covariance of the actions at one state, averaged over the states, shape (d, d).
        mean_residual: covariance of what the regression leaves of the means, zero for a linear policy, shape (d, d).
    """

    K: Float[Array, "d n"]
    covariance: Float[Array, "d d"]
    mean_residual: Float[Array, "d d"]


def fit_linear(policy: FlowPolicy, states: Float[Array, "m n"], points: Float[Array, "k d"]) -> LinearFit:
    """Find the gain and the covariance of a flow policy from its actions.

    Args:
        policy: the policy.
        states: states at which to look.
        points: standard normal noise x_0, from which the actions at every state are made.

    Returns:
        The fit.
    """

    def moments(state: Array) -> tuple[Array, Array]:
        actions = jax.vmap(policy.push, in_axes=(None, 0))(state, points)
        mean = jnp.mean(actions, axis=0)
        centred = actions - mean[None]
        return mean, centred.T @ centred / points.shape[0]

    means, covariances = jax.vmap(moments)(states)
    solution = jnp.linalg.lstsq(states, means)[0]
    residual = means - states @ solution
    return LinearFit(-solution.T, jnp.mean(covariances, axis=0), residual.T @ residual / states.shape[0])


def quadratic_q(matrix: Float[Array, "m m"], obs: Float[Array, " n"], action: Float[Array, " d"]) -> Float[Array, ""]:
    """Return Q(s, a) = −[s; a]ᵀ matrix [s; a], Lemma 1 without its constant, which no improvement depends on."""
    x = jnp.concatenate([obs, action])
    return -x @ matrix @ x


def gaussian_q(
    K: Float[np.ndarray, "d n"], covariance: Float[np.ndarray, "d d"], temperature: float
) -> Float[np.ndarray, "m m"]:
    """Return the matrix of the quadratic Q for which exp(Q/α)/Z is N(−K s, covariance).

    Args:
        K: gain.
        covariance: covariance of the actions, positive definite.
        temperature: entropy weight α > 0.
    """
    deviation = np.hstack([K, np.eye(len(K))])  # of the action from its mean, a + K s
    return temperature / 2 * deviation.T @ np.linalg.solve(covariance, deviation)


def push_all(
    policy: FlowPolicy, states: Float[Array, "s n"], points: Float[Array, "k d"]
) -> tuple[Float[Array, "k s d"], Float[Array, "k s"]]:
    """Return the actions that the noise points are carried to at every state, and their log-densities.

    With points that stand for equal shares of N(0, I) it is a quadrature rule for means over the policy.
    """
    at_states = jax.vmap(policy.push_and_log_prob, in_axes=(0, None))
    return jax.vmap(at_states, in_axes=(None, 0))(states, points)
