"""Exported policies: the same numbers in a process that knows nothing of this library, and what is refused."""

import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import entroflow
from entroflow import cli
from entroflow.export import programs as export
from entroflow.flow import AdaptiveSolver, Box, FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.moments import Moments
from entroflow.rl import MLPCritic, sac
from entroflow.rl.actors import DenoisingPolicy, Gaussian, GaussianNetwork, GaussianPolicy
from entroflow.storage.places import policy_folder

from .reach import Reach  # noqa: F401  (registers the task)

UNITS = Moments(jnp.array([0.1, -0.2, 0.3]), jnp.array([1.0, 2.0, 0.5]))
BOX, PLANE = (
    Box(np.array([-1.0, 0.0]), np.array([2.0, 0.5])),
    Unbounded(2, jnp.array([0.5, -1.0]), jnp.array([0.5, 2.0])),
)
KINDS = ["flow_box", "flow_plane", "gaussian_box", "gaussian_plane", "denoising", "best_of_3"]
FORMATS = ["stablehlo", "onnx"]
BATCHES = [1, 5]

# What a robot would run: no part of this library, only the files.
RUN = """
import sys
from pathlib import Path
import jax, numpy as np, onnxruntime
folder = Path(sys.argv[1])
for cases in folder.glob("*.inputs.npz"):
    name, inputs = cases.name.split(".")[0], np.load(cases)
    exported = jax.export.deserialize(bytearray((folder / f"{name}.stablehlo").read_bytes()))
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    assert [given.name for given in session.get_inputs()] == ["obs", "noise"]
    for batch in (1, 5):
        obs, noise = inputs[f"obs_{batch}"], inputs[f"noise_{batch}"]
        found = {"stablehlo": exported.call(obs, noise), "onnx": session.run(None, {"obs": obs, "noise": noise})}
        for kind, results in found.items():
            np.savez(folder / f"{name}.{kind}.{batch}.npz", *map(np.asarray, results))
assert "entroflow" not in sys.modules
"""


def drawn(tree, seed=0):
    """The same tree with parameters that make the policy far from a Gaussian."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    fresh = [0.5 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, fresh)


def flow(space, solver):
    network = drawn(VelocityNetwork(3, 2, width=8, depth=1, key=jax.random.key(0)))
    return FlowPolicy(network, space, solver=solver, obs_units=UNITS)


def programs():
    """Every kind of policy, bounded and not, and an agent's best by Q."""
    gaussian = drawn(GaussianNetwork(3, 2, width=8, depth=1, key=jax.random.key(0)))
    diffusion = drawn(VelocityNetwork(3, 2, width=8, depth=1, key=jax.random.key(0)))
    config = sac.Config(Gaussian(width=8, depth=1), MLPCritic(width=8))
    numbers = {"temperature": jnp.float32(0.2), "discount": jnp.float32(0.9)}
    state = sac.init(config, jax.random.key(1), obs_size=3, action_space=BOX, **numbers)
    policies = [
        flow(BOX, RungeKutta("midpoint", 4)),
        flow(PLANE, RungeKutta("rk4", 2)),
        GaussianPolicy(gaussian, BOX, UNITS),
        GaussianPolicy(gaussian, PLANE, UNITS),
        DenoisingPolicy(diffusion, BOX, UNITS, jnp.float32(0.1), 3),
    ]
    return dict(zip(KINDS, [*map(export.sampling, policies), export.acting(config, state, 3)], strict=True))


