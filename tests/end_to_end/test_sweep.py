"""Studies on Ray: what their files say, what is refused in one sentence, and that no trial is lost."""

import dataclasses
import inspect
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from entroflow import checks
from entroflow.agents import learning
from entroflow.agents.compiled import CompiledTraining
from entroflow.agents.settings import to_json
from entroflow.agents.training import Training
from entroflow.cli import main
from entroflow.studies import Needs, read, trial
from entroflow.studies import report as studies_report
from entroflow.studies.display import Display
from entroflow.studies.study import LONGEST, name_of
from entroflow.studies.trial import check, settings_of
from experiments.resume.run import content

STUDY = {"tasks": ["Pendulum-v1"], "algorithms": ["gaussian_sac"], "steps": 100}
ROOT = Path(__file__).parents[2]


def test_lists_are_crossed_and_name_the_trials():
    """Tasks × algorithms × lists × seeds, settings of one algorithm for that one alone, presets as algorithms."""
    study = STUDY | {"algorithms": ["paper", "gaussian_sac"], "seeds": [3, 5], "tasks": ["Pendulum-v1", "a/B:c-v0"]}
    study["settings"] = {"width": (32, 64), "depth": 1, "paper": {"candidates": [4, 8]}}
    trials = read(study).trials
    assert len(trials) == len({trial.name for trial in trials}) == 2 * (2 * 2 + 2) * 2
    assert trials[0].name == "Pendulum-v1-paper-width=32-candidates=4-seed=3"
    assert trials[0].settings == {"width": 32, "depth": 1, "candidates": 4}
    assert trials[-1].label == "gaussian_sac width=64"
    assert all(re.fullmatch(r"[\w.=,+-]+", trial.name) for trial in trials)
    settings = settings_of(trials[0])
    assert (settings.config.actor.proposal, settings.config.actor.candidates) == ("policy", 4)  # the preset's; ours


def test_names_tell_trials_apart():
    """Also where letters are replaced or the name would be too long for a folder."""
    (trial,) = read(STUDY).trials
    names = {name_of(trial._replace(task=task)) for task in ("a:b", "a;b", "a_b", "x" * 300, "x" * 301)}
    assert len(names) == 5 and max(map(len, names)) <= LONGEST


def test_a_search_asks_for_the_memory_of_its_largest_trial():
    """That of a study whose settings are its ranges' largest."""
    sizes, ranges = {"num_envs": 2**17, "batch_size": 2**19}, {"num_envs": {"from": 1, "to": 2**17}}
    alone = check(read(STUDY | {"settings": sizes, "one_program": True}))
    found = check(read(STUDY | {"search": {"settings": ranges | {"batch_size": [2**19, 64]}}}))
    assert found == pytest.approx(alone, abs=0.1) and found > check(read(STUDY)) + 1


def test_seeds_may_share_one_program():
    """As `train --seeds` has it."""
    (trial,) = read(STUDY | {"seeds": 3, "one_program": True}).trials
    assert trial.seeds == [0, 1, 2] and trial.name == "Pendulum-v1-gaussian_sac-seed=0,1,2"


