"""Docstrings tell every argument, result and error, and their examples print what they say."""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import entroflow

PACKAGE = Path(entroflow.__file__).parent
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
MAKERS = ("__init__", "__post_init__", "__check_init__")
PARTS = ("Args", "Attributes")
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example")


def sections(docstring):
    """The indented text under each of Google's headings."""
    heading = rf"^({'|'.join(SECTIONS)}):\n((?: .*\n|\n)*)"
    return dict(re.findall(heading, inspect.cleandoc(docstring or "") + "\n", re.MULTILINE))


def own_nodes(function):
    """What a function's body holds, without the functions and classes in it."""
    rest = list(function.body)
    while rest:
        node = rest.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            rest += ast.iter_child_nodes(node)


def raises(function, checks):
    """Whether a function raises by itself, or through one of `entroflow.checks`."""
    called = {ast.unparse(node.func) for node in own_nodes(function) if isinstance(node, ast.Call)}
    return bool(called & checks) or any(isinstance(node, ast.Raise) for node in own_nodes(function))


def imported_checks(tree):
    """How a module calls what checks arguments: by the names that it imports, or behind `checks.`."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    of_checks = [node for node in imports if (node.module or "").split(".")[-1] in ("checks", "fields")]
    names = {alias.name for node in of_checks for alias in node.names} - {"error"}
    known = ast.parse((PACKAGE / "checks.py").read_text()).body
    return names | {f"checks.{node.name}" for node in known if isinstance(node, ast.FunctionDef)} - {"checks.error"}


def missing(names, found):
    """Names that a section does not begin a line with."""
    return [name for name in names if not re.search(rf"^ +\*{{0,2}}{name}:", found, re.MULTILINE)]


def told(holder):
    """Fields that have a docstring of their own below them, which the command line shows as help."""
    pairs = zip(holder.body, holder.body[1:], strict=False)
    return [field for field, below in pairs if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)]


def complaints(tree, node=None, prefix=""):
    """What the docstrings of a module's public classes, methods and functions leave out.

    Functions of two or more arguments name each of them, their result and their errors, or a function that does, or the
    module does for all of its functions; so do classes for those of `__init__`, or else for their fields.
    """
    checks, common = imported_checks(tree), sections(ast.get_docstring(tree))
    for child in (node or tree).body:
        if not isinstance(child, ast.FunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        name, found = prefix + child.name, sections(ast.get_docstring(child))
        if isinstance(child, ast.ClassDef):
            yield from complaints(tree, child, f"{name}.")
            makers = {part.name: part for part in child.body if getattr(part, "name", None) in MAKERS}
            if "__init__" in makers:
                arguments = argument_names(makers["__init__"])
            else:
                fields = {ast.unparse(part.target): part for part in child.body if isinstance(part, ast.AnnAssign)}
                public = [name for name in fields if not name.startswith("_")]
                arguments = [name for name in public if fields[name] not in told(child)] if len(public) > 1 else []
            undocumented = missing(arguments, "".join(found.get(part, "") for part in PARTS) + elsewhere(child))
            silent = any(raises(maker, checks) for maker in makers.values()) and "Raises" not in found
        else:
            arguments = argument_names(child)
            if len(arguments) < 2 or (elsewhere(child) and not missing(arguments, elsewhere(child))):
                continue
            undocumented = missing(arguments, found.get("Args", "") + common.get("Args", "") + elsewhere(child))
            found = common | found
            silent = raises(child, checks) and "Raises" not in found
            has_result = child.returns is None or ast.unparse(child.returns) not in ("None", "NoReturn")
            if has_result and not found.keys() & {"Returns", "Yields"}:
                yield f"{name} does not say what it returns"
        if undocumented:
            yield f"{name} does not say what {', '.join(undocumented)} is"
        if silent:
            yield f"{name} does not say what it raises"


def elsewhere(node):
    """The arguments that are told by those that a docstring refers to: see `Solver.solve`."""
    return "".join(DOCUMENTED.get(name, "") for name in re.findall(r"see `([\w.]+)`", ast.get_docstring(node) or ""))


def documented():
    """The arguments that classes, functions and methods of the package tell, by their names, as f, m and Class.m."""
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, "".join(sections(ast.get_docstring(node)).get(part, "") for part in PARTS)
            parts = node.body if isinstance(node, ast.ClassDef) else [node]
            for part in parts:
                if isinstance(part, ast.FunctionDef) and (told := sections(ast.get_docstring(part)).get("Args")):
                    yield part.name, told
                    yield f"{module.replace('/', '.')}.{part.name}", told
                    yield f"{node.name}.{part.name}", told


DOCUMENTED = dict(documented())


def argument_names(function):
    """All arguments but `self` and `cls`."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg) if a]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('def f(x, y) -> int:\n    """F.\n\n    Args:\n        x: one.\n    """', ["returns", "what y is"]),
        ('def f(x, *, y) -> None:\n    """F.\n\n    Args:\n        x: one.\n        y: two.\n    """', []),
        ('def f(x, *y) -> None:\n    """F: x, y."""\n    raise error(1)', ["what x, y is", "raises"]),
        ('def f(x: int) -> int:\n    """F."""', []),
        ('class A:\n    """A."""\n    def f(self, x, y) -> None:\n        """F."""', ["A.f does not say what x, y is"]),
        ('class A:\n    """A."""\n    def __init__(self, x):\n        checks.seed("x", x)', ["x is", "raises"]),
        (
            'class A(NamedTuple):\n    """A.\n\n    Attributes:\n        x: one.\n    """\n    x: int\n    y: int',
            ["y is"],
        ),
        ('class A(NamedTuple):\n    """A."""\n    x: int\n    """One."""\n    y: int', ["what y is"]),
        ('class _A:\n    x: int\n    y: int\ndef _f(x, y): ...\ndef g(x) -> None:\n    """G."""', []),
    ],
)
def test_what_a_docstring_leaves_out_is_seen(source, expected):
    """The test below looks at functions, methods, constructors and fields."""
    found = list(complaints(ast.parse(source)))
    assert len(found) == len(expected) and all(part in text for part, text in zip(expected, found, strict=True)), found


def public():
    """What packages list in `__all__`, as pairs of a module and a name; of a module listed there, all that it has."""
    for path in PACKAGE.rglob("__init__.py"):
        package = importlib.import_module(".".join(["entroflow", *path.parent.relative_to(PACKAGE).parts]))
        for name in getattr(package, "__all__", ()):
            found = getattr(package, name)
            if inspect.ismodule(found):
                parts = vars(found).values()
                yield from ((found.__name__, part.__name__) for part in parts if inspect.isfunction(part))
            elif inspect.isclass(found) or inspect.isfunction(found):
                yield found.__module__, found.__name__


PUBLIC = set(public())


def test_what_is_public_is_known():
    """A class, a function that is imported late, and one of a module that is listed."""
    assert ("entroflow.flow.policy", "FlowPolicy") in PUBLIC and ("entroflow.agents.loading", "load") in PUBLIC
    assert ("entroflow.lqr.systems", "coupled") in PUBLIC and ("entroflow.storage.records", "create") in PUBLIC
    assert ("entroflow.storage.checkpoint", "read") not in PUBLIC and len(PUBLIC) > 150


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_complete(module):
    """Whoever calls a public function of several arguments finds each of them, the result and the errors there.

    Of what no package lists in `__all__` a sentence is enough, and the types of the signature.
    """
    name = "entroflow." + module.replace("/", ".").removesuffix(".__init__")
    found = complaints(ast.parse(MODULES[module].read_text()))
    assert [text for text in found if (name, text.split()[0].split(".")[0]) in PUBLIC] == []


def examples():
    """Every public class, method or function with an example: its name and the docstring."""
    for module, path in MODULES.items():
        rest = [(module, ast.parse(path.read_text()))]
        while rest:
            name, node = rest.pop()
            if ">>>" in (docstring := ast.get_docstring(node) or ""):
                yield name, docstring
            parts = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.ClassDef)]
            rest += [(f"{name}:{part.name}", part) for part in parts if not part.name.startswith("_")]


EXAMPLES = dict(examples())


def test_thirty_examples():
    """The most used parts of the library show how they are used."""
    assert len(EXAMPLES) >= 30


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name):
    """Examples run with the names of their own module at hand.

    The docstrings are read from the source, since the import hook of the tests hides functions from `doctest`.
    """
    module = importlib.import_module("entroflow." + name.split(":")[0].removesuffix("/__init__").replace("/", "."))
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], vars(module).copy(), name, None, None)
    report = []
    assert test.examples and "Example:" in EXAMPLES[name]
    failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert failed == 0, "".join(report)
