"""Soft policy iteration and actor-critic (sections III-A and III-D of the paper)."""

from .actors import ACTORS, Actor, ActorDefaults, Denoising, DensityPolicy, Flow, Gaussian, Goal, Policy, Step
from .config import Config
from .critics import CRITICS, Critic, CrossQ, Experience, MLPCritic, VCritic
from .loop_gym import best_of
from .sac import State, evaluate_policy, improve_policy, init, policy, q_value, update
from .soft_bellman import pathwise_values, soft_target, soft_value
from .spi import soft_policy_iteration

__all__ = [
    "ACTORS",
    "CRITICS",
    "Actor",
    "ActorDefaults",
    "Config",
    "Critic",
    "CrossQ",
    "Denoising",
    "DensityPolicy",
    "Experience",
    "Flow",
    "Gaussian",
    "Goal",
    "MLPCritic",
    "Policy",
    "State",
    "Step",
    "VCritic",
    "best_of",
    "evaluate_policy",
    "improve_policy",
    "init",
    "pathwise_values",
    "policy",
    "q_value",
    "soft_policy_iteration",
    "soft_target",
    "soft_value",
    "update",
]
