"""How a step grows: bytes counted where the count is known, limits kept, exponents that are judged either way."""

import pytest
import torch
from experiments.studies.conftest import families
from hypothesis import given
from hypothesis import strategies as st

from minitx.experiments.costs.complexity import TimedBatch
from minitx.experiments.studies.growth import (
    LengthSweep,
    PeakBytes,
    Sizes,
    count_bytes,
    family_task,
    fit_growth,
    grows,
    sentence_batch,
)


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


def test_what_the_forward_pass_leaves_is_held_and_each_step_counts_the_same() -> None:
    task = family_task(families("transformer")["transformer"], 16, "32-true")
    point = TimedBatch("transformer", task, sentence_batch(24), 24, 16)
    held, peak = count_bytes(point)
    assert 0 < held < peak
    assert count_bytes(point) == (held, peak)
    with PeakBytes() as counter:
        loss = point.loss()
    assert counter.held == held
    del loss
    assert counter.held < held / 10


# --- limits


def swept(*points: tuple[float, float]) -> LengthSweep:
    """points: seconds and bytes at lengths that double"""
    return LengthSweep(None, [{"seconds": s, "peak_bytes": b} for s, b in points])  # type: ignore[arg-type]


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


@pytest.mark.parametrize(("exponent", "wide", "holds"), [(1.0, 0.05, True), (1.5, 0.1, False), (1.1, 0.2, None)])
def test_growth_is_judged(exponent: float, wide: float, holds: bool | None) -> None:
    fit = {"exponent": exponent, "interval": (exponent - wide, exponent + wide)}
    assert grows("linear", fit, (0.85, 1.15)).holds is holds
