"""What makes the docstrings of the package fit for Sphinx.

They are written to be read in an editor: modules tell once what their functions have in common, equations have bars,
annotations carry shapes. Here common arguments are given to every function that has them, what reStructuredText would
take for markup is told not to be, and signatures are shown as they are written.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
from typing import Any

import jaxtyping
from sphinx.util.nodes import make_refnode

HEADING = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example):$")


def connect(app: Any) -> None:
    """Register the functions below."""
    app.connect("autodoc-process-docstring", complete, priority=400)  # before napoleon, which reads the sections
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-skip-member", lambda app, what, name, obj, skip, options: _is_field(obj) or None)
    app.connect("missing-reference", found_by_last_name)


def complete(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add what the module tells of a function's arguments, and write plain text as reStructuredText."""
    if what == "module":
        lines[:] = re.split(r"[^\n.]*[Ww]hat the functions have in common:\n", "\n".join(lines))[0].splitlines()
    if what in ("function", "method") and "see `" not in lines[0]:
        common = inspect.getdoc(sys.modules[inspect.unwrap(obj).__module__]) or ""
        told = re.findall(r"^    \*{0,2}(\w+):", "\n".join(lines), re.MULTILINE)
        more = [
            line.rstrip()
            for part, text in re.findall(r"^    (\w+): (.*\n(?:        .*\n)*)", common + "\n", re.MULTILINE)
            if part in inspect.signature(obj).parameters and part not in told
            for line in f"    {part}: {text}".splitlines()
        ]
        at = next((i for i, line in enumerate(lines) if HEADING.match(line) and line != "Args:"), len(lines))
        lines[at:at] = ["", "Args:", *more, ""] if more else []
    if what == "class" and hasattr(obj, "_fields") and "Attributes:" not in lines:
        body = _source(obj).body
        pairs = [pair for pair in itertools.pairwise(body) if isinstance(pair[0], ast.AnnAssign)]
        told = [(pair[0].target.id, pair[1].value.value) for pair in pairs if isinstance(pair[1], ast.Expr)]
        lines += ["", "Attributes:", *(f"    {field}: {' '.join(text.split())}" for field, text in told), ""]
    lines[:] = [line for part in _blocks(lines) for line in part]
    if what == "property":
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type


def _blocks(lines: list[str]) -> Any:
    """Give the lines, equations and code set apart as such, bars and underscores of other lines as they are."""
    above, quoted = "", False
    for i, line in enumerate(lines):
        if line[:1].strip():
            above, quoted = line, False
        elif line.strip() and not quoted and not HEADING.match(above) and i and not lines[i - 1].strip():
            quoted = True
            yield [".. code-block:: text", ""]
        if quoted or ">>>" in line:
            yield [line]
            continue
        parts = re.split(r"(`[^`]*`|^ +\*+\w+:)", line)
        parts[::2] = [re.sub(r"\||_(?!\w)|\*(?=\w[^*]*$)", r"\\\g<0>", part) for part in parts[::2]]
        yield ["".join(parts)]


class _Annotation(ast.NodeTransformer):
    """Names without the quotes around them; shapes keep theirs, without leading blanks."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        shaped = isinstance(node.value, ast.Name) and hasattr(jaxtyping, node.value.id)
        if shaped and isinstance(node.slice, ast.Tuple) and isinstance(shape := node.slice.elts[1], ast.Constant):
            shape.value = shape.value.strip()
            return node
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.parse(node.value, mode="eval").body if isinstance(node.value, str) else node


def as_written(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """A signature with its annotations as they stand in the source."""
    if what not in ("class", "function", "method") or "__signature__" in getattr(obj, "__dict__", {}):
        return None
    fields = dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")
    maker = obj if what != "class" else vars(obj).get("__init__")
    if what == "class" and (fields or maker is None or not inspect.isfunction(inspect.unwrap(maker))):
        return _of_fields(obj) if fields else ("", "")
    node = _source(inspect.unwrap(getattr(maker, "__func__", maker)))
    given, returned = node.args, node.returns
    if given.args and given.args[0].arg in ("self", "cls"):
        del given.args[0]
    for part in (*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg):
        if part is not None and part.annotation is not None:
            part.annotation = _Annotation().visit(part.annotation)
    shown = what != "class" and returned is not None
    return f"({ast.unparse(given)})", ast.unparse(_Annotation().visit(returned)) if shown else ""


def _of_fields(kind: type[Any]) -> tuple[str, str]:
    """The constructor of a dataclass or a named tuple, from its body and those of its bases."""
    fields: dict[str, str] = {}
    for each in reversed([base for base in kind.__mro__ if base.__module__.startswith("entroflow")]):
        for part in _source(each).body:
            if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
                default = ast.unparse(part.value) if part.value else ""
                default = f" = {'...' if 'field(' in default else default}" if default else ""
                fields[ast.unparse(part.target)] = ast.unparse(_Annotation().visit(part.annotation)) + default
    return f"(*, {', '.join(f'{name}: {text}' for name, text in fields.items())})", ""


def _source(thing: Any) -> Any:
    """The syntax tree of a function or a class."""
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def _is_field(obj: Any) -> bool:
    """Whether a member is a field of a named tuple, of which the class's docstring tells."""
    return type(obj).__name__ == "_tuplegetter"


def found_by_last_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve a name in a docstring to the object that ends in it; what is none is shown as code.

    Pages that are written by hand have to name things exactly.
    """
    if node.get("refdomain") != "py" or not node["refdoc"].startswith("api/"):
        return None
    objects, tail = env.get_domain("py").objects, node["reftarget"].strip("().").split(".")
    for name in (".".join(tail[-2:]), tail[-1]) if len(tail) > 1 else tail:
        hits = sorted((key for key in objects if f".{key}".endswith(f".{name}")), key=len)
        if hits and not (name.islower() and "." not in name):
            found = objects[hits[0]]
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, hits[0])
    return content
