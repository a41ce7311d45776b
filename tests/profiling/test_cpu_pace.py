"""The pace of a CPU: rates between measured sizes, and an operator's seconds, by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.profiling.cpu_pace import CPUConstants, CPUPace, CPUParts, Curve, Grid, curve_of, seconds_by_kind
from minitx.profiling.kernels import Kernel

GRID = Grid(((1, 100), (10, 1000)), (1.0, 100.0, 4.0, 400.0))
CURVE = Curve((100, 10_000, 1_000_000), (1e-6, 1e-5, 1e-2))
CONSTANTS = CPUConstants(
    products=Grid(((10, 1000),) * 3, (1e9,) * 7 + (8e9,)), batched=Grid(((10, 1000),) * 3, (2e9,) * 8),
    lstm_forward=Grid(((10, 1000), (10, 1000)), (3e9,) * 4), lstm_backward=Grid(((10, 1000), (10, 1000)), (5e9,) * 4),
    passes={"add": CURVE, "tanh": replace(CURVE, seconds=(3e-6, 3e-5, 3e-2)), "copy": CURVE, "adamw": CURVE},
    called_s={"forward": 1e-6, "backward": 2e-6, "optimizer": 0.0}, view_s=5e-7)
PACE = CPUPace(CONSTANTS)


def kernel(name: str = "aten.add", kind: str = "elementwise", nbytes: float = 100.0, flop: float = 0.0,
           product: tuple[int, int, int, int] | None = None, launches: int = 1, steps: int = 1) -> Kernel:
    return Kernel(name, kind, "forward", "float", flop, nbytes, product, launches=launches, steps=steps)


PRODUCT = kernel("aten.mm", "product", flop=16e9, product=(1, 1000, 1000, 1000))
LSTM = kernel("onednn.lstm.forward", "product", flop=3e9, product=(1, 10, 40, 20), steps=8)


@pytest.mark.parametrize(("sizes", "rate"), [
    ((1, 10), 1.0), ((100, 1000), 400.0), ((10, 10), 2.0), ((1, 100), 10.0), ((10, 100), 20.0), ((0.1, 1e9), 100.0)])
def test_rates_lie_on_straight_lines_of_logarithms(sizes: tuple[float, float], rate: float) -> None:
    assert GRID.at(*sizes) == pytest.approx(rate)


@pytest.mark.parametrize(("nbytes", "seconds"), [
    (1, 1e-6), (100, 1e-6), (1000, 10**-5.5), (10_000, 1e-5), (1_000_000, 1e-2), (3_000_000, 3e-2)])
def test_a_pass_takes_the_smallest_time_at_least_and_grows_in_proportion_at_last(nbytes: float, seconds: float) -> None:
    assert CURVE.at(nbytes) == pytest.approx(seconds)


@given(st.floats(1, 1e9), st.floats(1, 10))
def test_more_bytes_never_take_less(nbytes: float, factor: float) -> None:
    assert CURVE.at(factor * nbytes) >= CURVE.at(nbytes) * (1 - 1e-9)


@pytest.mark.parametrize(("done", "work_s"), [
    (PRODUCT, 2.0), (replace(PRODUCT, product=(1, 100, 1000, 1000)), 16 / 8**0.5),
    (replace(PRODUCT, product=(9, 10, 10, 10)), 8.0), (LSTM, 1.0),
    (replace(LSTM, name="onednn.lstm.backward"), 0.6), (kernel(nbytes=10_000), 1e-5),
    (kernel("aten.tanh", nbytes=10_000), 3e-5), (kernel("aten.mv", "product", 10_000, 1e3, (1, 50, 1, 50)), 1e-5),
    (kernel("aten._fused_adamw_", nbytes=30_000, launches=3), 3e-5), (kernel("aten.view", "view", 0, launches=0), 0.0)])
def test_each_kind_takes_its_measured_time(done: Kernel, work_s: float) -> None:
    taken = PACE.kernel(done)
    assert taken.work_s == pytest.approx(work_s)
    assert taken.floor_s == (5e-7 if done.kind == "view" else 1e-6)


@pytest.mark.parametrize(("parts", "done", "seconds"), [
    (CPUParts(shapes=False), replace(PRODUCT, product=(1, 10, 10, 10)), 2.0 + 1e-6),
    (CPUParts(recurrence=False), LSTM, 3 / 8 ** 0.0 + 1e-6), (CPUParts(passes=False), kernel(nbytes=1e6), 1e-6),
    (CPUParts(cache=False), kernel(nbytes=10_000), 1e-4 + 1e-6), (CPUParts(calls=False), kernel(nbytes=10_000), 1e-5),
    (CPUParts(kinds=False), kernel("aten.tanh", nbytes=10_000), 1e-5 + 1e-6)])
def test_each_part_can_be_left_out(parts: CPUParts, done: Kernel, seconds: float) -> None:
    assert CPUPace(CONSTANTS, parts).kernel(done).seconds == pytest.approx(seconds)


def test_an_update_takes_the_sum_by_kind() -> None:
    back = replace(kernel(nbytes=10_000), phase="backward")
    found = seconds_by_kind([PRODUCT, LSTM, back, kernel("aten.t", "view", 0, launches=0)], PACE)
    assert found == pytest.approx({"product": 2.0, "recurrence": 1.0, "elementwise": 1e-5, "calls": 4.5e-6})


@pytest.mark.parametrize(("name", "kind", "curve"), [
    ("aten.mul", "elementwise", "add"), ("aten.sigmoid", "elementwise", "sigmoid"), ("aten.cat", "copy", "copy"),
    ("aten.new_zeros", "copy", "fill"), ("aten._softmax_backward_data", "reduction", "softmax_backward"),
    ("numpy.random_raw", "copy", "random")])
def test_operators_are_like_a_pass_that_was_measured(name: str, kind: str, curve: str) -> None:
    assert curve_of(kernel(name, kind)) == curve
