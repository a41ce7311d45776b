"""At the values that are told, the answer does change; just before them it does not."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from selected import KNOWN, made_up

from minitx.experiments.selection.changes import CLOSE, LIMITS, Change, changes, moved
from minitx.experiments.selection.decision import choose
from minitx.experiments.selection.demands import Demands

USUAL = Demands(16, 32, "h100", tokens=1e7)
CASES = [{}, {"streaming": True}, {"attention": True}, {"latency_ms": 0.5}, {"tokens": 3e9}, {"target_bleu": 30.0},
         {"memory_gib": 0.1}, {"serve_gib": 0.01}, {"tokens": None, "budget_minutes": 10.0}, {"budget_minutes": 1.0},
         {"latency_ms": 1e-3}, {"streaming": True, "target_bleu": 35.0}]


def found(**asked: Any) -> tuple[Demands, list[Change]]:
    demands = replace(USUAL, **asked)
    return demands, list(changes(made_up(demands), partial(choose, known=KNOWN)))


@pytest.mark.parametrize("asked", CASES, ids=str)
def test_each_change_is_one(asked: dict[str, Any]) -> None:
    demands, every = found(**asked)
    before = made_up(demands)
    assert every
    for change in every:
        assert change.chosen != before.chosen
        if change.value is None:
            continue
        again = made_up(moved(demands, change.demand, change.value * (1 - 1e-9 if change.side == "below" else 1)))
        assert again.chosen == change.chosen


@pytest.mark.parametrize("asked", CASES, ids=str)
def test_nearer_than_that_the_answer_stays(asked: dict[str, Any]) -> None:
    demands, every = found(**asked)
    before = made_up(demands)
    for change in every:
        if change.value is None:
            continue
        if change.demand in LIMITS and not (change.demand == "budget_minutes" and demands.tokens is None):
            near = change.value * (1.0 if change.side == "below" else 1 - 1e-6)
        else:
            near = change.value * (CLOSE if change.side == "below" else 1 / CLOSE)
        assert made_up(moved(demands, change.demand, near)).chosen == before.chosen


def test_constant_memory_and_its_price_are_told_by_hand() -> None:
    _, every = found(streaming=True)
    told = {(change.demand, change.side): str(change.chosen) for change in every}
    assert told["streaming", "without"].startswith("transformer")
    _, every = found()
    told = {(change.demand, change.side): str(change.chosen) for change in every}
    assert told["streaming", "with"] == "lstm small"


def test_without_an_answer_it_is_told_which_demand_to_give_up() -> None:
    demands, every = found(streaming=True, target_bleu=35.0)
    assert made_up(demands).answer is None
    told = {(change.demand, change.side): str(change.chosen) for change in every}
    assert told["streaming", "without"].startswith("transformer")
    assert told["target_bleu", "without"] == "lstm small"
