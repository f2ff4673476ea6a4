"""A film: a flow carries noise to a density with four modes, beside the best that a Gaussian can do.

The density is that of the soft-optimal action at the origin of the multi-goal world, exp(Q/α)/Z. The flow is fitted to
it by importance sampling flow matching, with uniform candidates. The Gaussian, squashed by tanh as that of soft
actor-critic, is the one of least KL divergence to it, which is what soft actor-critic minimises.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import scipy.optimize
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from entroflow.flow import Box, FlowPolicy, RungeKutta, VelocityNetwork
from entroflow.isfm import FitConfig, Fitted, UniformProposal, improve
from entroflow.plotting import LEARNED, OTHER, STYLE, new_figure

from .. import frame
from ..multigoal.exact import Solution, World, solve

ALPHA, ORIGIN = 0.5, np.zeros(2)
STEPS, CANDIDATES, WIDTH = 1500, 256, 64
GRID = 100  # points of the density in each direction
POINTS, DPI, COLOURS = 700, 100, 48  # of the film
MILLISECONDS, REST = 70, 25  # of a frame; frames that the last one stays

Density = Float[np.ndarray, "k k"]


def target(solution: Solution) -> Any:
    """Return Q(0, a) as a function that JAX can trace, linear between points of a fine grid."""
    axis = np.linspace(-1, 1, 401)
    actions = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    values = jnp.asarray(solution.q(np.broadcast_to(ORIGIN, actions.shape), actions), jnp.float32)

    def q(_, action):
        place = (action + 1) / 2 * (len(axis) - 1)
        return jax.scipy.ndimage.map_coordinates(values, list(place), order=1, mode="nearest")

    return q


def fit(solution: Solution) -> Fitted:
    """Return the flow."""
    q = target(solution)
    velocity = VelocityNetwork(1, 2, width=WIDTH, key=jax.random.key(0))
    policy = FlowPolicy(velocity, Box(-np.ones(2), np.ones(2)), solver=RungeKutta("rk4", 16))
    config = FitConfig(steps=STEPS, candidates=CANDIDATES, ess_floor=0.0, target="posterior")
    observe = lambda key: jnp.zeros((1, 1))  # noqa: E731
    box = lambda policy, *_: UniformProposal(policy.action_space)  # noqa: E731
    run = jax.jit(lambda policy, key: improve(config, policy, key, observe, q, ALPHA, propose=box))
    policy, metrics = run(policy, jax.random.key(1))
    return Fitted(policy, metrics, lambda x: q(None, x) / ALPHA)


def best_gaussian(solution: Solution) -> tuple[np.ndarray, np.ndarray, float]:
    """Return mean and standard deviation of the latent, and the KL divergence of its tanh to the target.

    By Gauss–Hermite quadrature, from starts at the centre and at a mode.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    noise = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    shares = np.outer(weights, weights) / weights.sum() ** 2
    actions, _ = solution.action_density(ORIGIN, GRID)
    log_z = np.log(4 * np.mean(np.exp(solution.q(np.broadcast_to(ORIGIN, actions.shape), actions) / ALPHA)))

    def divergence(x: np.ndarray) -> float:
        latent = x[:2] + np.exp(x[2:]) * noise
        action = np.tanh(latent)
        log_p = solution.q(np.broadcast_to(ORIGIN, action.shape), action) / ALPHA - log_z
        log_q = gaussian_log_density(latent, x[:2], np.exp(x[2:]))
        return float(np.sum(shares * (log_q - log_p)))

    starts = [0, 0, -0.5, -0.5], [1.5, 0, -1, -1]
    ends = [scipy.optimize.minimize(divergence, start, method="Nelder-Mead") for start in starts]
    best = min(ends, key=lambda end: end.fun)
    return best.x[:2], np.exp(best.x[2:]), float(best.fun)


