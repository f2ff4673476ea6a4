"""Velocity networks v_θ(x, τ, s): deep in the state and the flow time, two layers deep in the point x.

As a function of x alone the network is v = W3 σ(g2 ∘ (W2 σ(g1 ∘ W1 x + c1)) + c2) + c3, where the shifts c and
the gains g depend on (s, τ). Its divergence then has a closed form that costs one more matrix product, whatever the
action dimension:

    tr ∂v/∂x = (g1 ∘ σ'(z1))ᵀ ( W2ᵀ ∘ (W1 W3) ) (g2 ∘ σ'(z2)),    z1, z2 the arguments of σ.

The conditioning is as deep as wanted, since it is shared: its state part is computed once per state (`condition`),
its time part once per flow time, and the matrix W2ᵀ ∘ (W1 W3) once per set of parameters.
What the functions have in common:

Args:
    x: the point, shape (d,).
    time: flow time τ, shape ().
    context: what `condition` returns for the state s.
    velocity: a velocity field.
    sizes: numbers of inputs of a perceptron, of each hidden layer and of outputs.
    key: random key; of the initial parameters, or of what is random along a trajectory.

Returns:
    The velocity at the point, shape (d,), or what else they say.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..checks import error, positive_int

VelocityAndDivergence = Callable[[Array, Array], tuple[Array, Array]]

TIME_FREQUENCIES = 3
TIME_WIDTH = 32
OUTPUT_SCALE = 0.01  # of the initial output layers: the flow starts close to the identity


@runtime_checkable
class VelocityField(Protocol):
    """What `FlowPolicy` asks of a velocity field: `VelocityNetwork`, or one of the user's own.

    A field of one's own needs no `with_divergence`: give the policy one of the estimators of
    `entroflow.flow.divergence` instead of the closed form.

    Attributes:
        obs_size: number of components n of the observation.
        action_size: number of components d of the action and of x.
    """

    obs_size: int
    action_size: int

    def condition(self, obs: Float[Array, " n"]) -> Any:
        """Compute what depends on the state only, once per state."""
        ...

    def __call__(self, x: Float[Array, " d"], time: Float[Array, ""], context: Any) -> Float[Array, " d"]:
        """Return the velocity at the point x and the flow time."""
        ...


class Context(NamedTuple):
    """What a `VelocityNetwork` shares between all points and flow times of one state.

    Attributes:
        shift: what the state adds to c1, g1, c2, g2 and c3.
        gain: what it multiplies the time's part of them by.
        trace_matrix: W2ᵀ ∘ (W1 W3).
    """

    shift: Float[Array, " 4h+d"]
    gain: Float[Array, " 4h+d"]
    trace_matrix: Float[Array, "h h"]


class VelocityNetwork(eqx.Module):
    """A velocity network with a closed-form divergence; every leaf is an array.

    Args:
        obs_size: number of components of the (normalised) observation s.
        action_size: number of components d of the action and of x.
        width: width h of the two layers in x.
        depth: number of hidden layers that read the state.
        state_width: width of these, which cost once per state; h if not given.
        key: random key of the initial parameters.

    Raises:
        ValueError: if a size is below one.

    Example:
        >>> field = VelocityNetwork(obs_size=3, action_size=2, width=8, depth=1, key=jax.random.key(0))
        >>> x, time, context = jnp.zeros(2), jnp.array(0.5), field.condition(jnp.ones(3))
        >>> velocity, divergence = field.with_divergence(x, time, context)
        >>> velocity.shape, divergence.shape
        ((2,), ())
    """

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    last: eqx.nn.Linear
    state_layers: tuple[eqx.nn.Linear, ...]
    time_layers: tuple[eqx.nn.Linear, ...]
    obs_size: int = eqx.field(static=True)
    action_size: int = eqx.field(static=True)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        *,
        width: int = 64,
        depth: int = 2,
        state_width: int | None = None,
        key: PRNGKeyArray,
    ):
        state_width = width if state_width is None else state_width
        sizes = {"obs_size": obs_size, "action_size": action_size, "width": width, "depth": depth}
        for name, value in {**sizes, "state_width": state_width}.items():
            positive_int(name, value)
        x_key, state_key, time_key = jax.random.split(key, 3)
        first_key, second_key, last_key = jax.random.split(x_key, 3)
        self.first = eqx.nn.Linear(action_size, width, use_bias=False, key=first_key)
        self.second = eqx.nn.Linear(width, width, use_bias=False, key=second_key)
        self.last = _shrink(eqx.nn.Linear(width, action_size, use_bias=False, key=last_key), action_size)
        # Both conditioners end in a (shift, gain) pair for every component of c1, g1, c2, g2, c3; c3 starts small.
        pairs = 2 * (4 * width + action_size)
        *state_layers, state_pairs = linear_layers((obs_size, *[state_width] * depth, pairs), state_key)
        *time_layers, time_pairs = linear_layers((2 * TIME_FREQUENCIES + 1, TIME_WIDTH, pairs), time_key)
        self.state_layers = (*state_layers, _shrink(state_pairs, 2 * action_size))
        self.time_layers = (*time_layers, _shrink(time_pairs, 2 * action_size))
        self.obs_size = obs_size
        self.action_size = action_size

    def condition(self, obs: Float[Array, " n"]) -> Context:
        """Compute what all points and flow times of one state share.

        The trace matrix depends on the parameters only: under `vmap` over states it stays one matrix as long as the
        context does not leave the mapped function.
        """
        shift, gain = _pairs(self.state_layers, obs)
        return Context(shift, gain, self.second.weight.T * (self.first.weight @ self.last.weight))

    def __call__(self, x: Float[Array, " d"], time: Float[Array, ""], context: Context) -> Float[Array, " d"]:
        """Return v_θ(x, τ, s), with shape (d,)."""
        c1, g1, c2, g2, c3 = self._modulate(time, context)
        hidden = jax.nn.silu(g1 * (x @ self.first.weight.T) + c1)
        hidden = jax.nn.silu(g2 * (hidden @ self.second.weight.T) + c2)
        return hidden @ self.last.weight.T + c3

    def with_divergence(
        self, x: Float[Array, " d"], time: Float[Array, ""], context: Context
    ) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        """Return v_θ(x, τ, s), shape (d,), and its divergence tr ∂v/∂x in closed form, shape ()."""
        c1, g1, c2, g2, c3 = self._modulate(time, context)
        hidden, slope1 = _silu_with_slope(g1 * (x @ self.first.weight.T) + c1)
        hidden, slope2 = _silu_with_slope(g2 * (hidden @ self.second.weight.T) + c2)
        divergence = jnp.dot((g1 * slope1) @ context.trace_matrix, g2 * slope2)
        return hidden @ self.last.weight.T + c3, divergence

    def _modulate(self, time: Float[Array, ""], context: Context) -> list[Array]:
        """Join the state's and the time's parts, by sum and product, into c1, g1, c2, g2, c3."""
        shift, gain = _pairs(self.time_layers, _time_features(time))
        joined = context.shift + shift + context.gain * gain
        c1, g1, c2, g2, c3 = jnp.split(joined, self.second.weight.shape[0] * np.arange(1, 5))
        return [c1, 1 + g1, c2, 1 + g2, c3]


@dataclass(frozen=True)
class ClosedForm:
    """The velocity field's own formula, `velocity.with_divergence`."""

    def __call__(self, velocity: VelocityField, context: Any, key: PRNGKeyArray | None) -> VelocityAndDivergence:
        """Return the velocity field's own method."""
        del key
        with_divergence = getattr(velocity, "with_divergence", None)
        if with_divergence is None:
            remedy = "give the policy divergence=ExactJVP() or divergence=Hutchinson()"
            raise error("velocity", type(velocity).__name__, "a field with a method with_divergence", remedy)
        return functools.partial(with_divergence, context=context)


