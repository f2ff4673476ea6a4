"""Critics: perceptrons that learn Q(s, a) and V(s), in units that follow the data."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ..moments import Moments


class Critic(eqx.Module):
    """A perceptron from a normalised input (s, or s and a joined) to a normalised value.

    Its activations are smooth, since the policy follows the critic's curvature: exp(Q/α) is only as right as Q is
    over the policy's width.

    Args:
        input_size: number of inputs i.
        width: width of each hidden layer.
        depth: number of hidden layers.
        layer_norm: whether to normalise each hidden layer before its activation, which keeps Q from growing without
            bounds where there are no data (Ball et al. 2023).
        key: random key of the initial parameters.
    """

    layers: tuple[eqx.nn.Linear, ...]
    layer_norm: bool = eqx.field(static=True)

    def __init__(self, input_size: int, *, width: int, depth: int, layer_norm: bool = False, key: PRNGKeyArray):
        self.layer_norm = layer_norm
        sizes = (input_size, *[width] * depth, 1)
        keys = jax.random.split(key, depth + 1)
        self.layers = tuple(eqx.nn.Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, ""]:
        """Return the value, normalised, shape ()."""
        for layer in self.layers[:-1]:
            x = _affine(layer, x)
            x = jax.nn.silu(jax.nn.standardize(x) if self.layer_norm else x)
        return _affine(self.layers[-1], x)[0]

    def change_units(self, inputs: tuple[Moments, Moments], outputs: tuple[Moments, Moments]) -> "Critic":
        """Return the critic that is the same function as before when its units change from old to new.

        Only the first and the last layer change, so that nothing jumps while the units follow the data (Pop-Art, van
        Hasselt et al. 2016, for inputs as well as outputs).

        Args:
            inputs: old and new moments of the input.
            outputs: old and new moments of the value.
        """
        (old, new), (old_value, new_value) = inputs, outputs
        first, last = self.layers[0], self.layers[-1]
        assert first.bias is not None and last.bias is not None
        ratio = old_value.scale / new_value.scale
        return eqx.tree_at(
            lambda critic: [
                critic.layers[0].bias,
                critic.layers[0].weight,
                critic.layers[-1].weight,
                critic.layers[-1].bias,
            ],
            self,
            [
                first.bias + first.weight @ ((new.mean - old.mean) / old.scale),
                first.weight * (new.scale / old.scale)[None],
                ratio * last.weight,
                ratio * last.bias + (old_value.mean - new_value.mean) / new_value.scale,
            ],
        )


def _affine(layer: eqx.nn.Linear, x: Float[Array, " i"]) -> Float[Array, " o"]:
    """Return W x + b, written so that under `vmap` the batch axis leads, which is faster."""
    assert layer.bias is not None
    return x @ layer.weight.T + layer.bias
