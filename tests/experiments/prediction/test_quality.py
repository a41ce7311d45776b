"""Time to quality by hand: updates read off a curve, minutes of several seeds, and an interval of both errors."""

from math import exp, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.experiments.prediction.quality import minutes_to, updates_to

CURVE = [(100, 9.0, 5.0, 4.0), (200, 18.0, 4.0, 12.0), (300, 27.0, 3.0, 10.0), (400, 36.0, 2.0, 20.0)]
UPDATES = st.lists(st.floats(10, 1e5), min_size=1, max_size=6)


@pytest.mark.parametrize(("bleu", "updates"), [
    (2.0, 50.0), (4.0, 100.0), (8.0, 150.0), (12.0, 200.0), (16.0, 360.0), (20.0, 400.0), (20.1, None)])
def test_updates_are_read_on_the_line_between_two_validations(bleu: float, updates: float | None) -> None:
    """It begins at 0 BLEU without an update; a fall on the way is no second chance for what was reached before."""
    assert updates_to(CURVE, bleu) == (None if updates is None else pytest.approx(updates))


def test_an_empty_curve_reached_nothing() -> None:
    assert updates_to([], 1.0) is None


def test_minutes_of_one_seed_are_updates_times_seconds() -> None:
    found = minutes_to([600.0], 0.5, spread=0.1, freedom=4)
    assert found is not None
    assert found.minutes == pytest.approx(5.0)
    assert (found.low, found.high) == (pytest.approx(5 * exp(-2.776 * 0.1)), pytest.approx(5 * exp(2.776 * 0.1)))


def test_minutes_of_three_seeds_have_the_error_of_their_mean_and_of_the_prediction() -> None:
    """Logarithms of 100, 200 and 400 updates lie log 2 apart: so their deviation is log 2; 4.303: t of two."""
    found = minutes_to([100.0, 400.0, 200.0], 60.0, spread=0.2, freedom=10)
    half = sqrt((4.303 * log(2)) ** 2 / 3 + (2.228 * 0.2) ** 2)
    assert found is not None
    assert found.minutes == pytest.approx(200.0)
    assert (log(found.low), log(found.high)) == (pytest.approx(log(200) - half), pytest.approx(log(200) + half))


@pytest.mark.parametrize("updates", [[], [None], [100.0, None, 120.0]])
def test_a_seed_that_never_got_there_has_no_minutes(updates: list[float | None]) -> None:
    assert minutes_to(updates, 1.0, spread=0.1, freedom=4) is None


@given(UPDATES, st.floats(1e-3, 10), st.floats(0, 0.5), st.integers(1, 30), st.floats(1, 3))
def test_minutes_lie_in_their_interval_and_grow_with_what_an_update_takes(updates: list[float], update_s: float,
                                                                         spread: float, freedom: int,
                                                                         factor: float) -> None:
    found, slower = (minutes_to(updates, seconds, spread, freedom) for seconds in (update_s, factor * update_s))
    assert found is not None
    assert slower is not None
    assert found.low <= found.minutes * (1 + 1e-9)
    assert found.minutes <= found.high * (1 + 1e-9)
    assert slower.minutes == pytest.approx(factor * found.minutes)
    assert slower.high / slower.low == pytest.approx(found.high / found.low)
