"""What Stable-Baselines3 calls things: each name does what it does there, or is refused with what does it here."""

import inspect
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest

import entroflow
from entroflow import fields
from entroflow.agents import sb3
from entroflow.agents.settings import change, of_algorithm, single, values
from entroflow.names import ALGORITHMS, ELSEWHERE, Changes, Named, known
from entroflow.rl import ACTORS

TINY: dict[str, Any] = {"width": 8, "depth": 1, "critic_width": 8, "buffer_size": 300}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gamma": 0.9}, {"discount": 0.9}),
        ({"learning_rate": 1e-3}, {"rate": 1e-3, "critic_rate": 1e-3, "temperature_rate": 1e-3}),
        ({"tau": 0.01}, {"critic_target_rate": 0.01, "critic_final_target_rate": 0.01}),
        ({"buffer_size": 500, "batch_size": 32}, {"buffer_size": 500, "batch_size": 32}),
        ({"train_freq": 4}, {"updates_per_step": 0.25}),
        ({"train_freq": (2, "step"), "gradient_steps": 3, "num_envs": 5}, {"updates_per_step": 0.3, "num_envs": 5}),
        ({"train_freq": 8, "gradient_steps": -1, "num_envs": 4}, {"updates_per_step": 1, "num_envs": 4}),
        ({"ent_coef": 0.3}, {"temperature": 0.3, "target_entropy": None}),
        ({"ent_coef": "auto", "target_entropy": -2.0}, {"temperature": 1.0, "target_entropy": -2.0}),
        ({"ent_coef": "auto_0.1"}, {"temperature": 0.1}),
        ({"policy_kwargs": {"n_critics": 3}}, {"critic_members": 3}),
        ({"device": "auto", "use_sde": False, "action_noise": None, "policy_kwargs": None}, {}),
    ],
)
def test_names_that_do_what_they_do_there(given, expected):
    """They become settings by the names here, which every algorithm takes."""
    assert sb3.translated(given) == expected
    for algorithm in ACTORS:
        changed = values(change(of_algorithm(algorithm), expected))
        assert {name: changed[name] for name in expected} == expected


def test_environments_may_be_counted_by_settings():
    """An update after every step of all environments, of which settings say how many there are."""
    assert sb3.translated({"gradient_steps": 1}, 4) == {"updates_per_step": 0.25}
    assert sb3.translated({"train_freq": np.int64(2)}) == {"updates_per_step": 0.5}
    settings = change(of_algorithm("gaussian_sac"), {"num_envs": 4})
    assert entroflow.GaussianSAC("Pendulum-v1", settings=settings, gradient_steps=1).settings.updates_per_step == 0.25


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": lambda left: left}, "^rate: got a schedule, expected a number"),
        ({"train_freq": (1, "episode")}, r"^train_freq: got \(1, 'episode'\).*pass updates_per_step"),
        ({"gradient_steps": 0}, "^gradient_steps: got 0"),
        ({"ent_coef": "automatic"}, "^ent_coef: got 'automatic'"),
        ({"policy_kwargs": {"net_arch": [64, 64, 64]}}, "pass width=64, depth=3, critic_width=64, critic_depth=3"),
        ({"device": "tpu:7"}, "^device: got 'tpu:7', .*JAX_PLATFORMS=cpu"),
        ({"use_sde": True}, "^use_sde: got True, expected False"),
        ({"n_steps": 3}, "^n_steps: got 3, expected 1"),
        ({"action_noise": np.zeros(2)}, "^action_noise: got array"),
        ({"policy_kwargs": "net_arch"}, "^policy_kwargs: got 'net_arch', expected a dictionary"),
        ({"num_envs": 0, "gradient_steps": 1}, "^num_envs: got 0"),
        ({"num_envs": "4", "train_freq": 1}, "^num_envs: got '4'"),
        ({"gamma": 0.9, "discount": 0.8}, "^discount: got it by the name of Stable-Baselines3, too"),
    ],
)
def test_what_is_refused_says_what_to_do(given, message):
    """One sentence."""
    with pytest.raises(ValueError, match=message):
        sb3.translated(given)


def test_the_policy_may_stand_before_the_environment():
    """As a name, in both positions and by keyword; what is none of the policies here is refused."""
    assert sb3.environment(("MlpPolicy", "Pendulum-v1")) == "Pendulum-v1"
    assert sb3.environment(["Pendulum-v1"], "MultiInputPolicy") == "Pendulum-v1"
    for given, message in [
        (["MlpPolicy"], "leave the policy out"),
        ([], "env: got none, expected an environment"),
        (["CnnPolicy", "Pendulum-v1"], "policy: got 'CnnPolicy'"),
        (["Pendulum-v1", 3], "arguments: got 3, expected the environment alone"),
        ([SimpleNamespace(num_envs=4)], "and num_envs=4"),
    ]:
        with pytest.raises(ValueError, match=message):
            sb3.environment(given)


