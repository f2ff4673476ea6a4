"""Exact soft optima that are no Gaussian: environments of few states, solved on a grid; tables and linear problems."""

from entroflow.exact.grid import Axis
from entroflow.exact.solution import ExactPolicy, Solution, solve
from entroflow.exact.tabular import Iterated, Table, iterate, linearly_solvable

__all__ = ["Axis", "ExactPolicy", "Iterated", "Solution", "Table", "iterate", "linearly_solvable", "solve"]
