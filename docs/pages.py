"""Pages that are made of what is elsewhere: READMEs, notebooks, tables of settings and results."""

import csv
import inspect
import json
import os
import re
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from entroflow.lqr import systems
from experiments import frame
from experiments.lqr.table import table as table_of_lqr

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
    "reproduce/examples-readme": "examples/README.md",
}
COPIED |= {
    f"reproduce/{path.parent.name}": f"experiments/{path.parent.name}/README.md"
    for path in sorted(ROOT.glob("experiments/*/README.md"))
}
COPIED |= {
    f"reproduce/{path.parent.name}-{path.stem}": str(path.relative_to(ROOT))
    for path in sorted(ROOT.glob("experiments/*/*.md"))
    if path.stem != "README"
}
COPIED |= {
    f"reproduce/benchmarks-{path.stem}": str(path.relative_to(ROOT))
    for path in sorted(ROOT.glob("benchmarks/*.md"))
    if path.stem != "README"
}
NOTEBOOKS = sorted(ROOT.glob("examples/notebooks/*.ipynb"))
PAGES = {(ROOT / source).resolve(): page for page, source in COPIED.items()}
PAGES |= {notebook.resolve(): f"tutorials/{notebook.stem}" for notebook in NOTEBOOKS}
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")


def write() -> None:
    """Write all of them, leaving files alone that are as they should be."""
    for page, source in COPIED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if not text.startswith("# "):
            text = f"# {page.split('/')[1].replace('-', ', ')}\n\n{text}"
        _replace(DOCS / f"{page}.md", text)
    _replace(DOCS / "api" / "others.md", others())
    _replace(DOCS / "tables" / "settings.md", settings())
    _replace(DOCS / "tables" / "presets.md", presets())
    _replace(DOCS / "tables" / "metrics.md", metrics())
    _replace(DOCS / "tables" / "paper.md", paper())
    _replace(DOCS / "tables" / "lqr.md", table_of_lqr())
    _replace(DOCS / "tables" / "lqr-paper.md", table_of_lqr(ROOT / "experiments/lqr/paper"))
    for notebook in NOTEBOOKS:
        _replace(DOCS / "tutorials" / notebook.name, notebook.read_text(encoding="utf-8"))


def settings() -> str:
    """All settings with what the three algorithms have by default."""
    from entroflow.agents.settings import of_algorithm, single
    from entroflow.commands.settings import meaning, possible, written

    known = {name: single(of_algorithm(name)) for name in ("sac_isfm", "gaussian_sac", "denoising")}
    rows = []
    for name in dict.fromkeys(name for settings in known.values() for name in settings):
        found = [its[name] if name in its else None for its in known.values()]
        shown = [written(getattr(each[1], each[2].name)) if each else "–" for each in found]
        kinds = [(type(each[1]), each[2].name) for each in found if each]
        hint = get_type_hints(kinds[0][0], include_extras=True)[kinds[0][1]]
        told = dict.fromkeys(meaning(*kind) for kind in kinds)
        rows.append([f"`{name}`", *shown, possible(hint), " / ".join(told)])
    heads = ("setting", "SAC-ISFM", "Gaussian SAC", "diffusion", "range", "what it is")
    return frame.markdown(heads, [[cell.replace("|", "\\|") for cell in row] for row in rows])


def presets() -> str:
    """What every preset sets for an algorithm beside its defaults."""
    from entroflow.agents.settings import PRESETS
    from entroflow.commands.settings import written

    rows = [
        [f"`{preset}`", f"`{name}`", ", ".join(f"`{key}={written(value)}`" for key, value in changes.items())]
        for preset, algorithms in PRESETS.items()
        for name, changes in algorithms.items()
        if changes
    ]
    return frame.markdown(("preset", "algorithm", "what it sets"), rows)


def metrics() -> str:
    """What the metrics were in the second half of committed trainings."""
    runs = {
        "Pendulum-v1": "pendulum/sac_isfm",
        "HalfCheetah-v5": "mujoco/halfcheetah/sac_isfm",
        "Hopper-v5": "mujoco/hopper/sac_isfm",
    }
    tables = {task: _second_half(ROOT / "experiments" / place / "metrics.csv") for task, place in runs.items()}
    names = [name for name in tables["Pendulum-v1"] if name not in ("seed", "step", "seconds", "episodes")]
    quantiles = lambda values: "{1:.3g} [{0:.3g}, {2:.3g}]".format(*np.quantile(values, (0.05, 0.5, 0.95)))  # noqa: E731
    rows = [[f"`{name}`", *(quantiles(table[name]) for table in tables.values())] for name in names]
    return frame.markdown(("metric", *tables), rows)