def inputs(program, batch):
    rng = np.random.default_rng(batch)
    shapes = (batch, program.obs_size), (batch, *program.noise_shape)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All programs in both formats, run in a process of its own, with what they should give."""
    folder = tmp_path_factory.mktemp("exported")
    for name, program in programs().items():
        cases = {}
        for batch in BATCHES:
            obs, noise = cases[f"obs_{batch}"], cases[f"noise_{batch}"] = inputs(program, batch)
            expected = jax.vmap(program.function)(obs, noise)
            np.savez(folder / f"{name}.expected.{batch}.npz", *map(np.asarray, expected))
        np.savez(folder / f"{name}.inputs.npz", **cases)
        for kind in FORMATS:
            export.write(folder / f"{name}.{kind}", program)
    done = subprocess.run([sys.executable, "-c", RUN, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", KINDS)
def test_the_same_numbers_without_this_library(folder, name, kind, batch):
    """Actions and log-densities agree to 1e-5 with those of the policy, for any number of observations."""
    with np.load(folder / f"{name}.expected.{batch}.npz") as file:
        expected = list(file.values())
    with np.load(folder / f"{name}.{kind}.{batch}.npz") as file:
        found = list(file.values())
    shapes = [(batch, 2)] if name in ("denoising", "best_of_3") else [(batch, 2), (batch,)]
    assert [array.shape for array in found] == shapes
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["flow_box", "flow_plane"])
def test_the_policies_of_these_tests_are_no_gaussians(folder, name):
    """Noise is bent on its way to an action: agreement would mean little for a flow that stands still."""
    with np.load(folder / f"{name}.inputs.npz") as file:
        noise = file["noise_5"]
    with np.load(folder / f"{name}.expected.5.npz") as file:
        action, log_prob = file.values()
    space = BOX if name == "flow_box" else PLANE
    still = -0.5 * np.sum(noise**2, axis=1) - np.log(2 * np.pi) - jax.vmap(space.log_det)(noise)
    assert np.abs(action - jax.vmap(space.to_action)(noise)).max() > 0.1
    assert np.abs(log_prob - still).max() > 0.05


@pytest.mark.parametrize("algorithm", ["SACISFM", "DenoisingSAC"])
def test_files_are_in_single_precision_also_under_64_bit_jax(tmp_path, algorithm):
    """And give the actions of the policy, of a single draw and of the best of several."""
    with jax.enable_x64(True):
        agent = getattr(entroflow, algorithm)("Reach-v0", width=8, depth=1, critic_width=8)
        for kind in ("onnx", "stablehlo"):
            agent.export(tmp_path / f"best.{kind}", best_of=2)
        agent.export(tmp_path / "one.onnx")
        noise = inputs(export.acting(agent.config, agent.state, 1), 1)[1]
        expected = agent.policy.push(jnp.zeros(2), jnp.asarray(noise[0], float))
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx")
    action = np.asarray(session.run(None, {"obs": np.zeros((1, 2), np.float32), "noise": noise})[0])
    assert action.dtype == np.float32
    np.testing.assert_allclose(action[0], expected, rtol=1e-5, atol=1e-5)


def test_agents_export_what_they_draw(tmp_path):
    """`agent.export` writes the policy whose density `log_prob` gives, and the command writes the same file."""
    agent = entroflow.SACISFM("Reach-v0", width=8, depth=1, critic_width=8)
    agent.export(tmp_path / "one.onnx")
    program = export.sampling(sac.policy(agent.config, agent.state, average=True))
    obs, noise = inputs(program, 5)
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx")
    action, log_prob = map(np.asarray, session.run(None, {"obs": obs, "noise": noise}))
    np.testing.assert_allclose(log_prob, agent.log_prob(obs, action), rtol=1e-3, atol=1e-3)  # back through the ODE
    agent.save(tmp_path / "agent")
    assert cli.main(["export", str(tmp_path / "agent"), "--out", str(tmp_path / "other.onnx")]) == 0
    assert (tmp_path / "other.onnx").read_bytes() == (tmp_path / "one.onnx").read_bytes()


def test_agents_of_lqr_are_exported(tmp_path, capsys):
    """`entroflow export` takes one of several agents, or the best by Q of its draws; it says what goes in and out."""
    env = gymnasium.make("entroflow/LQR-v0")
    for seed in (0, 1):
        agent = entroflow.SACISFM(env, seed=seed, temperature=0.5, width=4, depth=1, critic_width=4)
        agent.save(tmp_path / policy_folder(0.5, seed))
    arguments = ["export", str(tmp_path), "--seed", "1", "--out"]
    assert cli.main([*arguments, str(tmp_path / "new" / "p.onnx")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.endswith("p.onnx: obs (batch, 2), noise (batch, 2) -> action, log_prob")
    entroflow.load(tmp_path, seed=1).export(tmp_path / "p.onnx")
    assert (tmp_path / "p.onnx").read_bytes() == (tmp_path / "new" / "p.onnx").read_bytes()
    assert cli.main([*arguments, str(tmp_path / "p.onnx"), "--best-of", "4", "--alpha", "0.5"]) == 0
    assert "noise (batch, 4, 2) -> action" in " ".join(capsys.readouterr().out.split())
    next((tmp_path / policy_folder(0.5, 1)).glob("*.npz")).write_bytes(b"damaged")
    assert cli.main([*arguments, str(tmp_path / "q.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "q.onnx").exists()


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    """Another ending, a missing package, a solver without fixed steps, a place that is no file: one sentence each."""
    program = export.sampling(flow(PLANE, RungeKutta("euler", 1)))
    with pytest.raises(ValueError, match="format: got '.pt', expected one of .stablehlo, .onnx"):
        export.write(tmp_path / "policy.pt", program)
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(ValueError, match="taken.onnx: got 'Is a directory' from the system, expected a file"):
        export.write(tmp_path / "taken.onnx", program)
    with pytest.raises(ValueError, match="expected what ONNX can express"):
        export.write(tmp_path / "policy.onnx", export.sampling(flow(PLANE, AdaptiveSolver())))
    for kind, package in export.NEEDS.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ValueError, match=f"without the package {package}.*pip install .*onnx"):
                export.write(tmp_path / f"policy{kind}", program)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.onnx"]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_half_a_file_is_refused(folder, share):
    """A file that was cut off on its way does not load."""
    whole = (folder / "gaussian_box.onnx").read_bytes()
    with pytest.raises(Exception, match="(?i)protobuf|parse"):
        onnxruntime.InferenceSession(whole[: int(share * len(whole))])
    assert onnx.load_from_string(whole).producer_name == "entroflow"


def test_a_folder_is_no_name_of_a_file(tmp_path, monkeypatch, capsys):
    """Refused before anything is loaded; what stands above has no name, to which an ending could be added."""
    monkeypatch.chdir(tmp_path)
    entroflow.GaussianSAC("Reach-v0", width=8, depth=1, critic_width=8).save("agent")
    for out in (".", "..", "agent"):
        assert cli.main(["export", "agent", "--format", "c", "--out", out]) == 2
        assert f"--out: got the folder '{out}', expected the name of a file; add one." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
