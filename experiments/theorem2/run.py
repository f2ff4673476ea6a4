"""Theorem 2, measured: W_2² of a fitted flow against the number of candidates N, the divergence D_4 and the proposal.

    W_2²(π̂, π_new) ≤ e^{1+2L} C exp(¾ D_4(π_new‖μ)) sqrt(log|Θ| / N).

As in the theorem, N candidates are drawn once and weighed, and the flow minimises the risk on this finite set; x_0 and
τ are fresh in every step. One compiled program per dimension fits all seeds of one cell of the study, whatever its N
and its proposal. The weights' normalisations make no difference on one fixed set. They are compared where they do: on
many small sets, by `weights`, and in fits that draw new candidates in every step.
"""

import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from entroflow import checks
from entroflow.flow import FlowPolicy
from entroflow.isfm import Diagnostics, diagnose

from .. import frame
from ..distances import gaussian_renyi
from . import fits, report
from . import weights as weighing
from .data import (
    Line,
    Mixture,
    box,
    exact_set,
    flow_w2_squared,
    noise_points,
    normal,
    resampled,
    set_w2_squared,
)
from .figure import draw

PARTS = (0.35, 0.65), (-1.2, 0.9), (0.35, 0.5)  # two modes of different weight and width, in every component
TARGETS = {1: Mixture(1, *PARTS), 2: Mixture(2, *PARTS)}
SHIFTED = Mixture(1, (1.0,), (1.0,), (0.5,))  # the target of the divergence sweep, whose D_4 has a closed form
BROAD = normal(0.0, 1.5)  # the fixed proposal
SIZES = (16, 64, 256, 1024, 4096)  # N with the proposal fixed
CANDIDATES = 256  # N where the proposal moves
DIVERGENCES = (1.0, 2.0, 3.0, 4.0)  # D_4
NARROWED = (0.8, 0.5)  # standard deviations over the target's; D_4 is infinite
CAPACITY = 16_384  # of a set, and the size of the exact set whose fit is the network's floor
SET_SIZES = (8, 16, 32, 64, 128, 256)  # N of the sets on which normalisations are measured
REPEATS = 10_000
MOST_STEPS = 1_000_000
POINTS = {1: 1024, 2: 512}  # of noise, for W_2
COLUMNS = "study", "dimension", "proposal", "candidates", "renyi_2", "renyi_4", "ess"


