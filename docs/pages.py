"""Pages that are made of what is elsewhere: READMEs, notebooks, tables of settings and of results. Nothing is typed twice."""

import importlib
import inspect
import os
import re
import shutil
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Documents of the repository by the page that shows them.
COPIED = {
    "contributing/contributing": "CONTRIBUTING.md",
    "contributing/changelog": "CHANGELOG.md",
    "contributing/code-of-conduct": "CODE_OF_CONDUCT.md",
    "reproduce/experiments": "experiments/README.md",
    "reproduce/benchmarks": "benchmarks/README.md",
    "reproduce/benchmarks-tables": "benchmarks/results/bench.md",
    "reproduce/benchmarks-export": "benchmarks/export.md",
    "reproduce/examples-readme": "examples/README.md",
}
COPIED |= {f"reproduce/{path.parent.name}": f"experiments/{path.parent.name}/README.md"
           for path in sorted(ROOT.glob("experiments/*/README.md"))}
COPIED |= {f"reproduce/{path.parent.name}-{path.stem}": str(path.relative_to(ROOT))
           for path in sorted(ROOT.glob("experiments/*/*.md")) if path.stem != "README"}
NOTEBOOKS = sorted(ROOT.glob("examples/notebooks/*.ipynb"))
PAGES = {(ROOT / source).resolve(): page for page, source in COPIED.items()}
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")


def write() -> None:
    """Write all of them, leaving files alone that are as they should be."""
    for page, source in COPIED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if not text.startswith("# "):
            text = f"# {page.split('/')[1].replace('-', ', ')}\n\n{text}"
        _replace(DOCS / f"{page}.md", "---\norphan: true\n---\n" + text)
    _replace(DOCS / "api" / "others.md", _others())
    for notebook in NOTEBOOKS:
        _replace(DOCS / "tutorials" / notebook.name, notebook.read_text(encoding="utf-8"))


def public_names() -> dict[str, Any]:
    """What the packages list in `__all__`, by name; sub-packages themselves aside."""
    import entroflow

    found, packages = {}, [entroflow]
    for package in packages:
        for name in package.__all__:
            value = getattr(package, name)
            full = f"{package.__name__}.{name}"
            if inspect.ismodule(value):
                packages += [value] if hasattr(value, "__all__") and full == value.__name__ else []
            elif not name.startswith("__"):
                found[full] = value
    return found


def _others() -> str:
    """The API page of what no page written by hand has: of new packages."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")) if path.stem != "others")
    shown = set(re.findall(r"(?:auto\w+|py:\w+)::.*?(\w+)\b(?:\(.*)?$", text, re.MULTILINE))
    shown |= {name for names in re.findall(r":members: (.*)", text) for name in names.split(", ")}
    wholes = re.findall(r"automodule:: ([\w.]+)$", text, re.MULTILINE)
    lines = []
    for full, value in public_names().items():
        package, _, name = full.rpartition(".")
        if name not in shown and package not in wholes:
            kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
            kind = "exception" if kind == "class" and issubclass(value, Exception) else kind
            lines.append(f".. auto{kind}:: {full}" + ("\n   :no-value:" if kind == "data" else ""))
    lines = ["```{eval-rst}", *lines, "```"] if lines else ["There are none."]
    return "\n".join(["# Others", "", "Public names that no page above has.", "", *lines, ""])


def _replace(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def relink(app: Any, page: str, source: list[str]) -> None:
    """Point links between files of the repository to pages of the site, to pictures, or to the files themselves."""
    if page.startswith("tutorials/") and (DOCS / f"{page}.ipynb").exists():
        return
    home = (ROOT / COPIED[page]).parent if page in COPIED else (DOCS / page).parent
    parts = re.split(r"(^ *```.*?^ *```|`[^`\n]+`)", source[0], flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [LINK.sub(lambda found: _link(found, home, (DOCS / page).parent), part) for part in parts[::2]]
    source[0] = "".join(parts)


def _link(found: re.Match[str], home: Path, here: Path) -> str:
    picture, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return found[0]
    place = (home / path).resolve()
    place = place / "README.md" if (place / "README.md").exists() else place
    if place in PAGES:
        place = DOCS / f"{PAGES[place]}.md"
    elif place.is_dir():
        return text
    return f"{picture}[{text}]({os.path.relpath(place, here)}{'#' * bool(anchor)}{anchor})"
