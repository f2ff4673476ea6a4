"""Candidates that are drawn to reach a fixed error, with fixed and with adaptive numbers, on two densities.

python experiments/adaptive/run.py [--quick] [--draw] [--fresh]; --draw only redoes the table and the figure from
results.json; --fresh repeats four settings with seeds on which no rule was chosen, into fresh.json and fresh.md.
"""

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import optax.contrib

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import descend, improvement, move
from entroflow.isfm.schedule import MEMORY, SIZES
from entroflow.plotting import LEARNED, STYLE, legend_below, new_figure
from entroflow.storage.folder import cache_compilations

sys.path.insert(0, str(Path(__file__).parents[1] / "variance"))
from levers import TARGETS, exact_loss

HERE = Path(__file__).parent
QUICK, FRESH = "--quick" in sys.argv, "--fresh" in sys.argv
STATES, PAIRS, RATE, ESS_FLOOR = 4, 2, 1e-2, 0.3
STEPS = (60, 120) if QUICK else (200, 400, 800)
SEEDS = 2 if QUICK else 3
FIRST_SEED = 3 if FRESH else 0
# (1) the paper's remark, exp(¾ D_4)/√N ≤ c; (2) the library's, N · ESS/N ≥ c; (3) noise against signal,
# N · (ESS/N) · KL ≥ c
RULES = ("fixed", "remark", "ess", "norm")
SETTINGS = [("fixed", float(n)) for n in SIZES]
SETTINGS += [
    ("remark", 0.5),
    ("remark", 0.25),
    ("ess", 4.0),
    ("ess", 12.0),
    ("norm", 0.03),
    ("norm", 0.1),
    ("norm", 0.3),
]
if FRESH:
    SETTINGS = [("fixed", 8.0), ("fixed", 16.0), ("fixed", 32.0), ("ess", 4.0)]
LEVELS = {"gaussian": 0.1, "ring4": 0.2}  # errors to reach
MOST_DRAWN = 400_000  # fixed sizes that would draw more are left out


def train(policy: FlowPolicy, target, rule, c, steps, seed):
    """Fit one policy; return its error, the candidates drawn, and how many were drawn in each tenth of the steps."""
    key, test_key = jax.random.split(jax.random.fold_in(jax.random.key(7), seed))
    warm, total = 0.02 * steps, steps.astype(jnp.float32)

    def rate(count):  # as `entroflow.isfm.optimiser`, for a number of steps that the program is not compiled for
        count = count.astype(jnp.float32)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * (count - warm) / (total - warm)))
        return RATE * jnp.where(count < warm, count / warm, cosine)

    muon = optax.contrib.muon(rate)
    q_function = lambda obs, action: target.log_density(action)  # noqa: E731
    sizes = jnp.asarray(SIZES, jnp.float32)

    def improve(n, velocity, key):
        current = replace(policy, velocity=velocity)
        drawn, loss = improvement(
            current, key, jnp.zeros((STATES, 1)), q_function, 1.0, candidates=n, pairs=PAIRS, ess_floor=ESS_FLOOR
        )
        mean = jax.tree.map(jnp.mean, drawn.diagnostics)
        return jax.value_and_grad(loss)(velocity), jnp.stack([mean.renyi_4, mean.ess, mean.ess * mean.kl])

    def step(number, carry):
        velocity, average, state, seen, drawn = carry
        wanted = jnp.stack([c, jnp.exp(1.5 * seen[0]) / c**2, c / seen[1], c / jnp.maximum(seen[2], 1e-9)])[rule]
        index = jnp.sum(wanted > sizes[:-1])
        branches = [functools.partial(improve, n) for n in SIZES]
        found, new = jax.lax.switch(index, branches, velocity, jax.random.fold_in(key, number))
        _, velocity, state = descend(muon, lambda _: found, velocity, state)
        number = number.astype(jnp.float32)
        seen = seen + jnp.maximum(MEMORY, 1 / (1 + number)) * (new - seen)
        drawn = drawn.at[(10 * number / total).astype(int)].add(STATES * sizes[index])
        return velocity, move(average, velocity, 1 / (1 + 0.1 * number)), state, seen, drawn

    seen = jnp.array([5.0, 0.1, 0.0])  # all rules begin with the largest size
    start = policy.velocity, policy.velocity, muon.init(policy.velocity), seen, jnp.zeros(10)
    _, average, _, _, drawn = jax.lax.fori_loop(0, steps, step, start)
    return exact_loss(replace(policy, velocity=average), test_key, target, 2**13), drawn


