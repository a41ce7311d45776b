"""Seconds between marks: by the clock, and by events that are read once the GPU has passed them."""

from itertools import count

import pytest
import torch

from minitx.profiling import timers as phases
from minitx.profiling.timers import Clock, Phases


def test_each_second_belongs_to_the_phase_that_was_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 5.0, 6.0, 8.0, 12.0, 100.0, 101.0])
    monkeypatch.setattr(phases, "perf_counter", lambda: next(ticks))
    taken = Phases(torch.device("cpu"))
    for phase in ("forward", "backward", "forward", None, "forward", None):
        taken.mark(phase)
    assert taken.seconds() == {"forward": 1.0 + 4.0 + 1.0, "backward": 2.0}


class Stream:
    """Stand in for a GPU: it is at `now`, and each event lies a second after the last."""

    now = -1

    def __init__(self) -> None:
        self.places = count()

    def event(self, enable_timing: bool) -> "PassedEvent":
        assert enable_timing
        return PassedEvent(self)


class PassedEvent:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def record(self) -> None:
        self.at = next(self.stream.places)

    def query(self) -> bool:
        return self.at <= self.stream.now

    def elapsed_time(self, end: "PassedEvent") -> float:
        assert end.query(), "reading an event that is not passed would wait"
        return 1000.0 * (end.at - self.at)


def test_events_are_read_when_they_are_passed_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("nobody waits"))
    taken = Phases(torch.device("cuda"))
    for phase in ("forward", "backward", "optimizer", None):
        taken.mark(phase)
    assert taken.seconds() == {}
    stream.now = 2
    assert taken.seconds() == {"forward": 1.0, "backward": 1.0}
    stream.now = 99
    for phase in ("forward", None):
        taken.mark(phase)
    assert taken.seconds() == {"forward": 2.0, "backward": 1.0, "optimizer": 1.0}
    assert taken.events is not None
    assert len(taken.events) == 1, "what was read is forgotten"


def test_the_sections_of_a_clock_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes until they are used: read one after the other, they would add up to more than the whole."""
    ticks = iter([0.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(phases, "perf_counter", lambda: next(ticks))
    clock = Clock("startup", train=100.0)
    clock.switch("train")
    assert clock.sections() == {"startup": 2.0, "train": 103.0}
    assert clock.total() == 109.0
