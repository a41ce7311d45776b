"""Several GPUs: one is left as it is, and what is lost by more follows the formula, term by term."""

from dataclasses import replace
from math import log2, pi, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.profiling.devices import by_name
from minitx.profiling.fleet import Fleet, mean_largest

FREE = Fleet(by_name("v100"), per_machine=8, between_gb_s=50.0, hop_us=10.0, exposed=0.0, uneven=0.0, parameter_s=0.0)
INSIDE = 0.77 * 150e9  # bytes a second
COUNTS = st.integers(1, 2048)
LOSSES = st.builds(replace, st.just(FREE), exposed=st.floats(0, 2), uneven=st.floats(0, 0.2),
                   parameter_s=st.floats(0, 1e-9))


@given(LOSSES, st.floats(1e-4, 10), st.floats(0, 1e10))
def test_one_gpu_loses_nothing(fleet: Fleet, one_s: float, gradient_bytes: float) -> None:
    assert fleet.update_s(one_s, gradient_bytes, 10**9, 1) == one_s


@pytest.mark.parametrize(("gpus", "seconds"), [
    (2, 1e9 / INSIDE + 2e-5), (4, 1.5e9 / INSIDE + 4e-5), (8, 1.75e9 / INSIDE + 6e-5),
    (16, 1.75e9 / INSIDE + 1e9 / 50e9 + 8e-5), (32, 1.75e9 / INSIDE + 1.5e9 / 50e9 + 10e-5)])
def test_gradients_travel_in_a_ring_in_each_machine_and_in_one_between_them(gpus: int, seconds: float) -> None:
    assert FREE.exchange_s(1e9, gpus) == pytest.approx(seconds)


def test_a_machine_that_is_not_full_is_a_machine() -> None:
    twelve, sixteen = (FREE.exchange_s(1e9, gpus) for gpus in (12, 16))
    assert sixteen - twelve == pytest.approx(2e-5 * log2(16 / 12)), "as many machines, and a part of a hop"


@pytest.mark.parametrize(("changes", "lost_s"), [
    ({}, 0.0), ({"parameter_s": 1e-10}, 0.025), ({"uneven": 0.1}, 0.2 * 0.1 * 1.0293753730),
    ({"exposed": 0.5}, 0.5 * (1.5e9 / INSIDE + 4e-5))])
def test_what_four_gpus_lose(changes: dict[str, float], lost_s: float) -> None:
    assert replace(FREE, **changes).update_s(0.2, 1e9, 250_000_000, 4) == pytest.approx(0.2 + lost_s)


@given(LOSSES, st.floats(1e-3, 1), st.floats(0, 1e10), COUNTS, COUNTS)
def test_more_gpus_lose_more(fleet: Fleet, one_s: float, gradient_bytes: float, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    fast, slow = (fleet.update_s(one_s, gradient_bytes, 1_000_000, gpus) for gpus in (fewer, more))
    assert fast <= slow * (1 + 1e-9)


@pytest.mark.parametrize(("n", "mean"), [
    (1, 0.0), (2, 1 / sqrt(pi)), (3, 1.5 / sqrt(pi)), (4, 1.0293753730), (5, 1.1629644736), (8, 1.4236003060),
    (10, 1.5387527308), (16, 1.7659913931), (100, 2.5075936)])
def test_the_largest_of_normal_deviations(n: int, mean: float) -> None:
    """Source: Harter 1961, Expected values of normal order statistics, table 1."""
    assert mean_largest(n) == pytest.approx(mean, abs=1e-6)
