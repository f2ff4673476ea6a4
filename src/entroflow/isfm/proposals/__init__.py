"""Proposals μ(·|s): where the candidates of policy improvement come from.

`fit(..., propose=...)` and `improvement(..., propose=...)` take a function that makes the proposal from the current
policy:

    propose=CurrentPolicy                                                          the paper's
    propose=lambda policy: Broadened(policy, 1.5)                                  noise scaled up
    propose=lambda policy: Gaussian([0.0, 1.0], 4.0)                               in the latent
    propose=lambda policy: Gaussian.over_actions(policy.action_space, [0.0, 1.0], 4.0)
    propose=lambda policy: Uniform(policy.action_space)                            a box: `Box`, or low= and high=
    propose=lambda policy: defensive(policy, Uniform(policy.action_space), 0.1)    (1 − ε) policy + ε broad
    propose=lambda policy: Mixture([CurrentPolicy(policy), ...], [0.5, ...])       any number of components
    propose=lambda policy: Population(policy, q_function, temperature)             moved up the critic

A proposal of one's own takes ten lines: see `Proposal`.
"""

from .broad import Gaussian, Uniform
from .mixture import Mixture, defensive
from .policy import Broadened, CurrentPolicy
from .population import Population
from .protocol import DensityProposal, Proposal

__all__ = [
    "Broadened",
    "CurrentPolicy",
    "DensityProposal",
    "Gaussian",
    "Mixture",
    "Population",
    "Proposal",
    "Uniform",
    "defensive",
]
