"""What the LQR job is to do: its settings, its runs with their exact optima, and the noise that judges policies.

Without JAX, so that what cannot be done is refused before that is imported.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ... import checks
from ...lqr import LQR
from ...lqr.simulate import Noise, sample_noise, simulate
from ...options import LQROptions

if TYPE_CHECKING:
    from ...rl import Config

ENVIRONMENTS = 2048  # of each run
EXPLORATION = {
    "default": 3.0,
    "paper": 1.0,
}  # noise scale of the boldest environment; from one on
SEEN = 0.5  # in units of the reward, the temperature at whose optimum the boldest environment acts at least
HORIZON = 100  # of episodes and of the evaluation's trajectories
TRAJECTORIES = 100
LARGEST_MEMORY = 1800  # steps of all environments that the replay keeps at most
EVALUATIONS = 20  # during training, evenly
EARLY = 5, 10, 20, 50  # steps after which they begin: ten thousand transitions
PROGRESS_STATES, PROGRESS_SAMPLES = 32, 256  # of an evaluation during training
FINAL_STATES, FINAL_SAMPLES = 32, 16_384  # of the last one
MOST_CANDIDATES = 1024


class Run(NamedTuple):
    """One run of the study with its exact optimum: gain, covariance, entropy."""

    temperature: float
    seed: int
    K: Float[np.ndarray, "d n"]
    covariance: Float[np.ndarray, "d d"]
    entropy: float
    best_return: float  # the optimum's average return on the noise that the learned policies are judged on


def settings(
    updates: int, candidates: int = 8, preset: str = "default", algorithm: str = "sac_isfm", begun: bool = False
) -> "Config":
    """Return the settings for LQR: one critic, since a minimum is biased, and large batches for it.

    Policy improvement sees many states: the network of V learns from these alone. Where a controller has begun already
    the policy waits until the critic knows what that is worth, and moves less: a critic that knows little would lead
    away from it, and the plant with it.
    """
    from ...flow import RungeKutta
    from ...rl import Config, Flow, Gaussian, MLPCritic

    sizes: dict[str, Any] = {"width": 32, "depth": 1, "state_width": 32, "candidates": candidates}
    sizes |= {"states": 128, "pairs": 2} if begun else {"states": 256, "pairs": 1}  # as each was measured
    solver = RungeKutta("rk4", 4)
    actor = Flow(**sizes, acting_solver=solver, target="pair", pathwise=0.0, rate=1e-2, average=0.1)
    one: dict[str, Any] = {"width": 64, "layer_norm": False, "members": 1, "ensemble": "mean", "soft_value": "network"}
    if preset == "paper":
        actor, one["soft_value"] = dataclasses.replace(actor, ess_floor=0.0), "action"
    if algorithm == "gaussian_sac":
        for option, given, none in (("preset", preset, "default"), ("candidates", candidates, 8)):
            if given != none:
                told = f"{given!r} with {algorithm}"
                raise checks.error(f"--{option}", told, repr(none), "choose sac_isfm, whose it is")
        actor = Gaussian(width=64, depth=2, states=512, rate=1e-2, average=0.1)
    if begun:
        one["width"] = 128
        actor = dataclasses.replace(actor, rest=0.3, rate=3e-3)
    critic = MLPCritic(**one, improve_on="target", rate=5e-3, target_rate=0.1, final_target_rate=0.01)
    # No limit on observations: an optimal controller is linear in states however far away.
    return Config(actor, critic, updates, batch_size=4096, obs_limit=None, recent=0.6)


def exploration(options: LQROptions, temperature: float) -> float:
    """Return the noise scale of the boldest environment of a run, at a temperature in units of the reward.

    The critic must see actions beside what else moves the plant, so that a small temperature takes a larger scale. Bold
    environments would leave the reach of a given controller, and the paper has none.
    """
    scale = EXPLORATION[options.preset] if options.initial_gain is None else 1.0
    return scale if scale == 1 else max(scale, (SEEN / temperature) ** 0.5)


def plan(options: LQROptions, lqr: LQR) -> list[Run]:
    """Check the options, with a `ValueError` for bad ones; return the runs with their optima."""
    seeds = checks.seeds(options.seed, options.seeds)
    checks.positive_int("--steps", options.steps, most=np.iinfo(np.int32).max // ENVIRONMENTS)
    positive = [checks.positive_number("--alpha", temperature) for temperature in options.temperature]
    temperatures = checks.distinct("--alpha", positive, "temperatures")
    if beyond := [temperature for temperature in temperatures if not 1e-12 < temperature < 1e12]:
        raise checks.error("--alpha", f"{beyond[0]:g}", "a number from 1e-12 to 1e12", "scale Q, R and α together")
    runs = []
    for temperature in temperatures:
        optimum = lqr.optimal(temperature)
        best = simulate(lqr, optimum.K, optimum.covariance, noise(lqr)).discounted_returns.mean()
        run = Run(temperature, options.seed, optimum.K, optimum.covariance, optimum.entropy, float(best))
        runs += [run._replace(seed=seed) for seed in seeds]
    return runs


def candidates(given: str) -> int:
    """Read the option `--candidates`; raise a ValueError if it is no number of candidates."""
    if given.isdecimal() and len(given) < 5 and 2 <= int(given) <= MOST_CANDIDATES:
        return int(given)
    expected = f"a whole number from 2 to {MOST_CANDIDATES}"
    raise checks.error("--candidates", repr(given), expected, "pass for example 8")


def marks(steps: int) -> list[int]:
    """Return the steps between which policies are evaluated, the first and the last one too."""
    even = np.linspace(0, steps, min(EVALUATIONS, steps) + 1).astype(int).tolist()
    return sorted({*even, *[step for step in EARLY if step < even[1]]})


def visits(count: int) -> Int[np.ndarray, " m"]:
    """Return which states of the trajectories a policy is looked at in, counted along those of step 0 first."""
    return np.random.default_rng(0).choice(HORIZON * TRAJECTORIES, count, replace=False)


def noise(lqr: LQR) -> Noise:
    """Return the initial states and the noise on which all policies are judged, the optimal ones included."""
    return sample_noise(lqr, np.random.default_rng(0), TRAJECTORIES, HORIZON)
