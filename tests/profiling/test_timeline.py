"""A device's timeline by hand: one kernel, then many, with the host ahead or behind; and what must never be faster."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minitx.profiling.devices import DEVICES, Device, by_name
from minitx.profiling.kernels import Kernel
from minitx.profiling.timeline import FAST, SLOW, Constants, Model, Pace, host_s, peak_flops, timeline

V100, A100, H100 = by_name("v100"), by_name("a100"), by_name("h100")
CONSTANTS = Constants(tensor_intensity=20.0, plain_intensity=10.0, memory=0.8, product_us=7.0, kernel_us=2.0,
                      step_us=11.0, operator_us=5.0, view_us=1.0, launch_us=3.0, update_us=100.0)
PACE = Pace(V100, CONSTANTS)
CACHE = 0.8 * 2048 * 1.53e9  # bytes a second
MEMORY = 0.8 * 900e9
GEMM = 2.0 * 2048 * 1280 * 1024  # of 80 tiles of 256 x 128


def kernel(kind: str = "elementwise", nbytes: float = 0.0, **more: Any) -> Kernel:
    return Kernel("an operator", kind, "forward", "half", 0.0, nbytes, **more)


def product(rows: int, columns: int, inner: int, batch: int = 1, dtype: str = "half", **more: Any) -> Kernel:
    return Kernel("aten.mm", "product", "forward", dtype, 2.0 * batch * rows * columns * inner, 0.0,
                  (batch, rows, columns, inner), **more)


VIEW = kernel("view", launches=0)


# --- one kernel


@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 2048, 1280), (1, 1280, 2048), (80, 256, 128)])
def test_a_whole_wave_of_the_largest_tiles_runs_at_its_share_of_the_peak(batch: int, rows: int, columns: int) -> None:
    share = (256 * 128 / 384) / (256 * 128 / 384 + 20.0)
    taken = PACE.kernel(product(rows, columns, 1024, batch))
    assert taken.work_s == pytest.approx(GEMM / (share * 125e12))
    assert (taken.floor_s, taken.share) == (pytest.approx(7e-6), 1.0)


def test_a_second_wave_takes_as_long_as_the_first() -> None:
    one, two = (PACE.kernel(product(256, 128, 1024, batch)).work_s for batch in (80, 160))
    assert two == pytest.approx(2 * one)
    assert one < PACE.kernel(product(256, 128, 1024, 81)).work_s <= two, "by smaller tiles, which make a fuller wave"


def test_a_product_of_one_row_takes_a_row_of_the_smallest_tiles() -> None:
    """40 blocks of 32 x 32 do no more than half of a wave; each has an inner dimension too short to be parted."""
    taken = PACE.kernel(product(1, 40 * 32, 256))
    assert taken.work_s == pytest.approx(2.0 * 32 * 32 * 256 / (125e12 / 80 * 16 / (16 + 20.0)))
    assert taken.share == 0.5


def test_a_long_inner_dimension_is_parted_among_idle_multiprocessors() -> None:
    """Four tiles of 32 x 32, each in eight parts, take as long as one part; the sums of parts are few bytes."""
    short, long = (PACE.kernel(product(64, 64, inner)) for inner in (256, 8 * 256))
    assert long.work_s == pytest.approx(short.work_s)
    assert (short.share, long.share) == (4 / 80, 32 / 80)


def test_tiles_are_read_from_the_cache() -> None:
    """Where arithmetic takes no time, 80 tiles read 256 + 128 numbers of two bytes for each of 1,024 places inside."""
    quick = replace(V100, half=1e9)
    taken = Pace(quick, CONSTANTS).kernel(product(2048, 1280, 1024))
    assert taken.work_s == pytest.approx(80 * 384 * 1024 * 2 / CACHE)


def test_attention_is_all_of_its_products() -> None:
    one = product(256, 128, 64, 80)
    assert PACE.kernel(replace(one, flop=7 * one.flop)).work_s == pytest.approx(7 * PACE.kernel(one).work_s)


@pytest.mark.parametrize(("nbytes", "bytes_s"), [(1e9, MEMORY), (4 * 2**20, MEMORY), (3 * 2**20, CACHE), (8.0, CACHE)])
def test_a_copy_takes_its_bytes_from_the_cache_where_half_of_it_holds_them(nbytes: float, bytes_s: float) -> None:
    taken = PACE.kernel(kernel("copy", nbytes))
    assert (taken.work_s, taken.floor_s) == (pytest.approx(nbytes / bytes_s), pytest.approx(2e-6))
    assert taken.share == pytest.approx(min(1, max(1, nbytes / 2**14) / 80))


def test_a_product_of_many_bytes_takes_as_long_as_they_do() -> None:
    bound = replace(product(2048, 1280, 1024), nbytes=1e9)
    assert PACE.kernel(bound).work_s == pytest.approx(1e9 / MEMORY)


@pytest.mark.parametrize(("one", "floor_us"), [
    (kernel(), 2), (kernel(launches=3), 6), (product(1, 1, 1), 7), (product(1, 1, 1, launches=2), 14),
    (product(1, 1, 1, launched_by="library"), 11), (kernel(launched_by="library"), 11)])
def test_a_floor_is_of_the_kind_and_of_each_launch(one: Kernel, floor_us: float) -> None:
    assert PACE.kernel(one).floor_s == pytest.approx(1e-6 * floor_us)


@pytest.mark.parametrize("launched_by", ["library", "operator"])  # an LSTM begins with it backwards, not forwards
def test_a_persistent_lstm_takes_each_of_its_steps(launched_by: str) -> None:
    """A step is a product of 64 sentences with 4 x 1,024 gates; the weights are read once."""
    step = product(64, 4096, 1024, launched_by="library")
    persistent = replace(step, flop=50 * step.flop, steps=50, nbytes=1e9, launched_by=launched_by)
    taken = PACE.kernel(persistent)
    assert taken.work_s == pytest.approx(max(50 * PACE.kernel(step).work_s, 1e9 / MEMORY))
    assert taken.floor_s == pytest.approx(50 * 11e-6)


@pytest.mark.parametrize(("device", "dtype", "tf32", "tflops", "on_tensor_units"), [
    (V100, "half", False, 125.0, True), (V100, "float", True, 15.7, False), (V100, "double", False, 7.85, False),
    (A100, "half", False, 312.0, True), (A100, "float", False, 19.5, False), (A100, "float", True, 156.0, True),
    (replace(V100, half=None), "half", False, 15.7, False)])
def test_peaks_are_those_of_the_sheet(device: Device, dtype: str, tf32: bool, tflops: float,
                                      on_tensor_units: bool) -> None:
    assert peak_flops(device, dtype, tf32) == (pytest.approx(1e12 * tflops), on_tensor_units)


def test_cudnn_rounds_factors_to_tf32_and_cublas_asks() -> None:
    step, free = (product(4096, 4096, 1024, dtype="float", launched_by=by) for by in ("library", "operator"))
    strict, rounding = (Pace(A100, CONSTANTS, tf32=tf32) for tf32 in (False, True))
    assert strict.kernel(step).work_s == rounding.kernel(step).work_s == rounding.kernel(free).work_s
    assert strict.kernel(free).work_s > 4 * rounding.kernel(free).work_s


# --- many


def run(kernels: Sequence[Kernel], **changes: float) -> float:
    return timeline(kernels, replace(PACE, constants=replace(CONSTANTS, **changes))).seconds


COPY_S = 1e8 / MEMORY + 2e-6
COPY = kernel("copy", 1e8)  # 141 us
SMALL = kernel()  # 2 us


def test_the_host_is_later() -> None:
    """Small kernels wait for it: 100 us between updates, 5 us each and 1 us for a view."""
    assert run([SMALL, VIEW] * 30) == pytest.approx(100e-6 + 30 * 6e-6)


def test_the_device_is_later() -> None:
    """What the host does is hidden behind kernels of the update before."""
    assert run([COPY, VIEW, SMALL] * 30) == pytest.approx(30 * (COPY_S + 2e-6))


def test_a_host_that_waits_begins_again_with_an_empty_queue() -> None:
    """It reads the loss after the copy, then goes between updates, and issues one operator, before a copy begins."""
    assert run([replace(COPY, host_waits=True)]) == pytest.approx(COPY_S + 105e-6)
    assert run([COPY, replace(SMALL, host_waits=True), COPY]) == pytest.approx(2 * COPY_S + 2e-6 + 5e-6)


def test_a_host_that_waits_in_the_middle_is_ahead_again_by_the_end() -> None:
    """After the wait the host issues one copy in 5 us, which the device takes 141 us for."""
    waits = [replace(COPY, host_waits=True), COPY, COPY]
    assert run(waits) == pytest.approx(3 * COPY_S + 5e-6), "the queue hides 100 us between updates, not what follows"


def test_a_gap_comes_before_each_kernel_that_need_not_wait_for_the_host() -> None:
    assert run([COPY] * 10, gap_us=5.0) == pytest.approx(10 * (COPY_S + 5e-6))
    assert run([SMALL] * 10, gap_us=2.0, operator_us=50.0) == pytest.approx(100e-6 + 10 * 50e-6)


@pytest.mark.parametrize(("one", "host_us"), [
    (SMALL, 5), (VIEW, 1), (replace(SMALL, launches=4), 5 + 3 * 3), (kernel(launched_by="library"), 3),
    (replace(SMALL, steps=50), 5)])
def test_what_the_host_needs_for_an_operator(one: Kernel, host_us: float) -> None:
    assert run([one, SMALL], step_us=0.0) == pytest.approx(1e-6 * (100 + host_us + 5))


def test_a_graph_needs_no_host() -> None:
    graph = replace(PACE, model=Model(host=False))
    kernels = [SMALL, VIEW, replace(SMALL, launches=3), replace(SMALL, host_waits=True)] * 10
    found = timeline(kernels, graph)
    assert found.seconds == found.busy_s == pytest.approx(10 * (2 + 6 + 2) * 1e-6)
    assert found.launches == 10 * 5


def test_parts_of_the_model_that_are_left_out_cost_nothing() -> None:
    gemm, copy = product(300, 300, 300), kernel("copy", 3 * 2**20)

    def pace(**parts: bool) -> Pace:
        return replace(PACE, model=Model(**parts))

    assert pace(floors=False).kernel(gemm).floor_s == 0
    assert pace(memory=False).kernel(copy).work_s == 0
    assert pace(cache=False).kernel(copy).work_s == pytest.approx(copy.nbytes / MEMORY)
    largest = 256 * 128 / 384
    assert pace(tiles=False).kernel(gemm).work_s == pytest.approx(gemm.flop * (largest + 20) / largest / 125e12)
    assert pace(tiles=False).kernel(gemm).work_s < PACE.kernel(gemm).work_s


def test_seconds_of_kernels_are_told_by_kind() -> None:
    found = timeline([COPY, SMALL, VIEW, COPY], PACE)
    assert found.by_kind == pytest.approx({"copy": 2 * COPY_S, "elementwise": 2e-6})
    assert (found.busy_s, found.launches) == (pytest.approx(2 * COPY_S + 2e-6), 3)


def test_what_is_surely_busy_has_the_smallest_kernels_floor_and_all_steps_of_a_persistent_one() -> None:
    """Of a product's floor of 7 us, 2 us are sure; what a step takes inside of one kernel is that kernel running."""
    gemm, persistent = product(256, 128, 1024, 80), product(256, 128, 1024, 80, launched_by="library", steps=50)
    work = PACE.kernel(gemm).work_s
    found = timeline([gemm, persistent], PACE)
    assert found.busy_s == pytest.approx(2 * work + 7e-6 + 50 * 11e-6)
    assert found.surely_busy_s == pytest.approx(2 * work + 2e-6 + 50 * 11e-6)
    assert found.occupied_s == pytest.approx(2 * work)


