"""The levers against variance leave the expected gradient alone and lower its variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import FlowPolicy, Unbounded, VelocityNetwork
from entroflow.isfm import isfm_loss, stein_control, stratified_times

TARGETS = "pair", "posterior", "stein"  # any proposal will do
# The target exp(Q/α)/Z is a mixture of N(±MODE, SD²) in one dimension, the proposal N(0, BROAD²).
MODE, SD, BROAD = 0.9, 0.5, 1.1
N, PAIRS, BATCHES, EXACT = 16, 2, 4000, 64
OBS = jnp.array([0.4])


def log_density(x):
    logs = [-0.5 * ((x - sign * MODE) / SD) ** 2 for sign in (-1, 1)]
    return jnp.logaddexp(*logs) - np.log(2 * SD * np.sqrt(2 * np.pi)).item()


def control_of(scores, weights):
    """The control variate of a single state."""
    return jax.tree.map(lambda leaf: leaf[0], stein_control(scores[None], weights[None], jnp.ones(1)))


@pytest.fixture(scope="module")
def gradients():
    """For every target the gradients of many batches with the true normalising constant, (BATCHES, parameters); and
    the same for flow matching on exact samples, with larger batches."""
    network = VelocityNetwork(1, 1, width=4, depth=1, key=jax.random.key(0))
    network = jax.tree.map(lambda leaf: 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), network)
    policy = FlowPolicy(network, Unbounded(1))

    def flat_gradient(key, latents, weights, times, **options):
        loss = lambda policy: isfm_loss(policy, key, OBS, latents, weights, times, **options)  # noqa: E731
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(loss)(policy).velocity)])

    def one_batch(key):
        target_key, sign_key, proposal_key, loss_key, time_key = jax.random.split(key, 5)
        signs = jax.random.rademacher(sign_key, (EXACT, 1), jnp.float32)
        samples = MODE * signs + SD * jax.random.normal(target_key, (EXACT, 1))
        equal = jnp.full((EXACT,), 1 / EXACT)
        found = {"exact": flat_gradient(loss_key, samples, equal, stratified_times(time_key, EXACT, PAIRS))}
        candidates = BROAD * jax.random.normal(proposal_key, (N, 1))
        log_targets, scores = jax.vmap(jax.value_and_grad(log_density))(candidates[:, 0])
        log_proposal = -0.5 * (candidates[:, 0] / BROAD) ** 2 - np.log(BROAD * np.sqrt(2 * np.pi)).item()
        weights = jnp.exp(log_targets - log_proposal) / N
        times = stratified_times(time_key, N, PAIRS)
        arguments = loss_key, candidates, weights, times
        for target in TARGETS:
            found[target] = flat_gradient(*arguments, target=target, control=control_of(scores[:, None], weights))
        flipped = control_of(-scores[:, None], weights)
        found["flipped"] = flat_gradient(*arguments, target="stein", control=flipped)
        return found

    keys = jax.random.split(jax.random.key(1), BATCHES)
    found = jax.jit(lambda keys: jax.lax.map(one_batch, keys, batch_size=100))(keys)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def z_scores(a, b):
    """The difference of two means in standard errors, for each parameter that the loss depends on."""
    error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / BATCHES)
    return ((a.mean(axis=0) - b.mean(axis=0)) / error)[error > 0]


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_unbiased(gradients, target):
    """With the true constant the expected gradient is that of flow matching on exact samples, within 4.5 errors."""
    z = z_scores(gradients[target], gradients["exact"])
    assert np.abs(z).max() < 4.5


def test_a_flipped_score_is_noticed(gradients):
    """The control variate with the wrong sign of the score has a mean."""
    assert np.abs(z_scores(gradients["flipped"], gradients["exact"])).max() > 20


def test_variance_falls(gradients):
    """The posterior mean is less noisy than single pairs, and less so with the control variate."""
    variance = {target: gradients[target].var(axis=0).sum() for target in TARGETS}
    assert variance["stein"] < variance["posterior"] < variance["pair"]
