"""Beginning as a given Gaussian controller N(−K s, Σ), also where policies that know nothing let the plant diverge.

What is learned is what stands beside the controller: the input is −K s + L u with L Lᵀ = Σ, and soft actor-critic runs
on the plant as u sees it. There a policy that begins as N(0, I) is the controller, in states of the sizes that the
controller lets them have, and Q has no slope that a good gain would have to learn. At the end policy and critic become
functions of the plant's own input.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ... import checks
from ...envs import LQREnv
from ...flow import VelocityNetwork
from ...lqr import LQR
from ...lqr.matrices import symmetric
from ...rl import sac
from ...rl.actors import Feedback, FeedbackNetwork, GaussianNetwork
from ...rl.actors.gaussian import LOG_STD_MAX, LOG_STD_MIN
from ...rl.critics.mlp import MLP, MLPCriticState

KEYS = "gain", "covariance", "cost_matrix"  # the last is there in what `Design.to_json` writes


class Controller(NamedTuple):
    """The input −K s + L u."""

    gain: Float[np.ndarray, "d n"]
    covariance: Float[np.ndarray, "d d"] | None
    """None: not known, and u begins as wide as inputs do without a gain."""

    @property
    def root(self) -> Float[np.ndarray, "d d"]:
        """L, lower triangular; the identity where Σ is not known."""
        return np.eye(len(self.gain)) if self.covariance is None else np.linalg.cholesky(self.covariance)


def read(path: Path, lqr: LQR) -> Controller:
    """Read a controller of a plant from a file of its gain and covariance, or one that `Design.to_json` wrote.

    A `ValueError` says, with the file's name, that it is no such file, or the controller does not stabilise the plant.
    """
    given = checks.json_object(path)
    try:
        given = given["design"] if isinstance(given.get("design"), dict) else given
        return of(given, lqr)
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from None


def of(given: dict[str, Any], lqr: LQR) -> Controller:
    """Return the controller of a document, see `read`."""
    for key in given:
        checks.choice("key", key, KEYS)
    if "gain" not in given:
        raise checks.error("controller", "no gain", "a gain, and a covariance if there is one", "add the gain")
    gain, covariance = lqr.checked_gain(given["gain"]), given.get("covariance")
    if covariance is not None:
        covariance = checks.finite_array("covariance", covariance, lqr.R.shape, "one row per input")
        covariance = symmetric("covariance", covariance, definite=True)
    return Controller(gain, covariance)


def document(controller: Controller) -> dict[str, Any]:
    """Return what `of` reads."""
    return {key: None if part is None else part.tolist() for key, part in controller._asdict().items()}


def about(
    plant: LQREnv, controller: Controller, state: Float[np.ndarray, " n"], action: Float[np.ndarray, " d"]
) -> LQREnv:
    """Return a plant, its states in given units, as u sees it: what counts as one of each state and of each u."""
    gain, root = controller.gain * state, controller.root * action
    parts = [jnp.asarray(part, jnp.float32) for part in (gain, root)]
    return eqx.tree_at(lambda env: (env.gain, env.root), plant, parts, is_leaf=lambda leaf: leaf is None)


def at_rest(agent: sac.State) -> sac.State:
    """Return an agent whose policy is N(0, scale²) exactly: the last layers give nothing, and can learn."""

    def rest(network: VelocityNetwork | GaussianNetwork) -> Any:
        if isinstance(network, GaussianNetwork):
            last = network.layers[-1]
            raw = np.arctanh(-2 * LOG_STD_MIN / (LOG_STD_MAX - LOG_STD_MIN) - 1)  # where the squashed log σ is zero
            bias = jnp.repeat(jnp.asarray([0.0, raw], jnp.float32), last.weight.shape[0] // 2)
            where = lambda tree: (tree.layers[-1].weight, tree.layers[-1].bias)  # noqa: E731
            return eqx.tree_at(where, network, (0 * last.weight, bias))
        d = network.action_size
        zero = lambda leaf: leaf.at[-2 * d :].set(0.0)  # noqa: E731
        shift = lambda leaf: leaf.at[-2 * d :: 2].set(0.0)  # noqa: E731  (zero times zero would never learn)
        state, time = network.state_layers[-1], network.time_layers[-1]
        made = 0 * network.last.weight, jax.tree.map(zero, state), jax.tree.map(shift, time)
        return eqx.tree_at(lambda tree: (tree.last.weight, tree.state_layers[-1], tree.time_layers[-1]), network, made)

    return dataclasses.replace(agent, actor=rest(agent.actor), actor_average=rest(agent.actor_average))


def unwrapped(config: sac.Config, agent: sac.State, controller: Controller) -> tuple[sac.Config, sac.State]:
    """Return an agent that chooses u, in the plant's units, as one that chooses the plant's input."""
    gain, root = (jnp.asarray(part, jnp.float32) for part in (controller.gain, controller.root))
    config = dataclasses.replace(config, actor=Feedback.of(config.actor))
    critic = cast(MLPCriticState, agent.critic)
    inverse, obs, action = jnp.linalg.inv(root), critic.obs_units, critic.action_units

    def of_input(q: MLP) -> MLP:  # what was linear in u is linear in a and s, as u = L⁻¹ (a + K s)
        first, n = q.layers[0], obs.mean.shape[0]
        assert first.bias is not None
        slope = first.weight[:, n:] / action.scale[None] @ inverse
        weight = jnp.concatenate([first.weight[:, :n] + slope @ gain * obs.scale[None], slope * action.scale[None]], 1)
        bias = first.bias + slope @ (action.mean + gain @ obs.mean - root @ action.mean)
        return eqx.tree_at(lambda mlp: (mlp.layers[0].weight, mlp.layers[0].bias), q, (weight, bias))

    networks = [FeedbackNetwork(inner, gain, root) for inner in (agent.actor, agent.actor_average)]
    critic = dataclasses.replace(critic, q=jax.vmap(of_input)(critic.q), q_target=jax.vmap(of_input)(critic.q_target))
    fresh = sac.actor_optimiser(config).init(cast(Any, networks[0]))
    found = dataclasses.replace(
        agent, actor=networks[0], actor_average=networks[1], critic=critic, actor_optimiser=fresh
    )
    return config, found
