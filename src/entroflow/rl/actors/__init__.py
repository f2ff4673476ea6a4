"""Actors: the policy classes of soft actor-critic, and how each is improved. All else is shared, see `rl/sac.py`."""

from .denoising import Denoising, DenoisingPolicy
from .flow import Flow
from .gaussian import Gaussian, GaussianNetwork, GaussianPolicy
from .protocol import Actor, Policy, Step

__all__ = [
    "Actor",
    "Denoising",
    "DenoisingPolicy",
    "Flow",
    "Gaussian",
    "GaussianNetwork",
    "GaussianPolicy",
    "Policy",
    "Step",
]
