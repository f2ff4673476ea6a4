"""Numbers of candidates: fixed ones against a schedule, on two densities and on LQR."""

import functools
import sys
from dataclasses import dataclass
from typing import Literal

from .. import frame
from . import densities, lqr

WORK: dict[str, frame.Work] = {
    "densities": densities.run,
    "fresh": functools.partial(densities.run, fresh=True),
    "lqr": lqr.run,
}


@dataclass(frozen=True)
class Options(frame.Options):
    """What can be chosen."""

    problem: Literal["densities", "fresh", "lqr"] = "densities"
    """fresh: some settings of the densities, with seeds on which no rule was chosen."""


main = frame.command("adaptive", lambda options: WORK[options.problem], Options)

if __name__ == "__main__":
    sys.exit(main())
