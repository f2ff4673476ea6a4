"""A critic with what the record holders' critics have, each part with its switch, behind the package's seam.

- A distribution on `atoms` in place of a number, learned by cross-entropy: of a target y, its histogram after Gaussian
  smoothing (HL-Gauss, Farebrother et al. 2024), or of the whole next distribution, its projection (C51, Bellemare et
  al. 2017). Q is its mean. The atoms are numbers of the return, rewards and entropy together, so that α means what it
  meant. Or they lie in units that follow the targets (`support=None`), which fails: as the units move, so does every
  Q, that of the targets, too, and only (1 − γ) of it is ever seen as an error.
- Batch normalisation with one pass for (s, a) and (s', a') together, with target networks or without (CrossQ, Bhatt et
  al. 2024), with rows of weights of norm one (XQC, Palenicek et al. 2025). What candidates are judged by are running
  statistics, which replay actions and the targets' actions alone move.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from entroflow import optimise
from entroflow.fields import Count, Positive, Share, check_fields
from entroflow.moments import Moments, forgetting_rate, join, standard
from entroflow.rl import Experience

SPAN = 5.0  # atoms in units that follow the targets reach from −SPAN to SPAN of them
FIRST_WIDTH = 0.05  # deviation of the first distribution, about a return of zero, in widths of the support
SMOOTHING = 0.75  # standard deviation of HL-Gauss in widths of a bin
FORGETS = 0.01  # rate at which running statistics of batches follow
SMALLEST = 1e-5  # added to variances of batches
Statistics = list[tuple[Array, Array]]  # mean and variance in front of every layer


class Network(eqx.Module):
    """A perceptron for batches, with layer or batch normalisation in front of its activations."""

    layers: tuple[eqx.nn.Linear, ...]
    affine: tuple[tuple[Array, Array], ...]  # gains and shifts after batch normalisation
    batch_norm: bool = eqx.field(static=True)

    def __init__(self, sizes: tuple[int, ...], batch_norm: bool, key: Array):
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(eqx.nn.Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))
        self.affine = tuple((jnp.ones(size), jnp.zeros(size)) for size in sizes[1:-1]) if batch_norm else ()
        self.batch_norm = batch_norm

    def __call__(self, x: Array, known: Statistics | None = None) -> tuple[Array, Statistics]:
        """Return outputs of a batch, (b, i) to (b, o), and its statistics, which count unless others are `known`."""
        found: Statistics = []

        def normalise(x: Array) -> Array:
            if not self.batch_norm:
                return jax.nn.standardize(x)
            found.append((jnp.mean(x, axis=0), jnp.var(x, axis=0)))
            mean, variance = found[-1] if known is None else known[len(found) - 1]
            return (x - mean[None]) * jax.lax.rsqrt(variance + SMALLEST)[None]

        if self.batch_norm:
            x = normalise(x)
        for i, layer in enumerate(self.layers[:-1]):
            x = normalise(_affine(layer, x))
            x = jax.nn.silu(x * self.affine[i][0][None] + self.affine[i][1][None] if self.batch_norm else x)
        return _affine(self.layers[-1], x), found

    def with_unit_rows(self) -> "Network":
        """Return the network with rows of norm one in front of batch normalisation, which does not see their norm."""
        rows = lambda network: [layer.weight for layer in network.layers[:-1]]  # noqa: E731
        unit = [weight / jnp.linalg.norm(weight, axis=1, keepdims=True) for weight in rows(self)]
        return eqx.tree_at(rows, self, unit)


class State(eqx.Module):
    """What a critic has learned: networks with a leading axis of members, and the units they work in."""

    q: Network
    q_target: Network | None
    statistics: Statistics
    target_statistics: Statistics
    optimiser: optax.OptState
    obs_units: Moments
    action_units: Moments
    value_units: Moments


@dataclass(frozen=True)
class Variant:
    """An `entroflow.rl.Critic`.

    Attributes:
        atoms: number of atoms; one: a number, by squared error.
        support: the first and the last atom; None: in units that follow the targets, as a number's do.
        projection: what the atoms learn of, the "scalar" target (HL-Gauss) or the "distribution" at s' (C51).
        steady: whether the first layer makes up for units of the inputs that move, as the package's critic does.
        norm: normalisation of the hidden layers, "layer" or "batch".
        unit_rows: whether batch normalisation goes with rows of weights of norm one.
        targets: whether batch normalisation has target networks, too; layer normalisation always has.
        width: width of each hidden layer.
        depth: number of hidden layers.
        members: number of networks.
        ensemble: what they say together, "mean" or "min".
        rate: learning rate of Adam.
        momentum: Adam's first one.
        target_rate: rate at which the target networks follow.
    """

    atoms: Count = 101
    support: tuple[float, float] | None = None
    projection: Literal["scalar", "distribution"] = "scalar"
    steady: bool = False
    norm: Literal["layer", "batch"] = "layer"
    unit_rows: bool = True
    targets: bool = False
    width: Count = 256
    depth: Count = 2
    members: Count = 2
    ensemble: Literal["mean", "min"] = "min"
    rate: Positive = 3e-4
    momentum: Share = 0.9
    target_rate: Share = 0.005
    learns_v: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def places(self) -> Array:
        """The atoms, in units of the values."""
        return jnp.linspace(-SPAN, SPAN, self.atoms)

    @property
    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.rate, b1=self.momentum)

    def init(self, keys: Array, obs_units: Moments, action_size: int, updates: int | None) -> State:
        """Make the state of a critic that has learned nothing."""
        sizes = (obs_units.mean.size + action_size, *[self.width] * self.depth, self.atoms)
        make = lambda key: Network(sizes, self.norm == "batch", key)  # noqa: E731
        q, value_units = eqx.filter_vmap(make)(jax.random.split(keys[0], self.members)), standard()
        if self.support is not None:
            low, high = self.support
            parts = (low + high) / 2, (high - low) / (2 * SPAN)
            value_units = Moments(*(jnp.full_like(value_units.mean, part) for part in parts))
            far = (value_units.restore(self.places) / (FIRST_WIDTH * (high - low))) ** 2
            q = eqx.tree_at(lambda q: q.layers[-1].bias, q, replace_fn=lambda bias: bias - far[None] / 2)
        shapes = [(self.members, size) for size in sizes[:-1]] if self.norm == "batch" else []
        return State(
            q=q,
            q_target=q if self.norm == "layer" or self.targets else None,
            statistics=[(jnp.zeros(shape), jnp.ones(shape)) for shape in shapes],
            target_statistics=[(jnp.zeros(shape), jnp.ones(shape)) for shape in shapes],
            optimiser=self._adam.init(q),
            obs_units=obs_units,
            action_units=standard(action_size),
            value_units=value_units,
        )

    def q(self, state: State, obs: Array, action: Array) -> Array:
        """Return Q(s, a) of the target networks, or of those that there are."""
        if state.q_target is None:
            return self.policy_q(state, obs, action)
        return self._value(state, state.q_target, state.target_statistics, obs, action)

    def policy_q(self, state: State, obs: Array, action: Array) -> Array:
        """Return Q(s, a) of the networks that learn."""
        return self._value(state, state.q, state.statistics, obs, action)

    def update(self, state: State, experience: Experience) -> tuple[State, dict[str, Array]]:
        """Make one gradient step of every network; the units follow after it.

        The metrics are "critic_error", the root mean squared error of the mean in units of the return, "q", the mean
        target, and "outside", the share of targets beyond the atoms.
        """
        units = state.value_units
        inputs = jax.vmap(functools.partial(_inputs, state))(experience.obs, experience.action)
        next_inputs = jax.vmap(functools.partial(_inputs, state))(experience.next_obs, experience.next_action)
        joint = jnp.concatenate([inputs, next_inputs])

        def both(q: Network) -> tuple[Array, Array, Statistics]:
            outputs, statistics = eqx.filter_vmap(lambda network: network(joint))(q)
            now, following = jnp.split(outputs, 2, axis=1)
            return now, following, statistics

        def loss(q: Network) -> tuple[Array, Any]:
            of_targets = state.target_statistics
            if self.norm == "batch":
                outputs, following, statistics = both(q)
                if state.q_target is not None:
                    _, following, of_targets = both(state.q_target)
            else:
                assert state.q_target is not None
                outputs, statistics = eqx.filter_vmap(lambda network: network(inputs))(q)
                following = eqx.filter_vmap(lambda network: network(next_inputs)[0])(state.q_target)
            following = jax.lax.stop_gradient(following)
            targets = experience.target(units.restore(self._joined(self._mean(following))))
            errors = self._mean(outputs) - units.normalise(targets)[None]
            losses = errors**2
            if self.atoms > 1:
                wanted = self._wanted(following, units, experience, targets)
                losses = -jnp.sum(wanted[None] * jax.nn.log_softmax(outputs), axis=-1)
            begun = jnp.where(experience.step > 0, 1.0, 0.0)  # the first batch only tells the units
            return begun * jnp.sum(jnp.mean(losses, axis=1)), (targets, errors, (statistics, of_targets))

        (_, (targets, errors, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(state.q)
        q, optimiser = optimise.descend(self._adam, gradient, state.q, state.optimiser)
        if self.norm == "batch" and self.unit_rows:
            q = jax.vmap(Network.with_unit_rows)(q)
        rate = forgetting_rate(experience.step, jnp.inf)
        metrics = {
            "critic_error": jnp.sqrt(jnp.mean(errors**2)) * units.scale,
            "q": jnp.mean(targets),
            "outside": jnp.mean(jnp.abs(units.normalise(targets)) > SPAN, dtype=targets.dtype),
        }
        q_target = None if state.q_target is None else optimise.follow(state.q_target, q, self.target_rate)
        value_units = units.update(targets, rate) if self.support is None else units
        if self.atoms == 1:  # then what the networks say need not change with their units
            q, q_target = jax.tree.map(
                functools.partial(_in_units, old=units, new=value_units), (q, q_target), is_leaf=_is_network
            )
        action_units = state.action_units.update(experience.action, rate)
        if self.steady:
            old, new = join(state.obs_units, state.action_units), join(experience.obs_units, action_units)
            q, q_target = jax.tree.map(
                functools.partial(_of_units, old=old, new=new), (q, q_target), is_leaf=_is_network
            )
        known = state.statistics, state.target_statistics
        known = optimise.follow(known, statistics, jnp.maximum(FORGETS, 1 / (1 + experience.step)))
        state = dataclasses.replace(
            state,
            q=q,
            q_target=q_target,
            statistics=known[0],
            target_statistics=known[1],
            optimiser=optimiser,
            obs_units=experience.obs_units,
            action_units=action_units,
            value_units=value_units,
        )
        return state, metrics

    def _value(self, state: State, networks: Network, known: Statistics, obs: Array, action: Array) -> Array:
        inputs = _inputs(state, obs, action)[None]
        outputs = eqx.filter_vmap(lambda network, known: network(inputs, known)[0])(networks, known)
        return state.value_units.restore(self._joined(self._mean(outputs))[0])

    def _mean(self, outputs: Array) -> Array:
        """Return the mean of every distribution, (..., atoms) to (...)."""
        return outputs[..., 0] if self.atoms == 1 else jax.nn.softmax(outputs) @ self.places

    def _joined(self, values: Array) -> Array:
        """Return what the members say together, (members, b) to (b,)."""
        return jnp.mean(values, axis=0) if self.ensemble == "mean" else jnp.min(values, axis=0)

    def _wanted(self, following: Array, units: Moments, experience: Experience, targets: Array) -> Array:
        """Return the probabilities of the atoms that are to be learned, shape (b, atoms)."""
        if self.projection == "scalar":
            return hl_gauss(units.normalise(targets), self.places)
        shares = jax.nn.softmax(following)
        if self.ensemble == "mean":
            shares = jnp.mean(shares, axis=0)
        else:
            least = jnp.argmin(self._mean(following), axis=0)
            shares = jnp.take_along_axis(shares, least[None, :, None], axis=0)[0]
        atoms = jnp.broadcast_to(units.restore(self.places)[None], shares.shape)
        return project(units.normalise(jax.vmap(experience.target, 1, 1)(atoms)), shares, self.places)


def hl_gauss(values: Array, support: Array) -> Array:
    """Return the histogram of N(y, σ²) for every value y, σ three quarters of a bin, cut off at the ends.

    Args:
        values: values y, shape (b,).
        support: evenly spaced centres of the bins, shape (atoms,).

    Returns:
        Probabilities, shape (b, atoms).
    """
    width = support[1] - support[0]
    edges = jnp.append(support - width / 2, support[-1] + width / 2)
    values = jnp.clip(values, support[0], support[-1])
    below = jax.scipy.special.ndtr((edges[None] - values[:, None]) / (SMOOTHING * width))
    return jnp.diff(below, axis=1) / (below[:, -1:] - below[:, :1])


def project(values: Array, shares: Array, support: Array) -> Array:
    """Divide the probability of every value among the two atoms beside it, so that the mean stays.

    Args:
        values: values, shape (b, atoms); what lies outside of the support is moved to its end.
        shares: their probabilities, shape (b, atoms).
        support: evenly spaced atoms, shape (atoms,).

    Returns:
        Probabilities of the atoms, shape (b, atoms).
    """
    place = jnp.clip((values - support[0]) / (support[1] - support[0]), 0, support.size - 1)
    low = jnp.minimum(jnp.floor(place), support.size - 2)

    def one(low: Array, high: Array, shares: Array) -> Array:
        return jnp.zeros_like(support).at[low].add(shares * (1 - high)).at[low + 1].add(shares * high)

    return jax.vmap(one)(low.astype(jnp.int32), place - low, shares)


def _inputs(state: State, obs: Array, action: Array) -> Array:
    parts = state.obs_units.normalise(obs), state.action_units.normalise(action)
    return jnp.concatenate(parts)


def _in_units(network: Network, old: Moments, new: Moments) -> Network:
    """Return networks that say the same in new units, through their last layers."""
    last, ratio = network.layers[-1], old.scale / new.scale
    assert last.bias is not None
    parts = ratio * last.weight, ratio * last.bias + (old.mean - new.mean) / new.scale
    return eqx.tree_at(lambda network: (network.layers[-1].weight, network.layers[-1].bias), network, parts)


def _of_units(network: Network, old: Moments, new: Moments) -> Network:
    """Return networks that say the same of inputs in new units, through their first layers."""
    first = network.layers[0]
    assert first.bias is not None
    parts = (
        first.weight * (new.scale / old.scale)[None, None],
        first.bias + first.weight @ ((new.mean - old.mean) / old.scale),
    )
    return eqx.tree_at(lambda network: (network.layers[0].weight, network.layers[0].bias), network, parts)


def _is_network(part: Any) -> bool:
    return isinstance(part, Network)


def _affine(layer: eqx.nn.Linear, x: Array) -> Array:
    assert layer.bias is not None
    return x @ layer.weight.T + layer.bias[None]
