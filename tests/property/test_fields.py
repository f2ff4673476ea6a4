"""Settings check themselves: every field of every settings class takes what it is for and names what it is not for."""

import dataclasses
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entroflow.agents import Settings
from entroflow.flow import AdaptiveSolver, RungeKutta
from entroflow.isfm import (
    CurrentPolicy,
    FitConfig,
    GaussianProposal,
    current_policy,
    self_normalised,
)
from entroflow.rl import ACTORS, CRITICS, Config, CrossQ, Denoising, Flow, Gaussian, MLPCritic

LARGEST = 2**31 - 1
NO_NUMBERS = [None, "1", "", True, False, [1], (0.5,), {}, object(), 1j, float, np.zeros(2), np.array("1"), np.True_]
NOT_FINITE = [float("nan"), float("inf"), float("-inf"), np.float32("nan"), 10**400]


class Kind:
    """What a field is for: right values, and wrong ones."""

    def __init__(self, right, wrong):
        self.right, self.wrong = right, wrong

    def or_none(self):
        """The same, or None."""
        return Kind(self.right | st.none(), self.wrong.filter(lambda value: value is not None))

    def or_text(self, *words):
        """The same, or one of a few words."""
        return Kind(
            self.right | st.sampled_from(words), self.wrong.filter(lambda value: repr(value)[1:-1] not in words)
        )


def count(most=LARGEST):
    """A whole number above zero, of 32 bits or at most another one."""
    beyond = st.integers(max_value=0) | st.integers(most + 1, 2**70) | st.floats()
    return Kind(st.integers(1, most), beyond | st.sampled_from(NO_NUMBERS))


def number(low=None, high=None, *, above=False, below=False):
    """A finite number from low to high, one or both of them left out."""
    finite = {"allow_nan": False, "allow_infinity": False}
    right = st.floats(low, high, exclude_min=above, exclude_max=below, **finite)
    right |= st.integers(int(low or 0) + above, int(high or 10**6) - below) if high is None or not above else st.just(1)
    wrong = st.sampled_from(NO_NUMBERS + NOT_FINITE)
    if low is not None:
        wrong |= st.floats(max_value=low, exclude_max=not above, **finite)
    if high is not None:
        wrong |= st.floats(min_value=high, exclude_min=not below, **finite)
    return Kind(right, wrong)


def flag():
    """True or false."""
    return Kind(st.booleans(), st.sampled_from([None, 0, 1, "true", "", 1.0, [True], np.True_]))


def word(*words):
    """One of a few words."""
    wrong = st.text().filter(lambda text: text not in words) | st.sampled_from([words[0][:-1], words[0] + "s"])
    return Kind(st.sampled_from(words), wrong | st.sampled_from([None, True, 3, 0.5, [words[0]], object()]))


def thing(*right, words=(), classes=()):
    """An object of a certain kind, or one of a few words; the classes of these objects are none."""
    given_words = word(*words, "never a word").wrong if words else st.text()
    wrong = given_words | st.sampled_from([None, True, -3, 0.5, [], object(), *classes, *map(type, right)])
    return Kind(st.sampled_from([*right, *words]), wrong.filter(lambda value: not isinstance(value, type(lambda: 0))))


class Halves:
    """A solver of one's own."""

    def solve(self, velocity, x, *, start=0.0, end=1.0):
        return x

    def solve_with_integral(self, velocity, velocity_and_rate, x, *, start=0.0, end=1.0):
        return x, 0.0


class Made:
    """A proposal that is made of policy, Q and α."""

    def __init__(self, policy, q_function, temperature): ...


def proposal():
    """A name, a function, an object that can be called, or a class that makes proposals of policy, Q and α."""
    right = [current_policy, Made, lambda policy, q_function, temperature: CurrentPolicy(policy)]
    wrong = word("policy", "defensive").wrong | st.sampled_from([GaussianProposal([0.0], 1.0), None, 3])
    return Kind(st.sampled_from([*right, "policy", "defensive"]), wrong)


