"""Theorem 2, measured: W_2² of a fitted flow against the number of candidates N, the divergence D_4 and the proposal.

    W_2²(π̂, π_new) ≤ e^{1+2L} C exp(¾ D_4(π_new‖μ)) sqrt(log|Θ| / N).

As in the theorem, N candidates are drawn once and weighed, and the flow minimises the risk on this finite set; x_0 and
τ are fresh in every step. One compiled program per dimension fits all seeds of one cell of the study, whatever its N
and its proposal. The weights' normalisations make no difference on one fixed set. They are compared where they do: on
many small sets, by `weights`, and in fits that draw new candidates in every step.
"""

import csv
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from scipy.optimize import brentq

from ... import checks
from ...commands.conduct import conduct
from ...diagnostics import gaussian_renyi
from ...flow import FlowPolicy
from ...isfm import diagnose
from ...storage.folder import timed
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


@dataclass(frozen=True)
class Theorem2Command:
    """Measure Theorem 2: W_2² of the learned distribution against the number of candidates and the proposal.

    Writes a figure, results.json and cells.csv into a folder.
    """

    seeds: int = 8
    """Number of seeds for every cell, at least 2."""
    seed: int = 0
    """First seed S; the seeds are S, S+1, …."""
    steps: int = 600
    """Gradient steps of every fit."""
    out: Path = Path("out/theorem2")
    """Output folder, new or empty."""


def run(command: Theorem2Command) -> int:
    """Do what the command says; return the exit code.

    Raises:
        ValueError: for bad input, before anything is written.
    """
    if len(checks.seeds(command.seed, command.seeds)) < 2:
        raise checks.error("--seeds", "1", "at least 2", "an interval needs seeds that differ")
    checks.positive_int("--steps", command.steps, most=MOST_STEPS)
    return conduct(command.out, lambda console: _Study(command, console).run())


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


