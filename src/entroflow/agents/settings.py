"""What a training is set to: one place for all settings, changed by name, and their form on disk."""

import dataclasses
import fractions
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .. import checks
from ..fields import Count, Discount, Number, Positive, check_fields
from ..flow import AdaptiveSolver, RungeKutta
from ..names import known
from ..rl import ACTORS, Config, CrossQ, Denoising, Flow, Gaussian, MLPCritic
from ..rl.actors import Feedback

# The classes of which files may speak. What is not here is an object of the user's own.
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Config, Flow, Gaussian, Denoising, Feedback, MLPCritic, CrossQ, RungeKutta, AdaptiveSolver)
}
KIND, OWN = "kind", "own"
CRITIC = "critic_"  # before the names of a critic's settings
PAPER = {
    "proposal": "policy",
    "normalise": "self",
    "target": "pair",
    "ess_floor": 0.0,
    "pathwise": 0.0,
    "solver": RungeKutta("midpoint", 4),
    "critic_soft_value": "action",
}
# As CrossQ's authors begin: bold at first, or seeds get stuck. What acts in the end is an average, for single policies
# of this critic swing.
CROSSQ = {"critic": CrossQ(), "learning_starts": 5000, "temperature": 1.0, "average": 0.05}
# What is set beside the defaults of an algorithm: "paper" is Algorithm 2 as it is written (arXiv 2512.23870), "crossq"
# the critic of CrossQ with what was found to go with it (experiments/changes).
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {name: {} for name in ACTORS},
    "paper": {"sac_isfm": PAPER},
    "crossq": {
        "sac_isfm": CROSSQ | {"pathwise": 1.0},
        "gaussian_sac": CROSSQ | {"rate": 1e-3},
        "denoising": CROSSQ,
    },
}


@dataclass(frozen=True)
class Settings:
    """Settings of a training, the same for all tasks unless said otherwise.

    Attributes:
        config: settings of soft actor-critic, of its actor and of its critic.
        num_envs: environments of each run that step together.
        updates_per_step: updates for every step of one environment (the UTD ratio): 0.2 is one for every five.
        policy_delay: updates of the critics for every update of the policy.
        learning_starts: steps with random actions before learning begins.
        buffer_size: transitions that each run remembers.
        discount: discount γ in [0, 1).
        temperature: entropy weight α, at first where it is steered to a target entropy. Learning with actions that have
            no bounds begins at the size at which one taken at random costs α/2 of reward.
        target_entropy: entropy in nats that α is steered to; "auto" is minus one for every action component in units
            of half its range, and None for actions that have none; None leaves α as it is.
        action_candidates: actions M of which a deterministic policy takes the best by Q.

    Raises:
        ValueError: in one sentence, for a value that is not possible, or two that do not go together.
    """

    config: Config = field(default_factory=Config)
    num_envs: Count = 1
    updates_per_step: Positive = 1
    policy_delay: Count = 1
    learning_starts: Count = 1000
    buffer_size: Count = 1_000_000
    discount: Discount = 0.99
    temperature: Positive = 0.2
    target_entropy: Number | Literal["auto"] | None = "auto"
    action_candidates: Count = 16

    def __post_init__(self):
        check_fields(self)
        if self.buffer_size < self.config.batch_size:
            expected = f"at least the batch size, {self.config.batch_size}"
            raise checks.error("buffer_size", f"{self.buffer_size}", expected, "remember more")
        if self.policy_delay > 1 and self.config.critic.learns_v:
            remedy = "use policy_delay=1, or soft_value='action'"
            raise checks.error("policy_delay", f"{self.policy_delay} with a network of V", "1", remedy)
        if self.policy_delay > 1 and self.config.updates is not None:
            given = f"{self.policy_delay} with updates={self.config.updates}, by which the policy's rate is planned"
            raise checks.error("policy_delay", given, "1", "use policy_delay=1, or updates=None")
        if getattr(self.config.actor, "exploration", 1) == 0:
            given = "0, whose entropy is -inf, where agents watch it and α follows it"
            raise checks.error("exploration", given, "a number above 0", "pass a small one, such as 1e-3")

    @property
    def algorithm(self) -> str:
        """The algorithm's name, as its actor says it."""
        return self.config.actor.name

    def updates_due(self, stored: int) -> int:
        """Return how many updates belong to the step by which a run has stored so many transitions."""
        count, starts = self.num_envs, self.learning_starts
        # Counted from the last step without updates, so that no fraction of one is lost, nor has to be stored.
        steps, ratio = stored - starts // count * count, fractions.Fraction(str(self.updates_per_step))
        return int(ratio * steps) - int(ratio * (steps - count)) if stored > starts else 0


def of_algorithm(name: str, preset: str = "default") -> Settings:
    """Return the settings of an algorithm, one of `entroflow.rl.ACTORS`: all the same, but for the actor."""
    settings = Settings(Config(ACTORS[checks.choice("algorithm", name, ACTORS)]))
    of = PRESETS[checks.choice("preset", preset, PRESETS)]
    if name not in of:
        expected = " or ".join(repr(other) for other, each in PRESETS.items() if name in each)
        raise checks.error(
            "preset", f"{preset!r} with {name}", expected, f"choose {' or '.join(of)}, whose preset it is"
        )
    return change(settings, of[name])


