"""What an update is lost to: every second once, each to the slower of two, by hand where it can be told by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.profiling.devices import by_name
from minitx.profiling.kernels import Kernel
from minitx.profiling.limits import LIMITS, seconds_by_limit
from minitx.profiling.timeline import Constants, Pace, timeline

V100 = by_name("v100")
PACE = Pace(V100, Constants())
PRODUCT = Kernel("mm", "product", "forward", "half", 2.0 * 4096**3, 6.0 * 4096**2, (1, 4096, 4096, 4096))
COPY = Kernel("copy_", "copy", "forward", "half", 0.0, 1e9)
SMALL = Kernel("add", "elementwise", "forward", "half", 0.0, 100.0)
STEP = replace(PRODUCT, flop=2.0 * 64**3, nbytes=6.0 * 64**2, product=(1, 64, 64, 64), launched_by="library")
VIEW = Kernel("t", "view", "forward", "half", 0.0, 0.0, launches=0)


def lost(kernels: list[Kernel], pace: Pace = PACE) -> dict[str, float]:
    return seconds_by_limit(kernels, pace, timeline(kernels, pace))


@given(st.lists(st.sampled_from([PRODUCT, COPY, SMALL, STEP, VIEW]), min_size=1, max_size=30))
def test_every_second_is_lost_once(kernels: list[Kernel]) -> None:
    found = lost(kernels)
    assert found.keys() == LIMITS.keys()
    assert min(found.values()) >= 0
    assert sum(found.values()) == pytest.approx(timeline(kernels, PACE).seconds)


@pytest.mark.parametrize(("kernel", "limit"), [(PRODUCT, "products"), (COPY, "memory"), (STEP, "recurrence")])
def test_a_kernel_is_lost_to_what_is_slowest(kernel: Kernel, limit: str) -> None:
    found = lost(100 * [kernel])
    assert max(found, key=found.__getitem__) == limit


def test_a_host_that_is_slow_and_one_that_is_not() -> None:
    slow, fast = (lost(100 * [SMALL], Pace(V100, Constants(operator_us=us, update_us=0.0))) for us in (10.0, 0.1))
    assert slow["host"] == pytest.approx(100 * (10e-6 - PACE.kernel(SMALL).seconds), rel=0.05)
    assert max(fast, key=fast.__getitem__) == "starts"
    assert fast["host"] == pytest.approx(0, abs=1e-6)
