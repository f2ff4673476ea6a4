"""The examples of one's own parts do what they say, at tiny budgets, and are short."""

import runpy
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from entroflow import GaussianSAC
from entroflow.moments import standard
from entroflow.rl import Experience

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = partial(GaussianSAC, width=32, critic_width=32, batch_size=64)
OWN = sorted(EXAMPLES.glob("own_*.py"))


def names_of(name):
    """What an example defines."""
    return runpy.run_path(str(EXAMPLES / f"own_{name}.py"))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_examples_are_short(path):
    """At most 60 lines."""
    assert len(path.read_text().splitlines()) <= 60


def test_own_proposal(key):
    """The tails' density is that of their samples; an agent trains on them, at a lower ESS/N than on its own policy."""
    names = names_of("proposal")
    tails, obs = names["HeavyTails"](2, 1.5), jnp.zeros(3)
    latents, log_probs = tails.sample_and_log_prob(key, obs, 5000)
    np.testing.assert_allclose(log_probs, stats.logistic.logpdf(latents, scale=1.5).sum(axis=1), rtol=1e-4)
    assert stats.kstest(np.asarray(latents)[:, 0], stats.logistic(scale=1.5).cdf).pvalue > 1e-3
    ess, mean_return = names["train"](names["mixed"], steps=40)
    assert 1 / 8 < ess < 0.95 and -2000 < mean_return < 0


def test_own_actor(tmp_path):
    """From the square of the unit found, a half, the variances rise to the optimum's third and above at first.

    It is the loaded agent that has them.
    """
    gain, variances = names_of("actor")["main"](steps=1300, folder=str(tmp_path / "agent"))
    assert gain.shape == (2, 2) and np.all((variances > 0.28) & (variances < 0.9))


def test_own_critic():
    """Quantiles become those of the targets, a normal distribution here, and an agent trains on them."""
    names = names_of("critic")
    critic = names["Quantiles"](width=16)
    state = critic.init(jax.random.split(jax.random.key(0), 2), standard(2), 1, None)
    obs, action = jnp.zeros((256, 2)), jnp.zeros((256, 1))
    rewards = 1 + jnp.asarray(stats.norm.ppf((np.arange(256) + 0.5) / 256), jnp.float32)
    target = lambda q: rewards + 0 * q  # noqa: E731
    given = Experience(obs, action, obs, action, target, None, standard(2), jnp.zeros(()), None)
    learn = jax.jit(lambda state: jax.lax.fori_loop(0, 2000, lambda _, state: critic.update(state, given)[0], state))
    quantiles = learn(state)[0](jnp.zeros(3))
    np.testing.assert_allclose(quantiles, 1 + stats.norm.ppf((np.arange(25) + 0.5) / 25), atol=0.15)
    assert -2000 < names["main"](steps=1040, kind=SMALL) < 0


def test_own_environment():
    """Both are one task, on which an agent learns to walk toward zero; standing still gives −20."""
    names = names_of("environment")
    walk, pure = names["Walk"](), names["GymAdapter"](names["PureWalk"](-jnp.ones(1), jnp.ones(1)))
    start, _ = walk.reset(seed=0)
    pure.reset(seed=0)
    pure._current = pure._current._replace(state=jnp.asarray(start))
    for time in range(1, 21):
        expected, found = walk.step(np.float32([0.5])), pure.step(np.float32([0.5]))
        np.testing.assert_allclose(np.hstack(found[:4]), np.hstack(expected[:4]), rtol=1e-5)
        assert found[3] == (time == 20)
    assert min(names["main"](steps=400, kind=SMALL)) > -12
