"""Promises about the project as a whole: layers, documentation, start-up time, files that must agree."""

import ast
import importlib
import operator
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tyro

import entroflow
from entroflow import cli, options

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "entroflow"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Each may import what stands before it; what stands in one line, nothing of one another.
LAYERS = [
    {"files", "later"},
    {"checks", "stopping", "types", "devices", "plotting"},
    {"compiling", "kept", "staging"},
    {"memory", "moments", "fields", "optimise", "lqr"},
    {"names"},
    {"options"},
    {"diagnostics", "flow", "envs"},
    {"exact", "isfm"},
    {"rl"},
    {"storage", "export"},
    {"agents"},
    {"studies"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def parts_of(path):
    """The dotted name of a module, as a list without "entroflow" and "__init__"."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_parts(source, package):
    """The parts of the package that a module imports, at its top, inside functions or for type checking alone.

    Args:
        source: the module's text.
        package: dotted name of the package that holds it, for relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "entroflow" else [module]
        yield from (name.split(".")[1] for name in names if name.startswith("entroflow."))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import entroflow.rl.buffer", ["rl"]),
        ("from entroflow.rl import buffer", ["rl"]),
        ("from entroflow import checks, rl", ["checks", "rl"]),
        ("def f():\n    from ..rl.buffer import Buffer", ["rl"]),
        ("from .. import rl", ["rl"]),
        ("from .policy import FlowPolicy", ["flow"]),
        ("import numpy, entroflowing.rl", []),
    ],
)
def test_every_way_to_write_an_import_is_seen(source, expected):
    """The layer test below looks at all forms of an import statement."""
    assert list(imported_parts(source, "entroflow.flow")) == expected


def test_imports_point_one_way():
    """Every module imports its own part and what stands before it; the package itself, its parts on first use alone."""
    wrong = []
    for path in MODULES:
        parts = parts_of(path)
        if not parts:
            source = ast.parse(path.read_text())
            source.body = [node for node in source.body if not ast.unparse(node).startswith("if TYPE_CHECKING")]
            wrong += [part for part in imported_parts(ast.unparse(source), "entroflow") if part != "later"]
            continue
        package = ".".join(["entroflow", *path.relative_to(PACKAGE).parent.parts])
        for part in imported_parts(path.read_text(), package):
            if part != parts[0] and not RANK[part] < RANK[parts[0]]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {part}")
    assert wrong == []


def test_modules_do_not_import_each_other_in_circles():
    """Inside of every part, too, imports have an order; that a package lists its modules does not count."""
    names = {".".join(["entroflow", *parts_of(path)]): path for path in MODULES}
    uses = {}
    for name, path in names.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                found |= {
                    f"{module}.{alias.name}" if f"{module}.{alias.name}" in names else module for alias in node.names
                }
        uses[name] = {use for use in found if use in names and use != name}
    left = dict(uses)
    while free := [name for name, used in left.items() if not used & left.keys()]:
        for name in free:
            del left[name]
    assert sorted(left) == []


def test_no_module_is_long():
    """A module is one idea: 350 lines at most."""
    assert [path.name for path in MODULES if len(path.read_text().splitlines()) > 350] == []


def undocumented(node, name):
    """Public definitions without a docstring, private ones and what they hold left out."""
    if not ast.get_docstring(node):
        yield name
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{name}.{child.name}")
            elif not ast.get_docstring(child) and not any(
                ast.unparse(decorator).endswith(("overload", ".setter"))
                or (ast.unparse(decorator) == "property" and f"    {child.name}: " in (ast.get_docstring(node) or ""))
                for decorator in child.decorator_list
            ):
                yield f"{name}.{child.name}"


def test_everything_public_is_documented():
    """Every module, public class, method and function says what it is."""
    missing = [name for path in MODULES for name in undocumented(ast.parse(path.read_text()), str(path))]
    assert missing == []


PARTS = {parts_of(path)[0] for path in MODULES if len(parts_of(path)) > 1} - {"commands"}  # reached from the shell


@pytest.mark.parametrize("part", sorted(PARTS))
def test_what_a_package_promises_is_there(part):
    """Each name in `__all__` exists, and a sub-package is reachable from the top without an import of its own."""
    package = getattr(entroflow, part)
    assert package is importlib.import_module(f"entroflow.{part}")
    assert [name for name in getattr(package, "__all__", []) if not hasattr(package, name)] == []


