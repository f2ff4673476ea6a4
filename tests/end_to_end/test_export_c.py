"""Policies as a C99 header: the library's numbers in float and double, by a strict compiler, without a dependency."""

import ctypes
import functools
import re
import shlex
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from entroflow import cli
from entroflow.export import c_header
from entroflow.export import programs as export
from entroflow.flow import FlowPolicy, RungeKutta, Unbounded, VelocityNetwork
from entroflow.rl.actors import FeedbackPolicy

from .test_cli_lqr import lqr_job, small
from .test_export import KINDS, PLANE, flow, inputs, programs

ROOT = Path(__file__).parents[2]
STRICT = ["gcc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fPIC", "-shared"]
CONTROLLED = "flow_about_a_controller"


@functools.cache
def made():
    """The programs of every kind, and that of a flow about a linear controller."""
    gain, root = jnp.array([[1.0, -2.0, 0.5], [0.3, 0.1, 4.0]]), jnp.array([[2.0, 0.0], [-0.7, 0.4]])
    policy = FeedbackPolicy(flow(PLANE, RungeKutta("rk4", 3, grading=1.5)), gain, root)
    return programs() | {CONTROLLED: export.sampling(policy)}


def compiled(folder, header, name, flags=()):
    """Compile a header, included twice, behind one function that a shared library can show."""
    source, library = folder / f"{name}.c", folder / f"{name}{len(flags)}.so"
    (call,) = re.findall(rf"static inline void {name}_act\((.*)\) {{", header.read_text())
    arguments = ", ".join(word.split("*")[1] for word in call.split(","))
    include = f'#include "{header}"\n'
    source.write_text(f"{include}{include}void act({call});\nvoid act({call}) {{ {name}_act({arguments}); }}\n")
    subprocess.run([*STRICT, *flags, str(source), "-o", str(library), "-lm"], check=True)
    return library


def answers(library, program, batch, dtype):
    """What the compiled policy says of every example of a batch."""
    act, results = ctypes.CDLL(str(library)).act, []
    for obs, noise in zip(*(part.astype(dtype) for part in batch), strict=True):
        found = [np.full(2 if output == "action" else 1, np.nan, dtype) for output in program.outputs]
        act(*(ctypes.c_void_p(np.ascontiguousarray(part).ctypes.data) for part in (obs, noise, *found)))
        results.append(np.concatenate(found))
    return np.stack(results)


@pytest.mark.parametrize("kind", [*KINDS, CONTROLLED])
def test_the_header_gives_the_library_s_numbers(tmp_path, kind):
    """Actions and densities, to 1e-5 of their size, in float as in double; no symbol but those of math.h is missing."""
    program = made()[kind]
    header, batch = export.write(tmp_path / f"{kind}.h", program), inputs(program, 5)
    expected = np.column_stack(
        [np.asarray(part).reshape(5, -1) for part in jax.jit(jax.vmap(program.function))(*batch)]
    )
    for flags, dtype in ((), np.float32), ((f"-D{kind.upper()}_DOUBLE",), np.float64):
        library = compiled(tmp_path, header, kind, flags)
        np.testing.assert_allclose(answers(library, program, batch, dtype), expected, rtol=1e-5, atol=1e-5)
    needed = subprocess.run(["nm", "-u", str(library)], capture_output=True, text=True, check=True).stdout.split()
    functions = {name.split("@")[0] for name in needed if not name.startswith(("_", "w", "U"))}
    assert functions <= {"exp", "log", "log1p", "tanh", "sqrt", "fabs", "sin", "cos"}
    assert re.findall("#include.*", header.read_text()) == ["#include <math.h>"]


