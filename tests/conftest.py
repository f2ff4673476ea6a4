"""Settings for every test: shapes and types are checked at run time, promotion is explicit, compilation is cached."""

import gc
import inspect
import os
from pathlib import Path

# Before JAX starts: programs compiled by an earlier test run are read back from disk.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most tests are short runs of large programs: compiling is what they wait for. XLA's older emitters of kernels take a
# third of the time, and one part in place of a part for every core a sixth less, where tests run on all cores anyway.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest
from hypothesis import settings
from jaxtyping import PRNGKeyArray, install_import_hook

# Before entroflow is imported: beartype checks every annotation on every call. An int may stand for a float, as type
# checkers have it.
CHECKED = ["entroflow", "experiments", "benchmarks"]
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from entroflow.agents.settings import KINDS, Settings  # noqa: E402
from entroflow.isfm import FitConfig  # noqa: E402
from entroflow.studies import Needs, Search  # noqa: E402

# Settings say in a sentence of their own what is wrong with them; beartype must not speak first.
for _kind in (*KINDS.values(), Settings, FitConfig, Needs, Search):
    _kind.__init__ = inspect.unwrap(_kind.__init__)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPPINGS = 20_000
# Files that take a minute and more, the longest first: one that began last would run alone.
LONG = "docs", "cli_lqr", "resume", "rl_training", "own_parts", "small_experiments", "multigoal", "hostile_folders"
LONG += "frozen", "project", "kept"
# Compiled programs are trees of Python objects, hundreds of thousands of them, looked through for nothing otherwise.
gc.set_threshold(100_000, 50, 1000)

# `--hypothesis-profile=thorough` searches with new random examples; the default is small and always the same.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `make test` hands them out in this order."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """Forget compiled programs between files once they are many.

    Each maps some memory, and beyond Linux' limit of 65,530 mappings the compiler ends in a segmentation fault.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def key() -> PRNGKeyArray:
    """A typed random key, the same in every run."""
    return jax.random.key(0)
