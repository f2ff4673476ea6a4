"""Programs are traced without the garbage collector, which is afterwards as it was before, and by a name."""

import gc

import pytest

from entroflow import compiling
from entroflow.compiling import RUN_ONCE, jit


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_collector_rests_while_a_program_is_traced(enabled, fails):
    """Also if tracing fails, and if somebody has switched it off."""
    seen = []

    @jit(RUN_ONCE)
    def twice(x):
        assert compiling.current is not None and compiling.current[0] == "twice"  # what a display tells of
        seen.append(gc.isenabled())
        if fails:
            raise KeyError("x")
        return 2 * x

    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        if fails:
            with pytest.raises(KeyError):
                twice(1.0)
        else:
            assert twice(1.0) == 2.0
        assert gc.isenabled() == enabled and seen == [False] and compiling.current is None
    finally:
        (gc.enable if was else gc.disable)()
