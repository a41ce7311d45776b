"""What a sentence costs: bytes and operators counted where the count is known, limits kept, claims that can fail."""

import json
from io import StringIO
from math import inf
from typing import Any

import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given
from hypothesis import strategies as st
from played_cuda import CUDA, GIB, played_gpu

from minitx.experiments.reports.study_plots import FIGURES
from minitx.experiments.studies import lengths
from minitx.experiments.studies.common import run_study
from minitx.experiments.studies.lengths import (
    LengthSweep,
    PeakBytes,
    Sizes,
    claims,
    common_points,
    crossover,
    depth_law,
    family_task,
    fit_growth,
    free_bytes,
    grows,
    longest_chain,
    serial_depth,
    speedup,
    waits,
)
from minitx.utils.console import Console

NAMES = ("transformer", "lstm_attention", "lstm")
TINY = Sizes(d_model=16, shortest=8, longest=1_024, pass_s=3_600.0, repeats=1)  # however busy the machine is


def test_lengths_double() -> None:
    assert Sizes().lengths == [2**i for i in range(4, 17)]
    assert Sizes(shortest=8, longest=40).lengths == [8, 16, 32]


# --- bytes


def test_bytes_that_exist_at_a_time_are_counted_and_their_peak_is_kept() -> None:
    given_ = torch.ones(1_000)
    with PeakBytes() as held:
        a = given_ + 1
        b = a * 2
        del a
        c = b + 1
        del b, c
        d = given_ * 3
    assert held.peak == 2 * given_.nbytes
    assert sum(held.live.values()) == d.nbytes


def test_views_and_what_was_there_before_are_free() -> None:
    given_ = torch.ones(1_000)
    with PeakBytes() as held:
        given_.view(10, 100).t()[2:].mul_(2)
    assert held.peak == 0


def test_what_a_backward_pass_waits_for_counts() -> None:
    x = torch.ones(1_000, requires_grad=True)
    with PeakBytes() as held:
        y = x
        for _ in range(5):
            y = y.exp()
        forwards = sum(held.live.values())
        y.sum().backward()
    assert forwards == 5 * x.nbytes
    assert held.peak > forwards


# --- operators


@given(st.integers(1, 30), st.integers(0, 30))
def test_the_longest_of_several_paths_is_counted(long: int, short: int) -> None:
    x = torch.ones((), requires_grad=True)
    a, b = x, x
    for _ in range(long):
        a = a.sin()
    for _ in range(short):
        b = b.cos()
    assert longest_chain(a + b) == 1 + max(long, short)


@pytest.mark.parametrize("name", NAMES)
def test_the_law_of_depth_holds_at_lengths_that_were_not_counted(name: str) -> None:
    model = family_task(families(name)[name], 16, "32-true").model
    law = depth_law(model)
    assert law["exact"]
    for length in (5, 23, 90):
        assert serial_depth(model, length) == law["constant"] + law["a_token"] * length


def test_a_recurrence_waits_for_each_token_in_each_layer_and_attention_for_none() -> None:
    def a_token(name: str, **words: object) -> float:
        return float(depth_law(family_task(families(name, **words)[name], 16, "32-true").model)["a_token"])

    one = a_token("lstm", **{"model.num_layers": 1})
    assert one >= 4  # a step forwards and a step backwards, in the encoder and in the decoder
    assert a_token("lstm", **{"model.num_layers": 3}) == 3 * one
    assert a_token("lstm", **{"model.num_layers": 1, "model.bidirectional": "false"}) == one  # both ways at once
    assert a_token("lstm_attention", **{"model.num_layers": 1}) == one
    assert a_token("transformer", **{"model.num_layers": 3}) == 0


# --- limits


def swept(*points: tuple[float, float]) -> Any:
    """points: seconds and bytes at lengths that double"""
    return LengthSweep("any", None, {}, [{"seconds": s, "peak_bytes": b} for s, b in points])  # type: ignore[arg-type]


def test_time_is_expected_to_grow_as_it_last_did_and_bytes_with_the_square() -> None:
    assert swept().predict() == (0, 0)
    assert swept((1, 10)).predict() == (2, 40)
    assert swept((1, 10), (3, 20)).predict() == (9, 80)
    assert swept((1, 10), (1.1, 20)).predict()[0] == pytest.approx(2.2)  # a short sentence's overhead tells nothing
    assert swept((1, 10), (9, 20)).predict()[0] == pytest.approx(36)  # and a hiccup no more


@pytest.mark.parametrize(("seconds", "nbytes", "message"), [
    (1.0, 100.0, None), (4.9, 100.0, None), (5.1, 100.0, "a pass, more than 10"), (1.0, 300.0, "GiB, more than")])
def test_a_family_stops_before_what_would_take_too_much(seconds: float, nbytes: float, message: str | None) -> None:
    sweep = swept((seconds, nbytes))
    sweep.check_limits(64, Sizes(pass_s=10), max_bytes=1_000)
    assert sweep.stopped is None if message is None else sweep.stopped.startswith("before 64 tokens") and (
        message in sweep.stopped)


@pytest.mark.parametrize("limit", [{"pass_s": 0.0}, {"memory_share": 0.0}])
def test_limits_end_a_climb(limit: dict[str, float]) -> None:
    found = lengths.measure(families(*NAMES), Sizes(d_model=16, shortest=8, longest=64, repeats=1, **limit),
                            Console(StringIO()))
    for family in found["families"].values():
        assert [point["length"] for point in family["points"]] == [8]
        assert family["stopped"].startswith("before 16 tokens")
    assert all(claim["holds"] is None for claim in found["claims"][:4])


# --- all of it


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "SIZES", {"tiny": TINY})
        return run_study(lengths, families(*NAMES), "tiny", Console(StringIO()))


