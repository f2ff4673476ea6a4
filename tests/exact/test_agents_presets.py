"""The paper's algorithm by name, and the two solvers of a flow."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entroflow
from entroflow.agents.settings import change, changed, from_json, of_algorithm, to_json
from entroflow.commands.lqr import plan
from entroflow.flow import RungeKutta
from entroflow.rl import CrossQ, Flow, Gaussian, sac
from entroflow.storage import legacy

PLAIN = {"target": "pair", "ess_floor": 0.0, "pathwise": 0.0}


def test_the_preset_is_the_plain_algorithm():
    """Of the defaults it changes what goes beyond Algorithm 2, and what is set beside it counts."""
    assert changed(of_algorithm("sac_isfm", "paper")) == PLAIN
    actor = of_algorithm("sac_isfm", "paper").config.actor
    assert (actor.proposal, actor.normalise, actor.solver) == ("policy", "self", RungeKutta("midpoint", 4))
    assert of_algorithm("sac_isfm", "paper").config.critic.soft_value == "action"
    agent = entroflow.SACISFM("Pendulum-v1", preset="paper", candidates=32)
    assert changed(agent.settings) == PLAIN | {"candidates": 32}


def test_the_preset_for_lqr():
    """V(s') comes from an action, no step is shortened, and all environments draw from the policy itself."""
    config = plan.settings(100, preset="paper")
    assert config.critic.soft_value == "action" and config.actor.ess_floor == 0 and not config.critic.learns_v
    assert plan.EXPLORATION["paper"] == 1
    other = dataclasses.replace(config.actor, ess_floor=Flow().ess_floor)
    assert other == plan.settings(100).actor and plan.settings(100).critic.soft_value == "network"


def test_beside_a_controller_the_policy_waits():
    """With the states and pairs that the plants were learned with, a lower rate and a wider critic."""
    plain, begun = plan.settings(100).actor, plan.settings(100, begun=True).actor
    assert (plain.states, plain.pairs, plain.rest) == (256, 1, 0)
    assert (begun.states, begun.pairs, begun.rest) == (128, 2, 0.3) and begun.rate < plain.rate
    assert plan.settings(100, begun=True).critic.width > plan.settings(100).critic.width


@pytest.mark.parametrize("algorithm", ["sac_isfm", "gaussian_sac", "denoising"])
def test_the_preset_of_the_critic_of_crossq(algorithm):
    """It goes into a file and comes back, and settings of its critic have their names."""
    found = change(of_algorithm(algorithm, "crossq"), {"critic_width": 16})
    assert found.config.critic == CrossQ(width=16) and from_json(to_json(found)) == found
    assert found.config.actor.rate == {"sac_isfm": 1e-3, "gaussian_sac": 1e-3, "denoising": 3e-4}[algorithm]
    assert found.policy_delay == 1  # as often as the critic: better on Hopper-v5 and Walker2d-v5 (experiments/mujoco)
    assert (found.learning_starts, found.temperature, found.config.actor.average) == (5000, 1.0, 0.05)


@pytest.mark.parametrize(
    ("algorithm", "preset", "message"),
    [
        ("sac_isfm", "papre", "preset: got 'papre', expected one of default, paper, crossq; did you mean 'paper'"),
        (
            "gaussian_sac",
            "paper",
            "preset: got 'paper' with gaussian_sac, expected 'default' or 'crossq'; choose sac_isfm",
        ),
        ("sac_isfm", "", "preset: got '', expected one of default, paper, crossq"),
    ],
)
def test_wrong_presets_are_refused(algorithm, preset, message):
    """A misspelt name, and one that the algorithm does not have."""
    with pytest.raises(ValueError, match=f"^{message}"):
        of_algorithm(algorithm, preset)


def test_presets_are_of_the_actor_that_is_named():
    """`SAC` with an actor begins as that actor's own class does; an actor as an object keeps its own settings."""
    of = functools.partial(entroflow.SAC, "Pendulum-v1", preset="crossq")
    assert of(actor="gaussian_sac").settings == entroflow.GaussianSAC("Pendulum-v1", preset="crossq").settings
    given = of(actor=Gaussian(rate=2e-3)).settings
    assert given == change(of_algorithm("gaussian_sac", "crossq"), {"actor": Gaussian(rate=2e-3)})
    assert of().settings == of_algorithm("sac_isfm", "crossq")
    with pytest.raises(ValueError, match="^preset: got 'paper' with gaussian_sac"):
        entroflow.SAC("Pendulum-v1", actor="gaussian_sac", preset="paper")


def test_a_preset_beside_settings_is_refused():
    """Which would be ignored."""
    with pytest.raises(ValueError, match="^preset: got 'crossq' beside settings, expected one of the two; change"):
        entroflow.SACISFM("Pendulum-v1", preset="crossq", settings=of_algorithm("sac_isfm"))


def test_objects_are_set_in_the_form_in_which_files_have_them():
    """Solvers and critics, whole; what is of no known kind, or of another, is refused."""
    settings, solver = of_algorithm("sac_isfm"), RungeKutta("midpoint", 4, grading=1.5)
    for name, value in {"solver": solver, "critic": CrossQ(width=16)}.items():
        assert change(settings, {name: to_json(value)}) == change(settings, {name: value})
    assert entroflow.SACISFM("Pendulum-v1", solver=to_json(solver)).settings == change(settings, {"solver": solver})
    with pytest.raises(ValueError, match="^solver: got list, which has no hash"):
        entroflow.SACISFM("Pendulum-v1", solver=[1])
    for wrong, message in (
        ({"steps": 4}, "kind of solver: got None, expected one of"),
        ({"kind": "RungeKutta", "step": 4}, "setting: got 'step', expected one of method, steps, grading"),
        ({"kind": "CrossQ"}, "solver: got CrossQ"),
        ({"own": "Mine"}, "solver: got an object of your own, Mine"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            change(settings, {"solver": wrong})


def test_flows_are_trained_by_one_solver_and_act_by_another():
    """The policy that acts in the end has the finer solver; agents of one solver alone keep it."""
    settings = change(of_algorithm("sac_isfm"), {"width": 8, "state_width": 8, "critic_width": 8})
    task = {"obs_size": 2, "action_space": entroflow.flow.Box(-np.ones(1), np.ones(1))}
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.9)}
    state = sac.init(settings.config, jax.random.key(0), **task, **numbers)
    assert sac.policy(settings.config, state).solver == Flow().solver
    assert sac.policy(settings.config, state, average=True).solver == Flow().acting_solver
    document = {"config": to_json(settings)["config"]}
    assert legacy.settings(document) == document
    del document["config"]["actor"]["acting_solver"]
    read = from_json({**to_json(settings), **legacy.settings(document)})
    assert read.config.actor.acting_solver == read.config.actor.solver == RungeKutta("midpoint", 4)