# Candidates of all seeds, their log-weights, and the divergences D_2 and D_4 of where they come from.
Weighted = tuple[Float[np.ndarray, "runs N d"], Float[np.ndarray, "runs N"], Sequence[float]]


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    seeds: int = 8
    """Number of seeds for every cell, at least 2."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    steps: int = 600
    """Gradient steps of every fit."""


def plan(options: Options) -> frame.Work:
    """Check the options; return the work."""
    if len(frame.seeds_of(options)) < 2:
        raise checks.error("--seeds", "1", "at least 2", "an interval needs seeds that differ")
    checks.positive_int("--steps", options.steps, most=MOST_STEPS)
    return lambda job: Study(options, job).run()


def divergent_proposals() -> list[tuple[str, Line, float, float]]:
    """Return Gaussians that move away from the Gaussian target, each with its family, D_2 and D_4 in closed form."""
    mean, sd = SHIFTED.means[0], SHIFTED.sds[0]

    def divergence(order: float, center: float, width: float) -> float:
        return gaussian_renyi(order, [mean], [[sd**2]], [center], [[width**2]])

    places = [("target", mean, sd)]
    for d4 in DIVERGENCES:  # D_4 of a shift by δ standard deviations is 2 δ²
        places.append(("shifted", mean - sd * math.sqrt(d4 / 2), sd))
    for d4 in DIVERGENCES:
        excess = lambda log_width, d4=d4: divergence(4, mean, sd * math.exp(log_width)) - d4  # noqa: E731
        places.append(("widened", mean, sd * math.exp(cast(float, brentq(excess, 0.0, 2 * d4 + 2)))))
    places += [("narrowed", mean, sd * ratio) for ratio in NARROWED]
    return [
        (name, normal(center, width), divergence(2, center, width), divergence(4, center, width))
        for name, center, width in places
    ]


class Study:
    """The cells of the study, each a fit for every seed, and what was found."""

    def __init__(self, options: Options, job: frame.Job):
        self.options, self.job, self.seeds = options, job, frame.seeds_of(options)
        self.keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        self.noise = {d: noise_points(n, d) for d, n in POINTS.items()}
        steps = options.steps
        self.learn = jax.jit(jax.vmap(lambda key, candidates: fits.learn(steps, key, candidates)))
        self.learn_afresh = jax.jit(
            jax.vmap(lambda key, place: fits.learn_afresh(steps, key, place), in_axes=(0, None))
        )
        self.push = jax.jit(jax.vmap(fits.push, in_axes=(0, None)))
        self.draw = jax.jit(jax.vmap(functools.partial(fits.draw, n=SIZES[-1]), in_axes=(0, 0, None)))
        # What several cells need is made once in a process, and again in one that goes on.
        self.floor, self.earlier = functools.cache(self._floor), functools.cache(self._earlier)
        self.rows: list[frame.Row] = []

    def run(self) -> tuple[frame.Row, list[Any]]:
        """Fit, measure, draw; return results and tables."""
        job = self.job
        job.cells = 2 * (len(SIZES) + 1) + len(divergent_proposals()) + 6 + len(weighing.WEIGHTS) + 1
        job.console.print(
            f"Theorem 2: {job.cells} cells, {len(self.seeds)} seeds each in one program, {self.options.steps} steps"
        )
        with job.timed("fits"):
            self._samples(1)
            self._divergence()
            self._samples(2)
            self._proposals()
        with job.timed("normalisations"):
            fitted = {
                name: job.cell(f"{name} weights, {fits.FEW} candidates", functools.partial(self._afresh, place))
                for place, name in enumerate(weighing.WEIGHTS)
            }
            errors = job.cell("weights of many sets", self._weights)
        document = report.summarise(self.rows, errors, fitted)
        draw(job.out, document)
        settings = {
            "sizes": SIZES,
            "candidates": CANDIDATES,
            "candidates_of_normalisations": fits.FEW,
            "width": fits.WIDTH,
            "pairs_per_step": fits.STATES * fits.BATCH,
            "mixture": PARTS,
            "exact_set": CAPACITY,
            "repeats": REPEATS,
        }
        return document | {"settings": settings}, report.tables(document)

    # The three sweeps

    def _samples(self, d: int) -> None:
        """N candidates of the fixed proposal, N growing, after the exact set, whose fit is the network's floor."""
        target = TARGETS[d]
        name, exact = f"floor of the network, d = {d}", functools.partial(self._exact, d)
        self._cell(name, "floor", target, "exact set", exact, functools.partial(self.floor, d))
        for n in SIZES:
            drawn = functools.partial(self._draw, target, BROAD, n)
            self._cell(f"N = {n}, d = {d}", "samples", target, "Gaussian", drawn)

    def _divergence(self) -> None:
        """Gaussian proposals that move away from a Gaussian target, N fixed."""
        for place, (family, proposal, *divergences) in enumerate(divergent_proposals()):
            drawn = functools.partial(self._draw, SHIFTED, proposal, CANDIDATES, divergences)
            self._cell(f"{place}: D₄ = {divergences[1]:.1f}, {family}", "divergence", SHIFTED, family, drawn)

    def _proposals(self) -> None:
        """Exact samples, policies and uniform proposals at equal N, in two dimensions."""
        target = TARGETS[2]
        makers: dict[str, Callable[[], Weighted]] = {
            "exact samples": self._exact_samples,
            "policy": lambda: self._draw_policies(self.floor(2), 1.0),
            "policy, noise × 1.5": lambda: self._draw_policies(self.floor(2), 1.5),
            "policy at 2α": lambda: self._draw_policies(self.earlier(), 1.0),
            "uniform, ±4": lambda: self._draw(target, box(-4.0, 4.0), CANDIDATES),
            "uniform, ±10": lambda: self._draw(target, box(-10.0, 10.0), CANDIDATES),
        }
        for name, make in makers.items():
            self._cell(name, "proposals", target, name, make)

    # Cells

    def _cell(
        self,
        name: str,
        study: str,
        target: Mixture,
        proposal: str,
        make: Callable[[], Weighted],
        learned: Callable[[], FlowPolicy] | None = None,
    ) -> None:
        """Fit every seed's flow to its weighted set, unless that is done elsewhere, and record what came of it."""

        def work() -> frame.Row:
            latents, log_weights, (renyi_2, renyi_4) = make()
            policies = self._learn(latents, log_weights) if learned is None else learned()
            sets = zip(latents, log_weights, strict=True)
            return {
                "study": study,
                "dimension": target.size,
                "proposal": proposal,
                "candidates": latents.shape[1],
                "renyi_2": renyi_2,
                "renyi_4": renyi_4,
                "ess": float(np.mean(_diagnosed(log_weights).ess)),
                "w2_squared": self._w2_squared(policies, target),
                "set_w2_squared": [set_w2_squared(points[:, 0], logs, target) for points, logs in sets]
                if target.size == 1
                else None,
            }

        self.rows.append(self.job.cell(name, work))
        rows = [
            {key: row[key] for key in COLUMNS} | {"seed": seed, "w2_squared": value}
            for row in self.rows
            for seed, value in zip(self.seeds, row["w2_squared"], strict=True)
        ]
        self.job.rows("cells.csv", rows)

    def _learn(self, latents: Float[np.ndarray, "runs N d"], log_weights: Float[np.ndarray, "runs N"]) -> FlowPolicy:
        return self.learn(self.keys, resampled(latents, log_weights, CAPACITY))

    def _floor(self, d: int) -> FlowPolicy:
        """Fit the network to what is as good as the target: what remains is its own error."""
        return self._learn(*self._exact(d)[:2])

    def _earlier(self) -> FlowPolicy:
        """Fit the target at twice the temperature."""
        everywhere = self._draw(TARGETS[2], box(-4.0, 4.0), CAPACITY)[0]
        return self._learn(everywhere, 0.5 * TARGETS[2].log_prob(everywhere))

    def _w2_squared(self, policies: FlowPolicy, target: Mixture) -> list[float]:
        noise, pushed = self.noise[target.size], self._pushed(policies, target.size)
        return [flow_w2_squared(points, noise, target) if np.isfinite(points).all() else math.nan for points in pushed]

    def _pushed(self, policies: FlowPolicy, d: int) -> Float[np.ndarray, "runs points d"]:
        return np.asarray(self.push(policies, jnp.asarray(self.noise[d], jnp.float32)), np.float64)

    # Candidates

    def _generator(self, seed: int, n: int, d: int) -> np.random.Generator:
        """Return the same stream for all proposals, so that they differ in nothing else."""
        return np.random.default_rng([seed, n, d])

    def _draw(self, target: Mixture, proposal: Line, n: int, divergences: Sequence[float] | None = None) -> Weighted:
        """Draw from a fixed proposal; divergences come by quadrature if they are not given."""
        shape = n, target.size
        latents = np.stack([proposal.rvs(shape, random_state=self._generator(seed, *shape)) for seed in self.seeds])
        log_weights = target.log_prob(latents) - proposal.logpdf(latents).sum(axis=-1)
        return latents, log_weights, divergences or [target.renyi(order, proposal) for order in (2, 4)]

    def _exact(self, d: int) -> Weighted:
        points = np.repeat(exact_set(TARGETS[d], CAPACITY)[None], len(self.seeds), axis=0)
        return points, np.zeros(points.shape[:2]), [0.0, 0.0]

    def _exact_samples(self) -> Weighted:
        shape = CANDIDATES, 2
        shares = np.stack([self._generator(seed, *shape).random(shape) for seed in self.seeds])
        return TARGETS[2].quantile(shares), np.zeros(shares.shape[:2]), [0.0, 0.0]

    def _draw_policies(self, policies: FlowPolicy, scale: float) -> Weighted:
        """Draw from every seed's policy, many more than needed: D_2 and D_4 are estimated from them."""
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(self.keys)
        drawn = self.draw(policies, keys, jnp.float32(scale))
        latents, log_proposal = (np.asarray(part, np.float64) for part in drawn)
        log_weights = TARGETS[2].log_prob(latents) - log_proposal
        found = _diagnosed(log_weights)
        divergences = [float(np.mean(part)) for part in (found.renyi_2, found.renyi_4)]
        return latents[:, :CANDIDATES], log_weights[:, :CANDIDATES], divergences

    # Normalisations

    def _afresh(self, place: int) -> dict[str, list[float]]:
        """Mean, variance and W_2² of policies fitted with one normalisation and a few new candidates per step."""
        policies = self.learn_afresh(self.keys, jnp.int32(place))
        pushed = self._pushed(policies, 1)[..., 0]
        target = Mixture(1, (1.0,), (weighing.MEAN,), (weighing.SD,))
        return {
            "mean": pushed.mean(axis=1).tolist(),
            "variance": pushed.var(axis=1).tolist(),
            "w2_squared": self._w2_squared(policies, target),
        }

    def _weights(self) -> list[frame.Row]:
        """Bias and variance of every normalisation on many sets of N candidates."""
        table = weighing.tabulate(fits.untrained(jax.random.key(self.options.seed), 1))
        return [
            {"normalisation": name, "candidates": n}
            | weighing.measure(table, name, n, REPEATS, np.random.default_rng([self.options.seed, n]))._asdict()
            for name in weighing.WEIGHTS
            for n in SET_SIZES
        ]


def _diagnosed(log_weights: Float[np.ndarray, "runs N"]) -> Diagnostics:
    return jax.vmap(diagnose)(jnp.asarray(log_weights, jnp.float32))


main = frame.command("theorem2", plan, Options)

if __name__ == "__main__":
    sys.exit(main())