# --- whatever the kernels


@st.composite
def kernels_of_any_kind(draw: st.DrawFn) -> Kernel:
    by, waits = draw(st.sampled_from(["operator", "library"])), draw(st.integers(0, 7)) == 0
    launches, dtype = draw(st.integers(1, 3)), draw(st.sampled_from(["half", "float"]))
    more = {"launched_by": by, "host_waits": waits, "launches": launches}
    if draw(st.booleans()):
        return kernel(draw(st.sampled_from(["copy", "reduction"])), draw(st.floats(0, 1e9)), **more)
    shape = [draw(st.integers(1, 3000)) for _ in range(3)]
    return product(*shape, batch=draw(st.integers(1, 4)), dtype=dtype, steps=draw(st.sampled_from([1, 1, 20])), **more)


SHAPES = st.tuples(*[st.integers(1, 5000)] * 3)
UPDATES = st.lists(kernels_of_any_kind() | st.just(VIEW), min_size=1, max_size=12)
PACES = st.builds(Pace, st.sampled_from(DEVICES), st.sampled_from([CONSTANTS, Constants(), FAST, SLOW,
                                                                   Constants(gap_us=6.0)]))
EXACTLY = 1 + 1e-9  # rounding


@given(UPDATES, PACES, st.integers(0, 11), st.floats(1, 100))
def test_more_bytes_never_make_an_update_faster(update: list[Kernel], pace: Pace, place: int, factor: float) -> None:
    one = update[place % len(update)]
    assume(one.kind != "view")
    more = [*update]
    more[place % len(update)] = replace(one, nbytes=factor * one.nbytes + 1)
    assert timeline(update, pace).seconds <= timeline(more, pace).seconds * EXACTLY


