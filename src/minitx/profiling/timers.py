"""Where time goes: a run's seconds by section, an update's by phase."""

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from minitx.profiling.peak import synchronize


class Clock:
    """Add up wall time by section. Each moment belongs to exactly one; the sections add up to the whole."""

    def __init__(self, section: str, **seconds_before: float) -> None:
        self.section, self._since = section, perf_counter()
        self._seconds = defaultdict(float, seconds_before)  # a resumed run counts on

    def switch(self, section: str) -> None:
        """Close the running section and open another."""
        now = perf_counter()
        self._seconds[self.section] += now - self._since
        self.section, self._since = section, now

    @contextmanager
    def during(self, section: str) -> Iterator[None]:
        """Count a block as `section`, then return to the section before."""
        before = self.section
        self.switch(section)
        try:
            yield
        finally:
            self.switch(before)

    def seconds(self, section: str) -> float:
        """Return the seconds of a section so far."""
        self.switch(self.section)
        return self._seconds[section]

    def sections(self) -> dict[str, float]:
        """Return the seconds of each section so far, by one reading of the clock."""
        self.switch(self.section)
        return dict(self._seconds)

    def total(self) -> float:
        """Return the seconds of all sections."""
        return sum(self.sections().values())


class Phases:
    """Add up the seconds of each phase of an update, between marks: by the clock on a CPU, by events on CUDA.

    On CUDA a mark is an event that the GPU passes later. It is read once passed; nothing waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.events: deque[tuple[str | None, torch.cuda.Event]] | None = deque() if device.type == "cuda" else None
        self._seconds: defaultdict[str | None, float] = defaultdict(float)
        self._phase: str | None = None
        self._since = perf_counter()

    def mark(self, phase: str | None) -> None:
        """End the current phase and begin another. None = the time until the next mark is not counted."""
        if self.events is None:
            synchronize(self.device)
            now = perf_counter()
            self._seconds[self._phase] += now - self._since
            self._phase, self._since = phase, now
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.events.append((phase, event))
        if phase is None:
            self._read()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far; on CUDA, of the events passed by now."""
        self._read()
        return {phase: seconds for phase, seconds in self._seconds.items() if phase is not None}

    def _read(self) -> None:
        """Read the events that the GPU has passed, except the last: the open phase begins there."""
        while self.events is not None and len(self.events) > 1 and self.events[1][1].query():
            phase, event = self.events.popleft()
            self._seconds[phase] += event.elapsed_time(self.events[0][1]) / 1000
