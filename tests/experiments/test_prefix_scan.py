"""Scans in plain Python: right for whatever is associative, as deep as the books say, and no less work is hidden."""

from fractions import Fraction
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.experiments.prefix_scan import (
    REDUCTIONS,
    SCANS,
    Affine,
    hillis_steele,
    serial,
    serial_reduction,
    states,
    trace,
    tree_reduction,
    work_efficient,
)

FRACTIONS = st.fractions(-2, 2, max_denominator=7)
STEPS = st.builds(Affine, FRACTIONS, FRACTIONS)
POWERS = st.integers(0, 10).map(lambda k: 2**k)


@pytest.mark.parametrize("name", SCANS)
@given(n=st.integers(0, 70))
def test_each_result_is_of_all_places_up_to_its_own_in_order(name: str, n: int) -> None:
    """Of words, whose order shows: so it is right for any associative operation, whether it commutes or not."""
    letters = [chr(0x4E00 + i) for i in range(n)]
    found = trace(SCANS[name], letters, str.__add__) if n else None
    assert SCANS[name](letters, str.__add__) == ["".join(letters[:i + 1]) for i in range(n)]
    if found:
        assert [(each.first, each.last) for each in found.results] == [(0, i) for i in range(n)]
        assert [each.value for each in found.results] == SCANS[name](letters, str.__add__)


@pytest.mark.parametrize("name", REDUCTIONS)
@given(n=st.integers(1, 70))
def test_a_reduction_is_the_last_result_alone(name: str, n: int) -> None:
    letters = [chr(0x4E00 + i) for i in range(n)]
    assert REDUCTIONS[name](letters, str.__add__) == ["".join(letters)]
    assert trace(REDUCTIONS[name], letters, str.__add__).work == n - 1


@given(STEPS, STEPS, STEPS, FRACTIONS)
def test_steps_in_turn_are_one_step_and_may_be_put_together_in_any_order(one: Affine, two: Affine, three: Affine,
                                                                         h: Fraction) -> None:
    assert one.then(two).then(three) == one.then(two.then(three))
    both = one.then(two)
    assert both.a * h + both.b == two.a * (one.a * h + one.b) + two.b


@pytest.mark.parametrize("name", SCANS)
@given(steps=st.lists(STEPS, min_size=1, max_size=40))
def test_a_recurrence_is_solved_exactly(name: str, steps: list[Affine]) -> None:
    h, expected = Fraction(0), list[Fraction]()
    for a, b in steps:
        h = a * h + b
        expected.append(h)
    assert states(SCANS[name], steps) == expected


def test_the_recurrence_of_lectures_over_1024_numbers() -> None:
    steps = [Affine(Fraction(9, 10), Fraction(i % 7)) for i in range(1_024)]
    exact = states(hillis_steele, steps)
    h = Fraction(0)
    for (a, x), state in zip(steps, exact, strict=True):
        h = a * h + x
        assert state == h
    floats = states(hillis_steele, [Affine(float(a), float(b)) for a, b in steps])
    assert floats == pytest.approx([float(state) for state in exact], rel=1e-12)


@given(POWERS)
def test_depth_and_work_are_those_of_the_books(n: int) -> None:
    rounds = int(log2(n))
    expected = {"serial": (n - 1, n - 1), "hillis_steele": (rounds, n * rounds - (n - 1)),
                "work_efficient": (max(rounds, 2 * rounds - 2), 2 * n - 2 - rounds)}
    for name, scan in SCANS.items():
        found = trace(scan, range(n), int.__add__)
        assert (found.depth, found.work) == expected[name], name
    assert trace(tree_reduction, range(n), int.__add__).depth == rounds
    assert trace(serial_reduction, range(n), int.__add__).depth == n - 1


@given(st.integers(1, 300))
def test_at_any_length_doubling_is_the_shallowest_and_neighbours_first_is_twice_the_work_at_most(n: int) -> None:
    doubling, neighbours = (trace(scan, range(n), int.__add__) for scan in (hillis_steele, work_efficient))
    least = (n - 1).bit_length()  # a chain of k combinations is of 2**k places at most
    assert doubling.depth == least
    assert least <= neighbours.depth <= max(least, 2 * least - 1)
    assert n - 1 <= neighbours.work <= min(2 * n, doubling.work)


def test_what_is_combined_are_neighbours() -> None:
    def every_other(xs: list[int], combine: object) -> list[int]:
        return [combine(xs[0], xs[2])]  # type: ignore[operator]

    with pytest.raises(ValueError, match="0 to 0 and 2 to 2 are no neighbours"):
        trace(every_other, range(3), int.__add__)  # type: ignore[arg-type]


def test_each_combination_knows_what_it_is_made_of() -> None:
    found = trace(hillis_steele, [1, 2, 3, 4], int.__add__)
    last = found.results[-1]
    assert [(part.first, part.last, part.value, part.depth) for part in last.made_of] == [(0, 1, 3, 1), (2, 3, 7, 1)]
    assert (last.value, last.depth) == (10, 2)
    assert serial([5], int.__add__) == hillis_steele([5], int.__add__) == work_efficient([5], int.__add__) == [5]
