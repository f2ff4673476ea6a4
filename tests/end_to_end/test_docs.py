"""The site: it is built without warnings, has every public name and metric, and its code and commands work."""

import csv
import functools
import json
import operator
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import pytest
import tyro

import entroflow
from entroflow import cli, options, rl
from entroflow.flow import Box
from entroflow.names import COMPILED
from entroflow.types import Transition

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
pages = SimpleNamespace(**runpy.run_path(str(DOCS / "pages.py")))
pytestmark = pytest.mark.timeout(900)
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if not path.relative_to(DOCS).as_posix().startswith("tables/"))
WRITTEN = [path for path in WRITTEN if path.relative_to(DOCS).with_suffix("").as_posix() not in pages.COPIED]
SHOWN = [*WRITTEN, *(ROOT / source for source in pages.COPIED.values())]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
BLOCK = re.compile(r"^( *)```([\w{}+-]*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
# What stands before the blocks of a page, and what is made shorter in them.
STEPS = {"jax-environments": 512}  # of training at most; else just enough that an agent learns
PRELUDES = {
    "jax-environments": "import runpy\nfrom entroflow import SACISFM\n"
    f"River = runpy.run_path({str(ROOT / 'examples' / 'jax_environment.py')!r})['River']\n",
    "export": "import entroflow, gymnasium\n"
    "agent = entroflow.GaussianSAC('HalfCheetah-v5', seed=0)\n"
    "agent.export('policy.stablehlo')\n"
    "observation = agent.task.make().reset(seed=0)[0]\n"
    "import numpy as np\n"
    "obs, noise = observation[None].astype(np.float32), np.zeros((1, 6), np.float32)\n",
}


def blocks(path, *languages):
    """The code of a document's fenced blocks in these languages."""
    return [found[3] for found in BLOCK.finditer(path.read_text()) if found[2] in languages]


def built(out, *options):
    """The site, built as `make docs` does."""
    (recipe,) = re.findall(r"-m sphinx (.*) -b html docs", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "sphinx", *recipe.split(), *options, "-b", "html", "docs", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "--fail-on-warning" in recipe and "WARNING" not in done.stderr and "ERROR" not in done.stderr
    return out


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without running its tutorials, which takes a minute."""
    return built(
        tmp_path_factory.mktemp("site"),
        "-D",
        "nb_execution_mode=off",
        "-D",
        "suppress_warnings=ref.python,myst-nb.lexer",
    )


@pytest.mark.slow
def test_the_site_is_built_and_its_tutorials_ran(tmp_path):
    """Without a warning, links inside of it included; pictures that the tutorials draw are shown."""
    site = built(tmp_path)
    for page, pictures in {"from-stable-baselines3": 1, "control-engineer": 2, "flows": 2, "diagnostics": 1}.items():
        text = (site / "tutorials" / f"{page}.html").read_text()
        assert len(re.findall(r'<img [^>]*src="\.\./_images/[0-9a-f]{64}\.png"', text)) == pictures, page
        assert "Traceback" not in text and "output stderr" not in text
    assert len(list(site.rglob("*.html"))) >= len(WRITTEN) + len(NOTEBOOKS)


def documented(site):
    """Names in the inventory of Python objects."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    return {name for kind in inventory if kind.startswith("py:") for name in inventory[kind]}


def test_every_public_name_is_in_the_api(site):
    """By its own name or as the same object by another; and the walk that looks for them finds what is known."""
    names = documented(site)
    objects = {id(found) for name in names if (found := _found(name)) is not None}
    public = {f"{part.__name__}.{name}": getattr(part, name) for part in _packages() for name in part.__all__}
    public = {name: value for name, value in public.items() if not hasattr(value, "__path__") and "__" not in name}
    missing = [name for name, value in public.items() if name not in names and id(value) not in objects]
    assert missing == [] and len(public) > 150
    assert {"entroflow.SACISFM", "entroflow.isfm.fit", "entroflow.lqr.design", "entroflow.rl.ACTORS"} <= public.keys()


def _packages():
    """The package and the sub-packages that it lists."""
    parts = [getattr(entroflow, name) for name in entroflow.__all__]
    return [entroflow, *(part for part in parts if hasattr(part, "__path__") and hasattr(part, "__all__"))]


def _found(name):
    """The object of a dotted name, if there is one."""
    try:
        return operator.attrgetter(name.removeprefix("entroflow."))(entroflow)
    except AttributeError:
        return None


def logged(config):
    """The metrics of an update, without compiling it."""
    sizes, numbers = (
        {"obs_size": 3, "action_space": Box(-jnp.ones(1), jnp.ones(1))},
        (jnp.asarray(0.2), jnp.asarray(0.99)),
    )
    make = functools.partial(rl.init, config, **sizes, temperature=numbers[0], discount=numbers[1])
    state = jax.eval_shape(make, jax.random.key(0))
    rows, flags = jnp.zeros((4, 3)), jnp.zeros(4, bool)
    batch = Transition(rows, rows[:, :1], rows[:, 0], rows, flags, flags)
    return set(jax.eval_shape(functools.partial(rl.update, config), state, batch, jax.random.key(0))[1])


def test_the_glossary_has_every_metric():
    """What updates of all algorithms and the LQR job log, what a row and a table have beside; and nothing else."""
    table = (DOCS / "algorithm" / "metrics.md").read_text().split("The diffusion policy")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    rows = []
    entroflow.GaussianSAC("Pendulum-v1", width=8, critic_width=8).learn(
        4, lambda _, row: rows.append(row), log_interval=4
    )
    with (ROOT / "experiments/pendulum/sac_isfm/metrics.csv").open() as file:
        rows += csv.DictReader(file)
    configs = [rl.Config(actor) for actor in rl.ACTORS.values()]
    configs += [rl.Config(critic=rl.MLPCritic(soft_value="network"))]
    assert set().union(*rows, *map(logged, configs)) | {"evaluation"} == named
    with (ROOT / "experiments/lqr/coupled/metrics.csv").open() as file:
        columns = set(next(csv.reader(file))) - named
    text = (DOCS / "algorithm" / "metrics.md").read_text().split("entroflow lqr` writes")[1]
    told = set(re.findall(r"`(\w+)`", text))
    assert {re.sub("(_relative|_std)+$", "", column) for column in columns} <= told


def test_defaults_are_explained_by_their_names():
    """What the page of defaults gives reasons for are settings, with the values that they have."""
    from entroflow.agents.settings import of_algorithm, values

    settings = values(of_algorithm("sac_isfm"))
    terms = re.findall(r"^(`.*)\n: ", (DOCS / "algorithm" / "defaults.md").read_text(), re.MULTILINE)
    assert len(terms) >= 8
    for name, value in re.findall(r"`(\w+)`(?: ([\w.]+))?", "\n".join(terms)):
        assert name in settings and (not value or value == "of" or str(settings[name]) == value), name


def test_tests_that_the_algorithm_names_exist():
    """Every equation's test is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "algorithm" / "algorithms.md").read_text())
    assert len(named) >= 12
    there = lambda path, name: re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)  # noqa: E731
    assert [pair for pair in named if not there(*pair)] == []


@pytest.mark.parametrize("path", [path for path in WRITTEN if blocks(path, "python")], ids=lambda path: path.stem)
def test_the_python_of_a_page_runs(path, tmp_path, monkeypatch):
    """Its blocks, one after the other, in an empty folder, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": path.stem}
    exec(PRELUDES.get(path.stem, ""), namespace)
    most = STEPS.get(path.stem, 1010)
    for block in blocks(path, "python"):
        shortened = re.sub(r"(?<=learn\()[\d_]+", lambda found: str(min(int(found[0]), most)), block)
        exec(compile(shortened, str(path), "exec"), namespace)
    if path.stem == "extending":
        assert namespace["agent"].settings.config.actor.solver == namespace["Heun"]()


def commands(text):
    """The command lines of a block, as words, without comments, variables and what pins them to cores."""
    text = re.sub(r"(?<!\S)#.*", "", text.replace("\\\n", " "))
    text = re.sub(r"\bfor \w+ in [^;\n]*; *do\b|^ *done\b", "", text, flags=re.MULTILINE)
    for line in text.splitlines():
        line = re.sub(r"--algorithm \$\w+", "--algorithm sac_isfm", line)
        words = shlex.split(re.sub(r"\$\{?\w+\}?", "0", line.removeprefix("$ ")))
        words = [word for word in words if not re.match(r"[A-Z_]+=(?!.* )", word) or words[0] == "make"]
        words = words[3:] if words[:2] == ["taskset", "-c"] else words
        words = words[1:] if words[:1] == ["exec"] else words
        if words:
            yield words


def refused(words):
    """What is wrong with a command line, nothing if all is well."""
    program = words[0].removeprefix(".venv/bin/")
    if program == "entroflow":
        kinds = {name: kind for name, (kind, _) in cli.COMMANDS.items()}
        try:
            options.refuse_repeats(words[1:])
            command = tyro.extras.subcommand_cli_from_dict(kinds, args=words[1:])
            options.check(command)
            if isinstance(command, options.TrainOptions) and command.env not in COMPILED and ":" not in command.env:
                gymnasium.spec(command.env)
        except (SystemExit, ValueError, gymnasium.error.Error) as problem:
            return f"{shlex.join(words)}: {problem}"
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        for word in words[1:]:
            name, sign, value = word.partition("=")
            if not sign and not re.search(rf"^{word}:", makefile, re.MULTILINE):
                return f"make has no {word}"
            if name == "NAME" and not (ROOT / "experiments" / value / "run.py").exists():
                return f"there is no experiment {value}"
    elif program == "python" and words[1:2] == ["-m"]:
        source = ROOT / f"{words[2].replace('.', '/')}.py"
        if words[2].split(".")[0] in ("experiments", "benchmarks") and not source.exists():
            return f"there is no {source}"
    elif program == "python" and words[1] == "-c":
        compile(words[2], "-c", "exec")
    elif program == "python" and words[1] != "-m":
        return None if (ROOT / words[1]).exists() else f"there is no {words[1]}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = {
            part for found in re.findall(r"(?:entroflow|\.)\[(.*?)\]", " ".join(words)) for part in found.split(",")
        }
        return f"no extra {wanted - extras.keys()}" if wanted - extras.keys() else None
    elif program not in ELSEWHERE and not program.startswith("./"):
        return f"{shlex.join(words)}: no program of ours"
    return None


ELSEWHERE = "cc", "ray"  # programs of others, whose options are theirs


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_are_understood(path, capsys):
    """By the parser of the command line, the Makefile and pyproject.toml, without running them."""
    lines = [words for block in blocks(path, "console") for words in commands(block)]
    for script in blocks(path, "bash"):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        ours = re.findall(r"^(?:.* )?(entroflow [a-z][^;&|>\n]*)", script, re.MULTILINE)
        lines += [words for line in ours for words in commands(line)]
    assert [told for words in lines if (told := refused(words)) is not None] == [], capsys.readouterr().err


def test_the_commands_of_the_paper_s_table_are_understood(capsys):
    """Each that it names, and it names several."""
    lines = [words for line in re.findall(r"`((?:entroflow|make) .*?)`", pages.paper()) for words in commands(line)]
    assert len(lines) >= 8
    assert [told for words in lines if (told := refused(words)) is not None] == [], capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("entroflow train Pendulum-v1 --sets 3", True),
        ("entroflow train Pendulum-v7", True),
        ("entroflow train Pendulum-v1 --set tempo=3", True),
        ("A=1 taskset -c 0 entroflow lqr --steps 3  # short", False),
        ("make dox", True),
        ("make experiment NAME=theorem3", True),
        ("python -m experiments.theorem3.run", True),
        ('pip install "entroflow[mujoko]"', True),
        ('pip install ".[mujoko]"', True),
        ("entroflo train Pendulum-v1", True),
        ("make check", False),
    ],
)
def test_a_wrong_command_is_seen(line, fault, capsys):
    """The test above can fail."""
    assert [refused(words) is not None for words in commands(line)] == [fault]


def test_code_is_in_languages_that_are_checked():
    """What is neither run nor parsed is text."""
    known = {"python", "console", "bash", "json", "toml", "", "text", "bibtex", "c", "yaml"}
    found = {(path.name, block[2]) for path in SHOWN for block in BLOCK.finditer(path.read_text())}
    assert {(name, language) for name, language in found if language not in known and "{" not in language} == set()
    for path in SHOWN:
        for block in blocks(path, "json"):
            json.loads(block)
        for block in blocks(path, "toml"):
            tomllib.loads(block)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    """They are run when the site is built, and opened as they are."""
    document = json.loads(path.read_text())
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert document["nbformat"] == 4 and document["metadata"]["kernelspec"]["name"] == "python3" and len(cells) >= 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_three_notebooks():
    """One for each side."""
    assert [path.stem for path in NOTEBOOKS] == ["control-engineer", "flows", "from-stable-baselines3"]


def test_the_citation_is_of_this_version():
    """And of the paper's four authors."""
    text = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [entroflow.__version__]
    assert re.findall(r"family-names: (\w+)", text) == ["Zhang", "Hu", "Dai", "Li"] and "2512.23870" in text
