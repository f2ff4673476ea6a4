"""Proposals μ(·|s): where the candidates of policy improvement come from.

`improve(..., propose=...)` and `SACISFM(..., proposal=...)` take a function that makes the proposal from the current
policy, Q and α (see `Propose`):

    propose=current_policy                                                       the paper's
    propose=lambda policy, *_: BroadenedPolicy(policy, 1.5)                      noise scaled up
    propose=lambda policy, *_: GaussianProposal([0.0, 1.0], 4.0)                 in the latent
    propose=lambda policy, *_: UniformProposal(policy.action_space)              a box: `Box`, or low= and high=
    propose=lambda policy, *_: defensive(policy, UniformProposal(policy.action_space), 0.1)
    propose=lambda policy, *_: MixtureProposal([CurrentPolicy(policy), ...], [0.5, ...])

A proposal of one's own takes ten lines: see `Proposal`.
"""

from .broad import GaussianProposal, UniformProposal
from .mixture import MixtureProposal, defensive
from .policy import BroadenedPolicy, CurrentPolicy, current_policy
from .protocol import DensityProposal, Proposal, Propose, QFunction

__all__ = [
    "BroadenedPolicy",
    "CurrentPolicy",
    "DensityProposal",
    "GaussianProposal",
    "MixtureProposal",
    "Proposal",
    "Propose",
    "QFunction",
    "UniformProposal",
    "current_policy",
    "defensive",
]
