"""The command line with learning rates of actor and critic that fall, for the preset crossq.

python -m experiments.mujoco.decay train HalfCheetah-v5 --preset crossq --steps 100000 --out OUT

They are what they are in the first half of the preset's 95,000 updates, then fall linearly to a twentieth.
"""

from collections.abc import Callable
from unittest import mock

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from entroflow import optimise
from entroflow.cli import main
from entroflow.rl import CrossQ, sac

UPDATES = 95_000
LEAST = 0.05


def falling(rate: float) -> Callable[[ArrayLike], Float[Array, ""]]:
    """Return the learning rate by the number of updates made."""
    return lambda count: rate * jnp.clip(1 - (1 - LEAST) * (2 * jnp.asarray(count) / UPDATES - 1), LEAST, 1.0)


def _of_critic(self: CrossQ) -> optax.GradientTransformation:
    return optimise.limited(optax.adam(falling(self.rate), b1=self.momentum))


def _of_actor(config: sac.Config) -> optax.GradientTransformation:
    return optimise.limited(optax.adam(falling(config.actor.rate)))


def run(argv: list[str] | None = None) -> int:
    """Run the command line so; return its exit code."""
    with (
        mock.patch.object(CrossQ, "_optimiser", property(_of_critic)),
        mock.patch.object(sac, "actor_optimiser", _of_actor),
    ):
        return main(argv)


if __name__ == "__main__":
    raise SystemExit(run())
