"""The records of a run: what is on disk and when, what resuming keeps, what reading refuses."""

import json
import struct
import types
from pathlib import Path

import numpy as np
import pytest

from entroflow.storage import records
from entroflow.storage import trackers as sinks
from entroflow.storage.checkpoint import CHECKPOINTS
from entroflow.storage.places import agents_in, policy_folder

CONFIG = {"algorithm": "sac_isfm", "env": "Task-v0", "seeds": [0, 3], "steps": 400, "settings": {"gamma": 0.99}}


def metrics(step, seeds=(0, 3), **others):
    return [
        {"seed": seed, "step": step, "seconds": step / 100, "return": seed + 0.5, "length": 20.0, "episodes": 5}
        | {"entropy": -1.25}
        | others
        for seed in seeds
    ]


def evaluations(step, seeds=(0, 3), episodes=2):
    return [
        {"seed": seed, "step": step, "seconds": step / 100, "episode": i, "return": 10.0 * seed + i, "length": 9}
        for seed in seeds
        for i in range(episodes)
    ]


@pytest.fixture
def bare(monkeypatch):
    """As if TensorBoard were not installed."""
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)


@pytest.fixture
def folder(tmp_path, bare):
    """A run of four log intervals and two evaluations."""
    with records.create(tmp_path / "run", **CONFIG) as writer:
        for step in (100, 200, 300, 400):
            writer.metrics(metrics(step))
            if step % 200 == 0:
                writer.evaluations(evaluations(step))
    return tmp_path / "run"


def test_what_was_written_is_read(folder):
    """Columns keep their names, order, values and types."""
    found = records.read(folder)
    assert list(found.metrics) == ["seed", "step", "seconds", "return", "length", "episodes", "entropy"]
    np.testing.assert_array_equal(found.metrics["seed"], [0, 3] * 4)
    np.testing.assert_array_equal(found.metrics["return"], [0.5, 3.5] * 4)
    assert found.metrics["step"].dtype == np.int64 and found.metrics["return"].dtype == np.float64
    np.testing.assert_array_equal(found.evaluations["return"], [0, 1, 30, 31] * 2)
    assert {name: found.config[name] for name in CONFIG} == CONFIG
    assert found.config["format"] == 1 and "jax" in found.config["versions"]


def test_rows_are_on_disk_at_once(tmp_path, bare):
    """A run that is killed loses nothing: rows are read while the writer is still open."""
    writer = records.create(tmp_path / "run", **CONFIG)
    assert len(records.read(tmp_path / "run").metrics["step"]) == 0
    for count, step in enumerate((100, 200), start=1):
        writer.metrics(metrics(step))
        assert len(records.read(tmp_path / "run").metrics["step"]) == 2 * count
    writer.close()


def test_numbers_come_back_exactly(tmp_path, bare):
    """NumPy's and Python's numbers keep every digit; None is an empty field and NaN stays NaN."""
    values = [0.1 + 0.2, np.float64(1e-300), np.float32(0.1), np.int32(7), True, None, np.nan, -np.inf]
    with records.create(tmp_path / "run", **CONFIG) as writer:
        writer.metrics([metrics(100, seeds=(0,), entropy=value)[0] for value in values])
    expected = [0.1 + 0.2, 1e-300, 0.1, 7, 1, np.nan, np.nan, -np.inf]
    np.testing.assert_array_equal(records.read(tmp_path / "run").metrics["entropy"], expected)


def test_columns_never_change(folder):
    """A new column is refused before anything of the call is written; a missing one is empty."""
    before = (folder / "metrics.csv").read_bytes()
    with records.resume(folder, 400) as writer:
        with pytest.raises(ValueError, match="metrics.csv: got the new column 'ess' at step 500"):
            writer.metrics([*metrics(500), *metrics(500, ess=0.5)])
        assert (folder / "metrics.csv").read_bytes() == before
        writer.metrics([{"seed": 0, "step": 500, "seconds": 5.0, "episodes": 0}])
    assert np.isnan(records.read(folder).metrics["entropy"][-1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"seed": -1}, "metrics.csv: seed: got -1"),
        ({"step": 1.5}, "step: got 1.5, expected a whole number"),
        ({"seconds": None}, "seconds: got None"),
        ({"seconds": np.nan}, "seconds: got nan"),
        ({"entropy": "high"}, "entropy: got 'high', expected a number"),
        ({"entropy": np.zeros(2)}, "entropy: got array"),
        ({"a,b": 1.0}, "the column 'a,b'"),
    ],
)
def test_what_is_no_number_is_refused(tmp_path, bare, row, message):
    """One sentence names the column, the table stays empty, and good rows can follow."""
    with records.create(tmp_path / "run", **CONFIG) as writer:
        with pytest.raises(ValueError, match=message):
            writer.metrics([metrics(100)[0] | row])
        assert (tmp_path / "run" / "metrics.csv").read_bytes() == b""
        writer.metrics(metrics(200))
    assert records.read(tmp_path / "run").metrics["step"].tolist() == [200, 200]


