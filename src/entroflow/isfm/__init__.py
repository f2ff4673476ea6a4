"""Policy improvement by importance sampling flow matching (section III-C of the paper)."""

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
    "Normalisation",
    "Proposal",
    "diagnose",
    "draw_candidates",
    "flow_matching_loss",
    "isfm_loss",
    "log_mean_exp",
    "raw",
    "self_normalised",
    "state_normalised",
    "stratified_times",
    "temper",
]