def test_the_environment_may_be_named_as_there():
    """Behind the policy, in its place or by its name, and one alone; none is a sentence, too."""
    for agent in (
        entroflow.GaussianSAC("MlpPolicy", env="Pendulum-v1", **TINY),
        entroflow.GaussianSAC(policy="MlpPolicy", env="Pendulum-v1", **TINY),
        entroflow.GaussianSAC(env="Pendulum-v1", **TINY),
    ):
        assert agent.task.name == "Pendulum-v1"
    with pytest.raises(ValueError, match="^env: got none, expected an environment"):
        entroflow.SAC("MlpPolicy")
    with pytest.raises(ValueError, match="^env: got none, expected an environment"):
        entroflow.SAC(policy="MlpPolicy")
    with pytest.raises(ValueError, match="^arguments: got 'Hopper-v5', expected the environment alone"):
        entroflow.SAC("Pendulum-v1", env="Hopper-v5")


def test_the_types_without_jax_are_those_of_the_settings():
    """What is refused at a glance is what the settings themselves refuse."""
    hints = get_type_hints(Changes, localns=vars(fields), include_extras=True)
    for algorithm in ACTORS:
        for name, (_, level, each) in single(of_algorithm(algorithm)).items():
            if hints[name] is not Any:
                assert hints[name] == get_type_hints(type(level), include_extras=True)[each.name], name
    assert ALGORITHMS == tuple(ACTORS)


def test_every_setting_is_named_for_editors_and_in_the_signature():
    """The names without JAX are those of the settings; the constructor's signature has each with its default."""
    known = {algorithm: single(of_algorithm(algorithm)).keys() for algorithm in ACTORS}
    of_crossq = set(single(of_algorithm("sac_isfm", "crossq")))
    assert Changes.__annotations__.keys() == of_crossq.union(*known.values())
    assert Named.__annotations__.keys() - Changes.__annotations__.keys() - {"policy"} <= sb3.TABLE.keys()
    assert not (ELSEWHERE.keys() | sb3.TABLE.keys()) & Changes.__annotations__.keys()
    for kind in (entroflow.SACISFM, entroflow.GaussianSAC, entroflow.DenoisingSAC):
        parts = inspect.signature(kind).parameters
        assert parts["batch_size"].default == 256 and parts["seed"].default == 0 and next(iter(parts)) == "env"
        assert known[kind.algorithm] <= parts.keys() and "changes" not in parts


def test_steps_are_counted_on():
    """`reset_num_timesteps` is refused where it would mean something."""
    sb3.refuse_reset(True, 0)
    with pytest.raises(ValueError, match="reset_num_timesteps: got True after 7 steps"):
        sb3.refuse_reset(np.bool_(True).item(), 7)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("learning_rat", "here it is 'rate'"),
        ("gama", "here it is 'discount'"),
        ("learning_start", "did you mean 'learning_starts'"),
        ("critic_rat", "did you mean 'critic_rate'"),
    ],
)
def test_misspelt_names_of_theirs_are_known_too(misspelt, meant):
    """The nearest name is suggested, be it one of theirs or one of ours."""
    with pytest.raises(ValueError, match=meant):
        known(misspelt, Changes.__annotations__)


def test_what_agents_have_there_is_answered_by_what_does_it_here():
    """As an `AttributeError`, which `hasattr` and `copy` understand; what it names is there."""
    agent = entroflow.GaussianSAC("Pendulum-v1")
    for name in sb3.ELSEWHERE:
        with pytest.raises(AttributeError, match=f"^'GaussianSAC' object has no attribute '{name}'; "):
            getattr(agent, name)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'$"):
        _ = agent.nonsense
    assert agent.task.observation_space.shape == (3,) and agent.task.action_space.shape == (1,)
    assert agent.settings.discount == 0.99 and agent.state.temperature > 0 and agent.state.actor and agent.state.critic


def test_a_setting_of_others_is_refused_by_the_name_that_was_given():
    """The critic of CrossQ has no target networks: its refusal of `tau` hints at no other setting of its own."""
    for how in ({"critic": "crossq"}, {"preset": "crossq"}):
        with pytest.raises(ValueError, match=r"got 'critic_target_rate' \(elsewhere 'tau'\), .*; leave it out"):
            entroflow.SACISFM("Pendulum-v1", tau=0.005, **how)
    with pytest.raises(
        ValueError, match="^setting: got 'candidates', expected one that this actor or this critic has;"
    ):
        entroflow.GaussianSAC("Pendulum-v1", candidates=8)
