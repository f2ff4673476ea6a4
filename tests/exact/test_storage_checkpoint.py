"""Checkpoints on disk: what is read is what was written, and what cannot be read is named, never taken for good."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entroflow import checks
from entroflow.storage import checkpoint
from entroflow.storage.checkpoint import HEADER, flatten, read, save, unflatten

RUN = {"env": "Task-v0", "seeds": [0]}
DATA = Path(__file__).parents[1] / "data"


def tree():
    """One of every kind of leaf."""
    key = jax.random.split(jax.random.key(7), 2)
    return {"weights": jnp.arange(6.0).reshape(2, 3), "key": key, "count": jnp.int32(5), "ended": jnp.array([True])}


def write(root, step, change=0.0):
    """Save a checkpoint whose arrays depend on the step."""
    arrays = flatten("state", tree()) | {"seen": np.arange(20.0) + step + change}
    return save(root, step, RUN, {"score": 0.1 + 0.2, "big": 2**127 + 1, "nothing": None}, arrays)


@pytest.fixture
def root(tmp_path):
    """Two checkpoints of a run."""
    for step in (10, 20):
        write(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


def latest(root, run):
    """The newest whole checkpoint, which there is."""
    header, arrays, problems = checkpoint.latest(root, run)
    assert header is not None
    return header, arrays, problems


def files(root, step):
    """All files of a checkpoint."""
    return sorted((root / f"step={step}").iterdir())


def _double(leaf):
    """A leaf in double precision, if its precision is that of a real number."""
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def test_what_is_read_is_what_was_written(root):
    """Numbers and arrays to the last bit, random keys included, and the size is that of the files."""
    header, arrays, problems = latest(root, RUN)
    assert header["step"] == 20 and not problems
    assert header["numbers"] == {"score": 0.1 + 0.2, "big": 2**127 + 1, "nothing": None}
    found = unflatten("state", jax.eval_shape(tree), arrays)
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(tree()), strict=True):
        assert leaf.dtype == expected.dtype and (leaf == expected).all()
    np.testing.assert_array_equal(arrays["seen"], np.arange(20.0) + 20)
    assert write(root, 30) == sum(path.stat().st_size for path in files(root, 30))


def test_single_precision_is_read_where_double_is_asked_for():
    """To the last bit, random keys and whole numbers too; the other way numbers would be lost, which is refused."""
    single = flatten("state", tree())
    with jax.enable_x64(True):
        wide = jax.eval_shape(lambda: jax.tree.map(_double, tree()))
        found = flatten("state", unflatten("state", wide, single))
        assert any(part.dtype == np.float64 for part in found.values())
        assert found.keys() == single.keys() and all(np.array_equal(found[name], single[name]) for name in single)
    with pytest.raises(ValueError, match="got float64 of shape .*, expected float32 of shape"):
        unflatten("state", jax.eval_shape(tree), found)


def test_the_same_state_gives_the_same_bytes(root, tmp_path):
    """Checkpoints of equal states are equal files, so that runs can be compared by their hashes."""
    write(tmp_path / "again", 20)
    assert [path.read_bytes() for path in files(root, 20)] == [
        path.read_bytes() for path in files(tmp_path / "again", 20)
    ]


def test_the_newest_two_are_kept(root):
    """Older ones go, and so do those of a future that is no longer: of a newer step, or never finished."""
    (root / "step=25").mkdir()
    (root / "step=25" / ".partial-0").write_bytes(b"half")
    write(root, 30)
    assert list(checkpoint.folders(root)) == [20, 30] and not (root / "step=25").exists()
    write(root, 25)
    assert list(checkpoint.folders(root)) == [20, 25]


def test_every_flipped_byte_is_found(root):
    """A flip anywhere in the header, or in any part of the arrays, makes the older checkpoint the newest whole one."""
    for path in files(root, 20):
        content = path.read_bytes()
        places = range(0, len(content), 5 if path.name == HEADER else 23)
        for place in places:
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :])
            header, _, problems = latest(root, RUN)
            assert header["step"] == 10, f"byte {place} of {path.name}"
            assert len(problems) == 1 and "step=20" in problems[0] and "\n" not in problems[0]
        path.write_bytes(content)
    assert latest(root, RUN)[0]["step"] == 20


@pytest.mark.parametrize("damage", ["deleted", "truncated", "emptied", "replaced", "a folder"])
@pytest.mark.parametrize("which", [0, 1], ids=["arrays", "header"])
def test_damaged_files_are_named(root, damage, which):
    """The older checkpoint is used, with a word on the newer; if that is damaged, too, there is one clear sentence."""

    def spoil(step):
        path = files(root, step)[which]
        content = path.read_bytes()
        path.unlink()
        match damage:
            case "truncated":
                path.write_bytes(content[: len(content) // 2])
            case "emptied":
                path.write_bytes(b"")
            case "replaced":
                path.write_bytes(b"PK\3\4 something else")
            case "a folder":
                path.mkdir()

    spoil(20)
    header, _, problems = latest(root, RUN)
    assert header["step"] == 10
    if damage == "deleted" and which == 1:  # without its header it is a checkpoint that was never finished
        assert not problems
        return
    assert "step=20" in problems[0]
    spoil(10)
    with pytest.raises(ValueError, match="step=20.*None of the older ones is whole"):
        latest(root, RUN)


def test_foreign_checkpoints_are_refused(root):
    """Those of another run, under another step's name, or of other settings, fit nothing."""
    with pytest.raises(ValueError, match="the checkpoint of another run"):
        latest(root, RUN | {"seeds": [1]})
    with pytest.raises(
        ValueError, match=r"state.weights: got float32 of shape \(2, 3\), expected float32 of shape \(3"
    ):
        unflatten("state", tree() | {"weights": jnp.zeros((3, 3))}, latest(root, RUN)[1])
    with pytest.raises(ValueError, match="state.more: got nothing"):
        unflatten("state", tree() | {"more": jnp.zeros(3)}, latest(root, RUN)[1])
    shutil.copytree(root / "step=10", root / "step=40")
    header, _, problems = latest(root, RUN)
    assert header["step"] == 20 and "the checkpoint of step 10" in problems[0]