def _time_features(time: Float[Array, ""]) -> Float[Array, " k"]:
    """Smooth features of the flow time: τ and the first sines and cosines of πτ."""
    angles = time * jnp.arange(1, TIME_FREQUENCIES + 1, dtype=time.dtype) * jnp.pi
    return jnp.concatenate([time[None], jnp.sin(angles), jnp.cos(angles)])


def _silu_with_slope(z: Float[Array, " h"]) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
    """Return silu(z) = z S(z) and its derivative S + z S (1 − S) from one evaluation of the sigmoid S."""
    sigmoid = jax.nn.sigmoid(z)
    value = z * sigmoid
    return value, sigmoid + value * (1 - sigmoid)


def linear_layers(sizes: tuple[int, ...], key: PRNGKeyArray) -> tuple[eqx.nn.Linear, ...]:
    """Make the layers of a perceptron."""
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(eqx.nn.Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))


def _shrink(layer: eqx.nn.Linear, rows: int) -> eqx.nn.Linear:
    """Scale a layer's last rows down, so that the outputs that they compute start near zero."""
    return jax.tree.map(lambda leaf: leaf.at[-rows:].multiply(OUTPUT_SCALE), layer)


def _pairs(layers: tuple[eqx.nn.Linear, ...], x: Float[Array, " i"]) -> tuple[Float[Array, " o"], Float[Array, " o"]]:
    """Return what a conditioner, whose outputs alternate, adds to the shifts and to the gains of c1, g1, c2, g2, c3."""
    # The rows of the last layer are told apart, not its outputs, which are read many times over: once for every point.
    *hidden, last = layers
    for layer in hidden:
        x = jax.nn.silu(layer(x))
    assert last.bias is not None
    return last.weight[0::2] @ x + last.bias[0::2], last.weight[1::2] @ x + last.bias[1::2]
