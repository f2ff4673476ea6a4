"""Policies for deployment: files that run without this library, as StableHLO or ONNX."""

from .programs import Program, acting, sampling, write

__all__ = ["Program", "acting", "sampling", "write"]