def test_newer_formats_are_not_passed_over(root, monkeypatch):
    """A newer program has written the newest checkpoint: that is said, and no older one is taken instead."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        write(root, 30)
    with pytest.raises(ValueError, match="got format 2, expected format 1; update entroflow to read it"):
        latest(root, RUN)


@pytest.mark.parametrize("at", ["savez", "fsync", "replace"])
def test_a_full_disk_leaves_the_older_checkpoints(root, monkeypatch, at):
    """The error reaches the caller, the two checkpoints are whole, and no half-written file takes room."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr({"savez": np, "fsync": os, "replace": checkpoint}[at], at, full)
        with pytest.raises(OSError, match="No space left"):
            write(root, 30)
    assert not list(root.rglob(".partial*"))
    header, _, problems = latest(root, RUN)
    assert header["step"] == 20 and not problems


@contextlib.contextmanager
def nobody():
    """Without the rights of the superuser, whom no folder is closed to."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_an_error(tmp_path):
    """The system's own error, and nothing is written."""
    tmp_path.chmod(0o555)
    with nobody(), pytest.raises(PermissionError):
        write(tmp_path, 10)
    tmp_path.chmod(0o755)
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    """Stands for a kill: nothing may be done after it."""


@pytest.mark.parametrize("target", ["replace", "rename", "unlink", "rmtree"])
def test_a_kill_between_any_two_steps_leaves_a_whole_checkpoint(root, monkeypatch, target):
    """Before and after each change in the folder: either the old checkpoint or the new one is read, and is whole."""
    seen = set()
    write(root, 30, change=1.0)
    for call in range(1, 4):
        for when in ("before", "after"):
            with monkeypatch.context() as patch:
                owner, name = {
                    "replace": (checkpoint, "replace"),
                    "rename": (Path, "replace"),
                    "unlink": (Path, "unlink"),
                    "rmtree": (shutil, "rmtree"),
                }[target]
                real, calls = getattr(owner, name), []

                def dying(*arguments, real=real, calls=calls, call=call, when=when, **options):
                    calls.append(arguments)
                    if len(calls) == call and when == "before":
                        raise Killed
                    result = real(*arguments, **options)
                    if len(calls) == call:
                        raise Killed
                    return result

                patch.setattr(owner, name, dying)
                with contextlib.suppress(Killed):
                    write(root, 30, change=float(call))
            header, arrays, problems = latest(root, RUN)
            assert header["step"] == 30 and not problems
            seen.add(arrays["seen"][0] - 30)
    assert seen <= {1.0, 2.0, 3.0}


