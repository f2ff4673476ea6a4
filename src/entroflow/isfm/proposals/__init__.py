"""Proposals μ(·|s): where the candidates of policy improvement come from.

`fit(..., propose=...)` and `improvement(..., propose=...)` take a function that makes the proposal from the current
policy:

    propose=CurrentPolicy                                                          the paper's
    propose=lambda policy: BroadenedPolicy(policy, 1.5)  noise scaled up
    propose=lambda policy: GaussianProposal([0.0, 1.0], 4.0)                               in the latent
    propose=lambda policy: GaussianProposal.over_actions(policy.action_space, [0.0, 1.0], 4.0)
    propose=lambda policy: UniformProposal(policy.action_space)  a box of actions
    propose=lambda policy: defensive(policy, UniformProposal(policy.action_space), 0.1)    (1 − ε) policy + ε broad
    propose=lambda policy: MixtureProposal([CurrentPolicy(policy), ...], [0.5, ...])       any number of components
    propose=lambda policy: PopulationProposal(policy, q_function, temperature)             moved up the critic

A proposal of one's own takes ten lines: see `Proposal`.
"""

from .broad import GaussianProposal, UniformProposal
from .mixture import MixtureProposal, defensive
from .policy import BroadenedPolicy, CurrentPolicy
from .population import PopulationProposal
from .protocol import DensityProposal, Proposal

__all__ = [
    "BroadenedPolicy",
    "CurrentPolicy",
    "DensityProposal",
    "GaussianProposal",
    "MixtureProposal",
    "PopulationProposal",
    "Proposal",
    "UniformProposal",
    "defensive",
]
