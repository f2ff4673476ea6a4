"""Soft policy iteration in a finite world: the start, exact trajectory on a grid, and the flow's distance from it."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure

from entroflow.flow import Box, FlowPolicy, RungeKutta, VelocityNetwork
from entroflow.isfm import FitConfig, UniformProposal

from .figures import Shown, policies_figure
from .rooms import Rooms, Weighted

ITERATIONS_SHOWN = 4
POINTS = 2048  # actions of a flow policy in every room
SOLVER = RungeKutta("rk4", 16)


class Pushed(NamedTuple):
    """Actions of a flow policy in every room, for equal shares of its noise, log-densities beside them: (k, S)."""

    actions: Any
    log_probs: Any


class Exact(NamedTuple):
    """One iterate of the exact trajectory: π = exp(Q/α)/Z for the Q of `parameters`, and the soft value of π."""

    parameters: Float[np.ndarray, " s"]
    values: Float[np.ndarray, " s"]


class RoomsProblem:
    """The five rooms. The parameters that determine a policy's soft Q are its values."""

    # Uniform candidates reach every mode, need no density of the policy, and cost no integration.
    config = FitConfig(steps=1000, candidates=128, pairs=2, ess_floor=0.0, target="posterior")
    name, description = "rooms", "5 rooms in a circle, one bounded action"
    shown = (
        Shown("total variation", "total_variation", "exact_to_optimum"),
        Shown("value", "value_error", "exact_value_to_optimum"),
    )

    def __init__(self, rooms: Rooms):
        self.rooms = rooms
        quantiles = (np.arange(POINTS) + 0.5) / POINTS
        self.points = jnp.asarray(scipy.stats.norm.ppf(quantiles)[:, None], jnp.float32)

    def document(self) -> dict[str, Any]:
        """Return what results.json says about the problem."""
        return {"system": {"name": self.name} | dataclasses.asdict(self.rooms), "solver": dataclasses.asdict(SOLVER)}

    # --- exact ----------------------------------------------------------------------------------------------------

    def start_parameters(self, temperature: float) -> Float[np.ndarray, " s"]:
        """Return values whose improved policy is π_0: a policy that takes comfort for its opposite."""
        del temperature
        return -np.array(self.rooms.comfort) / (1 - self.rooms.discount) / 2

    def exact(self, temperature: float, iterations: int) -> list[Exact]:
        """Return the exact trajectory π_0, …, π_iterations by quadrature."""
        trajectory, parameters = [], self.start_parameters(temperature)
        for _ in range(iterations + 1):
            values = self.rooms.evaluate(self.rooms.improved(parameters, temperature), temperature)
            trajectory.append(Exact(parameters, values))
            parameters = values
        return trajectory

    # --- flow policies --------------------------------------------------------------------------------------------

    def units(self, temperature: float) -> dict[str, Any]:
        """Return the units of states and actions: none are needed."""
        del temperature
        return {}

    def policy(self, key: PRNGKeyArray, units: dict[str, Array]) -> FlowPolicy:
        """Return an untrained flow policy, which sees the room as a one-hot vector."""
        del units
        velocity = VelocityNetwork(self.rooms.size, 1, width=32, depth=1, key=key)
        return FlowPolicy(velocity, Box(-jnp.ones(1), jnp.ones(1)), solver=SOLVER)

    def propose(self, policy: FlowPolicy) -> UniformProposal:
        """Return where candidates come from."""
        return UniformProposal(policy.action_space)

    def observe(self, policy: FlowPolicy, key: PRNGKeyArray) -> Float[Array, "s s"]:
        """Return all rooms."""
        del policy, key
        return jnp.eye(self.rooms.size)

    def q(self, parameters: Float[Array, " s"], obs: Float[Array, " s"], action: Float[Array, "1"]) -> Array:
        """Return Q(s, a)."""
        return self.rooms.q(parameters, action) @ obs

    def measure(self, policy: FlowPolicy) -> Pushed:
        """Return what is known of a flow policy."""
        actions, log_probs = push_all(policy, jnp.eye(self.rooms.size), self.points)
        return Pushed(actions[:, :, 0], log_probs)

    def evaluate(self, measured: Pushed, temperature: float) -> Float[np.ndarray, " s"]:
        """Return the values of a flow policy, which determine its soft Q."""
        weights = np.full_like(measured.actions, 1 / len(measured.actions))
        return self.rooms.evaluate(Weighted(measured.actions, weights, measured.log_probs), temperature)

    # --- comparison -----------------------------------------------------------------------------------------------

    def compare(
        self, temperature: float, measured: Pushed, exact: Exact, previous: Pushed | None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Compare a flow with the exact policy of the same iteration; return numbers, and what else is worth keeping.

        Total variations and divergences are of the worst room; errors of the value, too, in units of the difference
        between the best and the worst room's optimal value.
        """
        values, optimum = self.evaluate(measured, temperature), self.rooms.optimal(temperature)
        target = exact.parameters if previous is None else self.evaluate(previous, temperature)
        variations = self._variations(temperature, measured, exact.parameters)
        numbers = {
            "total_variation": variations.max(),
            "kl": self._divergences(temperature, measured, exact.parameters).max(),
            "value_error": np.abs(values - exact.values).max() / np.ptp(optimum),
            "step_total_variation": self._variations(temperature, measured, target).max(),
            "total_variation_to_optimum": self._variations(temperature, measured, optimum).max(),
            "exact_to_optimum": self._exact_variations(temperature, exact.parameters, optimum).max(),
            "value_to_optimum": np.abs(values - optimum).max() / np.ptp(optimum),
            "exact_value_to_optimum": np.abs(exact.values - optimum).max() / np.ptp(optimum),
        }
        kept = {"values": values, "exact_values": exact.values, "total_variation_by_room": variations}
        return {name: float(value) for name, value in numbers.items()}, kept

    def _variations(self, temperature: float, pushed: Pushed, parameters: Float[np.ndarray, " s"]) -> Any:
        """Return ½ ∫ |π − p| = E_π[(1 − p/π)⁺] in every room, p the policy exp(Q/α)/Z."""
        ratio = np.exp(self.rooms.log_prob(parameters, temperature, pushed.actions) - pushed.log_probs)
        return np.maximum(1 - ratio, 0).mean(axis=0)

    def _divergences(self, temperature: float, pushed: Pushed, parameters: Float[np.ndarray, " s"]) -> Any:
        """Return KL(π‖p) in every room."""
        return np.mean(pushed.log_probs - self.rooms.log_prob(parameters, temperature, pushed.actions), axis=0)

    def _exact_variations(
        self, temperature: float, first: Float[np.ndarray, " s"], second: Float[np.ndarray, " s"]
    ) -> Any:
        """Return the total variation between two policies exp(Q/α)/Z in every room."""
        policy = self.rooms.improved(first, temperature)
        ratio = np.exp(self.rooms.log_prob(second, temperature, policy.actions) - policy.log_probs)
        return np.sum(policy.weights * np.maximum(1 - ratio, 0), axis=0)

    def picture(self, measured: Pushed) -> Pushed:
        """Return what `figures` needs of a policy beyond its record: its actions with their densities."""
        return measured

    def figures(self, iterates: list[dict[str, Any]], pictures: list[list[Any]]) -> Iterator[tuple[str, Figure]]:
        """Draw the first policies of every temperature."""
        grid = np.linspace(-1, 1, 401)
        for i, temperature in enumerate(dict.fromkeys(row["alpha"] for row in iterates)):
            flows = [(np.array(part[i][0]), np.array(part[i][1])) for part in pictures[:ITERATIONS_SHOWN]]
            exact = self.exact(temperature, len(flows) - 1)
            log_probs = [self.rooms.log_prob(part.parameters, temperature, grid[:, None]) for part in exact]
            title = f"soft policy iteration: {self.name}, α = {temperature:g}"
            yield f"policies_alpha{temperature:g}", policies_figure(title, flows, log_probs, grid)


def push_all(
    policy: FlowPolicy, states: Float[Array, "s n"], points: Float[Array, "k d"]
) -> tuple[Float[Array, "k s d"], Float[Array, "k s"]]:
    """Return the actions that the noise points are carried to at every state, and their log-densities.

    With points that stand for equal shares of N(0, I) it is a quadrature rule for means over the policy.
    """
    at_states = jax.vmap(policy.push_and_log_prob, in_axes=(0, None))
    return jax.vmap(at_states, in_axes=(None, 0))(states, points)
