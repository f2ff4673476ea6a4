"""Clusters as docs/sweep.md and the tutorial have them: batch scripts on a SLURM that is played, KubeRay's manifest.

rayjob.json has the fields of a RayJob (helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml, KubeRay 1.7.0) that stand
beside those of the manifest: by path their types, "!" where one must be given.
"""

import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/sweep.md").read_text()
KINDS = {"string": str, "object": dict, "array": list, "integer": int, "number": int | float, "boolean": bool}
KINDS["integer or string"] = int | str
FIELDS = json.loads(Path(__file__).with_name("rayjob.json").read_text())


def block(language, part):
    """The page's one block of code in a language that has a part."""
    (found,) = (code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if part in code)
    return found


def wrong(value, path=""):
    """What of a manifest its definition does not have, or has otherwise, or misses."""
    if isinstance(value, list):
        return [found for part in value for found in wrong(part, f"{path}[]")]
    if not isinstance(value, dict) or path == "metadata":
        return []
    fields = FIELDS[path.replace("workerGroupSpecs[].template", "headGroupSpec.template")]
    kinds = {name.rstrip("!"): KINDS[kind] for name, kind in fields.items()}
    found = [f"{path}.{name}" for name in kinds if f"{name}!" in fields and name not in value]
    for name, part in value.items():
        below, kind = f"{path}.{name}".lstrip("."), kinds.get(name, kinds.get("*"))
        found += wrong(part, below) if kind and isinstance(part, kind) else [below]
    return found


def test_the_manifest_is_a_rayjob():
    """Of the version of Ray that is installed; its workers, and not its head, run trials."""
    manifest = yaml.safe_load(block("yaml", "RayJob"))
    assert wrong(manifest) == []
    bad = {"spec": {"entrypont": "x", "backoffLimit": "10"}}
    assert wrong(manifest | bad) == ["spec.entrypont", "spec.backoffLimit"]
    spec = manifest["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == importlib.metadata.version("ray")
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (pod,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert {mount["mountPath"] for mount in pod["volumeMounts"]} == {"/study"}
    subprocess.run(["sh", "-n", "-c", spec["entrypoint"]], check=True)


SLURM = {
    "scontrol": """echo "scontrol $*" >> $TOLD
if [ "$1 $2" = "show hostnames" ]; then echo $HEAD; echo elsewhere; fi""",
    "srun": """echo "srun $*" >> $TOLD
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
""",
}
JOB = {"SLURM_JOB_NODELIST": "two", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "17"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_batch_script_runs_and_goes_on(tmp_path, monkeypatch):
    """Its nodes are two of this machine's; shortly before its time is over it asks to be begun again, and goes on."""
    from ray.util import get_node_ip_address

    with socket.socket() as free:
        free.bind(("", 0))
        script = block("bash", "#SBATCH").replace("6379", str(free.getsockname()[1])).replace("$HOME", str(tmp_path))
    script = script.replace("--head ", "--head --include-dashboard=false ")  # which one core cannot bear
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "entroflow/bin").mkdir(parents=True)
    bin = Path(sys.executable).parent
    (tmp_path / "entroflow/bin/activate").write_text(f"PATH={tmp_path / 'entroflow/bin'}:{bin}:$PATH\n")
    for name, text in SLURM.items():
        (file := tmp_path / "entroflow/bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    tables = {"settings": {"learning_starts": 40, "critic_width": 8, "width": 8, "depth": 1, "batch_size": 16}}
    lines = ['tasks = "Pendulum-v1"', 'algorithms = "gaussian_sac"', "seeds = 2", "steps = 200", "evaluate_every = 20"]
    lines += ["evaluation_episodes = 1", "[settings]", *(f"{k} = {v}" for k, v in tables["settings"].items())]
    (tmp_path / "study.toml").write_text("\n".join(lines))
    told = tmp_path / "told.txt"
    environment = os.environ | JOB | {"SCRATCH": str(tmp_path), "TOLD": str(told)}
    environment |= {"HEAD": get_node_ip_address(), "PYTHONPATH": str(ROOT / "src"), "RAY_worker_niceness": "0"}
    codes = []
    for ended in (False, True):
        with (tmp_path / "log.txt").open("a") as log:
            how = {"cwd": tmp_path, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
            job = subprocess.Popen(["bash", "job.sh"], **how)
        try:
            while not ended and not list(tmp_path.glob("study/trials/*/checkpoints/step=*/checkpoint.json")):
                assert job.poll() is None, (tmp_path / "log.txt").read_text()
                time.sleep(0.1)
            if not ended:
                job.terminate()
            codes.append(job.wait())
        finally:
            os.killpg(job.pid, signal.SIGTERM)  # as SLURM ends what a job leaves behind
            time.sleep(5)
            os.killpg(job.pid, signal.SIGKILL)
    assert codes == [143, 0]
    states = [trial["state"] for trial in json.loads((tmp_path / "study/study.json").read_text())["trials"]]
    assert states == ["finished", "finished"]
    lines = told.read_text().splitlines()
    assert lines.count("scontrol requeue 17") == 1 and sum(line.startswith("srun --nodes=1 ") for line in lines) == 4
    assert "0 of them finished" in (tmp_path / "log.txt").read_text()


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_the_tutorial_s_job_script_goes_on(tmp_path):
    """Shortly before its time is over it writes a checkpoint and asks to be begun again; then it comes to its end."""
    page = (ROOT / "docs/tutorials/cluster.md").read_text()
    (script,) = (code for code in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "#SBATCH" in code)
    told, bin = tmp_path / "told.txt", tmp_path / "entroflow/bin"
    bin.mkdir(parents=True)
    (bin / "activate").write_text(f"PATH={bin}:{Path(sys.executable).parent}:$PATH\n")
    (bin / "scontrol").write_text(f"#!/bin/bash\n{SLURM['scontrol']}\n")
    (bin / "scontrol").chmod(0o755)
    small = "learning_starts=9000 critic_width=8 width=8 depth=1 batch_size=16 buffer_size=100"
    changes = {
        "Hopper-v5": f"Pendulum-v1 --algorithm gaussian_sac --set {small}",
        "1000000": "2000 --evaluate-every 1000 --evaluation-episodes 1",
    }
    for old, new in changes.items():
        assert script.count(old) == 1
        script = script.replace(old, new)
    (tmp_path / "job.sh").write_text(script)
    environment = os.environ | {"HOME": str(tmp_path), "TOLD": str(told), "PYTHONPATH": str(ROOT / "src")}
    environment |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "17", "HEAD": ""}
    out, codes = tmp_path / "out/hopper-3", []
    for ended in (False, True):
        with (tmp_path / "log.txt").open("a") as log:
            how = {"cwd": tmp_path, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
            job = subprocess.Popen(["bash", "job.sh"], **how)
        try:
            while not ended and not list(out.glob("checkpoints/step=*/checkpoint.json")):
                assert job.poll() is None, (tmp_path / "log.txt").read_text()
                time.sleep(0.02)
            if not ended:
                job.terminate()
            codes.append(job.wait(timeout=200))
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
    log = (tmp_path / "log.txt").read_text()
    assert "to go on: entroflow resume out/hopper-3" in log, log
    assert codes[1] == 0 and told.read_text().splitlines() == ["scontrol requeue 17"]
    assert (out / "learning_curve.png").exists()