@given(st.sampled_from(DEVICES), SHAPES, SHAPES)
def test_more_rows_or_columns_never_make_a_product_faster(device: Device, shape: tuple[int, ...],
                                                           added: tuple[int, ...]) -> None:
    pace = Pace(device, CONSTANTS)
    for side in range(2):
        larger = [n + added[side] * (place == side) for place, n in enumerate(shape)]
        small, large = (pace.kernel(product(*sides)).work_s for sides in (shape, larger))
        assert small <= large * EXACTLY


@given(PACES, SHAPES)
def test_no_product_beats_its_peak_or_takes_more_multiprocessors_than_there_are(pace: Pace,
                                                                               shape: tuple[int, ...]) -> None:
    one = product(*shape)
    taken = pace.kernel(one)
    peak, _ = peak_flops(pace.device, "half", tf32=False)
    assert one.flop / taken.work_s < peak
    assert 0 < taken.share <= 1


@given(UPDATES, PACES, st.sampled_from(["operator_us", "view_us", "launch_us", "update_us"]), st.floats(0, 100))
def test_a_slower_host_never_makes_an_update_faster(update: list[Kernel], pace: Pace, what: str, added: float) -> None:
    slower = replace(pace.constants, **{what: getattr(pace.constants, what) + added})
    assert timeline(update, pace).seconds <= timeline(update, replace(pace, constants=slower)).seconds * EXACTLY


