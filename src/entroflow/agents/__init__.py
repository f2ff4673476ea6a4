"""What a user imports: agents that learn on a task, and trained ones from disk. JAX comes with their first use."""

from typing import TYPE_CHECKING

from .. import later

if TYPE_CHECKING:
    from ..envs.episodes import Broken
    from . import callbacks
    from .agent import SAC, SACISFM, DenoisingSAC, GaussianSAC
    from .evaluation import Evaluation, Perturbation
    from .loading import load
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

_HOMES = {"Broken": "..envs.episodes", "Evaluation": ".evaluation", "NotFinite": ".training", "load": ".loading"}
_HOMES |= {"Perturbation": ".evaluation", "Settings": ".settings"}
_HOMES |= dict.fromkeys(("SAC", "SACISFM", "DenoisingSAC", "GaussianSAC"), ".agent")

__getattr__ = later.names(__name__, _HOMES)
