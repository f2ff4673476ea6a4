"""Which levers lower the variance of the ISFM gradient, at what bias, and what fits at equal cost gain from them."""

import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.markdown import Markdown

from entroflow import optimise
from entroflow.flow import FlowPolicy
from entroflow.isfm import FitConfig, improve
from entroflow.plotting import EXACT, LEARNED, OTHER, STYLE, label_logarithmic, legend_below, new_figure, save

from .. import frame
from .levers import LEVERS, TARGETS, Lever, exact_loss, loss, network_calls, new_policy, with_velocity

SIZES = (8, 64)
REPEATS = {8: 512, 64: 128}
EXACT_POINTS, EXACT_BATCHES = 2**12, 32
TIMED_CANDIDATES, TIMED_CALLS = 512, 60
PLAIN = next(iter(LEVERS))
FITS = [
    PLAIN,
    "stratified τ, P = 2",
    "antithetic x_0, P = 2",
    "resampled, P = 2",
    "posterior mean, P = 2",
    "Stein + posterior, P = 1",
    "Stein + posterior + antithetic, P = 2",
]
FIT_CALLS = 500_000  # of the velocity, by every fit
FIT_CANDIDATES, SEEDS, RATE = 64, 4, 1e-2
PHASES = ("early", "late")
LATE = FitConfig(steps=1000, candidates=256, pairs=2, ess_floor=0.3)  # how the late policy is fitted


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Measure gradients, their time, and fits; return results and tables."""
    job.cells, policy = len(SIZES) * (len(LEVERS) + 2 * len(FITS)), new_policy(jax.random.key(0))
    found = {"gradients": gradients(job)}
    milliseconds = {
        name: [job.cell(f"ms: {n} {name}", functools.partial(clock, LEVERS[name], n, policy)) for n in SIZES]
        for name in FITS
    }
    found["fits"] = fits(job)
    rows = compare(found["gradients"])
    text = table(rows, found["fits"], milliseconds)
    job.text("table.md", text)
    save(job.out, "gains", draw(rows))
    return found | {"milliseconds": milliseconds}, [Markdown(text)]


def flat(tree: Any) -> jax.Array:
    """Return all leaves in one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def policies() -> dict[tuple[str, str], FlowPolicy]:
    """Return an untrained policy and one that is fitted to the target, for every target."""

    @jax.jit
    def fitted(target):
        observe = lambda key: jnp.zeros((1, 1))  # noqa: E731
        q = lambda obs, x: target.log_density(x)  # noqa: E731
        return improve(LATE, new_policy(jax.random.key(0)), jax.random.key(1), observe, q, 1.0)[0]

    far = new_policy(jax.random.key(0))
    return {(name, phase): far if phase == "early" else fitted(t) for name, t in TARGETS.items() for phase in PHASES}


def exact_gradients(stands: dict[tuple[str, str], FlowPolicy]) -> dict[tuple[str, str], jax.Array]:
    """Return the exact gradient at every policy."""

    @jax.jit
    def exact(policy, target):
        one = lambda key: flat(jax.grad(exact_loss)(policy, key, target, EXACT_POINTS).velocity)  # noqa: E731
        draws = jax.lax.map(one, jax.random.split(jax.random.key(2), EXACT_BATCHES))
        return jnp.mean(draws, axis=0)

    return {stand: exact(policy, TARGETS[stand[0]]) for stand, policy in stands.items()}


def gradients(job: frame.Job) -> list[frame.Row]:
    """Variance and squared bias of every lever's gradient, at an untrained and at a fitted policy."""
    stands = functools.cache(policies)
    references = functools.cache(lambda: exact_gradients(stands()))
    program = functools.cache(lambda n, pairs, local: jax.jit(functools.partial(moments, Lever(pairs, local), n)))

    def measure(n: int, name: str) -> list[frame.Row]:
        lever, rows = LEVERS[name], []
        flags = jax.tree.map(jnp.asarray, lever.flags)
        for stand, policy in stands().items():
            reference = references()[stand]
            mean, variance = program(n, lever.pairs, lever.local)(policy, TARGETS[stand[0]], flags)
            bias = float(jnp.sum((mean - reference) ** 2) - variance / REPEATS[n])
            rows.append(
                {"target": stand[0], "policy": stand[1], "N": n, "lever": name, "variance": float(variance)}
                | {"bias_squared": bias, "gradient_squared": float(jnp.sum(reference**2))}
                | {"network_calls": network_calls(lever, n)}
            )
        return rows

    found = [job.cell(f"gradients: {n} {name}", functools.partial(measure, n, name)) for n in SIZES for name in LEVERS]
    return [row for rows in found for row in rows]