WRONG = {
    "tsks": ({"tsks": 1}, "did you mean 'tasks'"),
    "no steps": ({"steps": None}, "steps: got None"),
    "empty crossing": ({"settings": {"width": []}}, "one or more different values"),
    "no task": ({"tasks": []}, "one or more different names"),
    "twice": ({"seeds": [1, 1]}, "different seeds"),
    "a seed": ({"seeds": [-1]}, "seeds: got -1"),
    "unknown setting": ({"settings": {"widht": 3}}, "did you mean 'width'"),
    "setting of another": ({"settings": {"candidates": 3}}, "setting: got 'candidates'"),
    "value": ({"settings": {"width": [64, -1]}}, "width: got -1"),
    "called elsewhere": ({"settings": {"gamma": 0.9}}, "here it is 'discount'"),
    "algorithm": ({"algorithms": ["sac_ismf"]}, "did you mean 'sac_isfm'"),
    "no such task": ({"tasks": ["Pendulum-v9"]}, "env: got 'Pendulum-v9'"),
    "needs": ({"needs": {"cpus": 1}}, "expected one of cores, gpus, memory, retries"),
    "no table": ({"needs": 3}, "needs: got 3"),
    "flag": ({"one_program": 1}, "true or false"),
    "several": ({"search": {"settings": {"rate": [0.1, 0.2]}}, "tasks": ["Pendulum-v1", "x"]}, "search: got 2 trials"),
    "no range": ({"search": {"trials": 3}}, "search: got no range"),
    "empty search": ({"search": {}}, "search: got no range"),
    "both": ({"search": {"settings": {"rate": [1, 2]}}, "settings": {"rate": 1}}, "rate: got a value and a range"),
    "one folder": ({"tasks": ["a/b", "a_b"]}, "folders of trials: got ['a_b-gaussian_sac-seed=0', 'a_b-"),
    "ends": ({"search": {"settings": {"rate": {"from": 2, "to": 1}}}}, "from 2.0 to 1.0"),
    "log": ({"search": {"settings": {"temperature": {"from": 0, "to": 1, "log": True}}}}, "log = True from 0.0"),
    "beyond": ({"search": {"settings": {"discount": {"from": 0.9, "to": 1.5}}}}, "discount: got 1.5"),
    "unknown range": ({"search": {"settings": {"rat": {"from": 0.9, "to": 1.5}}}}, "did you mean 'rate'"),
    "objective": ({"search": {"settings": {"rate": [0.1, 0.2]}, "objective": "best"}}, "objective: got 'best'"),
}


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_bad_studies_are_refused_in_one_sentence(wrong):
    """Before anything is started or written."""
    changes, told = WRONG[wrong]
    with pytest.raises(ValueError, match=re.escape(told)) as problem:
        check(read(STUDY | changes))
    assert str(problem.value).endswith(".") and "\n" not in str(problem.value)