def test_resuming_drops_what_comes_again(folder):
    """Rows after the checkpoint's step go, in both tables; those at the step stay; new rows follow them."""
    with records.resume(folder, 200) as writer:
        writer.metrics(metrics(300, entropy=7.0))
        writer.evaluations(evaluations(300))
    found = records.read(folder)
    np.testing.assert_array_equal(found.metrics["step"], [100, 100, 200, 200, 300, 300])
    np.testing.assert_array_equal(found.metrics["entropy"], [-1.25] * 4 + [7.0] * 2)
    np.testing.assert_array_equal(found.evaluations["step"], [200] * 4 + [300] * 4)


def test_resuming_repairs_a_half_written_line(folder):
    """A line that a crash cut off does not run into the next one."""
    path = folder / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-4])
    records.resume(folder, 10_000).close()
    np.testing.assert_array_equal(records.read(folder).metrics["step"], [100, 100, 200, 200, 300, 300, 400])
    with records.resume(folder, 10_000, steps=600) as writer:
        writer.metrics(metrics(500))
    assert records.read(folder).metrics["step"][-3:].tolist() == [400, 500, 500]
    assert records.read(folder).config["steps"] == 600


def test_a_crash_while_resuming_leaves_the_old_table(folder, monkeypatch):
    """The old file is replaced in one go or not at all."""
    before = (folder / "metrics.csv").read_bytes()

    def crash(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", crash)
        with pytest.raises(OSError, match="power cut"):
            records.resume(folder, 100)
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_used_folder_is_refused(folder):
    """A new run never overwrites another one."""
    with pytest.raises(ValueError, match="which already holds a run"):
        records.create(folder, **CONFIG)
    (folder / "config.json").unlink()
    for left in ("metrics.csv", "evaluations.csv", CHECKPOINTS):  # to which it would be added, or from which go on
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=f"which already holds {left} of another run"):
            records.create(folder, **CONFIG)
        (folder / left).unlink() if left.endswith("csv") else (folder / left).rmdir()
    records.create(folder, **CONFIG).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "config.json: got format 2, expected at most format 1; update entroflow"),
        ({"format": "1"}, "got format = '1', expected the folder of a training run"),
        ({"seeds": []}, r"got seeds = \[\]"),
        ({"seeds": [True]}, r"got seeds = \[True\]"),
        ({"steps": -1}, "got steps = -1"),
        ({"env": None}, "got env = None"),
    ],
)
@pytest.mark.parametrize("use", [records.read, lambda folder: records.resume(folder, 0)], ids=["read", "resume"])
def test_foreign_and_newer_configurations_are_refused(folder, change, message, use):
    """One sentence says what is wrong with config.json, and resuming then changes nothing."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match=message):
        use(folder)
    assert (folder / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("plan", [None, [1], {}, {"every": 0, "episodes": 1}, {"every": "x", "episodes": 1}])
def test_a_run_goes_on_by_a_plan_of_evaluations(folder, plan):
    """From Python and in a sweep, too."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"evaluation": plan}))
    with pytest.raises(ValueError, match="config.json.* evaluation"):
        records.begun(folder, {}, True, ("log", "resume", "settings"), "resume=True")


def test_a_run_without_weights_and_biases_stays_without(folder):
    """Who asks for it is told; who does not goes on with what the run has."""
    path = folder / "config.json"
    known = json.loads(path.read_text()) | {"evaluation": records.EVALUATION}
    for has, asks in ((False, False), (True, True), (True, False), (False, True)):
        path.write_text(json.dumps(known | {"wandb": has}))
        goes_on = (folder, {"wandb": asks}, True, ("--out", "--resume", "--set"), "")
        if has >= asks:
            assert records.begun(*goes_on) == known | {"wandb": has}
    with pytest.raises(ValueError, match="--resume: got wandb, where the run in .* goes without"):
        records.begun(*goes_on)


