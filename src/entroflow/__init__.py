"""Maximum-entropy reinforcement learning with flow policies, trained by importance sampling flow matching.

Sub-packages and names are imported on first use (PEP 562), so that `import entroflow` costs nothing and the exact
linear-quadratic answers of `entroflow.lqr` never load JAX.
"""

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

from entroflow import later

if TYPE_CHECKING:
    from entroflow import (
        agents,
        diagnostics,
        envs,
        exact,
        export,
        flow,
        isfm,
        lqr,
        rl,
        storage,
        studies,
    )
    from entroflow.agents.agent import SAC, SACISFM, DenoisingSAC, GaussianSAC
    from entroflow.agents.loading import load
    from entroflow.lqr import LQR
    from entroflow.studies.sweep import sweep

__all__ = [
    "LQR",
    "SAC",
    "SACISFM",
    "DenoisingSAC",
    "GaussianSAC",
    "__version__",
    "agents",
    "diagnostics",
    "envs",
    "exact",
    "export",
    "flow",
    "isfm",
    "load",
    "lqr",
    "rl",
    "storage",
    "studies",
    "sweep",
]

# Before JAX is imported; where it came first, its log stays as it is. XLA's alarm that compiling is slow is an "error"
# there, and what goes wrong is raised, too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = version("entroflow")

_HOMES = {"LQR": "entroflow.lqr", "load": "entroflow.agents.loading", "sweep": "entroflow.studies.sweep"}
_HOMES |= dict.fromkeys(("SAC", "SACISFM", "GaussianSAC", "DenoisingSAC"), "entroflow.agents.agent")

__getattr__ = later.names(__name__, _HOMES)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
