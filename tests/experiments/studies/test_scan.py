"""What waiting costs: each way computes what it is timed for, limits are kept, predictions and claims can fail."""

import gc
import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from experiments.studies.conftest import families
from scanned import COUNTS, growth, scan_study, timed

from minitx.experiments.prefix_scan import Affine, serial, states
from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import scan
from minitx.experiments.studies.common import run_study
from minitx.experiments.studies.scan import (
    DECAY,
    OVER,
    PREDICTIONS,
    STEPS,
    Sizes,
    W,
    claims,
    outcome,
    plain_python,
    table,
    time_call,
    time_lengths,
)
from minitx.utils.console import Console
from minitx.utils.progress import Progress

CPU = torch.device("cpu")
TINY = Sizes((1, 4), steps=3, lengths=(2, 4, 8, 16, 32, 64), call_s=60.0, block_s=0.0001, blocks=2)


def silent() -> Progress:
    return Progress(Console(StringIO()), 1.0)


# --- each way computes what it says


@pytest.mark.parametrize("way", [name for name in STEPS if "matrix" not in name])
def test_a_recurrence_is_the_same_however_it_is_written(way: str) -> None:
    width = 1 if way == "Python, one number" else 3
    call = STEPS[way](width, 20, CPU)
    assert call is not None
    last = states(serial, [Affine(DECAY, 1.0)] * 20)[-1]
    assert np.asarray(call()).ravel().tolist() == pytest.approx([float(last)] * width)


def test_one_number_has_no_width() -> None:
    assert STEPS["Python, one number"](2, 3, CPU) is None


def test_a_matrix_mixes_the_states() -> None:
    torch.manual_seed(0)
    call = STEPS["torch, with a matrix"](4, 2, CPU)
    torch.manual_seed(0)
    u = torch.rand(4, 4) / 4
    one = torch.ones(4).tanh()
    assert call is not None
    torch.testing.assert_close(call(), torch.tanh(u @ one + 1))


def test_one_after_another_and_by_doubling_find_the_same_states() -> None:
    found = []
    for way in ("recurrence", "scan by doubling"):
        torch.manual_seed(0)
        found.append(OVER[way](100, CPU)())
    torch.testing.assert_close(found[0], found[1])
    torch.manual_seed(0)
    a, b = torch.rand(100, W)[:, 0].tolist(), torch.rand(100, W)[:, 0].tolist()
    expected = states(serial, [Affine(*step) for step in zip(a, b, strict=True)])
    assert found[1][:, 0].tolist() == pytest.approx(expected, rel=1e-5)  # type: ignore[index]


def test_attention_weighs_all_positions_for_each_and_the_reduction_is_a_mean() -> None:
    torch.manual_seed(0)
    found = OVER["attention"](9, CPU)()
    torch.manual_seed(0)
    q, k, v = (torch.rand(9, W) for _ in range(3))
    torch.testing.assert_close(found, ((q @ k.t() / W**0.5).softmax(1) @ v)[None, None])
    torch.manual_seed(0)
    found = OVER["reduction"](9, CPU)()
    torch.manual_seed(0)
    torch.testing.assert_close(found, torch.rand(9, W).mean(0))


def test_sums_and_recurrence_in_plain_python() -> None:
    found = {name: call() for name, call in plain_python().items()}
    assert found["sum()"] == 1.0
    assert found["a sum as a loop"] == pytest.approx(DECAY * scan.COMPARED)
    assert found["recurrence"] == pytest.approx(1 / (1 - DECAY))


# --- how it is timed


def clock(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[], float]) -> list[int]:
    """Make calls take so long, and count them."""
    calls = [0]

    def seconds_of(call: Callable[[], object], number: int, device: torch.device) -> float:
        for _ in range(number):
            call()
        return number * seconds()

    monkeypatch.setattr(scan, "seconds_of", seconds_of)
    return calls


def test_so_many_calls_are_made_and_no_garbage_is_collected_meanwhile() -> None:
    seen: list[bool] = []
    assert scan.seconds_of(lambda: seen.append(gc.isenabled()), 3, CPU) > 0
    assert seen == [False] * 3
    assert gc.isenabled()


def test_short_calls_are_timed_in_blocks_and_long_ones_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = Sizes(block_s=0.01, blocks=3)
    for seconds, expected in ((0.001, 2 + 3 * 10), (0.5, 2 + 3), (1.5, 2)):
        calls = clock(monkeypatch, lambda seconds=seconds: seconds)  # type: ignore[misc]

        def call(calls: list[int] = calls) -> None:
            calls[0] += 1

        times = time_call(call, CPU, sizes)
        assert times == pytest.approx({"seconds": seconds, "fastest_s": seconds, "slowest_s": seconds})
        assert calls[0] == expected


def test_a_way_stops_before_a_call_that_may_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "time_call", lambda call, *_: timed(call()))
    monkeypatch.setitem(OVER, "attention", lambda length, device: lambda: 1e-4 * length**2)  # type: ignore[arg-type]
    found = time_lengths("attention", Sizes(lengths=(8, 16, 32, 64), call_s=0.2), CPU, silent())
    assert [point["length"] for point in found["points"]] == [8, 16, 32]
    assert found["stopped"] == "before 64 positions: up to 0.4 s a call, more than 0.2"
    assert found["time"] is None, "of three points two are the upper half"