def test_public_names_come_from_the_top():
    """`entroflow.LQR` and `entroflow.load` work, and a misspelt name is refused like any module's."""
    assert entroflow.LQR is entroflow.lqr.LQR
    assert callable(entroflow.load)
    assert set(dir(entroflow)) == set(entroflow.__all__)
    with pytest.raises(AttributeError, match="LQG"):
        _ = entroflow.LQG


IMPORTS = """
import os, entroflow, entroflow.diagnostics, entroflow.lqr
assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3", "XLA's alarm of slow compiling would reach the screen"
"""
HELP = """
import runpy, sys
sys.argv = ["entroflow", "--help"]
try:
    runpy.run_module("entroflow", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
"""
REFUSED = """
import entroflow
from entroflow.cli import main
make, pendulum = entroflow.SACISFM, "Pendulum-v1"
wrong = [lambda: make("Pendulm-v1"), lambda: make("CartPole-v1"), lambda: make(lambda: 3), lambda: make(pendulum, 1)]
wrong += [lambda: make(pendulum, candidate=3), lambda: make(pendulum, lr=1e-3), lambda: make(pendulum, gamma=1.5)]
wrong += [lambda: make(pendulum, seed=-1), lambda: entroflow.load("nothing"), lambda: make("MyPolicy", pendulum)]
for call in wrong:
    try:
        call()
    except ValueError:
        continue
    raise AssertionError(f"call {wrong.index(call)} was not refused")
for words in ("train CartPole-v1", "train Pendulm-v1", "train Pendulum-v1 --set candidates=x", "eval nothing"):
    assert main([*words.split()]) == 2, words
"""


@pytest.mark.parametrize("code", [IMPORTS, HELP, REFUSED])
def test_starting_does_not_load_jax(code):
    """`entroflow --help` answers at once, as wrong input is refused, and the exact answers need no JAX.

    Its import takes seconds.
    """
    code += "\nimport sys; assert 'jax' not in sys.modules, 'JAX was imported'"
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # which JAX sets, too
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_terminal_gets_a_first_line_at_once(monkeypatch, capsys):
    """Before anything heavy is imported; a file gets none."""
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        assert cli.main(["eval", "nothing"]) == 2
        assert capsys.readouterr().err.startswith("entroflow: starting\n") == terminal


def test_documents_name_only_commands_that_exist():
    """Every `make` target in README and CONTRIBUTING is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        name
        for document in ["README.md", "CONTRIBUTING.md"]
        for name in re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / document).read_text(), flags=re.MULTILINE)
    }
    assert {"lqr", "test", "check"} <= named <= targets


def test_the_readme_python_runs(tmp_path, monkeypatch):
    """The Python blocks of the README, of three lines each, run, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert [len(block.split("\n")) - block.count("\n\n") - 1 for block in blocks] == [3, 3]
    for block in blocks:
        exec(compile(block.replace("learn(10_000)", "learn(1_010)"), "README.md", "exec"), {})


@pytest.mark.parametrize("document", ["README.md", "docs/using.md"])
def test_the_commands_of_the_readme_are_read(document):
    """Every line of a console block that begins with entroflow is a command with options that there are."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("entroflow ")]
    assert len(lines) >= 2
    for line in lines:
        kinds = {name: kind for name, (kind, _) in cli.COMMANDS.items()}
        options.check(tyro.extras.subcommand_cli_from_dict(kinds, args=shlex.split(line, comments=True)[1:]))


DOCUMENTS = [
    path for name in ("*.md", "docs/*.md", "examples/*.md", "experiments/**/*.md") for path in sorted(ROOT.glob(name))
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(document):
    """What a document names beside it is there."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_names_of_the_docs_exist():
    """What docs/extending.md names in the package is there."""
    text = (ROOT / "docs/extending.md").read_text()
    for name in re.findall(r"`(entroflow(?:\.\w+)+\.[A-Z]\w+)`", text):
        assert operator.attrgetter(name.removeprefix("entroflow."))(entroflow), name


def test_no_pickle():
    """Files of this library never run code when they are opened."""
    pattern = re.compile(r"(import|from) +(pickle|cloudpickle|dill|joblib|shelve|marshal)\b|allow_pickle *= *True")
    assert [path.name for path in MODULES if pattern.search(path.read_text())] == []


def test_one_version():
    """The installed package, pyproject.toml and the newest entry of the changelog agree."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert entroflow.__version__ == declared == newest.group(1)
