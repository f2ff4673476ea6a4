"""Max-entropy LQR (Section IV of the paper): exact answers, named systems and shared-noise simulation, without JAX."""

from entroflow.lqr import systems
from entroflow.lqr.answers import Evaluation, LinearGaussian, Optimum, Quadratic
from entroflow.lqr.controller import Cost, Design
from entroflow.lqr.design import design, load_design
from entroflow.lqr.exact import LQR
from entroflow.lqr.horizon import Schedule, finite_horizon
from entroflow.lqr.output import OutputFeedback, observe
from entroflow.lqr.plant import Plant
from entroflow.lqr.risk import risk_seeking_cost, worst_cost
from entroflow.lqr.simulate import Noise, Trajectories, sample_noise, simulate
from entroflow.lqr.tracking import Tracker, track

__all__ = [
    "LQR",
    "Cost",
    "Design",
    "Evaluation",
    "LinearGaussian",
    "Noise",
    "Optimum",
    "OutputFeedback",
    "Plant",
    "Quadratic",
    "Schedule",
    "Tracker",
    "Trajectories",
    "design",
    "finite_horizon",
    "load_design",
    "observe",
    "risk_seeking_cost",
    "sample_noise",
    "simulate",
    "systems",
    "track",
    "worst_cost",
]
