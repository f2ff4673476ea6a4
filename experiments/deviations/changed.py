"""`entroflow lqr` with other settings than its own: python -m experiments.deviations.changed CHANGE lqr [OPTIONS]."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any, Literal

from entroflow import cli
from entroflow.commands.lqr import job, plan
from entroflow.rl import Config


@dataclass(frozen=True)
class Change:
    """In what Algorithm 2 as it is written and the default of `entroflow lqr` differed.

    When this was run improvement steps had 64 states and two pairs; since commit 3a98f83 they have 256 and one. Bold
    environments have become bolder since where α is small (`plan.exploration`).

    Attributes:
        ess_floor: share of the candidates that the weights keep effective, by tempering; zero: no tempering.
        soft_value: whether V(s') comes from a network or from an action of the policy.
        exploration: noise scale of the boldest environment; at one all draw from the policy itself.
        states: states of an improvement step.
        pairs: pairs (x_0, τ) per candidate.
        batch: transitions of the critic's.
        target: what the velocity is regressed on.
        width: width of the critic.
    """

    ess_floor: float = 0.3
    soft_value: str = "network"
    exploration: float = 3.0
    states: int = 64
    pairs: int = 2
    batch: int = 4096
    target: Literal["pair", "posterior"] = "pair"
    width: int = 64


CHANGES = {
    "former default": Change(),
    "no tempering": Change(ess_floor=0.0),
    "V from an action": Change(soft_value="action"),
    "no bold environments": Change(exploration=1.0),
    "paper": Change(0.0, "action", 1.0),
    "paper, tempered": Change(soft_value="action", exploration=1.0),
    "paper, with a network of V": Change(ess_floor=0.0, exploration=1.0),
    "paper, with bold environments": Change(ess_floor=0.0, soft_value="action"),
}
TRIED = {
    "bolder environments": Change(exploration=6.0),
    "bolder environments, 128 states": Change(exploration=6.0, states=128),
    "bolder environments, batches of 8192": Change(exploration=6.0, batch=8192),
    "four times bolder environments": Change(exploration=12.0),
    "posterior targets": Change(target="posterior"),
    "posterior targets, critic of 128 units": Change(target="posterior", width=128),
    "256 states": Change(states=256),
    "256 states, one pair": Change(states=256, pairs=1),
    "256 states, one pair, posterior targets": Change(states=256, pairs=1, target="posterior"),
    "256 states, one pair, bolder environments": Change(exploration=6.3, states=256, pairs=1),
}


def changed(change: Change, config: Config) -> Config:
    """Return the settings of the job with the change."""
    sizes = {"states": change.states, "pairs": change.pairs}
    actor = dataclasses.replace(config.actor, ess_floor=change.ess_floor, target=change.target, **sizes)
    critic = dataclasses.replace(config.critic, soft_value=change.soft_value, width=change.width)
    return dataclasses.replace(config, actor=actor, critic=critic, batch_size=change.batch)


def main(name: str, *arguments: str) -> int:
    """Run the command with a change; return its exit code."""
    own, change = plan.settings, (CHANGES | TRIED)[name]
    plan.EXPLORATION["default"], plan.SEEN = change.exploration, 0.0  # no bolder than that

    def settings(*arguments: Any) -> Config:
        return changed(change, own(*arguments))

    job.settings = settings
    return cli.main(list(arguments)) or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