def packed(content, shape="(2,)"):
    """An array file that says it is of a shape."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + content


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(3,)", "(1,)", "(2, -1)", "(1000000, 1000000, 1000000, 2)", "[2]"]
)
def test_no_array_is_larger_than_its_file(tmp_path, shape):
    """Sizes are compared before anything is allocated; the true one is read."""
    for name, told in (("good", "(2,)"), ("bad", shape)):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            archive.writestr("x.npy", packed(np.float32([1, 2]).tobytes(), told))
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "good.npz")["x"], [1, 2])
    with pytest.raises(ValueError, match="bad.npz: got not the arrays that were written"):
        checkpoint.load(tmp_path / "bad.npz")


def test_compressed_arrays_are_refused(tmp_path):
    """A megabyte may unpack to a gigabyte."""
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(2**20))
    with pytest.raises(ValueError, match="they are compressed"):
        checkpoint.load(tmp_path / "bomb.npz")


def resigned(path, **changes):
    """Change a header as anybody can, its check sum made anew; None takes a field out."""
    header = {name: value for name, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    digest = checkpoint._digest({name: value for name, value in header.items() if name != "sha256"})
    path.write_text(json.dumps(header | {"sha256": digest}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays": None}, "content that does not fit"),
        ({"arrays": {"file": "../step=10/checkpoint.json"}}, "arrays in '../step=10/checkpoint.json'"),
        ({"arrays": {"file": "checkpoint-0123456789abcdef.npz"}}, "No such file"),
        ({"format": True}, "a header that was damaged"),
        ({"step": None}, "the checkpoint of step None"),
        ({"numbers": None}, "the checkpoint of step 20"),
        ({"run": [RUN]}, "the checkpoint of another run"),
        ({"x": float("1e999")}, "Infinity"),
    ],
)
def test_a_header_with_a_check_sum_made_anew_is_not_believed(root, changes, message):
    """What it says must fit; otherwise the older checkpoint is the newest."""
    path = root / "step=20" / HEADER
    try:
        resigned(path, **changes)
    except ValueError:  # no check sum of what is no JSON
        path.write_text(path.read_text().replace("{", '{"x": 1e999,', 1))
        message = "1e999"
    header, _, notes = latest(root, RUN)
    assert header["step"] == 10 and message in notes[0] and "\n" not in notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{{"x": {"9" * 10_000}}}', "a whole number of 10000 digits"),
        ('{"x": -1e400}', "-1e400, expected finite numbers"),
        (f'{{"x": {"[" * 20_000}{"]" * 20_000}}}', "nested too deeply"),
        (f'{{"format": 1, "x": {"[" * 600}{"]" * 600}}}', "damaged|nested|fit"),
    ],
)
def test_sizes_in_json_are_checked(tmp_path, text, message):
    """One sentence, however long the number or deep the nesting."""
    (tmp_path / HEADER).write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        checkpoint.read_header(tmp_path / HEADER)
    assert len(str(refusal.value)) < 1500 and "\n" not in str(refusal.value)


def test_no_file_is_read_that_has_no_end(root, monkeypatch):
    """Pipes, which would wait for a writer, and files larger than memory."""
    for path in files(root, 20):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        assert latest(root, RUN)[0]["step"] == 10
        path.unlink()
        path.write_bytes(content)
    monkeypatch.setattr(checks, "LARGEST", 20)
    with pytest.raises(ValueError, match="of at most 20"):
        checkpoint.read_header(root / "step=20" / HEADER)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_no_number_that_is_not_finite_is_kept(root, number):
    """Neither written, where the old file stays, nor read; environments may have bounds at infinity."""
    with pytest.raises(ValueError, match="NaN or infinity in state.bad"):
        save(root, 20, RUN, {}, {"state.bad": np.array([0.0, number])})
    assert latest(root, RUN)[1]["seen"][0] == 20
    save(root, 30, RUN, {}, {"envs.0.0.bound": np.array([0.0, number])})
    np.testing.assert_array_equal(latest(root, RUN)[1]["envs.0.0.bound"], [0.0, number])
    path = next(path for path in files(root, 30) if path.suffix == ".npz")
    np.savez(path, bad=np.array(number))
    told = {"file": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    resigned(root / "step=30" / HEADER, arrays=told)
    assert "NaN or infinity in bad" in latest(root, RUN)[2][0]


def test_other_versions_are_named(root):
    """A checkpoint says what it was made with, and a resumption under other versions says so."""
    assert latest(root, RUN)[2] == []
    versions = json.loads((root / "step=20" / HEADER).read_text())["versions"]
    resigned(root / "step=20" / HEADER, versions=versions | {"jax": "0.0.1"})
    header, _, (note,) = latest(root, RUN)
    assert header["step"] == 20 and f"made with jax 0.0.1; here is jax {versions['jax']}" in note


def test_what_is_replaced_between_header_and_arrays_is_read_again(tmp_path, monkeypatch):
    """As often as it takes; arrays that are damaged under the same header are refused at once."""
    path, real, written = tmp_path / "agent.json", checkpoint.load, [1]
    write_one = lambda: checkpoint.write(path, {"format": 1, "number": written[0]}, {"x": np.full(3, written[0])})  # noqa: E731
    write_one()

    def overtaken(file, told):
        if written[0] < 4:
            written[0] += 1
            write_one()
        return real(file, told)

    monkeypatch.setattr(checkpoint, "load", overtaken)
    header, arrays = read(path)
    assert header["number"] == 4 and (arrays["x"] == 4).all()
    next(tmp_path.glob("*.npz")).write_bytes(b"half")
    with pytest.raises(ValueError, match="not the arrays that were written"):
        read(path)


def test_readers_beside_a_writer(tmp_path):
    """A file that is replaced while it is read is read again: every reading gives one of the states, whole."""
    path, stop, written = tmp_path / "agent.json", threading.Event(), [0]

    def write_all():
        while not stop.is_set():
            written[0] += 1
            number = np.full(1000, written[0])
            checkpoint.write(path, {"format": 1, "number": written[0]}, {"number": number, "same": number})

    writer = threading.Thread(target=write_all)
    writer.start()
    seen = set()
    try:
        while len(seen) < 5 and writer.is_alive():
            if path.exists():
                header, arrays = read(path)
                assert (arrays["number"] == header["number"]).all() and (arrays["same"] == header["number"]).all()
                seen.add(header["number"])
    finally:
        stop.set()
        writer.join()
    assert len(seen) == 5


def test_checkpoints_of_this_format_stay_readable():
    """A checkpoint that was committed with this format: its numbers and arrays are those that were written."""
    header, arrays = read(DATA / "format-1" / "checkpoint" / HEADER)
    assert header["run"] == RUN and header["numbers"]["big"] == 2**127 + 1
    found = unflatten("state", jax.eval_shape(tree), arrays)
    assert (found["weights"] == tree()["weights"]).all() and (found["key"] == tree()["key"]).all()