def compare(rows: Sequence[frame.Row]) -> list[frame.Row]:
    """Relate every lever to the plain estimator, at equal network calls."""
    found = []
    for row in rows:
        plain = next(r for r in rows if r["lever"] == PLAIN and all(r[k] == row[k] for k in ("target", "policy", "N")))
        gain = plain["variance"] * plain["network_calls"] / (row["variance"] * row["network_calls"])
        found.append(row | {"gain_calls": gain, "relative_bias": row["bias_squared"] / plain["variance"]})
    return found


def moments(lever: Lever, n: int, policy, target, flags) -> tuple[jax.Array, jax.Array]:
    """Return the mean of many gradients and their total variance."""
    gradient = lambda key: flat(jax.grad(lambda p: loss(lever, n, p, key, target, flags))(policy).velocity)  # noqa: E731
    shift = gradient(jax.random.key(3))  # of the order of the mean, so that float32 squares do not cancel

    def add(total, keys):
        draws = jax.vmap(gradient)(keys) - shift[None]
        return (total[0] + jnp.sum(draws, axis=0), total[1] + jnp.sum(draws**2, axis=0)), None

    repeats = REPEATS[n]
    keys = jax.random.split(jax.random.key(4), repeats).reshape(-1, 16)
    (first, second), _ = jax.lax.scan(add, (jnp.zeros_like(shift), jnp.zeros_like(shift)), keys)
    mean = first / repeats
    return mean + shift, jnp.sum(second / repeats - mean**2) * repeats / (repeats - 1)


