"""Where an update's seconds go, between marks: by the clock on the CPU, by events in the stream on CUDA."""

from collections import defaultdict, deque
from time import perf_counter

import torch


class Phases:
    """Add up the seconds of each phase.

    On CUDA a mark is an event that the GPU passes later; it is read once passed, and nobody waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.events: deque[tuple[str | None, torch.cuda.Event]] | None = deque() if device.type == "cuda" else None
        self._seconds: defaultdict[str | None, float] = defaultdict(float)
        self._phase: str | None = None
        self._since = perf_counter()

    def mark(self, phase: str | None) -> None:
        """Close the phase at hand and begin another. None = what comes next is not counted, until the next mark."""
        if self.events is None:
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
        """Return the seconds of each phase so far; on CUDA of what is done by now."""
        self._read()
        return {phase: seconds for phase, seconds in self._seconds.items() if phase is not None}

    def _read(self) -> None:
        """Take in the events that the GPU has passed, but for the last: a phase that is open begins there."""
        while self.events is not None and len(self.events) > 1 and self.events[1][1].query():
            phase, event = self.events.popleft()
            self._seconds[phase] += event.elapsed_time(self.events[0][1]) / 1000
