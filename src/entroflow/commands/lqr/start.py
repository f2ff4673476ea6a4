"""The beginning of the command lqr: JAX is imported once it is known that what is asked for can be done."""

from typing import Any

from ...lqr import LQR, systems
from ...options import LQROptions
from ...storage.folder import unused
from .plan import candidates, plan


def run(options: LQROptions, resumed: dict[str, Any] | None = None) -> int:
    """Do what the command says; return the exit code. Of a study to go on with, `resumed` holds the system."""
    lqr = systems.load(options.system) if resumed is None else LQR.from_dict(resumed["system"])
    runs = plan(options, lqr)
    candidates(options.candidates)
    if resumed is None:
        unused(options.out)
    from . import job

    return job.run(options, lqr, runs, resumed=resumed)
