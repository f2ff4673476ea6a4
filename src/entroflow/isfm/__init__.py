"""Policy improvement by importance sampling flow matching (section III-C of the paper)."""

from .improve import FitConfig, FitMetrics, descend, fit, improvement, move, optimiser
from .loss import Candidates, draw_candidates, flow_matching_loss, isfm_loss, stratified_times
from .proposals import Broadened, CurrentPolicy, Proposal
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
    "NORMALISATIONS",
    "Broadened",
    "Candidates",
    "CurrentPolicy",
    "Diagnostics",
    "FitConfig",
    "FitMetrics",
    "Normalisation",
    "Proposal",
    "descend",
    "diagnose",
    "draw_candidates",
    "fit",
    "flow_matching_loss",
    "improvement",
    "isfm_loss",
    "log_mean_exp",
    "move",
    "optimiser",
    "raw",
    "self_normalised",
    "state_normalised",
    "stratified_times",
    "temper",
]