def refused(capsys, *arguments):
    """What the command line says in the place of running a study."""
    assert main(["sweep", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def written(path, study=STUDY, **tables):
    """A study's file."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in study.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_bad_files_folders_and_machines_are_refused(tmp_path, capsys, monkeypatch):
    """Each in one sentence, before Ray is imported."""
    monkeypatch.setitem(sys.modules, "entroflow.studies.running", None)  # so that its import fails, which brings Ray
    file, other = written(tmp_path / "study.toml"), tmp_path / "other"
    (tmp_path / "bad.toml").write_text("tasks = [")
    assert "malformed TOML" in refused(capsys, tmp_path / "bad.toml")
    assert "'No such file or directory' from the system" in refused(capsys, tmp_path / "none.toml")
    assert "a study's folder with --resume" in refused(capsys, tmp_path)
    assert "the folder of a study" in refused(capsys, file, "--out", tmp_path / "new", "--resume")
    other.mkdir()
    for held in ("null", "[]", f'"{file}"'):
        (other / "study.json").write_text(f'{{"study": {held}}}')
        assert "study.json: got no study" in refused(capsys, other, "--resume")
    (other / "study.json").unlink()
    (other / "file").touch()
    assert "already holds another run" in refused(capsys, file, "--out", other)
    (other / "study.json").write_text('{"study": {}, "seconds": 1}')
    assert "which holds a study" in refused(capsys, file, "--out", other)
    search = written(tmp_path / "search.toml", **{"search.settings": {"rate": [0.1, 0.2]}})
    assert "the same search" in refused(capsys, search, "--out", other, "--resume")
    many = written(tmp_path / "many.toml", needs={"cores": 4096})
    assert "needs: cores: got 4096 for one trial" in refused(capsys, many, "--out", tmp_path / "many")
    (begun := other / "trials" / "Pendulum-v1-gaussian_sac-seed=0").mkdir(parents=True)
    config = {"format": 1, "algorithm": "gaussian_sac", "env": "Pendulum-v1", "seeds": [0], "steps": 9}
    for settings, evaluation, told in ([1, {}, "other settings"], [0, {"every": 1, "episodes": 10}, "got evaluation"]):
        config |= {"settings": to_json(settings_of(read(STUDY).trials[0])) | {"num_envs": 1 + settings}}
        (begun / "config.json").write_text(json.dumps(config | {"evaluation": evaluation}))
        assert told in refused(capsys, file, "--out", other, "--resume")
    monkeypatch.setattr("entroflow.studies.sweep.find_spec", lambda name: None)
    assert refused(capsys, file).endswith('run: pip install "optuna<6,>=5" "ray[default,tune]<3,>=2.60".')


def test_a_study_that_is_killed_while_it_begins_can_be_gone_on_with(tmp_path, monkeypatch):
    """Its folder is known as that of a study from the first file on."""
    out = tmp_path / "out"

    def killed(path, _):
        (out / "seen").write_text(" ".join(sorted(path.name for path in out.iterdir())))
        raise KeyboardInterrupt

    monkeypatch.setattr("entroflow.studies.sweep.replace", killed)
    assert main(["sweep", str(written(tmp_path / "study.toml")), "--out", str(out)]) == 130
    assert (out / "seen").read_text() == ".lock study.json"


RANGES = {"width": {"from": 4, "to": 8}, "batch_size": {"from": 8, "to": 64, "log": True}, "depth": [1, 2]}
RANGES |= {"rate": {"from": 1e-4, "to": 1e-2, "log": True}, "temperature": {"from": 1, "to": 2}}
RANGES |= {"target_entropy": {"from": -6, "to": -1}}


def test_the_best_trial_is_that_of_the_best_score(monkeypatch, tmp_path):
    """Steps beyond those asked for, a multiple of the environments, put no trial first; steps that lack put it last."""
    study = read(STUDY | {"search": {"settings": RANGES, "trials": 4}})
    known = {"a": (1002, -900.0), "b": (1000, -150.0), "c": (600, -10.0), "d": (1001, -1400.0)}
    trials = [SimpleNamespace(name=name, steps=1000) for name in known]
    monkeypatch.setattr(studies_report, "score", lambda folder, _: (*known[folder.name], 1.0))
    monkeypatch.setattr(studies_report, "finished", lambda *_: True)
    found = inspect.unwrap(studies_report.outcomes)(study, trials, tmp_path, {})
    assert [one.trial.name for one in found] == ["b", "a", "d", "c"]


@pytest.fixture
def ended(tmp_path):
    """A study with three trials that have come to their end."""
    study = read(STUDY | {"seeds": 3})
    for one in study.trials:
        folder = tmp_path / "trials" / one.name
        config = {"format": 1, "algorithm": one.algorithm, "env": one.task, "seeds": one.seeds, "steps": 100}
        (folder / "checkpoints" / "step=100").mkdir(parents=True)
        for file in ("learning_curve.png", "checkpoints/step=100/checkpoint.json"):
            (folder / file).touch()
        (folder / "config.json").write_text(json.dumps(config | {"settings": {"width": one.seeds[0]}}))
        rows = [f"{one.seeds[0]},100,9.5,{episode},{episode},7" for episode in (1, 2)]
        (folder / "evaluations.csv").write_text("\n".join(["seed,step,seconds,episode,return,length", *rows, ""]))
    return study, tmp_path


def test_a_damaged_folder_is_one_trial_that_failed(ended):
    """Its sentence stands in study.json, with what became of all others."""
    study, out = ended
    (out / "trials" / study.trials[1].name / "evaluations.csv").write_text("seed\n")
    (out / "trials" / study.trials[2].name / "config.json").write_text("{")
    found = studies_report.outcomes(study, study.trials, out, {})
    assert [one.state for one in found] == ["finished", "failed", "failed"]
    assert "evaluations.csv: got a header" in found[1].failed and "malformed JSON" in found[2].failed
    studies_report.write_study(study, out, found, 1.0, 1)
    told = json.loads((out / "study.json").read_text())["trials"]
    assert [trial.get("settings") for trial in told] == [{"width": 0}, {"width": 1}, {}]
    assert (told[0]["score"], told[0]["step"], told[1]["failed"]) == (1.5, 100, found[1].failed)


def test_a_trial_that_failed_before_and_is_finished_now_has_not_failed(ended):
    """As where Ray's record tells of the failure, and the trial was tried again."""
    study, out = ended
    (out / "trials" / study.trials[1].name / "learning_curve.png").unlink()
    found = studies_report.outcomes(study, study.trials, out, {one.name: "it broke." for one in study.trials[:2]})
    assert [(one.state, one.failed) for one in found] == [("finished", ""), ("failed", "it broke."), ("finished", "")]


def test_a_search_is_optuna_s_and_asha_s():
    """Its ranges, ends included; its seed; its length; when it stops trials, and at which evaluation first."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from ray.tune.search.optuna import OptunaSearch

    from entroflow.studies.search import searched, space

    study = read(STUDY | {"search": {"settings": RANGES, "trials": 7, "hours": 0.5}})
    found = OptunaSearch.convert_search_space(space(study))
    assert found == {
        "width": IntDistribution(4, 8),
        "batch_size": IntDistribution(8, 64, log=True),
        "depth": CategoricalDistribution([1, 2]),
        "rate": FloatDistribution(1e-4, 1e-2, log=True),
        "temperature": FloatDistribution(1.0, 2.0),
        "target_entropy": FloatDistribution(-6.0, -1.0),
    }
    drawn = []
    for seed in (0, 0, 1):
        how = searched(dataclasses.replace(study.search, seed=seed), 1600, 50)
        how["search_alg"].set_search_properties("score", "max", space(study))
        drawn.append([how["search_alg"].suggest(f"{i}") for i in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert (how["num_samples"], how["time_budget_s"]) == (7, 1800)
    asha = how["scheduler"]
    assert (asha._time_attr, asha._metric, asha._max_t) == ("step", "score", 1600)
    (rungs,) = asha._brackets
    assert [rung for rung, _ in rungs._rungs] == [1600, 400, 100]
    assert "scheduler" not in searched(dataclasses.replace(study.search, early_stopping=False), 1600, 50)


def test_what_no_machine_has_room_for_is_refused():
    """One machine must have all that one trial needs of a kind, whatever all have together."""
    from entroflow.studies.running import check_machines

    machines = [{"CPU": 4.0, "memory": 2.0**32}, {"CPU": 2.0, "GPU": 1.0, "memory": 2.0**33}]
    check_machines(Needs(cores=4, gpus=1), 2**33, machines)
    for needs, memory, told in (
        (Needs(cores=5), 1, "needs: cores: got 5 for one trial, expected at most the 4 of one machine"),
        (Needs(gpus=1.5), 1, "needs: gpus: got 1.5 for one trial, expected at most the 1 of"),
        (Needs(), 2**34, "needs: memory: got 16 GiB for one trial, expected at most the 8 GiB of"),
    ):
        with pytest.raises(ValueError, match=told):
            check_machines(needs, memory, machines)


def test_what_a_search_suggests_twice_is_trained_once_at_a_time(tmp_path, monkeypatch):
    """The second waits for the first, however long that takes, and goes on from there."""
    from ray import tune

    study, begun, ended = read(STUDY | {"search": {"settings": {"depth": [1, 2]}}}), [], []

    def run(one, folder, kept):
        begun.append(len(ended))
        time.sleep(0.3)
        ended.append(one.name)

    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(tune, "report", lambda *_, **__: None)
    config = {"trial": study.trials[0]._asdict(), "search": {"depth": 1}, "out": str(tmp_path), "storage": None}
    config |= {"cores": 1, "objective": "final"}
    workers = [threading.Thread(target=trial.work, args=[config]) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert begun == [0, 1, 2] and len(set(ended)) == 1


@pytest.fixture
def noted(monkeypatch):
    """What Ray is asked to run, which is only noted."""
    from ray import tune

    from entroflow.studies import running

    found, real = list[dict](), cast(Any, tune.Tuner)

    class Tuner(real):
        def __init__(self, _, **given):
            found.append(given)

    monkeypatch.setattr(tune, "Tuner", Tuner)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    return running, found


def test_a_study_goes_on_from_what_lies_in_its_storage(tmp_path, monkeypatch, noted):
    """From the last checkpoint that is whole, or from nothing; what lay there goes once there is a newer one."""
    from ray import tune

    (running, asked), place, out = noted, tmp_path / "storage", tmp_path / "out"
    study, begun, reported = read(STUDY | {"storage": f"file://{place}/", "seeds": 2}), {}, list[Any]()
    first, second = study.trials
    for number, index, text in ((0, 3, "a"), (0, 4, "b"), (1, 0, "c"), (1, 1, "d"), (1, 2, "cut short")):
        (folder := place / f"ray-{number}" / first.name / f"checkpoint_{index:06}").mkdir(parents=True)
        (folder / "config.json").write_text(text)
        (folder / trial.SIZES).write_text(json.dumps(trial.sizes_of(folder)))
        (folder / "config.json").write_text(text[:1])
    (place / "ray-1" / first.name / "checkpoint_000003").mkdir()  # and one that had hardly begun
    with pytest.raises(ValueError, match="holds a study, expected a place without one"):
        list(running.tuners(study, out, 1, resume=False))
    assert len(list(running.tuners(study, out, 1, resume=True))) == 1
    config = asked[0]["param_space"]
    assert asked[0]["run_config"].name == "ray-2"

    def report(_, checkpoint):
        reported.append((checkpoint is not None, len(list(place.rglob("config.json")))))

    monkeypatch.setattr(tune, "report", report)
    monkeypatch.setattr(trial, "score", lambda *_: (100, 0.0, 0.0))
    read_all = lambda folder: {path.name: path.read_text() for path in folder.iterdir() if path.name != trial.SIZES}  # noqa: E731
    monkeypatch.setattr(trial, "run", lambda one, folder, _: begun.update({one.name: read_all(folder)}))
    for told in config["trial"]["grid_search"]:
        trial.work(config | {"trial": told})
    assert begun == {first.name: {"config.json": "d"}, second.name: {}}
    assert reported == [(True, 5), (False, 0)] and not list(place.rglob("config.json"))


def test_what_a_search_suggests_twice_shares_no_folder_of_the_storage(tmp_path, noted):
    """Checkpoints of one are not written among those of the other; home comes the one that was trained to its end."""
    from ray import tune

    (running, asked), place = noted, f"file://{tmp_path}/storage"
    study = read(STUDY | {"search": {"settings": {"depth": [1, 2]}}, "storage": place})
    running.new_tuner(study, tmp_path, study.trials, 1, [])
    config = asked[0]["param_space"] | {"search": {"depth": 1}}
    ended = [SimpleNamespace(config=config, trial_id=f"{i}", last_result={}, checkpoint=None) for i in range(2)]
    assert len({asked[0]["tune_config"].trial_dirname_creator(one) for one in ended}) == 2
    home = tmp_path / "trials" / trial.of_config(config).name
    for one, step in zip(ended, (100, 40), strict=True):
        (folder := tmp_path / f"{step}" / f"checkpoints/step={step}").mkdir(parents=True)
        (folder / "checkpoint.json").touch()
        (tmp_path / f"{step}" / "evaluations.csv").write_text(f"{step}")
        (tmp_path / "100" / "learning_curve.png").touch()
        one.checkpoint = tune.Checkpoint.from_directory(tmp_path / f"{step}")
        running.Watch().on_trial_complete(1, [], one)
    assert (home / "evaluations.csv").read_text() == "100"


def test_settings_come_from_a_file(tmp_path, capsys):
    """JSON or TOML; what is set on the command line counts before them; another one's settings are refused."""
    (tmp_path / "a.json").write_text('{"width": 8, "batch_size": 16, "target_entropy": null}')
    (tmp_path / "b.toml").write_text('width = 8\nbatch_size = 16\ntarget_entropy = "None"\n')
    rest = ["--algorithm", "gaussian_sac", "--steps", "2", "--evaluation-episodes", "1", "--set", "batch_size=32"]
    found = []
    for file in ("a.json", "b.toml"):
        out = tmp_path / f"{file}.run"
        options = ["--settings", str(tmp_path / file), "--out", str(out), *rest]
        assert main(["train", "Pendulum-v1", *options, "critic_width=8", "depth=1"]) == 0
        found.append(json.loads((out / "config.json").read_text())["settings"])
    assert found[0] == found[1] and found[0]["target_entropy"] is None
    assert (found[0]["config"]["actor"]["width"], found[0]["config"]["batch_size"]) == (8, 32)
    capsys.readouterr()
    (tmp_path / "b.toml").write_text("candidates = 8\n")
    assert main(["train", "Pendulum-v1", "--algorithm", "gaussian_sac", "--settings", str(tmp_path / "b.toml")]) == 2
    assert "b.toml: got 'candidates'" in capsys.readouterr().err
    (tmp_path / "b.toml").write_text('actor = "gaussian_sac"\n')
    assert main(["train", "Pendulum-v1", "--settings", str(tmp_path / "b.toml"), "--out", str(tmp_path / "none")]) == 2
    assert "choose it by --algorithm" in capsys.readouterr().err


@pytest.mark.parametrize(("env", "kind"), [("jax/Pendulum", CompiledTraining), ("Pendulum-v1", Training)])
def test_a_trial_trains_as_train_does(tmp_path, monkeypatch, env, kind):
    """A task in JAX is trained by the compiled loop."""
    seen = []
    monkeypatch.setattr(learning.Run, "record", lambda self, **_: seen.append(type(self.training)))
    (one,) = read({"tasks": [env], "algorithms": ["gaussian_sac"], "steps": 100, "settings": TINY}).trials
    trial.run(one, tmp_path / "run", lambda step: None)
    assert seen == [kind]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_display_counts_trials_and_steps(monkeypatch, terminal):
    """By task and algorithm; the time that is left is that of the steps which are, at the pace so far."""
    trials, now, out = read(STUDY | {"tasks": ["a", "b"], "seeds": 2}).trials, [0.0], io.StringIO()
    monkeypatch.setattr("entroflow.studies.display.time.perf_counter", lambda: now[0])
    console = Console(file=out, width=100, force_terminal=terminal, color_system=None)
    late = "TERMINATED", {"step": 0, "score": -math.inf, "failed": "it is late."}
    with Display(100, {"one before"}, 5, console) as display:
        for now[0], *told in (
            (30, ("RUNNING", {}), ("PENDING", {}), ("RUNNING", {"step": 40})),  # which it had made before
            (60, ("RUNNING", {"step": 20, "score": -3.0}), ("PENDING", {}), ("RUNNING", {"step": 40}), late),
            (120, ("TERMINATED", {"step": 100, "score": -2.0}), ("PENDING", {}), ("RUNNING", {"step": 80}), late),
        ):
            configs = [{"trial": trial._asdict()} for trial in trials]
            display.show([(state, config, last) for config, (state, last) in zip(configs, told, strict=False)])
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert any(line.endswith("failed: b-gaussian_sac-seed=1: it is late.") for line in lines)
    shown = ["2 of 5 ended, 1 failed; 0 steps/s, 12 min left", "3 of 5 ended, 1 failed; 1 steps/s, 2 min left"]
    shown = ["a gaussian_sac 1 0 1 0 -2", "b gaussian_sac 0 1 0 1 –", "1 steps/s, 2 min left"] if terminal else shown
    assert [line for line in shown if line not in lines] == []


def test_toml_is_read_strictly(tmp_path):
    """Text that is none is refused by name."""
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="bytes that are not UTF-8"):
        checks.toml_table(tmp_path / "a.toml")


SICK = """
import os
import gymnasium
from pathlib import Path
from gymnasium.envs.classic_control import PendulumEnv
from tests.end_to_end import reach

def swing(**options):
    Path(os.environ["SWEEP_PID"]).write_text(str(os.getpid()))
    return PendulumEnv(**options)

gymnasium.register("Sick-v0", lambda: reach.Reach(bad_step=50))
gymnasium.register("Swing-v0", swing, max_episode_steps=17)
"""
TINY = {"learning_starts": 40, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16}
EVALUATION = {"steps": 200, "evaluate_every": 20, "evaluation_episodes": 1}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a module of two tasks, one of which writes the number of the process that made it last."""
    (tmp_path / "sick.py").write_text(SICK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SWEEP_PID", str(tmp_path / "pid"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "src"), str(ROOT)]))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or whatever else the machine does would come first
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def started(place, *arguments):
    """A process that runs a study."""
    command = [sys.executable, "-m", "entroflow", "sweep", *map(str, arguments)]
    with (place / "told.txt").open("a") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=place)


def await_step(process, folder, step):
    """Wait for a trial's checkpoint."""
    while not any(int(path.parent.name[5:]) >= step for path in folder.glob("checkpoints/step=*/checkpoint.json")):
        assert process.poll() is None, "it ended before"
        time.sleep(0.02)


def alone(place, seed):
    """The folder of a trial that was trained without Ray."""
    out = place / f"alone-{seed}"
    options = [part for name, value in EVALUATION.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    options += ["--algorithm", "gaussian_sac", "--set", *(f"{name}={value}" for name, value in TINY.items())]
    assert main(["train", "sick:Swing-v0", "--seed", str(seed), "--out", str(out), *options]) == 0
    return out


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_ends_as_one_that_was_not(place):
    """Bit for bit; beside it a trial fails by its own fault, is told of in its sentence, and stops no other one."""
    study = {"tasks": ["sick:Sick-v0", "sick:Swing-v0"], "algorithms": ["gaussian_sac"], **EVALUATION}
    out = place / "out"
    driver = started(place, written(place / "study.toml", study, settings=TINY), "--out", out)
    names = [trial.name for trial in read(place / "study.toml").trials]
    folder = out / "trials" / names[1]
    await_step(driver, folder, 20)
    killed = int((place / "pid").read_text())
    assert killed != driver.pid
    begun = (folder / "evaluations.csv").read_text().splitlines()[1]  # with the seconds until then
    os.kill(killed, signal.SIGKILL)
    assert driver.wait() == 1
    assert int((place / "pid").read_text()) != killed
    told = (place / "told.txt").read_text()
    sentence = "sick:Sick-v0 returned a reward that is not finite at step 50, seed 0"
    assert f"failed: {names[0]}: {sentence}\n" in told and "raylet" not in told and "Traceback" not in told
    states = {trial["trial"]: trial["state"] for trial in json.loads((out / "study.json").read_text())["trials"]}
    assert states == {names[0]: "failed", names[1]: "finished"}
    assert begun in (folder / "evaluations.csv").read_text()  # it went on
    assert content(folder) == content(alone(place, 0))


@pytest.mark.slow
@pytest.mark.parametrize("storage", [False, True], ids=["shared disk", "storage"])
def test_a_study_goes_on_after_its_driver_died(place, storage):
    """And runs what is new in its file; every trial as `train` makes it. With a storage trials travel through it."""
    study = {"tasks": ["sick:Swing-v0"], "algorithms": ["gaussian_sac"], "seeds": 2, **EVALUATION}
    study |= {"storage": f"file://{place}/storage"} if storage else {}
    parts = {"settings": TINY, "needs": {"cores": os.cpu_count()}}  # one trial at a time
    file, out = written(place / "study.toml", study, **parts), place / "out"
    first, last = read(file).trials
    driver = started(place, file, "--out", out)
    going = place / "storage" / "ray-0" / last.name if storage else out / "trials" / last.name
    if storage:
        while len(list(going.glob("checkpoint_*"))) < 2:
            assert driver.poll() is None
            time.sleep(0.02)
        assert (out / "trials" / first.name / "config.json").exists() and not (out / "trials" / last.name).exists()
    else:
        await_step(driver, going, 40)
    driver.kill()
    driver.wait()
    begun = min(going.glob("checkpoint_*/evaluations.csv" if storage else "evaluations.csv"))
    begun = begun.read_text().splitlines()[1]
    written(out / "study.toml", study | {"seeds": 3}, **parts)
    assert started(place, out, "--resume").wait() == 0
    for seed, each in enumerate(read(out / "study.toml").trials):
        assert content(out / "trials" / each.name) == content(alone(place, seed))
    assert begun in (out / "trials" / last.name / "evaluations.csv").read_text()  # it went on


@pytest.mark.slow
def test_a_search_finds_settings_and_goes_on(place):
    """The best settings are those of the best trial, which `train` takes; a finished search finds the same again."""
    study = {"tasks": ["sick:Swing-v0"], "algorithms": ["gaussian_sac"], "seeds": 2, **EVALUATION}
    ranges = {"search": {"trials": 3, "seed": 1}, "search.settings": {"width": [4, 8], "temperature": [0.1, 0.2]}}
    lines = written(place / "study.toml", study, settings={k: v for k, v in TINY.items() if k != "width"}, **ranges)
    lines.write_text(lines.read_text() + "rate = { from = 1e-4, to = 1e-2, log = true }\n")
    out = place / "out"
    assert started(place, lines, "--out", out).wait() == 0
    told = json.loads((out / "study.json").read_text())["trials"]
    best = json.loads((out / "best.json").read_text())
    ended = [trial for trial in told if trial["step"] == 200]
    assert len(told) == 3 and ended and told[0]["score"] == max(trial["score"] for trial in ended)
    assert f"width={best['width']}" in told[0]["trial"] and 1e-4 <= best["rate"] <= 1e-2 and best["depth"] == 1
    assert started(place, out, "--resume").wait() == 0
    assert json.loads((out / "study.json").read_text())["trials"] == told
    options = ["--algorithm", "gaussian_sac", "--settings", str(out / "best.json"), "--steps", "20"]
    assert main(["train", "sick:Swing-v0", "--out", str(place / "trained"), *options]) == 0
