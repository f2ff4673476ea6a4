"""ISFM alone, in one line: a flow whose density is exp(q/α)/Z, for any q of points.

found = isfm.fit(lambda x: -jnp.sum(x**2), dim=2)
found.sample(1000), found.log_prob([0.0, 0.0]), found.plot()
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from rich.console import Console

from .. import checks
from ..compiling import waiting
from ..flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from .improvement import FitConfig, FitMetrics, improve

SEGMENTS = 32  # of a path from noise to a point
LEAST_ESS = 0.05  # below which a fit is said to have failed
SOLVER = RungeKutta("rk4", 16)
OBS = np.zeros(1, np.float32)  # the one state


@dataclass(frozen=True)
class Fitted:
    """A flow that was fitted to exp(q/α)/Z.

    Attributes:
        policy: the flow.
        metrics: what every step of the fit told, ESS/N among it.
        log_target: q/α, a function of a point.
    """

    policy: FlowPolicy
    metrics: FitMetrics
    log_target: Callable[[Float[Array, " d"]], Float[Array, ""]]

    @property
    def dim(self) -> int:
        """Number of components d of a point."""
        return self.policy.action_space.size

    def __repr__(self) -> str:
        """Say what it is, and how the fit ended."""
        return f"<Fitted(dim={self.dim}): {len(self.metrics.loss)} steps, ESS/N {self.metrics.diagnostics.ess[-1]:.3f}>"

    def sample(self, n: int = 1, seed: int = 0) -> Float[np.ndarray, "n d"]:
        """Draw points, the ends of `paths`; the same arguments give the same ones, see `Fitted.paths`."""
        return self.paths(n, seed)[:, -1]

    def log_prob(self, points: ArrayLike) -> Float[np.ndarray, "..."]:
        """Return the log-density at points of shape (..., d); another shape is a `ValueError`."""
        points = np.asarray(points, np.float32)
        if points.shape[-1:] != (self.dim,):
            remedy = "pass one, or several one below the other"
            raise checks.error("points", f"shape {points.shape}", f"numbers of shape (…, {self.dim})", remedy)
        return np.asarray(_log_probs(self.policy, jnp.asarray(points.reshape(-1, self.dim)))).reshape(points.shape[:-1])

    def plot(self, n: int = 1000, seed: int = 0) -> Any:
        """Draw target, learned density, samples, and the paths on which the flow carries noise, see `Fitted.paths`.

        Notebooks show the Matplotlib figure, and scripts `.savefig` it; points have one or two components.
        """
        from .density_figure import draw  # brings Matplotlib

        if self.dim > 2:
            raise checks.error("plot", f"points of {self.dim} components", "one or two", "plot their pairs")
        return draw(self.log_prob, jax.vmap(self.log_target), self.paths(n, seed))

    def paths(self, n: int = 1, seed: int = 0) -> Float[np.ndarray, "n times d"]:
        """Return points at equal times of the flow, on their way from noise to the points of `sample`.

        Args:
            n: number of points.
            seed: seed of the random numbers.

        Returns:
            The paths.

        Raises:
            ValueError: for a number that is none.
        """
        keys = jax.random.split(jax.random.key(checks.seed("seed", seed)), checks.positive_int("n", n))
        return np.asarray(_paths_of(self.policy, keys))


def fit(
    q: Callable[[Float[Array, " d"]], Float[Array, ""]],
    dim: int,
    *,
    temperature: float = 1.0,
    steps: int = 1000,
    scale: float = 1.0,
    seed: int = 0,
) -> Fitted:
    """Fit a flow to exp(q/α)/Z.

    Args:
        q: a function of a point, shape (d,), that JAX can trace; its value is one number. Constants in it cancel.
        dim: number of components d.
        temperature: α.
        steps: gradient steps.
        scale: how far from the origin the mass is, roughly: the flow starts as a normal distribution that wide.
        seed: seed of everything random.

    Returns:
        The flow, with `.sample`, `.log_prob` and `.plot`.

    Raises:
        ValueError: in one sentence, if q does not give one number for a point of that shape, or gives one that is not
            finite, or for an argument that is not possible.
    """
    dim, temperature = checks.positive_int("dim", dim), checks.positive_number("temperature", temperature)
    scale, point = checks.positive_number("scale", scale), jax.ShapeDtypeStruct((dim,), jnp.float32)
    remedy = "return for example jnp.sum(…), or pass another dim"
    try:
        given = f"values of shape {(shape := getattr(jax.eval_shape(q, point), 'shape', None))}"
    except jax.errors.JAXTypeError:
        shape, given = None, "what needs the numbers themselves (an `if`, NumPy, SciPy or math)"
        remedy = "write it with jax.numpy and jax.scipy, and jnp.where in the place of `if`"
    except (TypeError, ValueError, IndexError) as problem:
        shape, given = None, f"what fails ({' '.join(str(problem).split())[:200]})"
    if shape != ():
        raise checks.error("q", f"{given} at a point of shape ({dim},)", "one number, of shape ()", remedy)
    velocity_key, key = jax.random.split(jax.random.key(checks.seed("seed", seed)))
    velocity = VelocityNetwork(obs_size=1, action_size=dim, width=64, key=velocity_key)
    policy = FlowPolicy(velocity, Unbounded(dim, scale=scale))
    q_function = lambda _, action: jnp.asarray(q(action), action.dtype)  # noqa: E731
    one_state = lambda _: jnp.zeros((1, 1))  # noqa: E731
    config, shown = FitConfig(steps=steps), Console()
    with waiting(f"fitting the flow in {steps} steps", shown):
        policy, metrics = improve(config, policy, key, one_state, q_function, temperature)
    ess = float(np.mean(metrics.diagnostics.ess[-max(1, steps // 10) :]))
    if ess < LEAST_ESS:
        remedy = (
            "look whether q has the right sign and exp(q/α) a finite integral, then pass more steps or another scale"
        )
        warnings.warn(f"the flow is far from exp(q/α)/Z, ESS/N is {ess:.2g}: {remedy}", stacklevel=2)
    return Fitted(policy.with_solver(SOLVER), metrics, lambda x: q(x) / temperature)


@eqx.filter_jit
def _log_probs(policy: FlowPolicy, points: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jax.vmap(policy.log_prob, (None, 0))(jnp.asarray(OBS), points)


@eqx.filter_jit
def _paths_of(policy: FlowPolicy, keys: Array) -> Float[Array, "n times d"]:
    """Carry noise to points, and return where it is on the way, each piece by one Runge–Kutta step."""
    velocity = functools.partial(policy.velocity, context=policy.condition(jnp.asarray(OBS)))
    piece, h = RungeKutta("rk4", 1), 1 / SEGMENTS

    def advance(x: Array, time: Array) -> tuple[Array, Array]:
        x = piece.solve(lambda x, part: h * velocity(x, time + h * part), x)
        return x, x

    def path(key: Array) -> Array:
        noise = jax.random.normal(key, policy.noise_shape)
        later = jax.lax.scan(advance, noise, jnp.arange(SEGMENTS, dtype=noise.dtype) * h)[1]
        return jax.vmap(policy.action_space.to_action)(jnp.concatenate([noise[None], later]))

    return jax.vmap(path)(keys)