class _Study:
    """The cells of the study, each a fit for every seed, and what was found."""

    def __init__(self, command: Theorem2Command, console: Console):
        self.command, self.console = command, console
        self.seeds = checks.seeds(command.seed, command.seeds)
        self.keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        self.noise = {d: noise_points(n, d) for d, n in POINTS.items()}
        steps = command.steps
        self.learn = jax.jit(jax.vmap(lambda key, candidates: fits.learn(steps, key, candidates)))
        self.learn_afresh = jax.jit(
            jax.vmap(lambda key, place: fits.learn_afresh(steps, key, place), in_axes=(0, None))
        )
        self.push = jax.jit(jax.vmap(fits.push, in_axes=(0, None)))
        self.draw = jax.jit(jax.vmap(functools.partial(fits.draw, n=SIZES[-1]), in_axes=(0, 0, None)))
        self.clock: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self) -> int:
        """Fit, measure, write; return the exit code."""
        begun, console = time.perf_counter(), self.console
        cells = 2 * (len(SIZES) + 1) + len(divergent_proposals()) + 7 + len(weighing.WEIGHTS)
        console.print(
            f"Theorem 2: {cells} cells, {len(self.seeds)} seeds each in one program, {self.command.steps} steps"
        )
        bar = BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
        with Progress(TextColumn("{task.percentage:3.0f} %"), *bar, console=console) as progress:
            task = progress.add_task("compiling", total=cells)

            def note(text: str) -> None:
                progress.update(task, description=text, advance=1)

            with timed(self.clock, "fits"):
                self._samples(1, note)
                self._divergence(note)
                self._proposals(self._samples(2, note), note)
            with timed(self.clock, "normalisations"):
                fitted = self._afresh(note)
                progress.update(task, description="weights of many sets")
                errors = self._weights()
        with timed(self.clock, "report"):
            document = report.summarise(self.rows, errors, fitted)
            settings = dataclasses.asdict(self.command) | {
                "sizes": SIZES,
                "candidates": CANDIDATES,
                "candidates_of_normalisations": fits.FEW,
                "width": fits.WIDTH,
                "pairs_per_step": fits.STATES * fits.BATCH,
                "mixture": PARTS,
                "exact_set": CAPACITY,
                "repeats": REPEATS,
            }
            draw(self.command.out, document)
        seconds = self.clock | {"total": time.perf_counter() - begun}
        report.write(self.command.out, settings, document, seconds)
        for table in report.tables(document):
            console.print(table)
        console.print(f"{seconds['total']:.0f} s; theorem2.png, theorem2.pdf, results.json and cells.csv are in")
        console.print(str(self.command.out), markup=False, soft_wrap=True)
        return 0

    # The three sweeps

    def _samples(self, d: int, note: Callable[[str], None]) -> FlowPolicy:
        """N candidates of the fixed proposal, N growing; return the policies fitted to the exact set."""
        target = TARGETS[d]
        policies = self._floor(target)
        note(f"floor of the network, d = {d}")
        for n in SIZES:
            latents, log_weights = self._draw(target, BROAD, n)
            self._cell("samples", target, "Gaussian", latents, log_weights, self._renyi(target, BROAD))
            note(f"N = {n}, d = {d}")
        return policies

    def _divergence(self, note: Callable[[str], None]) -> None:
        """Gaussian proposals that move away from a Gaussian target, N fixed."""
        for family, proposal, *divergences in divergent_proposals():
            latents, log_weights = self._draw(SHIFTED, proposal, CANDIDATES)
            self._cell("divergence", SHIFTED, family, latents, log_weights, divergences)
            note(f"D₄ = {divergences[1]:.1f}, {family}")

    def _proposals(self, policies: FlowPolicy, note: Callable[[str], None]) -> None:
        """Policies, Gaussian and uniform proposals at equal N, in two dimensions."""
        target = TARGETS[2]
        everywhere = self._draw(target, box(-4.0, 4.0), CAPACITY)[0]
        earlier = self.learn(self.keys, resampled(everywhere, 0.5 * target.log_prob(everywhere), CAPACITY))
        note("the policy at twice the temperature")
        samples = target.quantile(self._shares(CANDIDATES, 2))
        self._cell("proposals", target, "exact samples", samples, np.zeros(samples.shape[:2]), [0.0, 0.0])
        note("exact samples")
        for name, proposing, scale in (
            ("policy", policies, 1.0),
            ("policy, noise × 1.5", policies, 1.5),
            ("policy at 2α", earlier, 1.0),
        ):
            latents, log_proposal = self._draw_policies(proposing, scale)
            log_weights = target.log_prob(latents) - log_proposal
            found = jax.vmap(diagnose)(jnp.asarray(log_weights, jnp.float32))
            divergences = [float(np.mean(found.renyi_2)), float(np.mean(found.renyi_4))]
            self._cell("proposals", target, name, latents[:, :CANDIDATES], log_weights[:, :CANDIDATES], divergences)
            note(name)
        for name, proposal in (("uniform, ±4", box(-4.0, 4.0)), ("uniform, ±10", box(-10.0, 10.0))):
            latents, log_weights = self._draw(target, proposal, CANDIDATES)
            self._cell("proposals", target, name, latents, log_weights, self._renyi(target, proposal))
            note(name)

    # Cells

    def _cell(
        self,
        study: str,
        target: Mixture,
        proposal: str,
        latents: Float[np.ndarray, "runs N d"],
        log_weights: Float[np.ndarray, "runs N"],
        divergences: Sequence[float],
    ) -> FlowPolicy:
        """Fit every seed's flow to its weighted set and record what came of it."""
        policies = self.learn(self.keys, resampled(latents, log_weights, CAPACITY))
        line = target.size == 1
        row = {
            "study": study,
            "dimension": target.size,
            "proposal": proposal,
            "candidates": latents.shape[1],
            "renyi_2": divergences[0],
            "renyi_4": divergences[1],
            "ess": float(np.mean(jax.vmap(diagnose)(jnp.asarray(log_weights, jnp.float32)).ess)),
            "w2_squared": self._w2_squared(policies, target),
            "set_w2_squared": [
                set_w2_squared(points[:, 0], logs, target) for points, logs in zip(latents, log_weights, strict=True)
            ]
            if line
            else None,
        }
        self.rows.append(row)
        with (self.command.out / "cells.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if len(self.rows) == 1:
                writer.writerow([*COLUMNS, "seed", "w2_squared"])
            for seed, value in zip(self.seeds, row["w2_squared"], strict=True):
                writer.writerow([*(row[name] for name in COLUMNS), seed, value])
        return policies

    def _floor(self, target: Mixture) -> FlowPolicy:
        """Fit the network to what is as good as the target: what remains is its own error."""
        points = np.repeat(exact_set(target, CAPACITY)[None], len(self.seeds), axis=0)
        return self._cell("floor", target, "exact set", points, np.zeros(points.shape[:2]), [0.0, 0.0])

    def _w2_squared(self, policies: FlowPolicy, target: Mixture) -> list[float]:
        noise = self.noise[target.size]
        pushed = np.asarray(self.push(policies, jnp.asarray(noise, jnp.float32)), np.float64)
        return [flow_w2_squared(points, noise, target) if np.isfinite(points).all() else math.nan for points in pushed]

    # Candidates

    def _generator(self, seed: int, n: int, d: int) -> np.random.Generator:
        """Return the same stream for all proposals, so that they differ in nothing else."""
        return np.random.default_rng([seed, n, d])

    def _shares(self, n: int, d: int) -> Float[np.ndarray, "runs N d"]:
        return np.stack([self._generator(seed, n, d).random((n, d)) for seed in self.seeds])

    def _draw(
        self, target: Mixture, proposal: Line, n: int
    ) -> tuple[Float[np.ndarray, "runs N d"], Float[np.ndarray, "runs N"]]:
        shape = n, target.size
        latents = np.stack([proposal.rvs(shape, random_state=self._generator(seed, *shape)) for seed in self.seeds])
        return latents, target.log_prob(latents) - proposal.logpdf(latents).sum(axis=-1)

    def _draw_policies(
        self, policies: FlowPolicy, scale: float
    ) -> tuple[Float[np.ndarray, "runs N d"], Float[np.ndarray, "runs N"]]:
        """Draw from every seed's policy, many more than needed: D_4 is estimated from them."""
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(self.keys)
        drawn = self.draw(policies, keys, jnp.float32(scale))
        latents, log_proposal = (np.asarray(part, np.float64) for part in drawn)
        return latents, log_proposal

    def _renyi(self, target: Mixture, proposal: Line) -> list[float]:
        return [target.renyi(2, proposal), target.renyi(4, proposal)]

    # Normalisations

    def _afresh(self, note: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
        """Mean, variance and W_2² of policies fitted with each normalisation and a few new candidates per step."""
        found, noise = {}, self.noise[1]
        target = Mixture(1, (1.0,), (weighing.MEAN,), (weighing.SD,))
        for place, name in enumerate(weighing.WEIGHTS):
            policies = self.learn_afresh(self.keys, jnp.int32(place))
            pushed = np.asarray(self.push(policies, jnp.asarray(noise, jnp.float32)), np.float64)[..., 0]
            found[name] = {
                "mean": pushed.mean(axis=1).tolist(),
                "variance": pushed.var(axis=1).tolist(),
                "w2_squared": self._w2_squared(policies, target),
            }
            note(f"{name} weights, {fits.FEW} candidates")
        return found

    def _weights(self) -> list[dict[str, Any]]:
        """Bias and variance of every normalisation on many sets of N candidates."""
        table = weighing.tabulate(fits.untrained(jax.random.key(self.command.seed), 1))
        return [
            {"normalisation": name, "candidates": n}
            | weighing.measure(table, name, n, REPEATS, np.random.default_rng([self.command.seed, n]))._asdict()
            for name in weighing.WEIGHTS
            for n in SET_SIZES
        ]