def test_every_family_is_measured_at_every_length(found: dict[str, Any]) -> None:
    assert list(found["families"]) == list(NAMES)
    for family in found["families"].values():
        points = family["points"]
        assert [point["length"] for point in points] == TINY.lengths
        assert family["stopped"] is None
        assert all(0 < p["fastest_s"] <= p["seconds"] <= p["slowest_s"] for p in points)
        peaks = [p["peak_bytes"] for p in points]
        assert peaks == sorted(peaks)
        assert peaks[0] > 0


def test_attention_holds_squares_and_recurrence_does_not(found: dict[str, Any]) -> None:
    transformer, lstm = (found["families"][name]["memory"]["exponent"] for name in ("transformer", "lstm"))
    assert transformer > 1.4
    assert lstm < 1.1


@pytest.mark.slow
def test_memory_is_the_same_however_often_it_is_counted(found: dict[str, Any]) -> None:
    again = lengths.measure(families(*NAMES), Sizes(d_model=16, shortest=8, longest=32, repeats=1), Console(StringIO()))
    for name, family in again["families"].items():
        before = found["families"][name]["points"][:3]
        assert [p["peak_bytes"] for p in family["points"]] == [p["peak_bytes"] for p in before]


def test_it_is_stored_shown_and_drawn(found: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(found))
    assert FIGURES["lengths"](stored) == FIGURES["lengths"](found)
    lines = list(lengths.table(found))
    assert sum("grows as length^" in line for line in lines) == 2 * len(NAMES)
    assert {claim["holds"] for claim in found["claims"]} <= {True, False, None}
    assert len(found["claims"]) == 8


# --- what follows


@given(st.floats(0.1, 2), st.floats(1e-9, 1e-6))
def test_growth_is_of_the_upper_half(exponent: float, factor: float) -> None:
    points = [{"length": 2**i, "seconds": factor * max(2**i, 64) ** exponent} for i in range(4, 14)]
    found = fit_growth(points, "seconds")
    assert found is not None
    assert found["exponent"] == pytest.approx(exponent, abs=1e-6)
    assert (found["from"], found["to"]) == (512, 8192)


def test_four_points_have_no_exponent_with_an_error() -> None:
    assert fit_growth([{"length": 2**i, "seconds": 1.0} for i in range(4)], "seconds") is None


def timed(**families_: Any) -> dict[str, Any]:
    return {name: {"points": [{"length": 2**i, "seconds": seconds(2**i), "fastest_s": 0.9 * seconds(2**i),
                               "slowest_s": 1.1 * seconds(2**i)} for i in range(4, last)],
                   "depth": {"exact": True, "a_token": 1.0 * (name == "lstm"), "counted": {}},
                   "time": None, "memory": None} for name, (seconds, last) in families_.items()}


@given(st.floats(20, 4_000))
def test_the_crossover_of_two_powers_is_found(where: float) -> None:
    found = timed(transformer=(lambda n: n * n / where, 13), lstm=(lambda n: n, 16))
    assert crossover(found, "transformer", "lstm") == pytest.approx(where, rel=1e-6)


@pytest.mark.parametrize("quadratic", [1.0, 1e-9])
def test_a_crossover_may_be_missing(quadratic: float) -> None:
    found = timed(transformer=(lambda n: quadratic * n * n, 13), lstm=(lambda n: n, 17))
    assert crossover(found, "transformer", "lstm") is None


@pytest.mark.parametrize(("quadratic", "holds"), [(1 / 300, True), (1 / 4_096, None), (1e-9, False)])
def test_the_last_claim_is_of_the_longest_sentence_that_both_were_given(quadratic: float, holds: bool | None) -> None:
    *_, claim = claims(timed(transformer=(lambda n: quadratic * n * n, 13), lstm=(lambda n: n, 17)))
    assert claim.claim.startswith("at 4,096 tokens, the longest")
    assert claim.holds is holds


@pytest.mark.parametrize(("exponent", "wide", "holds"), [(1.0, 0.05, True), (1.5, 0.1, False), (1.1, 0.2, None)])
def test_growth_is_judged(exponent: float, wide: float, holds: bool | None) -> None:
    fit = {"exponent": exponent, "interval": (exponent - wide, exponent + wide)}
    assert grows("linear", fit, (0.85, 1.15)).holds is holds


@pytest.mark.parametrize(("a_token", "exact", "holds"), [(0.0, True, True), (4.0, True, False), (0.0, False, None)])
def test_depth_is_judged(a_token: float, exact: bool, holds: bool | None) -> None:
    depth = {"a_token": a_token, "exact": exact, "counted": {8: 1}}
    assert waits("none", depth, (0, 0)).holds is holds


@pytest.mark.parametrize(("factor", "holds"), [(10, True), (2, False), (5, None)])
def test_speed_is_judged_between_extremes(factor: float, holds: bool | None) -> None:
    found = timed(transformer=(lambda n: n, 12), lstm=(lambda n: factor * n, 12))
    both = common_points(found["transformer"]["points"], found["lstm"]["points"])
    assert speedup("", both[512], (5, inf)).holds is holds


def test_all_claims_are_made() -> None:
    found = timed(transformer=(lambda n: n * n, 12), lstm=(lambda n: n, 12))
    assert [claim.holds for claim in claims(found)] == [None] * 4 + [True, True, False, True]
    short = timed(transformer=(lambda n: n * n, 7), lstm=(lambda n: n, 12))
    assert [claim.holds for claim in claims(short)][-2:] == [None, True], "512 tokens were not measured"


def test_what_is_free_is_the_gpus_or_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "available_bytes", lambda: 7 * GIB)
    with played_gpu():
        assert free_bytes(CUDA) == 79 * GIB
        assert free_bytes(torch.device("cpu")) == 7 * GIB
