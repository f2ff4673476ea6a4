"""Candidates that are drawn to reach a fixed error, with fixed and with adaptive numbers, on two densities."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array
from matplotlib.figure import Figure
from rich.markdown import Markdown

from entroflow import optimise
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import weighted_regression
from entroflow.isfm.schedule import SIZES
from entroflow.isfm.weights import MEMORY
from entroflow.plotting import LEARNED, STYLE, legend_below, new_figure, save

from .. import frame
from ..variance.levers import TARGETS, Mixture, exact_loss

STATES, PAIRS, RATE, ESS_FLOOR = 4, 2, 1e-2, 0.3
STEPS, SEEDS = (200, 400, 800), 3
# (1) the paper's remark, exp(¾ D_4)/√N ≤ c; (2) the library's, N · ESS/N ≥ c; (3) noise against signal,
# N · (ESS/N) · KL ≥ c
RULES = ("fixed", "remark", "ess", "norm")
BUDGETS = {"fixed": SIZES, "remark": (0.5, 0.25), "ess": (4.0, 12.0), "norm": (0.03, 0.1, 0.3)}
FRESH = {"fixed": (8, 16, 32), "ess": (4.0,)}
LEVELS = {"gaussian": 0.1, "ring4": 0.2}  # errors to reach
MOST_DRAWN = 400_000  # fixed sizes that would draw more are left out
TEST_POINTS = 2**13


def run(job: frame.Job, fresh: bool = False) -> tuple[frame.Row, list[Any]]:
    """Fit all settings with all numbers of steps and all seeds.

    Args:
        job: the run.
        fresh: repeat four settings with seeds on which no rule was chosen, without a figure.

    Returns:
        Results and the table.
    """
    first, solver = SEEDS * fresh, RungeKutta("midpoint", 4)
    policies = [
        FlowPolicy(VelocityNetwork(1, 2, width=32, depth=1, key=jax.random.key(seed)), Unbounded(2), solver=solver)
        for seed in range(first, first + SEEDS)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *policies)

    @jax.jit
    def fit(target: Mixture, rule: Array, c: Array, steps: Array) -> tuple[Array, Array]:
        one = lambda run: train(run[0], target, rule, c, steps, run[1])  # noqa: E731
        return jax.lax.map(one, (stacked, first + jnp.arange(SEEDS)))

    def measure(name: str, rule: str, c: float, steps: int) -> frame.Row:
        errors, drawn = fit(TARGETS[name], jnp.int32(RULES.index(rule)), jnp.float32(c), jnp.int32(steps))
        row = {"target": name, "rule": rule, "c": c, "steps": steps, "error": np.sqrt(errors), "drawn": drawn.sum(1)}
        return row | {"mean_size": np.asarray(drawn).mean(0) / (STATES * steps / 10)}

    settings = [(rule, float(c)) for rule, budgets in (FRESH if fresh else BUDGETS).items() for c in budgets]
    cells = [(name, rule, c, steps) for name in TARGETS for rule, c in settings for steps in STEPS]
    cells = [cell for cell in cells if cell[1] != "fixed" or cell[2] * cell[3] * STATES <= MOST_DRAWN]
    job.cells = len(cells)
    rows = [job.cell(" ".join(map(str, cell)), functools.partial(measure, *cell)) for cell in cells]
    job.text("table.md", table(rows))
    if not fresh:
        save(job.out, "adaptive", draw(rows))
    return {"states": STATES, "seeds": SEEDS, "densities": rows}, [Markdown(table(rows))]


def train(policy: FlowPolicy, target: Mixture, rule: Array, c: Array, steps: Array, seed: Array) -> tuple[Array, Array]:
    """Fit one policy; return its error, the candidates drawn, and how many were drawn in each tenth of the steps."""
    key, test_key = jax.random.split(jax.random.fold_in(jax.random.key(7), seed))
    total = steps.astype(jnp.float32)
    warm = 0.02 * total

    def rate(count):  # as `entroflow.optimise.planned`, for a number of steps that the program is not compiled for
        count = count.astype(jnp.float32)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * (count - warm) / (total - warm)))
        return RATE * jnp.where(count < warm, count / warm, cosine)

    muon = optax.contrib.muon(rate)
    q_function = lambda obs, action: target.log_density(action)  # noqa: E731
    sizes = jnp.asarray(SIZES, jnp.float32)

    def regress(n, velocity, key):
        current = replace(policy, velocity=velocity)
        sizes = {"candidates": n, "pairs": PAIRS, "ess_floor": ESS_FLOOR}
        keys = jax.random.split(key, 3)
        drawn, loss = weighted_regression(current, keys, jnp.zeros((STATES, 1)), q_function, 1.0, **sizes)
        mean = jax.tree.map(jnp.mean, drawn.diagnostics)
        return jax.value_and_grad(loss)(velocity), jnp.stack([mean.renyi_4, mean.ess, mean.ess * mean.kl])

    def step(number, carry):
        velocity, average, state, seen, drawn = carry
        wanted = jnp.stack([c, jnp.exp(1.5 * seen[0]) / c**2, c / seen[1], c / jnp.maximum(seen[2], 1e-9)])[rule]
        index = jnp.sum(wanted > sizes[:-1])
        branches = [functools.partial(regress, n) for n in SIZES]
        (_, gradient), new = jax.lax.switch(index, branches, velocity, jax.random.fold_in(key, number))
        velocity, state = optimise.descend(muon, gradient, velocity, state)
        number = number.astype(jnp.float32)
        seen = seen + jnp.maximum(MEMORY, 1 / (1 + number)) * (new - seen)
        drawn = drawn.at[(10 * number / total).astype(int)].add(STATES * sizes[index])
        return velocity, optimise.follow(average, velocity, 1 / (1 + 0.1 * number)), state, seen, drawn

    seen = jnp.array([5.0, 0.1, 0.0])  # all rules begin with the largest size
    start = policy.velocity, policy.velocity, muon.init(policy.velocity), seen, jnp.zeros(10)
    _, average, _, _, drawn = jax.lax.fori_loop(0, steps, step, start)
    return exact_loss(replace(policy, velocity=average), test_key, target, TEST_POINTS), drawn


def needed(rows: list[frame.Row], level: float) -> np.ndarray:
    """Return for each seed how many candidates reach the error, interpolated between numbers of steps; or NaN."""
    rows = sorted(rows, key=lambda row: row["steps"])
    errors, drawn = (np.log([row[name] for row in rows]) for name in ("error", "drawn"))
    found = np.full(errors.shape[1], np.nan)
    for seed in range(len(found)):
        below = np.flatnonzero(errors[:, seed] <= np.log(level))
        if below.size:
            i = below[0]
            found[seed] = drawn[i, seed]
            if i > 0:
                part = (np.log(level) - errors[i - 1, seed]) / (errors[i, seed] - errors[i - 1, seed])
                found[seed] = drawn[i - 1, seed] + part * (drawn[i, seed] - drawn[i - 1, seed])
    return np.exp(found)


def table(rows: Sequence[frame.Row]) -> str:
    """Write in Markdown how many candidates each setting needs."""
    lines = []
    for rule, c in dict.fromkeys((row["rule"], row["c"]) for row in rows):
        cells = [f"{c:.0f}" if rule == "fixed" else f"{rule}, budget {c:g}"]
        for name, level in LEVELS.items():
            mine = [row for row in rows if (row["target"], row["rule"], row["c"]) == (name, rule, c)]
            logs = np.log(needed(mine, level))
            if np.isnan(logs).any():
                best = min(np.mean(row["error"]) for row in mine)
                cells.append(f"not by all seeds (error {best:.3f})")
            else:
                spread = np.exp(2 * logs.std(ddof=1) / np.sqrt(len(logs)))
                cells.append(f"{np.exp(logs.mean()) / 1000:.1f}k (×/÷ {spread:.2f})")
        lines.append(cells)
    headers = ["candidates per state and step", *(f"{t}: drawn to reach {e}" for t, e in LEVELS.items())]
    return frame.markdown(headers, lines)


def draw(rows: list[frame.Row]) -> Figure:
    """Draw the error against the candidates drawn, and the sizes that the schedule chose; return the figure."""
    colours = dict(zip(SIZES, mpl.colormaps["Greys"](np.linspace(0.3, 0.9, len(SIZES))), strict=True))
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 3.6, "Error against candidates drawn: fixed numbers and the adaptive schedule")
        axes = figure.subplots(1, 3)
        for ax, name in zip(axes, TARGETS, strict=False):
            for rule, c in dict.fromkeys((row["rule"], row["c"]) for row in rows):
                mine = [row for row in rows if (row["target"], row["rule"], row["c"]) == (name, rule, c)]
                if rule not in ("fixed", "ess"):
                    continue
                style = (
                    {"color": colours[int(c)], "marker": "."} if rule == "fixed" else {"color": LEARNED, "marker": "o"}
                )
                style |= {"alpha": {4.0: 1.0, 12.0: 0.5}[c]} if rule == "ess" else {}
                x, y = [np.mean(row["drawn"]) for row in mine], [np.mean(row["error"]) for row in mine]
                spread = [np.std(row["error"], ddof=1) / np.sqrt(len(row["error"])) for row in mine]
                label = f"N = {c:.0f}" if rule == "fixed" else f"adaptive, budget {c:g}"
                ax.errorbar(x, y, yerr=spread, label=label, linewidth=1, markersize=4, **style)
            ax.set(title=name, xscale="log", yscale="log", xlabel="candidates drawn", ylabel="velocity error")
            ax.axhline(LEVELS[name], color="0.8", linewidth=0.8, zorder=0)
        for name, style in zip(TARGETS, ("-", "--"), strict=True):
            (row,) = [r for r in rows if (r["target"], r["rule"], r["c"], r["steps"]) == (name, "ess", 4.0, STEPS[-1])]
            axes[2].plot(np.arange(5, 100, 10), row["mean_size"], style, color=LEARNED)
        axes[2].set(title="budget 4: mean N (ring4 dashed)", xlabel="% of the steps", yscale="log")
        axes[2].set_yticks(SIZES, [str(n) for n in SIZES])
        axes[2].minorticks_off()
        legend_below(figure, "mean over seeds, ± standard error", columns=8)
    return figure
