"""What ranks agree on: a signal to one stops all, after the same update; time is the first one's."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from minitx.config.compose import compose
from minitx.distributed.ranks import SINGLE, Ranks
from minitx.training.coordination import Agreement, out_of_time
from minitx.training.signals import Interrupted, Signals
from minitx.training.state import RunState

LIMITS = replace(compose([]).trainer, max_steps=None, max_minutes=1.0)


class Two(Ranks):
    """A rank whose only peer says the same each time."""

    peer: tuple[int, ...] = ()

    def all_reduce_max(self, *values: int) -> list[int]:
        asked.append(values)
        return [max(pair) for pair in zip(values, self.peer or values, strict=True)]


asked: list[tuple[int, ...]] = []


def two(rank: int, *peer: int) -> Any:
    asked.clear()
    ranks = Two(rank=rank, size=2)
    object.__setattr__(ranks, "peer", peer)
    return ranks


def test_alone_each_update_is_followed_by_a_meeting() -> None:
    signals = Signals()
    agreement, state = Agreement(SINGLE, signals), RunState(step=1, train_s=0.1)
    assert agreement.meet(state, LIMITS) is None
    signals.noted = "terminated"
    state.step = 2
    assert agreement.meet(state, LIMITS) == "terminated"
    with pytest.raises(Interrupted, match="terminated"):
        agreement.check()


def test_what_the_other_rank_was_told_stops_this_one() -> None:
    for reason, name in ((1, "interrupted"), (2, "terminated"), (3, "requeued"), (4, "max_minutes")):
        agreement = Agreement(two(1, reason, 5, 0), Signals())
        assert agreement.meet(RunState(step=1, train_s=0.1), LIMITS) == name


def test_ranks_meet_about_once_a_second_when_the_first_one_says_so() -> None:
    agreement, state = Agreement(two(0), Signals()), RunState(step=10, train_s=1.0)  # 0.1 s an update
    met = []
    for step in range(10, 45):
        state.step, state.train_s = step, step / 10
        before = len(asked)
        assert agreement.meet(state, LIMITS) is None
        met += [step] * (len(asked) - before)
    assert met == [10, 20, 30, 40]


def test_only_the_first_ones_clock_counts() -> None:
    late = RunState(step=100, train_s=59.9)
    assert out_of_time(late, LIMITS)
    assert Agreement(two(0), Signals()).meet(late, LIMITS) == "max_minutes"
    assert Agreement(two(1), Signals()).meet(late, LIMITS) is None


def test_near_the_end_of_the_minutes_ranks_meet_in_time() -> None:
    agreement, state = Agreement(two(0), Signals()), RunState(step=598, train_s=59.8)
    assert agreement.meet(state, LIMITS) is None
    assert agreement.next_step == 599  # half of what two more would take, so that a slow one does not pass the end


def test_all_take_over_the_horizon_that_the_first_proposes() -> None:
    first, state = Agreement(two(0), Signals()), RunState(step=1, train_s=0.1)
    first.horizon = 700
    first.meet(state, LIMITS)
    other, there = Agreement(two(1, 0, 10, 700), Signals()), RunState(step=1, train_s=0.2)
    other.meet(there, LIMITS)
    assert state.horizon_steps == there.horizon_steps == 700


def test_ranks_are_patient_with_signals_said_twice() -> None:
    signals = Signals(patient=True)
    with signals.caught():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signals.noted == "terminated"
