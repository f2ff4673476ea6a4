"""`entroflow compare` and the learning curve of one run: what is written, what is refused, what is said."""

import csv
import json
import math
import subprocess
import sys

import pytest
from matplotlib.image import imread

from entroflow import cli
from entroflow.storage import records
from entroflow.storage import trackers as sinks
from entroflow.storage.curves import draw_learning_curve


def write(folder, algorithm, env, slope, *, seeds=3, steps=400):
    """A run whose return rises in a straight line, the seeds one unit apart."""
    config = {
        "algorithm": algorithm,
        "env": env,
        "seeds": list(range(seeds)),
        "steps": steps,
        "settings": {"gamma": 0.99},
    }
    with records.create(folder, **config) as writer:
        for step in range(100, steps + 1, 100):
            rows = [{"seed": seed, "step": step, "seconds": step * 0.6, "length": 50} for seed in range(seeds)]
            writer.metrics([row | {"return": None, "episodes": 0, "entropy": -1.0} for row in rows])
            writer.evaluations([row | {"episode": 0, "return": slope * step + row["seed"]} for row in rows])
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two algorithms on two tasks."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinks, "find_spec", lambda name: None)
        return [
            write(root / "a-flow", "flow", "A-v0", 0.02),
            write(root / "b-flow", "flow", "B-v0", -0.01),
            write(root / "a-gauss", "gauss", "A-v0", 0.01, steps=300),
            write(root / "b-gauss", "gauss", "B-v0", -0.02),
        ]


def test_everything_is_written(runs, tmp_path, capsys, monkeypatch):
    """Figure, curves and table agree with the straight lines that went in; the terminal's table fits 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "out"
    assert cli.main(["compare", *runs, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"compare.png", "compare.pdf", "compare.json", "compare.csv"}
    assert imread(out / "compare.png")[..., :3].std() > 0.02
    assert (out / "compare.pdf").read_bytes().startswith(b"%PDF-")
    with (out / "compare.csv").open(newline="") as file:
        rows = {(row["task"], row["algorithm"]): row for row in csv.DictReader(file)}
    flow, gauss = rows["A-v0", "flow"], rows["A-v0", "gauss"]
    assert float(flow["final"]) == pytest.approx(0.02 * 300 + 1) and flow["steps"] == "300" and flow["seeds"] == "3"
    assert float(gauss["final"]) == pytest.approx(0.01 * 300 + 1)
    assert float(gauss["area"]) == pytest.approx(0.01 * 200 + 1) and float(gauss["minutes"]) == pytest.approx(3)
    assert (float(flow["final_low"]), float(flow["final_high"])) == pytest.approx((6, 8))
    assert ("all tasks", "flow") in rows
    document = json.loads((out / "compare.json").read_text())
    curve = document["curves"][0]
    assert (curve["task"], curve["algorithm"], curve["curve"]["at"]) == ("A-v0", "flow", [100, 200, 300])
    assert curve["curve"]["iqm"] == pytest.approx([3, 5, 7])
    assert document["improvements"][-1]["probability"] == 1 and document["improvements"][-1]["task"] == "all tasks"
    printed = capsys.readouterr().out
    assert "A-v0: compared up to step 300, where the shortest run ends; flow goes on to 400" in " ".join(
        printed.split()
    )
    assert max(len(line) for line in printed.splitlines() if not line.startswith("/")) <= 80


def test_a_comparison_can_be_repeated(runs, tmp_path, capsys):
    """The folder of an earlier comparison is written again; another one is left alone."""
    out = tmp_path / "out"
    for metric in ("return", "entropy"):
        assert cli.main(["compare", runs[0], "--metric", metric, "--out", str(out)]) == 0
        (out / ".partial-0123456789abcdef").touch()  # which a kill would leave
    assert json.loads((out / "compare.json").read_text())["metric"] == "entropy"
    (out / "thesis.tex").write_text("mine")
    assert cli.main(["compare", runs[0], "--out", str(out)]) == 2
    assert "already holds another run" in capsys.readouterr().err


def test_labels_name_the_lines(runs, tmp_path):
    """One label per folder, in the folders' order."""
    arguments = ["compare", runs[0], runs[2], "--labels", "ours", "theirs", "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    document = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [curve["algorithm"] for curve in document["curves"]] == ["ours", "theirs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "records: got none"),
        (["nowhere"], "nowhere: got no such folder, expected the folder of a training run"),
        (["RUN", "--metric", "entorpy"], "did you mean 'entropy'"),
        (["RUN", "RUN"], "got seed 0 of flow on A-v0 again"),
        (["RUN", "--labels", "a", "b"], "labels: got 2 names"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(runs, tmp_path, capsys, arguments, message):
    """Exit code 2, one line, and nothing written."""
    given = [runs[0] if argument == "RUN" else argument for argument in arguments]
    assert cli.main(["compare", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_comparing_needs_no_jax():
    """Reading and comparing start quickly: JAX is not imported for them."""
    script = "import sys, entroflow.storage.comparison; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_learning_curve_of_one_run(runs, tmp_path):
    """It is written into the run's own folder; a run without evaluations is refused in one sentence."""
    folder = tmp_path / "run"
    write(folder, "flow", "A-v0", 1.0, seeds=2, steps=200)
    draw_learning_curve(folder)
    assert imread(folder / "learning_curve.png")[..., :3].std() > 0.02
    assert (folder / "learning_curve.pdf").read_bytes().startswith(b"%PDF-")
    assert math.isfinite(records.read(folder).evaluations["return"].sum())
    (folder / "evaluations.csv").unlink()
    with pytest.raises(ValueError, match="got no evaluation yet"):
        draw_learning_curve(folder)