def clock(lever: Lever, n: int, policy) -> float:
    """Return the milliseconds of one gradient at a batch of states, 512 candidates in all: the tenth percentile."""

    @jax.jit
    def gradient(policy, key):
        keys = jax.random.split(key, TIMED_CANDIDATES // n)
        batch = lambda p: jnp.mean(jax.vmap(lambda key: loss(lever, n, p, key, TARGETS["ring4"]))(keys))  # noqa: E731
        return jax.grad(batch)(policy).velocity

    seconds = []
    for key in jax.random.split(jax.random.key(5), TIMED_CALLS + 1):
        begun = time.perf_counter()
        jax.block_until_ready(gradient(policy, key))
        seconds.append(time.perf_counter() - begun)
    return 1000 * float(np.percentile(seconds[1:], 10))


def fits(job: frame.Job) -> list[frame.Row]:
    """Final error of policies fitted with the same number of network calls by different levers."""

    @functools.cache
    def program(n: int, pairs: int, local: int, steps: int) -> Any:
        return jax.jit(jax.vmap(functools.partial(train_one, Lever(pairs, local), n, steps), in_axes=(0, None, None)))

    def measure(n: int, name: str) -> list[frame.Row]:
        lever, rows = LEVERS[name], []
        steps = int(FIT_CALLS / (FIT_CANDIDATES // n * network_calls(lever, n)))
        train, flags = program(n, lever.pairs, lever.local, steps), jax.tree.map(jnp.asarray, lever.flags)
        for target_name, target in TARGETS.items():
            errors = np.asarray(train(jnp.arange(SEEDS), target, flags), np.float64)
            rows.append({"target": target_name, "N": n, "lever": name, "steps": steps, "velocity_error": errors})
        return rows

    found = [job.cell(f"fits: {n} {name}", functools.partial(measure, n, name)) for n in SIZES for name in FITS]
    return [row for rows in found for row in rows]


def train_one(lever: Lever, n: int, steps: int, seed, target, flags):
    """Fit one policy, averaging its parameters at the end as `fit` does; return its velocity's error."""
    policy = new_policy(jax.random.fold_in(jax.random.key(6), seed))
    muon = optimise.planned(RATE, 0.02, steps)
    key, test_key = jax.random.split(jax.random.fold_in(jax.random.key(7), seed))

    def step(carry, inputs):
        velocity, average, state = carry
        number, key = inputs
        keys = jax.random.split(key, FIT_CANDIDATES // n)

        def objective(velocity):
            trained = with_velocity(policy, velocity)
            return jnp.mean(jax.vmap(lambda key: loss(lever, n, trained, key, target, flags))(keys))

        velocity, state = optimise.descend(muon, jax.grad(objective)(velocity), velocity, state)
        return (velocity, optimise.follow(average, velocity, 1 / (1 + 0.1 * number)), state), None

    start = policy.velocity, policy.velocity, muon.init(policy.velocity)
    numbers = jnp.arange(steps, dtype=jnp.float32)
    (_, average, _), _ = jax.lax.scan(step, start, (numbers, jax.random.split(key, steps)))
    return exact_loss(with_velocity(policy, average), test_key, target, 2**14)


def table(rows: Sequence[frame.Row], results: Sequence[frame.Row], milliseconds: dict[str, list[float]]) -> str:
    """Write both tables in Markdown."""
    settings = [(t, p, n) for n in SIZES for t in TARGETS for p in PHASES]
    text = "Gradient of the ISFM loss: gain over the plain estimator at equal network calls, that is the ratio\n"
    text += "of variance times calls, above 1 is better; in brackets the squared bias over the plain variance.\n\n"
    lines = []
    for name in LEVERS:
        cells = [name]
        for setting in settings:
            row = next(r for r in rows if (r["target"], r["policy"], r["N"], r["lever"]) == (*setting, name))
            cells.append(f"{row['gain_calls']:.2f} ({row['relative_bias']:.3f})")
        lines.append(cells)
    text += frame.markdown(["lever"] + [f"{t} {p} N={n}" for t, p, n in settings], lines)
    text += f"\nFits with {FIT_CALLS:,} network calls each, {SEEDS} seeds: root mean square error of the velocity\n"
    text += "in 1e-3, mean ± standard error; and the milliseconds of a gradient with "
    text += f"{TIMED_CANDIDATES} candidates (tenth percentile).\n\n"
    pairs, lines = [(t, n) for n in SIZES for t in TARGETS], []
    for name in FITS:
        cells = [name]
        for setting in pairs:
            row = next(r for r in results if (r["target"], r["N"], r["lever"]) == (*setting, name))
            roots = 1000 * np.sqrt(row["velocity_error"])
            cells.append(f"{roots.mean():.1f} ± {roots.std(ddof=1) / np.sqrt(SEEDS):.1f}")
        lines.append(cells + [f"{ms:.1f}" for ms in milliseconds[name]])
    headers = ["lever"] + [f"{t} N={n}" for t, n in pairs] + [f"ms N={n}" for n in SIZES]
    return text + frame.markdown(headers, lines)


def draw(rows: Sequence[frame.Row]) -> Figure:
    """Return the figure of the gains at equal network calls, with the standard errors of ratios of two variances.

    A variance that is estimated from R Gaussian gradients has the relative standard error √(2/(R−1)).
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 6.4, "Variance of the ISFM gradient: gain over the plain estimator at equal cost")
        axes = figure.subplots(1, len(SIZES), sharey=True, squeeze=False)[0]
        for ax, n in zip(axes, SIZES, strict=True):
            ax.set_title(f"N = {n}")
            for place, (target, phase) in enumerate((t, p) for t in TARGETS for p in PHASES):
                gains = [r["gain_calls"] for r in rows if (r["target"], r["policy"], r["N"]) == (target, phase, n)]
                error = np.multiply(gains, 2 / np.sqrt(REPEATS[n] - 1))
                style = {"color": LEARNED if target == "gaussian" else OTHER, "elinewidth": 1, "markersize": 4}
                style |= {"markerfacecolor": "none" if phase == "early" else style["color"]}
                heights = np.arange(len(gains)) + 0.2 * (place - 1.5)
                ax.errorbar(
                    gains, heights, xerr=error, fmt="so"[target == "ring4"], label=f"{target}, {phase}", **style
                )
            for row in range(len(LEVERS)):
                ax.axhspan(row - 0.5, row + 0.5, color="0.95" if row % 2 else "white", zorder=0, linewidth=0)
            ax.axvline(1.0, color=EXACT, linewidth=0.8)
            ax.set(xscale="log", xlabel="gain", ylim=(len(LEVERS) - 0.5, -0.5))
            label_logarithmic(ax.xaxis, lambda gain: f"{gain:g}", most=5)
            ax.set_yticks(np.arange(len(LEVERS)), list(LEVERS))
        draws = " and ".join(map(str, REPEATS.values()))
        note = "Right of the line is better; early policies hollow. Bars: standard errors of a ratio of variances\n"
        legend_below(figure, f"{note}of {draws} Gaussian gradients.", columns=4)
    return figure


main = frame.command("variance", lambda _: run)

if __name__ == "__main__":
    sys.exit(main())
