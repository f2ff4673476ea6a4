"""The gradient of ISFM is, in expectation, that of flow matching on exact samples of the target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow.flow import FlowPolicy, Unbounded, VelocityNetwork
from entroflow.isfm import (
    diagnose,
    isfm_loss,
    raw,
    self_normalised,
    state_normalised,
    stratified_times,
)

# Target exp(Q/α) = exp(LOG_Z) N(MEAN, SD²), proposal N(0, 1.3²), one action component.
MEAN, SD, LOG_Z, BROAD = 0.8, 0.5, 2.0, 1.3
N, PAIRS, BATCHES = 64, 2, 2000
OBS = jnp.array([0.4])


def log_normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd * jnp.sqrt(2 * jnp.pi))


@pytest.fixture(scope="module")
def gradients():
    """For every estimator the gradients of many independent batches, shape (BATCHES, parameters)."""
    network = VelocityNetwork(1, 1, width=4, depth=1, key=jax.random.key(0))
    network = jax.tree.map(lambda leaf: 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), network)
    policy = FlowPolicy(network, Unbounded(1))

    def flat_gradient(loss, *arguments):
        gradient = jax.grad(loss)(policy, *arguments)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient.velocity)])

    def one_batch(key):
        target_key, proposal_key, loss_key, time_key = jax.random.split(key, 4)
        times = stratified_times(time_key, N, PAIRS)
        samples = MEAN + SD * jax.random.normal(target_key, (N, 1))
        candidates = BROAD * jax.random.normal(proposal_key, (N, 1))
        log_weights = LOG_Z + log_normal(candidates[:, 0], MEAN, SD) - log_normal(candidates[:, 0], 0.0, BROAD)
        equal = jnp.full((N,), 1 / N)
        estimates = {"flow matching": flat_gradient(isfm_loss, loss_key, OBS, samples, equal, times)}
        # The gradient is linear in the weights: one Jacobian serves all normalisations.
        per_candidate = jax.vmap(lambda w: flat_gradient(isfm_loss, loss_key, OBS, candidates, w, times))(
            jnp.stack(
                [
                    raw(log_weights, LOG_Z),
                    self_normalised(log_weights),
                    state_normalised(log_weights),
                    jnp.full((N,), 1 / N),
                ]
            )
        )
        return estimates | dict(zip(["raw", "self", "state", "none"], per_candidate, strict=True))

    keys = jax.random.split(jax.random.key(1), BATCHES)
    return jax.jit(lambda keys: jax.lax.map(one_batch, keys, batch_size=100))(keys)


def z_scores(a, b):
    """The difference of two means in standard errors, for each parameter that the loss depends on."""
    error = jnp.sqrt((jnp.var(a, axis=0) + jnp.var(b, axis=0)) / BATCHES)
    return np.asarray((jnp.mean(a, axis=0) - jnp.mean(b, axis=0)) / error)


def test_raw_weights_give_the_gradient_of_flow_matching(gradients):
    """Equation (7) with the true normalising constant is unbiased: all components agree within 4.5 errors."""
    z = z_scores(gradients["raw"], gradients["flow matching"])
    assert np.max(np.abs(z)) < 4.5
    assert np.mean(z**2) < 2.0


@pytest.mark.parametrize("normalisation", ["self", "state"])
def test_normalised_weights_are_close_to_the_gradient_of_flow_matching(gradients, normalisation):
    """Normalising by an estimate of Z(s) costs a bias of order 1/N, a few per cent of the gradient here."""
    exact, found = jnp.mean(gradients["flow matching"], axis=0), jnp.mean(gradients[normalisation], axis=0)
    assert float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)) < 0.1


def test_without_weights_the_gradient_is_wrong(gradients):
    """The comparison can fail: unweighted candidates are many errors away."""
    assert np.max(np.abs(z_scores(gradients["none"], gradients["flow matching"]))) > 20.0


def test_renyi_divergences_from_samples():
    """From samples of the proposal, exp(D_2) and exp(3 D_4) are within 4 standard errors of two Gaussians' values."""
    n = 200_000
    candidates = BROAD * jax.random.normal(jax.random.key(3), (n,))
    log_weights = LOG_Z + log_normal(candidates, MEAN, SD) - log_normal(candidates, 0.0, BROAD)
    found = diagnose(log_weights)
    ratio = np.exp(np.asarray(log_weights, np.float64) - LOG_Z)
    for order, value in ((2, found.renyi_2), (4, found.renyi_4)):
        variance = order * BROAD**2 + (1 - order) * SD**2
        log_determinants = np.log(variance / (SD ** (2 * (1 - order)) * BROAD ** (2 * order)))
        expected = order * MEAN**2 / (2 * variance) + log_determinants / (2 * (1 - order))
        # Delta method for log mean(ratio^order) − order log mean(ratio).
        influence = ratio**order / np.mean(ratio**order) - order * ratio / np.mean(ratio)
        error = np.std(influence) / np.sqrt(n) / (order - 1)
        np.testing.assert_allclose(value, expected, atol=4 * error)
