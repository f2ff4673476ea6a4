"""What a training on a Gymnasium task is set to, and its form on disk."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .. import checks
from ..flow import RungeKutta
from ..isfm import Adaptive
from ..rl import sac
from ..rl.actors import Actor, Denoising, Flow, Gaussian

ALGORITHMS: dict[str, type[Any]] = {"sac_isfm": Flow, "gaussian_sac": Gaussian, "denoising": Denoising}


@dataclass(frozen=True)
class Settings:
    """Settings of a training, the same for all tasks unless said otherwise.

    Attributes:
        config: settings of soft actor-critic; its actor makes the algorithm.
        num_envs: environments of each run that step together.
        updates_per_step: updates for every step of one environment (the UTD ratio).
        policy_delay: updates of the critics for every update of the policy.
        learning_starts: steps with random actions before learning begins.
        buffer_size: transitions that each run remembers.
        discount: discount γ in [0, 1).
        temperature: entropy weight α, at first where it is steered to a target entropy.
        target_entropy: entropy in nats that α is steered to; "auto" is minus one for every action component in units
            of half its range; None leaves α as it is.
        action_candidates: actions M of which a deterministic policy takes the best by Q.
    """

    config: sac.Config = field(default_factory=sac.Config)
    num_envs: int = 1
    updates_per_step: int = 1
    policy_delay: int = 1
    learning_starts: int = 1000
    buffer_size: int = 1_000_000
    discount: float = 0.99
    temperature: float = 0.2
    target_entropy: float | str | None = "auto"
    action_candidates: int = 16

    def __post_init__(self):
        whole = ("num_envs", "updates_per_step", "policy_delay", "learning_starts", "buffer_size", "action_candidates")
        for name in whole:
            checks.positive_int(name, getattr(self, name))
        checks.discount("discount", self.discount)
        checks.positive_number("temperature", self.temperature)
        if self.target_entropy is not None and self.target_entropy != "auto":
            checks.number("target_entropy", self.target_entropy, "'auto', None or a number", "pass 'auto'")
        if self.buffer_size < self.config.batch_size:
            expected = f"at least the batch size, {self.config.batch_size}"
            raise checks.error("buffer_size", f"{self.buffer_size}", expected, "remember more")
        if self.policy_delay > 1 and self.config.soft_value == "network":
            remedy = "use policy_delay=1, or soft_value='action'"
            raise checks.error("policy_delay", f"{self.policy_delay} with a network of V", "1", remedy)

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return next(name for name, kind in ALGORITHMS.items() if isinstance(self.config.actor, kind))


def of_algorithm(name: str) -> Settings:
    """Return the default settings of an algorithm: all the same, but for the actor.

    Args:
        name: one of `ALGORITHMS`.

    Raises:
        ValueError: if there is none of that name.
    """
    kind = ALGORITHMS[checks.choice("algorithm", name, ALGORITHMS)]
    # Without a density there is no entropy to count.
    return Settings(sac.Config(kind(), entropy_in_target=kind is not Denoising))


def to_json(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON-ready dictionaries; the actor with the algorithm's name."""
    document = dataclasses.asdict(settings)
    document["config"]["actor"]["algorithm"] = settings.algorithm
    return document


def from_json(document: dict[str, Any]) -> Settings:
    """Return settings from what `to_json` made of them.

    Raises:
        ValueError: if a field is unknown or a value is not possible.
    """
    try:
        outer = dict(document)
        inner = dict(outer.pop("config"))
        actor = dict(inner.pop("actor"))
        kind = ALGORITHMS[actor.pop("algorithm")]
        if isinstance(actor.get("solver"), dict):
            actor["solver"] = RungeKutta(**actor["solver"])
        if isinstance(schedule := actor.get("candidates"), dict):
            actor["candidates"] = Adaptive(schedule["budget"], tuple(schedule["sizes"]))
        made: Actor = kind(**actor)
        return Settings(sac.Config(made, **inner), **outer)
    except (KeyError, TypeError) as problem:
        given = f"fields that do not fit ({problem})"
        raise checks.error("settings", given, "settings as entroflow wrote them", "use the version that did") from None
