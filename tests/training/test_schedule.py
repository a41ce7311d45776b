"""Schedules: where they rise, stay and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.training.schedule import decay_begins, lr_factor

NAMES = ("inverse_sqrt", "cosine", "wsd", "constant")


def factor(name: str, step: int, warmup: int = 100, horizon: int | None = 1000, decay: float = 0.3) -> float:
    return lr_factor(name, step, warmup_steps=warmup, horizon=horizon, decay_fraction=decay)


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_is_linear_to_the_peak(name: str) -> None:
    assert [factor(name, step) for step in (0, 49, 99)] == pytest.approx([0.01, 0.5, 1.0])
    assert factor(name, 100) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("name", "values"), [
    ("inverse_sqrt", {399: 0.5, 999: 0.316}), ("cosine", {550: 0.5, 1000: 0.0}), ("constant", {999: 1.0}),
    ("wsd", {699: 1.0, 700: 1.0, 850: 0.5, 1000: 0.0})])
def test_after_warm_up(name: str, values: dict[int, float]) -> None:
    assert {step: round(factor(name, step), 3) for step in values} == values


@given(name=st.sampled_from(NAMES), step=st.integers(0, 5000), warmup=st.integers(0, 200),
       horizon=st.none() | st.integers(1, 4000), decay=st.floats(0.01, 1.0))
def test_factors_stay_between_0_and_1(name: str, step: int, warmup: int, horizon: int | None, decay: float) -> None:
    assert 0 <= factor(name, step, warmup, horizon, decay) <= 1


@given(name=st.sampled_from(("cosine", "wsd")), warmup=st.integers(0, 100), decay=st.floats(0.05, 0.95))
def test_no_decay_before_the_share_that_is_told(name: str, warmup: int, decay: float) -> None:
    """Until then a horizon that is not known yet gives the same factor as the one that will be."""
    begins = decay_begins(name, decay)
    assert begins is not None
    last = max(warmup, int(begins * 1000))
    assert all(factor(name, s, warmup, 1000, decay) == factor(name, s, warmup, None, decay) for s in range(last))
