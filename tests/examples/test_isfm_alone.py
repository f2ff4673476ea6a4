"""The example `examples/isfm_alone.py` finds what its Q says."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "isfm_alone.py"


def test_every_hill_gets_its_share():
    """A short fit finds all four hills with their shares, to .03, and its density has mass one."""
    shares, mass = runpy.run_path(str(EXAMPLE))["main"](steps=300)
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    assert mass == pytest.approx(1, abs=0.002)


def test_example_is_short():
    """At most 60 lines."""
    assert len(EXAMPLE.read_text().splitlines()) <= 60
