"""The schedule of candidate counts: which size it chooses, and that runs choose for themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.isfm import AdaptiveCandidates, FitConfig, improve
from entroflow.isfm.schedule import at_size

SCHEDULE = AdaptiveCandidates(4.0, (4, 8, 16))


@pytest.mark.parametrize(("ess", "size"), [(1.0, 4), (0.99, 8), (0.51, 8), (0.49, 16), (0.1, 16), (0.0, 16)])
def test_the_smallest_size_within_the_budget_is_chosen(ess, size):
    """N is the smallest size with a budget of N ESS/N, and the largest where none has it."""
    _, found = at_size(SCHEDULE, jnp.float32(ess), lambda n: jnp.float32(n))
    assert int(found) == size


def test_the_step_has_the_chosen_size():
    """What is computed has as many candidates as is said, whether the number is fixed or chosen."""
    improve = lambda n: jnp.sum(jnp.ones(n))  # noqa: E731
    for schedule, ess in ((SCHEDULE, 0.7), (SCHEDULE, 1.0), (SCHEDULE, 0.0), (12, 0.0)):
        result, size = at_size(schedule, jnp.float32(ess), improve)
        assert float(result) == float(size)
    assert int(size) == 12


@pytest.fixture(scope="module")
def fits():
    """Fits from two seeds: with a schedule, from one of these beside a third one, and with fixed sizes."""
    policy = FlowPolicy(
        VelocityNetwork(1, 1, width=8, depth=1, key=jax.random.key(0)), Unbounded(1), solver=RungeKutta("midpoint", 2)
    )
    q = lambda obs, action: -2.0 * jnp.sum((action - 1.0) ** 2)  # noqa: E731
    observe = lambda key: jnp.zeros((4, 1))  # noqa: E731

    def program(candidates):
        config = FitConfig(steps=60, candidates=candidates, pairs=1, rate=0.05)
        one = lambda seed: improve(config, policy, jax.random.key(seed), observe, q, 1.0)  # noqa: E731
        return jax.jit(lambda seeds: jax.lax.map(one, seeds))

    scheduled, fixed = program(AdaptiveCandidates(2.8, (4, 16))), program(AdaptiveCandidates(1e9, (4, 16)))
    both, second = scheduled(jnp.array([1, 2])), scheduled(jnp.array([2, 3]))
    return {"both": both, "second": second, "fixed": fixed(jnp.array([2]))}


def test_every_run_chooses_for_itself(fits):
    """A run's parameters and sizes do not depend on which others stand beside it."""
    (both, metrics), (second, alone) = fits["both"], fits["second"]
    np.testing.assert_array_equal(metrics.candidates[1], alone.candidates[0])
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a[1], b[0])
    assert not np.array_equal(metrics.candidates[0], metrics.candidates[1])


def test_many_candidates_far_away_and_few_at_the_end(fits):
    """The first step takes the largest size, knowing nothing; sizes fall while the policy nears its target."""
    sizes = np.asarray(fits["both"][1].candidates)
    assert sizes.shape == (2, 60) and set(np.unique(sizes)) == {4.0, 16.0}
    assert (sizes[:, 0] == 16).all()
    assert sizes[:, 1:10].mean() > 10 > sizes[:, -20:].mean()
    assert (np.asarray(fits["fixed"][1].candidates) == 16).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"budget": 0.0}, "budget"),
        ({"budget": float("nan")}, "budget"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": (1, 2)}, "sizes"),
        ({"sizes": (8, 4)}, "sizes"),
        ({"sizes": (4, 4)}, "sizes"),
    ],
)
def test_bad_schedules_are_refused(arguments, words):
    """One sentence names what is wrong with a schedule."""
    with pytest.raises(ValueError, match=words):
        AdaptiveCandidates(**arguments)