def test_operations_that_policies_may_need(tmp_path):
    """Every formula, every way to move, contract and reduce, and loops in both directions, against JAX."""

    def function(obs, noise):
        x = jnp.reshape(obs, (2, 3))
        y = jnp.stack([noise, -noise, 2 * noise])
        moved = jnp.concatenate([x.T, y[::-1], jnp.ones((1, 2))]) + jnp.flip(noise)[None]
        blocks = jnp.einsum("ij,kj->ik", moved, y) + moved[:, :1]
        batched = jnp.einsum("bi,bij->bj", y, jnp.stack([x, x + 1, x * 2])[:, :, :2])
        best = (jnp.argmax(blocks, axis=1) + jnp.argmax(noise)).astype(jnp.float32)
        kept = jnp.where((blocks > 0.1) & ~(blocks >= 1.0) | (blocks == 0.0), blocks, jnp.clip(blocks, -0.5, 0.3))
        smooth = jnp.log1p(jnp.exp(-jnp.abs(kept))) + jnp.tanh(kept) * jax.nn.sigmoid(kept) + jnp.expm1(kept)
        powers = smooth**2 + smooth**3 + smooth**5 + jnp.abs(smooth) ** 0.7 + jax.lax.rsqrt(1 + smooth**2)
        step = lambda carry, row: ((carry[0] * row[0] + jnp.sin(row[1]), carry[1] + jnp.cos(carry[0])), None)  # noqa: E731
        rows = jnp.arange(1.0, 5.0), jnp.linspace(0.0, 1.0, 4)
        forward, _ = jax.lax.scan(step, (noise, obs[:2]), rows)
        back, _ = jax.lax.scan(step, forward, (jnp.concatenate([obs[:2], noise]), rows[1]), reverse=True)
        swapped, _ = jax.lax.scan(lambda carry, row: ((carry[1], carry[0]), None), (noise, obs[:2]), jnp.arange(3.0))
        sums = (
            jnp.sum(powers, axis=0),
            jnp.max(powers, axis=1),
            jnp.min(powers) + jnp.sqrt(jnp.abs(best)),
            jnp.sum(batched),
        )
        return (
            jnp.concatenate(
                [jnp.atleast_1d(part).ravel() for part in (*sums, *back, *swapped, jnp.log(jnp.abs(obs)), batched)]
            ),
        )

    program = export.Program(function, 6, (2,), ("action",))
    header = export.write(tmp_path / "operations.h", program)
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((4, 2)).astype(np.float32)
    (expected,) = jax.jit(jax.vmap(function))(*batch)
    library = compiled(tmp_path, header, "operations")
    act, found = ctypes.CDLL(str(library)).act, np.full(expected.shape, np.nan, np.float32)
    for obs, noise, row in zip(*batch, found, strict=True):
        act(*(ctypes.c_void_p(part.ctypes.data) for part in (obs, noise, row)))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("cheetah", "cheetah"),
        ("lqr-2026 α=0.5", "lqr_2026_0_5"),
        ('*/ int main(){system("x");} //', "int_main_system_x"),
        ("3d", "policy_3d"),
        ("__x__", "x"),
        ("猫", "policy"),
        ("", "policy"),
        ("int", "int"),
        ("a" * 300, "a" * 40),
    ],
)
def test_names_of_files_become_names_of_c(tmp_path, given, name):
    """Nothing of a name but letters, digits and underscores comes into the source, and it compiles."""
    assert c_header.identifier(given) == name
    program = export.Program(lambda obs, noise: (obs[:1] + noise,), 2, (1,), ("action",))
    text = c_header.to_c(program.function, program.inputs, program.outputs, given)
    (tmp_path / "policy.h").write_text(text)
    assert f"{name}_act" in text and "system(" not in text
    compiled(tmp_path, tmp_path / "policy.h", name)


def test_what_c_cannot_have_is_refused(tmp_path, monkeypatch):
    """A loop of unknown length, as adaptive solvers have, and more numbers than fit, in one sentence, and no file."""

    def adaptive(obs, noise):
        return (jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x + 1, obs + noise),)

    with pytest.raises(ValueError, match=r"^policy: got the operation 'while', expected what the C writer can express"):
        export.write(tmp_path / "policy.h", export.Program(adaptive, 1, (1,), ("action",)))
    monkeypatch.setattr(c_header, "LARGEST", 50)
    with pytest.raises(ValueError, match=r"^policy: got one of \d+ numbers, expected one of at most 50 for a C header"):
        export.write(tmp_path / "policy.h", made()["gaussian_plane"])
    assert list(tmp_path.iterdir()) == []


def test_the_example_runs(tmp_path):
    """A header of two states and one input under the example's plant: every print is finite."""
    network = VelocityNetwork(2, 1, width=4, depth=1, key=jax.random.key(0))
    program = export.sampling(FlowPolicy(network, Unbounded(1), solver=RungeKutta("rk4", 2)))
    export.write(tmp_path / "policy.h", program)
    source = tmp_path / "header.c"
    source.write_text((Path(__file__).parents[2] / "examples" / "c" / "header.c").read_text())
    strict = [flag for flag in STRICT if flag not in ("-fPIC", "-shared")]
    subprocess.run([*strict, str(source), "-o", str(tmp_path / "header"), "-lm"], check=True)
    said = subprocess.run([str(tmp_path / "header")], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 6 and "nan" not in "".join(said) and said[0].startswith("t   0  x   1.000   0.000  u ")


def test_the_command_writes_a_header(tmp_path, monkeypatch, capsys):
    """`--format c` gives the file C's ending, whatever its name is."""
    from types import SimpleNamespace

    from entroflow import agents
    from entroflow.commands import play

    monkeypatch.setattr(play, "agents_in", lambda folder: [folder])
    monkeypatch.setattr(agents, "load", lambda *_, **__: SimpleNamespace(config=None, state=None))
    monkeypatch.setattr("entroflow.export.acting", lambda *_: made()["gaussian_plane"])
    for out, expected in (("policy.onnx", "policy.h"), ("my.policy", "my.policy.h"), ("other.h", "other.h")):
        assert cli.main(["export", str(tmp_path), "--format", "c", "--out", str(tmp_path / out)]) == 0
        assert f"{expected}: obs (3), noise (2) -> action, log_prob" in capsys.readouterr().out
        assert "_act(" in (tmp_path / expected).read_text()


@pytest.mark.slow
def test_from_matrices_to_c_as_the_page_says(tmp_path, monkeypatch):
    """Its Python of ten lines, then one command to a flow and one to C, which compiles; with fewer steps."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "deploy-c.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert [language for language, _ in blocks[:2]] == ["python", "console"] and blocks[0][1].count("\n") <= 12
    exec(blocks[0][1], {})
    assert imread("response.png").std() > 0.01
    learn, export = [shlex.split(line, comments=True)[1:] for line in blocks[1][1].splitlines()[:2]]
    with small(lqr_job._Job._compile):
        assert cli.main([*learn, "--steps", "4"]) == 0
    assert cli.main(export) == 0
    compiled(tmp_path, tmp_path / "policy.h", "policy")