def begun(algorithm: str | None, preset: str, settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    """Return the settings of an agent: a preset's, of the algorithm or of the actor that is named, or those given."""
    if settings is None:
        actor = changes.get("actor")
        own = algorithm or (actor if isinstance(actor, str) else getattr(actor, "name", None))
        if own == actor:  # which the preset has as it should be
            changes = {name: value for name, value in changes.items() if name != "actor"}
        return change(of_algorithm(own if own in ACTORS else "sac_isfm", preset), changes)
    if preset != "default":
        remedy = f"change those, by entroflow.agents.settings.of_algorithm(…, {preset!r})"
        raise checks.error("preset", f"{preset!r} beside settings", "one of the two", remedy)
    return change(settings, changes)


def single(settings: Settings) -> dict[str, tuple[int, Any, dataclasses.Field]]:
    """Return every single setting by name: its level (0 outermost, 1, 2 actor, 3 critic), what has it, its field."""
    found: dict[str, tuple[int, Any, dataclasses.Field]] = {}
    for i, level in enumerate(_levels(settings)):
        prefix = CRITIC if i == 3 else ""
        for each in dataclasses.fields(level) if dataclasses.is_dataclass(level) else ():
            found.setdefault(prefix + each.name, (i, level, each))
    del found["config"]
    return found


def values(settings: Settings) -> dict[str, Any]:
    """Return the values of all single settings, by name."""
    return {name: getattr(level, each.name) for name, (_, level, each) in single(settings).items()}


def changed(settings: Settings) -> dict[str, Any]:
    """Return the single settings that are not as the algorithm has them by default, by name."""
    usual = values(of_algorithm(settings.algorithm) if settings.algorithm in ACTORS else Settings())
    whole = [name for name in ("actor", "critic") if type(getattr(settings.config, name)) is type(usual[name])]
    return {name: value for name, value in values(settings).items() if value != usual.get(name) and name not in whole}


def signature(function: Callable[..., Any], algorithm: str) -> inspect.Signature:
    """Return a constructor's signature with every single setting in it, for editors and `help`."""
    keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = {
        part.name: inspect.Parameter(part.name, either) if part.name == "env" else part  # which may stand alone
        for part in list(inspect.signature(function).parameters.values())[1:]
        if part.kind in (keyword, either)
    }
    more = [inspect.Parameter(name, keyword, default=value) for name, value in values(of_algorithm(algorithm)).items()]
    return inspect.Signature([*own.values(), *more])


def level_of(name: str, settings: Settings, option: str = "setting") -> int:
    """Return at which level a single setting is, see `single`; `option` is what the message speaks of."""
    found = single(settings)
    return found[known(name, found, option)][0]


def change(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with some changed, by name, wherever in the settings the names are.

    Of names that several have the outermost one counts; those of the critic have "critic_" before them; `actor` and
    `critic` change these altogether. An object may stand in the form in which files have it, see `to_json`.
    """
    changes = {name: _value(name, value, {}) if isinstance(value, dict) else value for name, value in changes.items()}
    whole = {name: changes.pop(name) for name in ("actor", "critic") if name in changes}
    settings = dataclasses.replace(settings, config=dataclasses.replace(settings.config, **whole))
    levels = _levels(settings)
    parts: list[dict[str, Any]] = [{} for _ in levels]
    for name, value in changes.items():
        level = level_of(name, settings)
        parts[level][name.removeprefix(CRITIC) if level == 3 else name] = value
    made = {name: dataclasses.replace(levels[i], **parts[i]) for name, i in (("actor", 2), ("critic", 3)) if parts[i]}
    config = dataclasses.replace(settings.config, **made, **parts[1])
    return dataclasses.replace(settings, config=config, **parts[0])


def to_json(settings: Any) -> Any:
    """Return settings as JSON-ready objects: each says its kind; what is the user's own says only its name."""
    if isinstance(settings, Settings) or type(settings) in KINDS.values():
        kind = {} if isinstance(settings, Settings) else {KIND: type(settings).__name__}
        return kind | {part.name: to_json(getattr(settings, part.name)) for part in dataclasses.fields(settings)}
    if isinstance(settings, tuple):
        return [to_json(part) for part in settings]
    if settings is None or isinstance(settings, bool | int | float | str):
        return settings
    return {OWN: getattr(settings, "__qualname__", type(settings).__qualname__)}


def from_json(document: Any, own: Mapping[str, Any] | None = None) -> Settings:
    """Return settings from what `to_json` made of them, and objects of the user's own, by the names of their fields."""
    if not isinstance(document, dict):
        remedy = "use settings as entroflow wrote them"
        raise checks.error("settings", repr(document), "an object with settings", remedy)
    rest = dict(own or {})
    settings = Settings(**_parts(Settings, document, rest))
    for name in rest:
        given = "an object of your own, which is not among the settings"
        raise checks.error(name, given, "only those that no file brings back", "leave it out")
    return settings


def _levels(settings: Settings) -> list[Any]:
    return [settings, settings.config, settings.config.actor, settings.config.critic]


def _parts(kind: type[Any], document: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    names = [part.name for part in dataclasses.fields(kind)]
    return {checks.choice("setting", name, names): _value(name, value, own) for name, value in document.items()}


def _value(name: str, value: Any, own: dict[str, Any]) -> Any:
    """Return what a field was, from its form on disk; what is taken of the user's own is taken out."""
    if isinstance(value, list):
        return tuple(_value(name, part, own) for part in value)
    if not isinstance(value, dict):
        return value
    if name == "candidates":  # which earlier versions could choose as they went
        remedy = "read it with the version of entroflow that wrote it"
        raise checks.error(name, "a schedule of candidates", "a whole number", remedy)
    if OWN in value:
        if name not in own:
            given = f"an object of your own, {value[OWN]}, which no file brings back"
            raise checks.error(name, given, "the object itself", f"pass {name}=…")
        return own.pop(name)
    inner = dict(value)
    kind = KINDS[checks.choice(f"kind of {name}", inner.pop(KIND, None), KINDS)]
    return kind(**_parts(kind, inner, own))
