"""Max-entropy LQR (Section IV of the paper): exact answers, named systems and shared-noise simulation, without JAX."""

from entroflow.lqr import systems
from entroflow.lqr.answers import Evaluation, LinearGaussian, Optimum, Quadratic, Returns
from entroflow.lqr.design import Cost, Design, design
from entroflow.lqr.exact import LQR
from entroflow.lqr.simulate import Noise, Trajectories, sample_noise, simulate

__all__ = [
    "LQR",
    "Cost",
    "Design",
    "Evaluation",
    "LinearGaussian",
    "Noise",
    "Optimum",
    "Quadratic",
    "Returns",
    "Trajectories",
    "design",
    "sample_noise",
    "simulate",
    "systems",
]