def normalisation():
    """A name, or a function of log-weights."""
    right = [self_normalised, lambda log_weights: log_weights, "self", "state", "raw"]
    return Kind(st.sampled_from(right), word("self", "state", "raw").wrong)


POSITIVE, NOT_NEGATIVE, SHARE = number(0, above=True), number(0), number(0, 1)
TARGET, SOLVER = word("pair", "posterior", "stein"), thing(RungeKutta(), AdaptiveSolver(), Halves())
TRAINED = {"rate": POSITIVE, "warmup": SHARE, "average": NOT_NEGATIVE}
ACTOR = TRAINED | {"rest": SHARE}

FIELDS = {
    RungeKutta: {"method": word("euler", "midpoint", "heun", "rk4"), "steps": count(), "grading": POSITIVE},
    AdaptiveSolver: {
        "rtol": POSITIVE,
        "atol": POSITIVE,
        "method": word("dopri5", "tsit5"),
        "max_steps": count(),
    },
    FitConfig: TRAINED
    | {"steps": count(), "candidates": count(), "pairs": count()}
    | {"ess_floor": number(0, 1, below=True), "target": TARGET},
    Gaussian: ACTOR | {"width": count(), "depth": count(100), "states": count()},
    Denoising: ACTOR
    | dict.fromkeys(("width", "state_width", "steps", "states", "candidates", "pairs"), count())
    | {"depth": count(100), "exploration": NOT_NEGATIVE},
    Flow: ACTOR
    | dict.fromkeys(("width", "state_width", "states", "pairs"), count())
    | {"depth": count(100)}
    | {
        "solver": SOLVER,
        "acting_solver": SOLVER,
        "candidates": count(),
        "ess_floor": number(0, 1, below=True),
        "target": TARGET,
        "pathwise": NOT_NEGATIVE,
    }
    | {"proposal": proposal(), "normalise": normalisation()},
    MLPCritic: dict.fromkeys(("width", "members"), count())
    | {"depth": count(100)}
    | {"warmup": SHARE}
    | dict.fromkeys(("target_rate", "final_target_rate"), number(0, 1, above=True))
    | {"layer_norm": flag(), "rate": POSITIVE, "ensemble": word("mean", "min")}
    | {"soft_value": word("action", "network"), "improve_on": word("target", "online")},
    CrossQ: dict.fromkeys(("width", "members"), count())
    | {"depth": count(100), "rate": POSITIVE, "ensemble": word("mean", "min")}
    | {"momentum": number(0, 1, below=True), "forgetting": number(0, 1, above=True), "epsilon": POSITIVE},
    Config: {
        "actor": thing(Flow(), Gaussian(), Denoising(), words=("sac_isfm", "gaussian_sac", "denoising")),
        "critic": thing(MLPCritic(), CrossQ(), words=("mlp", "crossq")),
        "updates": count().or_none(),
        "entropy_in_target": flag(),
        "batch_size": count(),
        "target_entropy": number().or_none(),
        "temperature_rate": POSITIVE,
        "reward_scale": POSITIVE,
        "normalise_obs": flag(),
        "obs_limit": POSITIVE.or_none(),
        "recent": number(0, 1, above=True),
    },
    Settings: dict.fromkeys(("num_envs", "policy_delay", "action_candidates"), count())
    | {
        "config": thing(Config(batch_size=1)),
        "updates_per_step": POSITIVE,
        "learning_starts": count(),
        "buffer_size": count(),
        "discount": number(0, 1, below=True),
        "temperature": POSITIVE,
        "target_entropy": number().or_none().or_text("auto"),
    },
}
# What goes together with every value of the others.
REST = {Flow: {"pathwise": 0.0}, Settings: {"config": Config(batch_size=1)}}
CASES = [pytest.param(kind, name, id=f"{kind.__name__}.{name}") for kind in FIELDS for name in FIELDS[kind]]


def make(kind, **fields):
    """Make settings by their class itself: the type checks of all tests stand before it and would refuse first."""
    made = object.__new__(kind)
    inspect.unwrap(kind.__init__)(made, **fields)
    return made


