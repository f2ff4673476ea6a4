"""What a user imports: agents that learn on a task, and trained ones from disk."""

from ..envs.episodes import Broken
from . import callbacks
from .agent import SAC, SACISFM, DenoisingSAC, GaussianSAC
from .evaluation import Evaluation
from .load import load
from .perturb import Perturbation
from .settings import Settings
from .training import NotFinite

__all__ = [
    "SAC",
    "SACISFM",
    "Broken",
    "DenoisingSAC",
    "Evaluation",
    "GaussianSAC",
    "NotFinite",
    "Perturbation",
    "Settings",
    "callbacks",
    "load",
]