def gaussian_log_density(latent: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return the log-density of tanh(u) at u = `latent`, (..., 2) to (...), where u is normal with these moments."""
    normal = -0.5 * ((latent - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
    jacobian = 2 * (np.log(2) - latent - np.logaddexp(0, -2 * latent))
    return np.sum(normal - jacobian, axis=-1)


def variation(first: Density, second: Density) -> float:
    """Return the total variation of two densities on midpoints of the box."""
    return float(0.5 * np.abs(first - second).mean() * 4)


def film(path: Any, exact: Density, paths: np.ndarray, gaussian: np.ndarray, titles: list[str]) -> None:
    """Write the film: both sets of points, (n, times, 2), over the exact density."""
    with mpl.rc_context(STYLE):
        figure = new_figure(6.4, 3.7, "")
        panels = figure.subplots(1, 2, sharey=True)
        dots = []
        for ax, title, colour in zip(panels, titles, (LEARNED, OTHER), strict=True):
            ax.imshow(exact.T, origin="lower", extent=(-1, 1, -1, 1), cmap="Greys", vmax=1.8 * exact.max())
            dots += ax.plot([], [], ".", color=colour, markersize=3)
            ax.set(title=title, xlabel="action $a_1$", xticks=(-1, 0, 1), yticks=(-1, 0, 1), xlim=(-1, 1), ylim=(-1, 1))
        panels[0].set_ylabel("action $a_2$")
        figure.suptitle("flow time τ", fontsize=10)
        for _ in range(3):
            image(figure)  # finds the layout, step by step
        figure.set_layout_engine("none")
        images = []
        for k in range(paths.shape[1]):
            figure.suptitle(f"flow time τ = {k / (paths.shape[1] - 1):.2f}", fontsize=10)
            for line, points in zip(dots, (paths, gaussian), strict=True):
                line.set_data(*points[:, k].T)
            images.append(image(figure))
    palette = images[-1].quantize(COLOURS)
    first, *others = [part.quantize(palette=palette, dither=Image.Dither.NONE) for part in images]
    lasting = [MILLISECONDS] * len(others) + [REST * MILLISECONDS]
    first.save(path, save_all=True, append_images=others, duration=lasting, loop=0, optimize=True)


def image(figure: Figure) -> Image.Image:
    """Return a figure as an image."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Fit both, measure both, write film.gif; return results and the table."""
    job.show(0.0, "fitting")
    solution = solve(World(), ALPHA)
    actions, exact = solution.action_density(ORIGIN, GRID)
    fitted = fit(solution)
    log_prob = jax.jit(jax.vmap(fitted.policy.log_prob, (None, 0)))
    learned = np.exp(np.asarray(log_prob(jnp.zeros(1), jnp.asarray(actions.reshape(-1, 2), jnp.float32))))
    mean, sd, divergence = best_gaussian(solution)
    densities = {
        "flow": learned.reshape(exact.shape),
        "Gaussian": np.exp(gaussian_log_density(np.arctanh(actions), mean, sd)),
    }
    found = {name: {"total_variation": variation(density, exact)} for name, density in densities.items()}
    found["Gaussian"] |= {"kl": divergence, "mean": mean, "sd": sd}
    paths = fitted.paths(POINTS)
    times = np.linspace(0, 1, paths.shape[1])[:, None]
    noise = np.random.default_rng(0).standard_normal((POINTS, 1, 2))
    moving = np.tanh((1 - times) * noise + times * (mean + sd * noise))
    names = "flow policy, fitted by ISFM", "the best Gaussian policy"
    titles = [
        f"{name}\ntotal variation {part['total_variation']:.2f}"
        for name, part in zip(names, found.values(), strict=True)
    ]
    film(job.out / "film.gif", exact, paths, moving, titles)
    table = frame.new_table("distance from the exact density", "", ["", "total variation"])
    for name, part in found.items():
        table.add_row(name, f"{part['total_variation']:.3f}")
    return {"settings": {"alpha": ALPHA, "steps": STEPS, "candidates": CANDIDATES}} | found, [table]


main = frame.command("film", lambda _: run)

if __name__ == "__main__":
    sys.exit(main())