def measure() -> list[dict]:
    """Fit all settings with all numbers of steps and all seeds."""
    solver = RungeKutta("midpoint", 4)
    policies = [
        FlowPolicy(VelocityNetwork(1, 2, width=32, depth=1, key=jax.random.key(seed)), Unbounded(2), solver=solver)
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *policies)

    @jax.jit
    def run(target, rule, c, steps):
        one = lambda run: train(run[0], target, rule, c, steps, run[1])  # noqa: E731
        return jax.lax.map(one, (stacked, FIRST_SEED + jnp.arange(SEEDS)))

    rows = []
    for name, target in TARGETS.items():
        for rule, c in SETTINGS:
            for steps in STEPS:
                if rule == "fixed" and c * steps * STATES > MOST_DRAWN:
                    continue
                errors, drawn = run(target, jnp.int32(RULES.index(rule)), jnp.float32(c), jnp.int32(steps))
                row = {"target": name, "rule": rule, "c": c, "steps": steps}
                row |= {"error": np.sqrt(errors).tolist(), "drawn": drawn.sum(1).tolist()}
                row["mean_size"] = (np.asarray(drawn).mean(0) / (STATES * steps / 10)).tolist()
                rows.append(row)
                print(name, rule, c, steps, f"{np.mean(row['error']):.4f} {np.mean(row['drawn']):.0f}", flush=True)
    return rows


def needed(rows: list[dict], level: float) -> np.ndarray:
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


def table(rows: list[dict]) -> str:
    """Write in Markdown how many candidates each setting needs."""
    lines = [
        "| candidates per state and step | " + " | ".join(f"{t}: drawn to reach {e}" for t, e in LEVELS.items()) + " |"
    ]
    lines += ["|---" * (len(LEVELS) + 1) + "|"]
    for rule, c in SETTINGS:
        cells = []
        for name, level in LEVELS.items():
            mine = [row for row in rows if (row["target"], row["rule"], row["c"]) == (name, rule, c)]
            logs = np.log(needed(mine, level))
            if np.isnan(logs).any():
                best = min(np.mean(row["error"]) for row in mine)
                cells.append(f"not by all seeds (error {best:.3f})")
            else:
                spread = np.exp(2 * logs.std(ddof=1) / np.sqrt(len(logs)))
                cells.append(f"{np.exp(logs.mean()) / 1000:.1f}k (×/÷ {spread:.2f})")
        label = f"{c:.0f}" if rule == "fixed" else f"{rule}, budget {c:g}"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict]) -> None:
    """Draw the error against the candidates drawn, and the sizes that the schedule chose."""
    colours = dict(zip(SIZES, mpl.colormaps["Greys"](np.linspace(0.3, 0.9, len(SIZES))), strict=True))
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 3.6, "Error against candidates drawn: fixed numbers and the adaptive schedule")
        axes = figure.subplots(1, 3)
        for ax, name in zip(axes, TARGETS, strict=False):
            for rule, c in SETTINGS:
                mine = [row for row in rows if (row["target"], row["rule"], row["c"]) == (name, rule, c)]
                if rule not in ("fixed", "ess"):
                    continue
                style = (
                    {"color": colours[int(c)], "marker": "."} if rule == "fixed" else {"color": LEARNED, "marker": "o"}
                )
                style |= {"alpha": {4.0: 1.0, 12.0: 0.5}[c]} if rule == "ess" else {}
                x, y = [np.mean(row["drawn"]) for row in mine], [np.mean(row["error"]) for row in mine]
                spread = [np.std(row["error"], ddof=1) / np.sqrt(SEEDS) for row in mine]
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
        figure.savefig(HERE / "adaptive.png", dpi=130)


def main() -> None:
    """Measure, and write results.json, table.md and adaptive.png, or fresh.json and fresh.md."""
    cache_compilations()
    file = HERE / ("fresh.json" if FRESH else "results.json")
    if "--draw" not in sys.argv:
        file.write_text(json.dumps({"states": STATES, "seeds": SEEDS, "densities": measure()}, indent=1) + "\n")
    rows = json.loads(file.read_text())["densities"]
    (HERE / ("fresh.md" if FRESH else "table.md")).write_text(table(rows))
    if not FRESH:
        draw(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