@given(UPDATES, PACES)
def test_a_graph_is_never_slower(update: list[Kernel], pace: Pace) -> None:
    assert timeline(update, replace(pace, model=Model(host=False))).seconds <= timeline(update, pace).seconds * EXACTLY


@given(UPDATES, PACES, st.integers(2, 4))
def test_twice_the_kernels_take_at_most_twice_as_long(update: list[Kernel], pace: Pace, times: int) -> None:
    once, more = timeline(update, pace).seconds, timeline(update * times, pace).seconds
    assert once <= more * EXACTLY
    assert more <= times * once * EXACTLY


@given(UPDATES, PACES)
def test_without_waits_an_update_takes_its_host_or_its_device_whichever_is_later(update: list[Kernel],
                                                                                pace: Pace) -> None:
    update = [replace(one, host_waits=False) for one in update]
    device_s = [pace.kernel(one).seconds + 1e-6 * pace.constants.gap_us for one in update if one.kind != "view"]
    host = 1e-6 * pace.constants.update_us + sum(host_s(one, pace) for one in update)
    assert timeline(update, pace).seconds == pytest.approx(max(host, sum(device_s)))


@given(UPDATES, PACES)
def test_a_device_is_busy_between_two_figures_and_never_longer_than_the_update(update: list[Kernel],
                                                                              pace: Pace) -> None:
    found = timeline(update, pace)
    assert 0 <= found.occupied_s <= found.surely_busy_s * EXACTLY
    assert found.surely_busy_s <= found.busy_s * EXACTLY
    assert found.busy_s <= found.seconds * EXACTLY
    assert sum(found.by_kind.values()) == pytest.approx(found.busy_s)


@given(UPDATES, st.sampled_from(DEVICES))
def test_the_expected_lies_between_fast_and_slow(update: list[Kernel], device: Device) -> None:
    fast, expected, slow = (timeline(update, Pace(device, constants)).seconds
                            for constants in (FAST, Constants(), SLOW))
    assert fast <= expected * EXACTLY
    assert expected <= slow * EXACTLY
