"""Proposals on a ring of four equal Gaussians: what a missed mode looks like, and what finds it again.

The target is normalised: log Z = 0.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table
from scipy.stats import norm, qmc

from entroflow import optimise
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import (
    BroadenedPolicy,
    CurrentPolicy,
    Diagnostics,
    FitConfig,
    GaussianProposal,
    Propose,
    UniformProposal,
    check_faults,
    current_policy,
    defensive,
    draw_candidates,
    improve,
    weighted_regression,
)
from entroflow.plotting import EXACT, LEARNED, QUIET, STYLE, new_figure, save

from .. import frame
from .population import PopulationProposal

MODES, SD = jnp.array([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]]), 0.5477
SPACE = Unbounded(2, scale=3.55)  # the standard deviation of the whole target, per component
OBS = jnp.zeros(1)
SEEDS, N, PAIRS, WIDTH = 4, 64, 2, 32
STEPS, EVERY, RATE, AVERAGE = 600, 20, 1e-2, 0.03  # gradient steps, between measurements; averaging: 1/0.03 steps
TOLERANCE = 0.05
BATCHES, COST_BATCHES = 200, 256
COLLAPSE = FitConfig(steps=300, candidates=N, pairs=PAIRS)
SHOWN = 400  # actions
BEST = "defensive 0.25"  # what is drawn, and what the fitted policy of `cost` comes from


def normal(action, mean, sd):
    """Log-density of a Gaussian with independent components."""
    return jnp.sum(jax.scipy.stats.norm.logpdf(action, mean, sd))


def ring(_, action):
    """Q of the target: log of the mean of four Gaussians."""
    return jax.nn.logsumexp(jax.vmap(lambda mode: normal(action, mode, SD))(MODES)) - jnp.log(4.0)


def one_mode(_, action):
    """Q that makes the policy collapse to the mode on the right."""
    return normal(action, MODES[0], SD)


def initial(key) -> FlowPolicy:
    """A flow close to the identity: actions N(0, 3.55² I)."""
    return FlowPolicy(VelocityNetwork(1, 2, width=WIDTH, depth=1, key=key), SPACE)


def box(policy: FlowPolicy, *_: Any) -> UniformProposal:
    """Uniform over a box that holds the whole target."""
    return UniformProposal(policy.action_space, -8.0, 8.0)


def gaussian(x: float, y: float, sd: float) -> GaussianProposal:
    """A round Gaussian over actions."""
    return GaussianProposal(SPACE.from_action(jnp.array([x, y])), (sd / SPACE.scale) ** 2)


Q = Callable[..., jax.Array]
RECOVER: dict[str, Propose] = {
    "policy": current_policy,
    "broadened 1.5": lambda policy, *_: BroadenedPolicy(policy, 1.5),
    "broadened 2": lambda policy, *_: BroadenedPolicy(policy, 2.0),
    "population": PopulationProposal,
    "Gaussian": lambda *_: gaussian(0.0, 0.0, 4.0),
    "uniform": box,
    "defensive 0.05": lambda policy, *_: defensive(policy, box(policy), 0.05),
    "defensive 0.1": lambda policy, *_: defensive(policy, box(policy), 0.1),
    "defensive 0.25": lambda policy, *_: defensive(policy, box(policy), 0.25),
    "defensive 0.5": lambda policy, *_: defensive(policy, box(policy), 0.5),
    "defensive 0.25, broadened 8": lambda policy, *_: defensive(policy, BroadenedPolicy(policy, 8.0), 0.25),
}
MISS: dict[str, Propose] = {
    "policy (one mode)": current_policy,
    "the same, solved more finely": lambda policy, *_: CurrentPolicy(policy.with_solver(RungeKutta("rk4", 32))),
    "broadened 2": RECOVER["broadened 2"],
    "population": RECOVER["population"],
    "Gaussian around two modes": lambda *_: gaussian(2.5, -2.5, 2.0),
    "uniform without the upper mode": lambda policy, *_: UniformProposal(policy.action_space, -8.0, [8.0, 2.5]),
    "Gaussian, all modes": RECOVER["Gaussian"],
    "uniform, all modes": box,
    "defensive 0.1": RECOVER["defensive 0.1"],
    "defensive 0.25": RECOVER["defensive 0.25"],
}


def collapse(keys):
    """Policies that have been fitted to one mode, one per key."""

    def run(key):
        network_key, improve_key = jax.random.split(key)
        return improve(COLLAPSE, initial(network_key), improve_key, lambda _: OBS[None], one_mode, 1.0)

    policies, metrics = jax.jit(jax.vmap(run))(keys)
    check_faults(metrics.faults)
    return policies


def miss(policy: FlowPolicy, propose: Propose) -> frame.Row:
    """Diagnostics of the first step of improvement under a proposal, over many batches."""

    def batch(key) -> Diagnostics:
        return draw_candidates(key, policy, OBS, ring, 1.0, n=N, proposal=propose(policy, ring, 1.0)).diagnostics

    found = jax.device_get(jax.jit(jax.vmap(batch))(jax.random.split(jax.random.key(1), BATCHES)))
    mean_z = np.log(np.mean(np.exp(np.asarray(found.log_z, np.float64))))  # of all batches together
    row = {field: float(np.mean(value)) for field, value in found._asdict().items()}
    # A batch warns if its ESS is below what one mode in four would cost anybody, N/4, or one weight dominates.
    return row | {
        "log_z_all": float(mean_z),
        "log_z_sd": float(np.std(found.log_z)),
        "warned": float(np.mean((found.ess < 0.25) | (found.max_weight > 0.25))),
    }


def recover(policies: FlowPolicy, keys, propose: Propose) -> tuple[FlowPolicy, frame.Row]:
    """Improve collapsed policies on the whole target; measure the weights of the modes on the way."""
    noises = jnp.asarray(norm.ppf(qmc.Sobol(2, rng=0).random(512)), jnp.float32)
    muon = optimise.planned(RATE, 0.02, STEPS)

    def weights(policy):
        actions = jax.vmap(policy.push, in_axes=(None, 0))(OBS, noises)
        distances = jax.vmap(jax.vmap(lambda a, mode: jnp.sum((a - mode) ** 2), (None, 0)), (0, None))(actions, MODES)
        return jnp.mean(jax.nn.one_hot(jnp.argmin(distances, axis=1), 4), axis=0)

    def run(policy, key):
        def step(carry, key):
            velocity, average, state = carry
            drawn, loss = weighted_regression(
                replace(policy, velocity=velocity),
                jax.random.split(key, 3),
                OBS[None],
                ring,
                1.0,
                candidates=N,
                pairs=PAIRS,
                propose=propose,
            )
            velocity, state = optimise.descend(muon, jax.grad(loss)(velocity), velocity, state)
            return (velocity, optimise.follow(average, velocity, AVERAGE), state), (
                drawn.diagnostics.ess[0],
                drawn.faults,
            )

        def block(carry, keys):
            carry, (ess, faults) = jax.lax.scan(step, carry, keys)
            return carry, (weights(replace(policy, velocity=carry[1])), jnp.mean(ess), jax.tree.map(jnp.max, faults))

        start = policy.velocity, policy.velocity, muon.init(policy.velocity)
        keys = jax.random.split(key, (STEPS // EVERY, EVERY))
        (_, average, _), history = jax.lax.scan(block, start, keys)
        return replace(policy, velocity=average), history

    fitted, (mode_weights, ess, faults) = jax.jit(jax.vmap(run))(policies, keys)
    check_faults(faults)
    deviation = np.max(np.abs(np.asarray(mode_weights) - 0.25), axis=-1)  # (seeds, measurements)
    good = (deviation <= TOLERANCE) & np.roll(deviation <= TOLERANCE, -1, axis=1)  # twice in a row
    good[:, -1] = False
    first = [int((np.argmax(row) + 1) * EVERY) if row.any() else None for row in good]
    return fitted, {
        "steps": first,
        "candidates": [None if steps is None else steps * N for steps in first],
        "recovered": sum(steps is not None for steps in first),
        "final_weights": mode_weights[:, -1],
        "final_deviation": deviation[:, -1],
        "deviation": deviation.round(4),
        "ess_start": float(np.mean(ess[:, 0])),
        "ess_end": float(np.mean(ess[:, -1])),
    }


def peaked(_, action):
    """Q of a narrow Gaussian in six dimensions, off centre, seen from a policy that is still N(0, I)."""
    return normal(action, 0.5, 0.3)


def cases(policies: FlowPolicy, fitted: FlowPolicy) -> dict[str, tuple[FlowPolicy, Q]]:
    """Return policies and what they are to follow: far from it, collapsed, close to it, and in six dimensions."""
    wide = FlowPolicy(VelocityNetwork(1, 6, width=WIDTH, depth=1, key=jax.random.key(0)), Unbounded(6))
    first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
    return {
        "first policy": (initial(jax.random.key(0)), ring),
        "collapsed policy": (first(policies), ring),
        "fitted policy": (first(fitted), ring),
        "narrow target in 6-D": (wide, peaked),
    }


def cost(policy: FlowPolicy, q: Q) -> frame.Row:
    """ESS of the population against that of the policy, with the time that a batch takes."""
    narrow = 0.5 * N ** (-1 / (policy.action_space.size + 4))
    proposals: dict[str, Propose] = {
        "policy": current_policy,
        "population": PopulationProposal,
        "population, half as wide": functools.partial(PopulationProposal, width=narrow),
    }
    results = {}
    for name, propose in proposals.items():

        def batch(key, propose=propose):
            return draw_candidates(key, policy, OBS, q, 1.0, n=N, proposal=propose(policy, q, 1.0)).diagnostics

        draw, keys = jax.jit(jax.vmap(batch)), jax.random.split(jax.random.key(2), COST_BATCHES)
        found = jax.block_until_ready(draw(keys))
        clock = []
        for _ in range(7):
            begun = time.process_time()
            jax.block_until_ready(draw(keys))
            clock.append(time.process_time() - begun)
        ess, milliseconds = float(jnp.mean(found.ess)), 1e3 * min(clock) / len(keys)
        results[name] = {
            "ess": ess,
            "log_z": float(jnp.mean(found.log_z)),
            "log_z_sd": float(jnp.std(found.log_z)),
            "ms_per_batch": milliseconds,
            "effective_samples_per_ms": ess * N / milliseconds,
        }
    return results


def actions_of(policies: FlowPolicy, name: str) -> list[frame.Row]:
    """Return what the first of some policies draws, as rows."""
    policy, keys = jax.tree.map(lambda leaf: leaf[0], policies), jax.random.split(jax.random.key(3), SHOWN)
    drawn = np.asarray(jax.vmap(policy.sample, in_axes=(0, None))(keys, OBS))
    return [{"policy": name, "a_1": f"{first:.3f}", "a_2": f"{second:.3f}"} for first, second in drawn]


def figure_of(runs: frame.Row, actions: Sequence[frame.Row]) -> Figure:
    """Return the figure: actions before and after; for every proposal, after how many steps all modes were found.

    Args:
        runs: "recover" of results.json.
        actions: the rows of actions.csv.

    Returns:
        The figure.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(7.2, 3.4, "A policy that has collapsed to one of four modes")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
        for name, color, marker in ((f"after {BEST}", LEARNED, "o"), ("before", EXACT, "x")):
            style = {"color": color, "marker": marker, "linestyle": "", "markersize": 2, "markeredgewidth": 0.6}
            drawn = [(float(row["a_1"]), float(row["a_2"])) for row in actions if row["policy"] == name]
            left.plot(*np.transpose(drawn), label=name, **style)
        left.set(xlim=(-8, 8), ylim=(-8, 8), aspect="equal", xlabel="$a_1$", ylabel="$a_2$", title="actions")
        left.legend(loc="upper left", markerscale=2, handletextpad=0)
        never = 1.15 * STEPS
        for row, run in enumerate(runs.values()):
            found = np.array([never if steps is None else steps for steps in run["steps"]], float)
            shifts = np.linspace(-0.2, 0.2, len(found))
            right.plot(found, row + shifts, "o", color=LEARNED, markersize=4, markerfacecolor="none")
        right.axvline(1.07 * STEPS, color=QUIET, linewidth=0.8)
        right.set_yticks(range(len(runs)), list(runs))
        marks = list(range(0, STEPS, STEPS // 3))
        right.set_xticks([*marks, never], [*map(str, marks), "never"])
        right.set(xlim=(0, 1.25 * STEPS), ylim=(len(runs) - 0.5, -0.5), xlabel="gradient steps")
        right.set_title("until all modes are found (each seed)")
    return figure


def run(job: frame.Job) -> tuple[frame.Row, list[Any]]:
    """Tell what diagnostics miss, what finds the modes again, whether a population pays; return results and tables."""
    settings = {"seeds": SEEDS, "candidates": N, "pairs": PAIRS, "steps": STEPS, "rate": RATE, "batches": BATCHES}
    collapse_keys, recover_keys = jax.random.split(jax.random.key(0), (2, SEEDS))
    with job.timed("collapse"):
        policies = collapse(collapse_keys)
    first = jax.tree.map(lambda leaf: leaf[0], policies)
    recovered = functools.cache(lambda name: recover(policies, recover_keys, RECOVER[name]))
    job.cells = len(MISS) + len(RECOVER) + 4
    missed = {name: job.cell(f"miss: {name}", functools.partial(miss, first, MISS[name])) for name in MISS}
    runs = {name: job.cell(f"recover: {name}", lambda name=name: recovered(name)[1]) for name in RECOVER}
    todo = cases(policies, recovered(BEST)[0]).items()
    costs = {case: job.cell(f"cost: {case}", functools.partial(cost, *given)) for case, given in todo}
    actions = [*actions_of(policies, "before"), *actions_of(recovered(BEST)[0], f"after {BEST}")]
    job.rows("actions.csv", actions)
    save(job.out, "figure", figure_of(runs, actions))
    shown = {name: {key: run[key] for key in ("steps", "ess_start", "ess_end")} for name, run in runs.items()}
    settings |= {"tolerance": TOLERANCE, "log_z_exact": 0.0}
    tables = [
        _table("one mode of four: the first step's diagnostics", missed),
        _table("gradient steps until all modes are found", shown),
        *(_table(case, rows) for case, rows in costs.items()),
    ]
    return {"settings": settings, "miss": missed, "recover": runs, "cost": costs}, tables


def _table(title: str, rows: dict[str, frame.Row]) -> Table:
    names = list(next(iter(rows.values())))
    table = frame.new_table(title, "", ["proposal", *names])
    for name, row in rows.items():
        cells = (f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key]) for key in names)
        table.add_row(name, *cells)
    return table


main = frame.command("proposals", lambda _: run)

if __name__ == "__main__":
    sys.exit(main())
