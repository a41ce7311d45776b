"""Lines, laws and shares: recovered where they are exact, with intervals that hold the truth as often as they say."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.experiments.fits import (
    Line,
    bounds_text,
    confidence_interval,
    fit_law,
    fit_line,
    is_within,
    judge,
    law_errors,
    prediction_error,
    share_lost,
    undecided,
    wilson,
)

XS = st.lists(st.integers(0, 1_000), min_size=3, max_size=9, unique=True)
SIZES = [10_000.0 * 2**i for i in range(8)]
USUAL = 95  # times in a hundred


@given(XS, st.floats(-10, 10), st.floats(-10, 10))
def test_a_line_is_recovered(x: list[int], slope: float, intercept: float) -> None:
    found = fit_line(x, [slope * value + intercept for value in x])
    assert found.slope == pytest.approx(slope, abs=1e-6)
    assert found.intercept == pytest.approx(intercept, abs=1e-3)
    assert found.residual == pytest.approx(0, abs=1e-6)


@given(XS, st.integers(0, 2**32))
def test_its_error_is_that_of_least_squares(x: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=len(x))
    found = fit_line(x, y.tolist())
    (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
    assert found.slope == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert found.standard_error == pytest.approx(covariance[0, 0] ** 0.5, rel=1e-6)
    left = y - slope * np.array(x) - intercept
    assert found.residual == pytest.approx(np.sqrt((left**2).mean()), rel=1e-6)


def test_two_points_are_no_line_with_an_error() -> None:
    with pytest.raises(ValueError, match="three points"):
        fit_line([1, 2], [1, 2])


@pytest.mark.parametrize("points", [3, 5, 12, 20])
def test_intervals_of_slopes_hold_the_truth_as_often_as_they_say(points: int) -> None:
    draw, x = np.random.default_rng(points), list(range(points))
    held = 0
    for _ in range(2_000):
        low, high = fit_line(x, (2.0 * np.arange(points) + draw.normal(size=points)).tolist()).interval
        held += low <= 2.0 <= high
    assert held / 20 == pytest.approx(USUAL, abs=2)


def test_an_error_known_from_little_makes_a_wide_interval() -> None:
    widths = [confidence_interval(0, 1, freedom)[1] for freedom in range(1, 60)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2.0, abs=0.02)


@given(st.floats(0.05, 1.5), st.floats(0.5, 5), st.floats(0, 3))
def test_a_law_with_a_floor_is_recovered(exponent: float, share: float, constant: float) -> None:
    """share: of the smallest model's loss that size takes away, in nats"""
    loss = [share * (n / SIZES[0]) ** -exponent + constant for n in SIZES]
    found = fit_law(SIZES, loss, floor=True)
    assert found.residual < 1e-4
    for n, value in zip(SIZES, loss, strict=True):
        assert found.at(n) == pytest.approx(value, rel=1e-3)
    assert found.exponent == pytest.approx(exponent, rel=0.05)
    assert found.constant == pytest.approx(constant, abs=0.05 * share)


@settings(max_examples=20)
@given(st.floats(0.01, 2), st.floats(0.5, 5))
def test_a_law_without_one_is_recovered_and_predicts(exponent: float, first: float) -> None:
    loss = [first * (n / SIZES[0]) ** -exponent for n in SIZES]
    found = fit_law(SIZES, loss, floor=False)
    assert (found.exponent, found.constant) == (pytest.approx(exponent, abs=1e-4), 0.0)
    assert prediction_error(SIZES, loss, floor=False) == pytest.approx(0, abs=1e-3)
    assert law_errors(SIZES, loss, floor=False) == pytest.approx((0, 0), abs=1e-4)


@pytest.mark.slow
@given(st.integers(0, 2**32))
def test_a_floor_fits_a_loss_that_falls_no_worse(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=len(SIZES))
    loss = [5 * n**-0.2 * float(np.exp(0.1 * one)) for n, one in zip(SIZES, noise, strict=True)]
    floored, power = (fit_law(SIZES, loss, floor=floor) for floor in (True, False))
    assert floored.residual <= power.residual + 1e-2  # the grids that they are searched on may close in elsewhere


@given(st.floats(0.05, 1.5))
def test_a_loss_that_rises_has_a_negative_exponent(exponent: float) -> None:
    assert fit_law(SIZES, [n**exponent for n in SIZES], floor=False).exponent == pytest.approx(-exponent, abs=1e-3)


