"""Max-entropy LQR (Section IV of the paper): exact answers, named systems and shared-noise simulation, without JAX."""

from entroflow.lqr import systems
from entroflow.lqr.answers import Evaluation, LinearGaussian, Optimum, Quadratic, Returns
from entroflow.lqr.controller import Cost, Design
from entroflow.lqr.design import design, load_design
from entroflow.lqr.exact import LQR
from entroflow.lqr.horizon import Schedule, finite_horizon
from entroflow.lqr.plant import Plant
from entroflow.lqr.simulate import Noise, Trajectories, sample_noise, simulate

__all__ = [
    "LQR",
    "Cost",
    "Design",
    "Evaluation",
    "LinearGaussian",
    "Noise",
    "Optimum",
    "Plant",
    "Quadratic",
    "Returns",
    "Schedule",
    "Trajectories",
    "design",
    "finite_horizon",
    "load_design",
    "sample_noise",
    "simulate",
    "systems",
]
