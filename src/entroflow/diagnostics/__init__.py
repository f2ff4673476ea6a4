"""What do several seeds say together? NumPy alone, no JAX."""

from entroflow.diagnostics.statistics import bootstrap_interval, iqm, probability_of_improvement

__all__ = ["bootstrap_interval", "iqm", "probability_of_improvement"]
