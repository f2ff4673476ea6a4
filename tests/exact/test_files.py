"""Files are written whole, and nowhere else than they say: no link that somebody prepared leads a write elsewhere."""

import contextlib
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import entroflow
from entroflow import files, plotting
from entroflow.export import programs
from entroflow.storage import checkpoint, keeping, records
from entroflow.storage import trackers as sinks
from entroflow.storage.folder import RESULTS, claim, lock, write_results

CONFIG = {"algorithm": "sac_isfm", "env": "Task-v0", "seeds": [0], "steps": 4, "settings": {}}
ROW = {"seed": 0, "step": 1, "seconds": 0.5, "episodes": 0}


def program():
    """A policy that adds its noise to what it sees."""
    return programs.Program(lambda obs, noise: (jnp.add(obs, noise),), 1, (1,), ("action",))


def begin(folder):
    """Begin a run and write a row."""
    with records.create(folder, **CONFIG) as writer:
        writer.metrics([ROW])


def go_on(folder):
    """Go on with a run whose tables were moved out of it."""
    begin(folder)
    for name in ("metrics.csv", "evaluations.csv", "config.json"):
        (folder / name).rename(folder.parent / f"moved {name}")
        (folder / name).symlink_to(folder.parent / f"moved {name}")
    with records.resume(folder, 9, steps=9) as writer:
        writer.metrics([ROW])


WRITERS = {
    "text": (lambda folder: files.replace(folder / "text", "new"), ["text"]),
    "results": (lambda folder: write_results(folder, {"found": 1.0}, {}), [RESULTS]),
    "figure": (lambda folder: plotting.save(folder, "figure", Figure()), ["figure.png", "figure.pdf"]),
    "checkpoint": (lambda folder: checkpoint.write(folder / "a.json", {"format": 1}, {"x": np.ones(2)}), ["a.json"]),
    "export": (lambda folder: programs.write(folder / "p.stablehlo", program()), ["p.stablehlo"]),
    "resumed run": (go_on, ["metrics.csv", "evaluations.csv", "config.json"]),
}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """As if TensorBoard were not installed."""
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)


@pytest.fixture(scope="module")
def agent():
    """An agent that has learned nothing."""
    return entroflow.GaussianSAC("Pendulum-v1", width=8, depth=1, critic_width=8, buffer_size=300)


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_in_a_files_place_is_replaced(tmp_path, name):
    """What it led to stays as it was; the temporary names of earlier versions are not used, and none is left."""
    write, written = WRITERS[name]
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("mine")
    folder.mkdir()
    prepared = ["a.npz.partial", *(f"{file}.partial" for file in written), *(f".partial-{file}" for file in written)]
    for file in [*prepared, *(written if name != "resumed run" else [])]:
        (folder / file).symlink_to(victim)
    write(folder)
    assert victim.read_text() == "mine"
    for file in written:
        assert (folder / file).is_file() and not (folder / file).is_symlink()
    assert {path.name for path in folder.glob("*.partial*")} == set(prepared)
    moved = tmp_path / "moved metrics.csv"
    assert not moved.exists() or moved.read_text().count("\n") == 2, "the header and the first row"


def test_a_link_to_nothing_makes_no_file(tmp_path):
    """A table that grows is not opened through a link."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="symbolic"):
        begin(tmp_path / "run")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_a_link_is_not_worked_in(tmp_path):
    """One sentence names it, and nothing behind it is touched; what a kill left in other folders goes."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    left = tmp_path / "run" / "checkpoints" / ".partial-0123456789abcdef"
    left.touch()
    with lock(tmp_path / "run"):
        assert not left.exists()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / left.name).touch()
    (tmp_path / "run" / "checkpoints" / "last").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="checkpoints: got 'last', a link to another folder"), lock(tmp_path / "run"):
        pass
    assert (tmp_path / "elsewhere" / left.name).exists()


def test_what_breaks_off_leaves_the_old_file(tmp_path):
    """And no half of the new one; permissions are those of every new file."""
    files.replace(tmp_path / "file", b"old")
    with contextlib.suppress(RuntimeError), files.partial(tmp_path) as file:
        file.write(b"half")
        raise RuntimeError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]
    (tmp_path / "other").touch()
    assert os.stat(tmp_path / "file").st_mode == os.stat(tmp_path / "other").st_mode


@pytest.mark.parametrize("content", ['{"runs": [', "", "[]"])
def test_a_study_whose_results_were_cut_short_is_not_finished(tmp_path, content):
    """It can be gone on with; one whose results are whole cannot."""
    files.replace(tmp_path / "config.json", '{"format": 1, "command": "lqr"}')
    plan = {"format": 1, "command": "lqr"}
    assert keeping.read_plan(tmp_path) == plan
    files.replace(tmp_path / RESULTS, content)
    assert keeping.read_plan(tmp_path) == plan
    write_results(tmp_path, {"runs": []}, {})
    with pytest.raises(ValueError, match="a finished study"):
        keeping.read_plan(Path(tmp_path))


def test_a_file_is_no_folder(tmp_path):
    """Where a file has the folder's name, or that of one above it, a sentence says so, and the file stays."""
    (tmp_path / "taken").write_text("mine")
    for path in (tmp_path / "taken" / "agent.json", tmp_path / "taken" / "below" / "agent.json"):
        with pytest.raises(ValueError, match="taken.*: got a file, expected a folder"):
            files.replace(path, "")
    assert (tmp_path / "taken").read_text() == "mine"


def test_what_a_kill_left_before_anything_was_written_is_no_run(tmp_path):
    """A job that is killed while it begins may be begun again in its folder."""
    for name in (".lock", ".partial-0123456789abcdef"):
        (tmp_path / name).touch()
    claim(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        claim(tmp_path)


NUL = "a\0b"
PLACES = {
    "system": lambda agent: entroflow.LQR.from_json(NUL),
    "study": lambda agent: entroflow.sweep(NUL, "out"),
    "study's folder": lambda agent: entroflow.sweep({"tasks": ["T-v0"], "algorithms": ["sac_isfm"], "steps": 9}, NUL),
    "save": lambda agent: agent.save(NUL),
    "export": lambda agent: agent.export(f"{NUL}.h"),
    "log": lambda agent: agent.learn(9, log=NUL),
    "controller": lambda agent: entroflow.lqr.design(*[[[1.0]]] * 4, temperature=1.0).to_json(f"{NUL}.json"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_name_with_a_nul_character_is_refused_in_one_sentence(name, agent):
    """Python says that a byte is embedded, and not where."""
    with pytest.raises(ValueError, match=r"^a\\x00b.*: got a NUL character in the name, expected .*; leave it out\.$"):
        PLACES[name](agent)