# --- all of it


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "SIZES", {"tiny": TINY})
        return run_study(scan, families("transformer"), "tiny", Console(StringIO()))


def test_all_is_measured(found: dict[str, Any]) -> None:
    assert found["widths"].keys() == STEPS.keys()
    for way, points in found["widths"].items():
        assert [point["width"] for point in points] == [1, 4][:1 if way == "Python, one number" else 2]
    for way in OVER:
        points = found["lengths"][way]["points"]
        assert [point["length"] for point in points] == list(TINY.lengths)
        assert all(0 < point["fastest_s"] <= point["seconds"] <= point["slowest_s"] for point in points)
    assert found["counts"][-1] == scan_study()["counts"][-1]
    assert found["numbers"]["exact"] is True
    assert found["numbers"]["error"] < 1e-12
    assert len(found["predictions"]) == len(PREDICTIONS["cpu"])
    assert len(found["claims"]) == 11


def test_it_is_stored_shown_and_drawn(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    assert FIGURES["scan"](stored) == FIGURES["scan"](found)
    lines = list(table(stored))
    assert lines == list(table(found))
    assert any(line.startswith("hillis steele") and line.endswith("10, 9,217") for line in lines)
    assert sum("time grows as N^" in line for line in lines) == len(OVER)


# --- predictions and claims


@pytest.mark.parametrize("device", PREDICTIONS)
def test_each_prediction_is_of_a_figure_that_is_measured_and_says_why(device: str) -> None:
    for prediction in PREDICTIONS[device]:
        assert prediction.because
        assert outcome(prediction, scan_study()).holds is not None, prediction.figure
        low, high = prediction.bounds
        assert 0 < low < high


def changed(found: dict[str, Any], figure: str) -> dict[str, Any]:
    """Return the findings with the one that a prediction is of made ten times as large, or its power one higher."""
    def slow(points: list[dict[str, Any]], place: int) -> list[dict[str, Any]]:
        return [point | timed(10 * point["seconds"] * (i == place) or point["seconds"]) for i, point in
                enumerate(points)]

    widths, lengths = found["widths"], found["lengths"]
    for way, of, place in (("Python, a list", scan.PYTHON, 1), ("NumPy", scan.NUMPY, 1), ("torch", scan.TORCH, 1),
                           ("torch, with a matrix", scan.MATRIX, 2)):
        if figure == of:
            return found | {"widths": widths | {way: slow(widths[way], place)}}
    for way, of in (("recurrence", scan.SERIAL), ("scan by doubling", scan.DOUBLING), ("attention", scan.ATTENTION)):
        if figure == of:
            return found | {"lengths": lengths | {way: growth(lambda n: 1.0, 3.0)}}
    return scan_study(1_000.0 if figure in (scan.SHORT, scan.LONG) else 0.001)


@pytest.mark.parametrize("prediction", PREDICTIONS["cpu"], ids=lambda each: each.figure)
def test_a_prediction_can_fail(prediction: scan.Prediction) -> None:
    assert outcome(prediction, changed(scan_study(), prediction.figure)).holds is False


def test_what_was_not_measured_decides_nothing() -> None:
    found = scan_study()
    short = found | {"widths": {way: points[:1] for way, points in found["widths"].items()}}
    assert [outcome(each, short).holds for each in PREDICTIONS["cpu"][:4]] == [None] * 4


def verdicts(**changes: Any) -> list[bool | None]:
    return [claim.holds for claim in claims(scan_study() | changes)]


def test_claims_of_lectures_as_these_figures_have_them() -> None:
    assert verdicts() == [True, True, False, True, False, True, True, True, True, True, False]


@pytest.mark.parametrize(("number", "changes"), [
    (0, {"serial": (10, 1_023)}), (1, {"tree_reduction": (11, 1_023)}), (2, {"hillis_steele": (1, 9_217)}),
    (3, {"tree_reduction": (10, 2_046)}), (4, {"work_efficient": (18, 1_023)})])
def test_what_is_counted_decides(number: int, changes: dict[str, tuple[int, int]]) -> None:
    counts = [{"length": 1_024} | {name: {"depth": depth, "work": work}
                                   for name, (depth, work) in (COUNTS | changes).items()}]
    before, after = verdicts(), verdicts(counts=counts)
    assert after[number] is not before[number]
    assert after[:number] + after[number + 1:] == before[:number] + before[number + 1:]


def test_times_and_errors_decide() -> None:
    plain = {"recurrence": timed(4.0), "sum()": timed(5.0), "a sum as a loop": timed(1.0)}
    assert verdicts(plain_python=plain)[6:8] == [False, False]
    assert verdicts(numbers={"error": 1e-9})[5] is False
    lengths = scan_study()["lengths"]
    bent = {way: lengths[way] | {"time": growth(lambda n: 1.0, 1.5)["time"]} for way in ("recurrence", "attention")}
    assert verdicts(lengths=lengths | bent)[8:10] == [False, False]
    assert [claim.holds for claim in claims(scan_study(1_000.0))][10] is True