@pytest.mark.slow
def test_intervals_of_exponents_hold_the_truth_about_as_often_as_they_say() -> None:
    draw, held, rounds = np.random.default_rng(0), 0, 200
    for _ in range(rounds):
        loss = [5 * n**-0.1 * float(np.exp(0.02 * draw.normal())) for n in SIZES[:7]]
        errors = law_errors(SIZES[:7], loss, floor=False)
        assert errors is not None
        low, high = confidence_interval(fit_law(SIZES[:7], loss, floor=False).exponent, errors[0], 5)
        held += low <= 0.1 <= high
    assert 0.88 <= held / rounds <= 0.99


def test_where_a_floor_is_missed_the_last_is_predicted_too_low() -> None:
    loss = [1e3 * n ** -0.5 + 2.0 for n in SIZES]
    assert prediction_error(SIZES, loss, floor=False) < -0.01
    assert prediction_error(SIZES, loss, floor=True) == pytest.approx(0, abs=1e-3)


def test_noise_makes_errors() -> None:
    draw = np.random.default_rng(0)
    loss = [5 * n ** -0.1 for n in SIZES]
    found = [law_errors(SIZES, [value * float(np.exp(noise * draw.normal())) for value in loss], floor=False)
             for noise in (1e-4, 1e-1)]
    quiet, loud = (errors[0] for errors in found if errors is not None)
    assert 0 < quiet < 0.01 < loud


@given(st.integers(1, 5_000), st.data())
def test_an_interval_of_a_share_holds_it_and_stays_within_0_and_1(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert wilson(n - right, n) == (pytest.approx(1 - high, abs=1e-9), pytest.approx(1 - low, abs=1e-9))


@pytest.mark.parametrize("share", [1 / 16, 0.5, 0.9])
def test_intervals_of_shares_hold_the_truth_as_often_as_they_say(share: float) -> None:
    counts = np.random.default_rng(1).binomial(500, share, 2_000)
    held = sum(low <= share <= high for low, high in (wilson(int(count), 500) for count in counts))
    assert held / 20 == pytest.approx(USUAL, abs=2)


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_share_that_was_lost_lies_in_its_interval(before: int, after: int) -> None:
    lost, (low, high) = share_lost((before, 100), (after, 100))
    assert low - 1e-12 <= lost <= high + 1e-12
    assert lost == pytest.approx((before - after) / 100)
    back, (back_low, back_high) = share_lost((after, 100), (before, 100))
    assert (back, back_low, back_high) == tuple(pytest.approx(value, abs=1e-9) for value in (-lost, -high, -low))


@given(st.floats(-9, 9), st.floats(0, 5), st.floats(-9, 9), st.floats(0, 5))
def test_a_claim_is_decided_where_its_whole_interval_is_on_one_side(low: float, wide: float, from_: float,
                                                                    span: float) -> None:
    interval, bounds = (low, low + wide), (from_, from_ + span)
    inside = bounds[0] <= interval[0] and interval[1] <= bounds[1]
    apart = interval[1] < bounds[0] or interval[0] > bounds[1]
    assert is_within(interval, bounds) is (True if inside else False if apart else None)


@pytest.mark.parametrize(("interval", "holds", "why"), [
    ((1.0, 1.1), True, "within what is asked"), ((1.3, 1.4), False, "outside of it"),
    ((1.1, 1.3), None, "partly within, so neither")])
def test_a_claim_says_what_was_asked_and_why_it_holds_or_not(interval: tuple[float, float], holds: bool | None,
                                                            why: str) -> None:
    found = judge("it grows", 1.234, interval, (0.8, 1.2))
    assert (found.expected, found.measured, found.holds) == ("0.8 to 1.2", "1.23", holds)
    assert found.why.endswith(why)


def test_what_was_not_measured_is_not_decided() -> None:
    found = undecided("it grows", (1, inf), "no time")
    assert (found.expected, found.measured, found.holds, found.why) == ("at least 1", "n/a", None, "no time")
    assert bounds_text((-inf, 2)) == "at most 2"


def test_a_line_of_few_points_says_so_by_its_interval() -> None:
    of_three, of_nine = (Line(1.0, 0.0, 0.1, 0.0, points).interval for points in (3, 9))
    assert of_three[1] - of_three[0] > 5 * (of_nine[1] - of_nine[0])
