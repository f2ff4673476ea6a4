"""How far apart are two distributions, and what do several seeds say together? NumPy and SciPy only, no JAX."""

from entroflow.diagnostics.distances import gaussian_renyi, sample_w2
from entroflow.diagnostics.statistics import bootstrap_interval, iqm, probability_of_improvement

__all__ = [
    "bootstrap_interval",
    "gaussian_renyi",
    "iqm",
    "probability_of_improvement",
    "sample_w2",
]
