"""What a training on a Gymnasium task is set to, and its form on disk."""

import dataclasses
import types
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .. import checks
from ..flow import RungeKutta
from ..flow.integrate import Solver
from ..isfm import AdaptiveCandidates
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


def from_json(document: Any) -> Settings:
    """Return settings from what `to_json` made of them.

    Raises:
        ValueError: if a field is unknown or a value is not possible.
    """
    outer = _part("settings", document)
    inner = _part("config", outer.pop("config", None))
    actor = _part("actor", inner.pop("actor", None))
    kind = ALGORITHMS[checks.choice("algorithm", actor.pop("algorithm", None), ALGORITHMS)]
    if isinstance(solver := actor.get("solver"), dict):
        actor["solver"] = RungeKutta(**checked(RungeKutta, solver))
    if isinstance(schedule := actor.get("candidates"), dict):
        sizes = schedule.get("sizes")
        sizes = {"sizes": tuple(sizes)} if isinstance(sizes, list) else {}
        actor["candidates"] = AdaptiveCandidates(**checked(AdaptiveCandidates, schedule | sizes))
    made: Actor = kind(**checked(kind, actor))
    return Settings(sac.Config(made, **checked(sac.Config, inner)), **checked(Settings, outer))


def _part(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise checks.error(name, repr(value), "an object with settings", "use settings as entroflow wrote them")
    return dict(value)


SHARES = {"critic_warmup", "warmup", "target_rate", "final_target_rate", "recent", "ess_floor"}
MOST = 2**31 - 1


def checked(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return values of a class of settings in the types that its fields have.

    Args:
        kind: `Settings`, `sac.Config` or the class of an actor.
        values: values of some fields.

    Raises:
        ValueError: for a value of another type, or out of range.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    return {name: _checked(name, value, hints[checks.choice("setting", name, known)]) for name, value in values.items()}


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Check one value; what is not a number, a name or a truth value checks itself."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    if isinstance(value, str) and str in kinds:
        return value
    if kinds == (Solver,) and hasattr(value, "solve_with_integral"):
        return value
    for kind in kinds:
        whole = get_origin(kind) or kind  # tuple[int, ...] is a tuple
        if isinstance(whole, type) and whole not in (int, float, bool, str, Solver) and isinstance(value, whole):
            return value
        if get_origin(kind) is Literal:
            return checks.choice(name, value, get_args(kind))
    if bool in kinds:
        if not isinstance(value, bool):
            raise checks.error(name, repr(value), "true or false", "pass one of these")
        return value
    if int in kinds:
        return checks.positive_int(name, value, most=MOST)
    if float not in kinds:
        raise checks.error(name, repr(value), f"a value such as the default of {name}", "leave it out")
    if name in SHARES:
        number = checks.number(name, value, "a number from 0 to 1", "pass a number such as 0.5")
        if not 0 <= number <= 1 or (number == 0 and name == "recent"):
            raise checks.error(name, repr(value), "a number from 0 to 1", "pass a number such as 0.5")
        return number
    if name in ("average", "exploration", "pathwise", "target_entropy"):
        number = checks.number(name, value)
        if number < 0 and name != "target_entropy":
            raise checks.error(name, repr(value), "a number of at least 0", "pass 0")
        return number
    return checks.positive_number(name, value)