def _second_half(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = max(int(row["step"]) for row in rows)
    late = [row for row in rows if int(row["step"]) > last / 2]
    return {name: [float(row[name]) for row in late if row[name]] for name in rows[0]}


def paper() -> str:
    """What of the paper is reproduced: command, minutes, result, test."""
    rows = []
    for system in ("coupled", "double_integrator"):
        found = _results(f"lqr/{system}")
        worst = {part: max(run[f"{part}_error_relative"] for run in found["runs"]) for part in ("mean", "covariance")}
        gap = max(abs(1 - run["standard_return"] / run["optimal_standard_return"]) for run in found["runs"])
        command, minutes = f"entroflow lqr --system {system}", _minutes(found)
        told = f"worst of {len(found['runs'])} runs: return within {gap:.2%}"
        rows.append([f"Figure 1, `{system}`", command, minutes, told])
        told = f"the same runs: mean within {worst['mean']:.1%}, covariance within {worst['covariance']:.1%}"
        rows.append([f"Figure 2, `{system}`", command, minutes, told])
    found = _results("solvers")
    shown = [row for row in found["solvers"] if row["solver"] == "rk4, 8 graded steps"]
    told = "; ".join(
        "{task}: log π of a draw off by {error:.1g} nats ({error_worst:.1g} at worst)".format(**row) for row in shown
    )
    rows.append(["Theorem 1, trained flows as they act", "make experiment NAME=solvers", _minutes(found), told])
    found = _results("theorem2")
    slopes = {slope["name"]: "{slope:.2f} ({low:.2f} to {high:.2f})".format(**slope) for slope in found["slopes"]}
    told = f"slope of log W₂² in log N: {slopes['N, d = 1']} and {slopes['N, d = 2']}, where the bound's is −½"
    rows.append(["Theorem 2", "make experiment NAME=theorem2", _minutes(found), told])
    told = f"optimal gains of {len(systems.CATALOGUE)} systems solve the Riccati equation within {_riccati():.0e}"
    rows.append(["Theorem 3", "", "0", f"{told} (computed now)"])
    for system in ("coupled", "double_integrator", "unstable"):
        found = _results(f"spi/{system}")
        gain, covariance = (max(row[f"{part}_error"] for row in found["iterations"]) for part in ("gain", "covariance"))
        command = f'make experiment NAME=spi ARGS="--system {system}"'
        told = f"every iterate: gain within {gain:.2%}, covariance within {covariance:.2%} of the exact one"
        rows.append([f"Lemma 1, Algorithm 1, `{system}`", command, _minutes(found), told])
    plan = [[name, f"`{command}`" if command else "", minutes, told] for name, command, minutes, told in rows]
    return frame.markdown(("of the paper", "command", "minutes", "result"), plan)


def _results(place: str) -> dict[str, Any]:
    return json.loads((ROOT / "experiments" / place / "results.json").read_text(encoding="utf-8"))


def _minutes(document: dict[str, Any]) -> str:
    return f"{document['seconds']['total'] / 60:.0f}"


def _riccati() -> float:
    """The largest relative residual of P = Q + γAᵀPA − γ² AᵀPB M⁻¹ BᵀPA over the catalogue."""
    residuals = []
    for name in systems.CATALOGUE:
        lqr = systems.get(name)
        A, B, g, P = lqr.A, lqr.B, lqr.discount, lqr.optimal(1.0).P
        M, S = lqr.R + g * B.T @ P @ B, g * B.T @ P @ A
        residuals.append(np.abs(lqr.Q + g * A.T @ P @ A - S.T @ np.linalg.solve(M, S) - P).max() / np.abs(P).max())
    return max(residuals)


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


def others() -> str:
    """The API page of what no page written by hand has: of new packages."""
    written = [path for path in (DOCS / "api").glob("*.md") if path.stem != "others"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in written)
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
        place = DOCS / f"{PAGES[place]}{place.suffix}"
    elif place.is_dir():
        return text
    return f"{picture}[{text}]({os.path.relpath(place, here)}{'#' * bool(anchor)}{anchor})"
