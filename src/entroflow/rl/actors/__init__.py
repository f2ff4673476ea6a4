"""Actors: the policy classes of soft actor-critic, and how each is improved. All else is shared, see `rl/sac.py`."""

from .denoising import Denoising, DenoisingPolicy
from .feedback import Feedback, FeedbackNetwork, FeedbackPolicy
from .flow import PROPOSALS, Flow
from .gaussian import Gaussian, GaussianNetwork, GaussianPolicy
from .protocol import (
    Actor,
    ActorDefaults,
    DensityPolicy,
    Goal,
    NoiseDensityPolicy,
    NoisePolicy,
    Policy,
    Step,
)

ACTORS: dict[str, Actor] = {actor.name: actor for actor in (Flow(), Gaussian(), Denoising())}

__all__ = [
    "ACTORS",
    "PROPOSALS",
    "Actor",
    "ActorDefaults",
    "Denoising",
    "DenoisingPolicy",
    "DensityPolicy",
    "Feedback",
    "FeedbackNetwork",
    "FeedbackPolicy",
    "Flow",
    "Gaussian",
    "GaussianNetwork",
    "GaussianPolicy",
    "Goal",
    "NoiseDensityPolicy",
    "NoisePolicy",
    "Policy",
    "Step",
]
