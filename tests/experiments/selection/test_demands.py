"""What contradicts itself gets one line that says which demand to change."""

from typing import Any

import pytest

from minitx.experiments.selection.demands import HERE, Demands
from minitx.utils.errors import UserError

GOOD: dict[str, Any] = {"length": 16, "longest": 32, "hardware": "h100", "tokens": 1e6}


def test_what_is_right_is_accepted() -> None:
    Demands(**GOOD).check()
    Demands(**GOOD | {"hardware": HERE, "price": 0.0, "streaming": True}).check()


@pytest.mark.parametrize(("changes", "why"), [
    ({"longest": 8}, "--longest 8: a typical sentence has --length 16 tokens"),
    ({"hardware": "h10"}, "--hardware h10: no such hardware; did you mean h100?"),
    ({"hardware": "tpu"}, "--hardware tpu: no such hardware"),
    ({"hardware": HERE, "gpus": 2}, "--gpus 2: is about GPUs"),
    ({"tokens": None}, "--tokens: how long is trained?"),
    ({"tokens": 10.0}, "--tokens 10: less than one sentence"),
    ({"tokens": -1.0}, "--tokens -1: must be above 0"),
    ({"latency_ms": 0.0}, "--latency-ms 0: must be above 0"),
    ({"memory_gib": -2.0}, "--memory-gib -2: must be above 0"),
    ({"serve_gib": -2.0}, "--serve-gib -2: must be above 0"),
    ({"budget_minutes": 0.0}, "--budget-minutes 0: must be above 0"),
    ({"length": 1, "longest": 1}, "--length 1: a sentence has a token and its end"),
    ({"target_bleu": 101.0}, "--target-bleu 101: BLEU ends at 100"),
    ({"streaming": True, "attention": True}, "--streaming: constant memory cannot hold the source")])
def test_a_contradiction_gets_one_line(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError) as caught:
        Demands(**GOOD | changes).check()
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


def test_memory_is_what_the_device_has_unless_it_is_said() -> None:
    assert Demands(**GOOD).memory_limit_gib == pytest.approx(80e9 / 2**30)
    assert Demands(**GOOD | {"memory_gib": 3.0}).memory_limit_gib == 3.0
    assert (Demands(**GOOD | {"hardware": HERE}).memory_limit_gib or 1.0) > 0.5
