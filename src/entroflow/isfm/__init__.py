"""Policy improvement by importance sampling flow matching (section III-C of the paper)."""

from .faults import Faults, check_faults
from .improve import FitConfig, FitMetrics, descend, fit, improvement, move, optimiser
from .loss import Candidates, draw_candidates, flow_matching_loss, isfm_loss, stratified_times
from .proposals import (
    Broadened,
    CurrentPolicy,
    DensityProposal,
    Gaussian,
    Mixture,
    Population,
    Proposal,
    Uniform,
    defensive,
)
from .regression import TARGETS, Target, posterior_target
from .schedule import MEMORY, SIZES, Adaptive, Schedule, at_size, follow
from .weights import (
    NORMALISATIONS,
    Diagnostics,
    Normalisation,
    diagnose,
    log_mean_exp,
    raw,
    self_normalised,
    state_normalised,
    temper,
)

__all__ = [
    "MEMORY",
    "NORMALISATIONS",
    "SIZES",
    "TARGETS",
    "Adaptive",
    "Broadened",
    "Candidates",
    "CurrentPolicy",
    "DensityProposal",
    "Diagnostics",
    "Faults",
    "FitConfig",
    "FitMetrics",
    "Gaussian",
    "Mixture",
    "Normalisation",
    "Population",
    "Proposal",
    "Schedule",
    "Target",
    "Uniform",
    "at_size",
    "check_faults",
    "defensive",
    "descend",
    "diagnose",
    "draw_candidates",
    "fit",
    "flow_matching_loss",
    "follow",
    "improvement",
    "isfm_loss",
    "log_mean_exp",
    "move",
    "optimiser",
    "posterior_target",
    "raw",
    "self_normalised",
    "state_normalised",
    "stratified_times",
    "temper",
]
