"""Hostile input: random settings and random system files are taken or refused in one sentence, and never crash."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entroflow.agents.settings import change, from_json, of_algorithm, single, to_json
from entroflow.commands.train import _changes
from entroflow.lqr import LQR, systems
from entroflow.rl import ACTORS

FEW = settings(max_examples=300, deadline=None)
MANY = settings(max_examples=10_000, suppress_health_check=list(HealthCheck), derandomize=False, deadline=None)

# Made here, for strategies must not see beartype, which draws random numbers of its own.
DOCUMENTS = {name: to_json(of_algorithm(name)) for name in ACTORS}
SYSTEMS = {name: systems.get(name).to_dict() for name in systems.CATALOGUE}
NAMES = sorted({name for algorithm in ACTORS for name in single(of_algorithm(algorithm))})
LEVELS = [
    part
    for document in DOCUMENTS.values()
    for config in (document["config"],)
    for critic in ({f"critic_{name}": value for name, value in config["critic"].items()},)
    for part in (document, config, config["actor"], critic)
]
numbers = st.one_of(st.integers(), st.integers(-3, 2000), st.floats(), st.floats(0, 1))
words = st.sampled_from(["auto", "min", "mean", "network", "action", "policy", "defensive", "self", "raw", "posterior"])
scalars = st.one_of(numbers, st.booleans(), st.none(), words, st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=2),
    max_leaves=4,
)


def taken_or_refused(make: Any) -> bool:
    """Whether it is taken; refusing takes one line."""
    try:
        make()
    except ValueError as refusal:
        assert "expected" in str(refusal) and "\n" not in str(refusal), refusal
        return False
    return True


def plausible(default: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a default."""
    kinds = {bool: st.booleans(), int: st.integers(1, 512), float: st.floats(0.0, 1.0), str: words}
    return kinds.get(type(default), values) | st.just(default)


DEFAULTS = {name: value for level in LEVELS for name, value in level.items() if name in NAMES}
sensible = st.sampled_from(NAMES).flatmap(
    lambda name: plausible(DEFAULTS[name]).map(lambda value: f"{name}={json.dumps(value)}")
)
assignments = sensible | st.tuples(
    st.sampled_from(NAMES) | st.text(max_size=6), st.sampled_from(["=", "=", "=", ""]), values | st.text(max_size=6)
).map(lambda part: part[0] + part[1] + (part[2] if isinstance(part[2], str) else json.dumps(part[2])))


def check_options(algorithm: str, texts: list[str]) -> None:
    """Options of the command line, and what is taken survives being written."""
    kept: list[Any] = []
    default = of_algorithm(algorithm)
    if taken_or_refused(lambda: kept.append(change(default, _changes(tuple(texts), default)))):
        document = json.loads(json.dumps(to_json(kept[0]), allow_nan=False))
        assert from_json(document) == kept[0]


def paths(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a JSON document are."""
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(found for key, part in parts for found in paths(part, (*path, key)))]


def changed(document: Any) -> st.SearchStrategy[Any]:
    """A JSON document with some of its values replaced, removed or added to."""

    def apply(changes: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
        root = [json.loads(json.dumps(document))]
        for path, how, value in changes:
            at, key = root, 0
            for step in path:
                part = at[key]
                there = step in part if isinstance(part, dict) else isinstance(part, list) and step in range(len(part))
                if not there:
                    break
                at, key = part, step
            if how == "add" and isinstance(at[key], dict):
                at[key]["more"] = value
            elif how == "remove" and at is not root:
                del at[key]
            else:
                at[key] = value
        return root[0]

    kinds = st.sampled_from(["replace", "replace", "remove", "add"])
    return st.lists(st.tuples(st.sampled_from(paths(document)), kinds, values), max_size=3).map(apply)


def check_document(document: Any) -> None:
    """The settings of a run's config.json."""
    taken_or_refused(lambda: from_json(document))


def check_system(document: Any, path: Any) -> None:
    """A system's JSON file: what is read has an optimum, or is refused with a sentence, too."""
    path.write_text(json.dumps(document))

    def load() -> None:
        lqr = LQR.from_json(path)
        optimum = lqr.optimal(1.0)
        assert math.isfinite(optimum.entropy)

    taken_or_refused(load)


options = given(st.sampled_from(sorted(ACTORS)), st.lists(assignments, min_size=1, max_size=3))
documents = given(st.sampled_from(sorted(DOCUMENTS)).flatmap(lambda name: changed(DOCUMENTS[name])))
entries = st.one_of(st.floats(), st.integers(-4, 4), st.floats(-2, 2), st.text(max_size=2), st.none(), st.booleans())
matrices = st.lists(st.lists(entries, max_size=3), max_size=3)
square = st.integers(1, 3).flatmap(lambda n: st.lists(rows(n), min_size=n, max_size=n))


def rows(size: int) -> st.SearchStrategy[list[float]]:
    """Rows of moderate numbers."""
    return st.lists(st.floats(-2, 2), min_size=size, max_size=size)


def fitting(sizes: tuple[int, int]) -> st.SearchStrategy[dict[str, Any]]:
    """Systems whose matrices have the right shapes and signs; not all of them have an optimum."""
    n, d = sizes
    matrix = lambda count, size: st.lists(rows(size), min_size=count, max_size=count)  # noqa: E731
    cost = lambda size: matrix(size, size).map(lambda root: (np.array(root) @ np.array(root).T).tolist())  # noqa: E731
    parts = {"A": matrix(n, n), "B": matrix(n, d), "Q": cost(n), "R": cost(d), "noise_cov": cost(n)}
    return st.fixed_dictionaries(parts | {"initial_cov": cost(n), "discount": st.floats(0, 0.99)})


FIELDS = list(SYSTEMS["coupled"])
files = given(
    st.fixed_dictionaries({}, optional={name: matrices | square | values for name in FIELDS})
    | st.sampled_from(sorted(SYSTEMS)).flatmap(lambda name: changed(SYSTEMS[name]))
    | st.tuples(st.integers(1, 3), st.integers(1, 2)).flatmap(fitting)
)

test_options = FEW(options(check_options))
test_documents = FEW(documents(check_document))
test_many_options = pytest.mark.slow(MANY(options(check_options)))
test_many_documents = pytest.mark.slow(MANY(documents(check_document)))


@FEW
@files
def test_system_files(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    """A few hundred random files of systems."""
    check_system(document, tmp_path_factory.getbasetemp() / "system.json")


@pytest.mark.slow
@MANY
@files
def test_many_system_files(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    """Ten thousand."""
    check_system(document, tmp_path_factory.getbasetemp() / "system.json")
