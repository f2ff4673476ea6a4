"""What whole episodes gave."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Evaluation(NamedTuple):
    """What whole episodes gave.

    Attributes:
        returns: undiscounted return of every episode.
        lengths: number of steps of every episode.
    """

    returns: Float[np.ndarray, " episodes"]
    lengths: Float[np.ndarray, " episodes"]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean return; NaN for one episode."""
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns))) if len(self.returns) > 1 else math.nan
