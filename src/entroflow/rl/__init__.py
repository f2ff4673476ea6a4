"""Soft policy iteration and actor-critic (sections III-A and III-D of the paper)."""

from .actors import ACTORS, Actor, Denoising, Flow, Gaussian
from .config import Config
from .critics import CRITICS, Critic, MLPCritic
from .loop_gym import best_of
from .sac import State, evaluate_policy, improve_policy, init, policy, q_value, update
from .spi import soft_policy_iteration

__all__ = [
    "ACTORS",
    "CRITICS",
    "Actor",
    "Config",
    "Critic",
    "Denoising",
    "Flow",
    "Gaussian",
    "MLPCritic",
    "State",
    "best_of",
    "evaluate_policy",
    "improve_policy",
    "init",
    "policy",
    "q_value",
    "soft_policy_iteration",
    "update",
]