def test_what_is_no_run_is_refused(folder, tmp_path):
    """A missing folder, an empty one, a file, another study's, a truncated config.json."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    (folder / "config.json").write_text('{"format": 1,')
    for name, message in {
        "missing": "got no such folder",
        "empty": "got a folder without config.json",
        "run/metrics.csv": "got a file, expected the folder",
        "other": "got no field 'format'",
        "run": "malformed JSON",
    }.items():
        with pytest.raises(ValueError, match=message) as problem:
            records.read(tmp_path / name)
        assert str(tmp_path / name) in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"3,100,1.0,3.5,20.0,5,-1.25\n", b"3,100,1.0,3.5\n", "got 4 fields for 7 columns in line 3"),
        (b"3,100,1.0", b"3,1o0,1.0", "got '1o0' for step in line 3"),
        (b"3,100,1.0", b"3,-100,1.0", "got '-100' for step in line 3"),
        (b"3,100,1.0", b"3,100,", "got '' for seconds in line 3"),
        (b"-1.25\n", b"?\n", r"got '\?' for entropy in line 2"),
        (b"seed,step", b"step,seed", "got a header that does not begin with seed,step"),
        (b"episodes,entropy", b"episodes,return", "got a header"),
        (b"3,100,1.0", b"3,100,\xff", "got bytes that are no text"),
    ],
)
def test_damage_is_named_with_its_line(folder, old, new, message):
    """A complete line that is wrong is damage, not a half-written end."""
    path = folder / "metrics.csv"
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        records.read(folder)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("metrics.csv", "7,400,4.0,1e5,20.0,5,0", "got rows of seed 7, which the run does not have"),
        ("evaluations.csv", "7,400,4.0,0,1e5,9", "got rows of seed 7, which the run does not have"),
        ("evaluations.csv", "3,400,4.0,1,1e5,9", "got an episode twice"),
    ],
)
def test_rows_that_the_run_cannot_have_are_refused(folder, name, row, message):
    """They would be averaged with its own."""
    (folder / name).write_text((folder / name).read_text() + row + "\n")
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        records.read(folder)


def events(folder):
    """What TensorBoard finds: (tag, step, value), and the step from which older values are hidden."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, hidden = [], []
    for path in sorted(folder.iterdir(), key=lambda path: len(path.name)):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            hidden += [event.step] if event.HasField("session_log") else []
    return scalars, hidden


def test_tensorboard_has_the_same_rows(tmp_path):
    """Metrics are train/…, means over episodes evaluation/…, one folder per seed; resuming hides what it drops."""
    with records.create(tmp_path / "run", **CONFIG) as writer:
        writer.metrics(metrics(100, **{"return": None}))
        writer.evaluations(evaluations(100))
    scalars, hidden = events(tmp_path / "run" / "tensorboard" / "seed=3")
    assert dict(((tag, step), value) for tag, step, value in scalars) == {
        ("train/length", 100): 20.0,
        ("train/episodes", 100): 5.0,
        ("train/entropy", 100): -1.25,
        ("evaluation/return", 100): 30.5,
        ("evaluation/length", 100): 9.0,
    }
    assert hidden == []
    with records.resume(tmp_path / "run", 60) as writer:
        writer.metrics(metrics(100, entropy=2.0))
    scalars, hidden = events(tmp_path / "run" / "tensorboard" / "seed=3")
    assert ("train/entropy", 100, 2.0) in scalars and hidden == [61]


def test_weights_and_biases_is_asked_for(tmp_path, monkeypatch):
    """Not installed, it is named in one sentence before anything is written; installed, it gets the same rows."""
    with monkeypatch.context() as patch:
        patch.setattr(sinks, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match="pip install"):
            records.create(tmp_path / "run", **CONFIG, wandb=True)
    assert not (tmp_path / "run").exists()
    logged, finished = [], []
    run = types.SimpleNamespace(
        log=logged.append, define_metric=lambda *_, **__: None, finish=lambda: finished.append(1)
    )
    fake = types.SimpleNamespace(init=lambda **settings: run)
    monkeypatch.setattr(sinks, "find_spec", lambda name: name if name == "wandb" else None)
    monkeypatch.setattr(sinks, "import_module", lambda name: fake)
    with records.create(tmp_path / "run", **CONFIG, wandb=True) as writer:
        writer.metrics(metrics(100, seeds=(3,)))
        writer.evaluations(evaluations(100, seeds=(3,)))
    assert logged[0]["seed=3/train/entropy"] == -1.25 and logged[0]["step"] == 100
    assert logged[1] == {"seed=3/evaluation/return": 30.5, "seed=3/evaluation/length": 9.0, "step": 100}
    assert finished


def test_agents_are_found_in_the_order_of_their_numbers(tmp_path):
    """Of seeds 9 and 10 the first is 9; temperatures are numbers, too, whatever their form."""
    names = ["seed=9", "seed=10"]
    for name in names:
        (tmp_path / "run" / CHECKPOINTS / "last" / name).mkdir(parents=True)
    assert [path.name for path in agents_in(tmp_path / "run")] == names
    policies = [policy_folder(temperature, seed) for temperature in (1e-05, 0.5, 10.0) for seed in (2, 11)]
    for name in policies:
        (tmp_path / "lqr" / name).mkdir(parents=True)
    assert [path.name for path in agents_in(tmp_path / "lqr")] == [Path(name).name for name in policies]


def test_what_is_no_training_has_no_best_agent(tmp_path):
    """An agent alone, the policies of lqr, and a training before its first evaluation are not taken for one."""
    places = ["alone", "lqr/policies/alpha=1_seed=0", "run/checkpoints/last/seed=0"]
    for place in places:
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "alone" / "agent.json").touch()
    for place in places:
        folder = tmp_path / place.partition("/")[0]
        assert agents_in(folder) == [tmp_path / place]
        with pytest.raises(ValueError, match="which holds no best agent, expected the folder of a training"):
            agents_in(folder, "best")
    (best := tmp_path / "run" / "checkpoints" / "best" / "seed=0").mkdir(parents=True)
    assert agents_in(tmp_path / "run", "best") == [best]
