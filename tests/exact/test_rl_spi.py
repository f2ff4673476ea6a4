"""Algorithm 1 itself: the order of its steps, and where it leads when each of them is exact."""

import numpy as np
import pytest

from entroflow.lqr import systems
from entroflow.rl.spi import soft_policy_iteration

ALPHA = 0.2


@pytest.mark.parametrize("name", systems.CATALOGUE)
def test_algorithm_1_reaches_the_riccati_equation(name):
    """Lemma 1 and completing the square, Σ = α/2 M_aa⁻¹ and K = M_aa⁻¹ M_as, lead to Theorem 3's optimum."""
    lqr, d = systems.get(name), systems.get(name).B.shape[1]
    optimum = lqr.optimal(ALPHA)

    def improve(policy, matrix, k):
        inverse = np.linalg.inv(matrix[-d:, -d:])
        return inverse @ matrix[-d:, :-d], ALPHA / 2 * inverse

    start = lqr.optimal(10 * ALPHA).K * 0.9, 3 * optimum.covariance
    *_, ((K, covariance), _) = soft_policy_iteration(start, lambda one: lqr.soft_q(*one, ALPHA).matrix, improve, 8)
    np.testing.assert_allclose(K, optimum.K, atol=1e-8 * np.abs(optimum.K).max())
    np.testing.assert_allclose(covariance, optimum.covariance, atol=1e-8)


def test_improvements_see_the_evaluation_of_the_policy_before():
    """Algorithm 1 hands every improvement the evaluation of its own policy and its number, and evaluates once each."""
    evaluated = []
    evaluate = lambda policy: evaluated.append(policy) or 10 * policy  # noqa: E731
    improve = lambda policy, evaluation, k: (policy + 1 + k) if evaluation == 10 * policy else None  # noqa: E731
    assert list(soft_policy_iteration(0, evaluate, improve, 3)) == [(0, 0), (1, 10), (3, 30), (6, 60)]
    assert evaluated == [0, 1, 3, 6]
