"""A policy is an ODE: flow policies with exact log-densities (section II-B of the paper)."""

from .bounds import ActionSpace, Box, Unbounded
from .divergence import (
    DivergenceMethod,
    ExactJVP,
    Hutchinson,
    exact_divergence,
    hutchinson_divergence,
)
from .integrate import AdaptiveSolver, RungeKutta, Solver
from .policy import FlowPolicy
from .velocity import ClosedForm, VelocityField, VelocityNetwork

__all__ = [
    "ActionSpace",
    "AdaptiveSolver",
    "Box",
    "ClosedForm",
    "DivergenceMethod",
    "ExactJVP",
    "FlowPolicy",
    "Hutchinson",
    "RungeKutta",
    "Solver",
    "Unbounded",
    "VelocityField",
    "VelocityNetwork",
    "exact_divergence",
    "hutchinson_divergence",
]