@pytest.mark.parametrize("kind", FIELDS)
def test_no_field_is_forgotten(kind):
    """What is tested below are all the fields there are."""
    assert sorted(FIELDS[kind]) == sorted(field.name for field in dataclasses.fields(kind))


@pytest.mark.parametrize(("kind", "name"), CASES)
@settings(max_examples=20)
@given(data=st.data())
def test_right_values_are_taken(kind, name, data):
    """They are kept as they are; a whole number for a real one becomes real, a name for an object its object."""
    value = data.draw(FIELDS[kind][name].right)
    kept = getattr(make(kind, **REST.get(kind, {}) | {name: value}), name)
    real = {field.name: field.default for field in dataclasses.fields(kind)}[name]
    if isinstance(real, float) and isinstance(value, int):
        assert isinstance(kept, float)
    if kind is Config and isinstance(value, str):
        assert kept == (ACTORS if name == "actor" else CRITICS)[value]
    else:
        assert kept == value


@pytest.mark.parametrize(("kind", "name"), CASES)
@settings(max_examples=40)
@given(data=st.data())
def test_wrong_values_are_refused_in_one_sentence(kind, name, data):
    """A ValueError that begins with the field's name and says what was expected and what to do."""
    value = data.draw(FIELDS[kind][name].wrong)
    with pytest.raises(ValueError) as caught:
        make(kind, **REST.get(kind, {}) | {name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: got ") or (name, message[:12]) == ("sizes", "sizes: got ("), message
    assert ", expected " in message and "; " in message and message.endswith("."), message
    assert type(caught.value) is ValueError and caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Flow, dict(proposal="polcy"), "proposal: got 'polcy', .*did you mean 'policy'"),
        (Flow, dict(normalise="slef"), "normalise: got 'slef', .*did you mean 'self'"),
        (Flow, dict(states=-3), "states: got -3, expected a whole number above 0"),
        (Flow, dict(rate=-1), "rate: got -1, expected a finite number above 0"),
        (Flow, dict(solver=RungeKutta), "solver: got the class RungeKutta, .*; pass an object made of it"),
        (Flow, dict(proposal=GaussianProposal([0.0], 1.0)), "proposal: .*it has no __call__"),
        (Flow, dict(proposal=3), "proposal: got 3, expected one of policy, defensive, or an object"),
        (MLPCritic, dict(ensemble="max"), "ensemble: got 'max', expected one of mean, min"),
        (MLPCritic, dict(soft_value="acton"), "soft_value: got 'acton', .*did you mean 'action'"),
        (MLPCritic, dict(improve_on="onlin"), "improve_on: got 'onlin', .*did you mean 'online'"),
        (MLPCritic, dict(rate=-1), "rate: got -1"),
        (MLPCritic, dict(width=2**31), f"width: got {2**31}, expected at most {2**31 - 1}; pass a smaller number"),
        (Config, dict(actor=Flow), "actor: got the class Flow, .*; pass an object made of it"),
        (Config, dict(actor="sac_ifsm"), "actor: got 'sac_ifsm', .*did you mean 'sac_isfm'"),
        (Config, dict(critic=Gaussian()), "critic: .*it has no init and no learns_v and no policy_q and no q and no"),
        (Config, dict(critic=MLPCritic), "critic: got the class MLPCritic"),
        (Settings, dict(target_entropy="atuo"), "target_entropy: got 'atuo', .*did you mean 'auto'"),
        (Settings, dict(config=Config), "config: got the class Config, .*; pass an object made of it"),
        (Settings, dict(buffer_size=255), "buffer_size: got 255, expected at least the batch size, 256"),
        (Settings, dict(updates_per_step=0), "updates_per_step: got 0, expected a finite number above 0; pass"),
        (Settings, dict(updates_per_step="0.2"), "updates_per_step: got '0.2', expected a finite number above 0; "),
    ],
)
def test_what_is_wrong_is_said(kind, fields, message):
    """The nearest name is suggested, a class is told from an object of it, and what an object lacks is listed."""
    with pytest.raises(ValueError, match=f"^{message}"):
        make(kind, **fields)
