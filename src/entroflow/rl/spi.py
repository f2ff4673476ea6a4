"""Soft policy iteration (Algorithm 1), for any kind of policy.

repeat
    policy evaluation: Q_k, the fixed point of equation (1) for π_k
    policy improvement: (4)  π_{k+1} = exp(Q_k/α)/Z; for a flow policy by ISFM to convergence (`entroflow.isfm.improve`)
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

Policy = TypeVar("Policy")
Evaluation = TypeVar("Evaluation")


def soft_policy_iteration(
    policy: Policy,
    evaluate: Callable[[Policy], Evaluation],
    improve: Callable[[Policy, Evaluation, int], Policy],
    iterations: int,
) -> Iterator[tuple[Policy, Evaluation]]:
    """Algorithm 1: evaluate and improve in turn.

    Args:
        policy: π_0.
        evaluate: policy ↦ whatever determines its soft Q.
        improve: (π_k, its evaluation, k) ↦ π_{k+1}.
        iterations: number of improvements.

    Yields:
        Every policy with its evaluation, from π_0 on: iterations + 1 pairs.
    """
    yield policy, (evaluation := evaluate(policy))
    for k in range(iterations):
        policy = improve(policy, evaluation, k)
        yield policy, (evaluation := evaluate(policy))
