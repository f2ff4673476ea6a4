"""How far apart are two distributions, and what do several seeds say together? NumPy and SciPy only, no JAX."""

from entroflow.diagnostics.distances import gaussian_entropy, gaussian_kl, gaussian_renyi, gaussian_w2, sample_w2
from entroflow.diagnostics.statistics import bootstrap_interval, iqm, probability_of_improvement

__all__ = [
    "bootstrap_interval",
    "gaussian_entropy",
    "gaussian_kl",
    "gaussian_renyi",
    "gaussian_w2",
    "iqm",
    "probability_of_improvement",
    "sample_w2",
]
