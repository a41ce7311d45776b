"""Where a run's seconds go. Each moment belongs to exactly one section."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Clock:
    """Add wall time up by section; the sections' sum is the whole."""

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
        """Count a block as `section`, then go back to what ran before."""
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

    def total(self) -> float:
        """Return the seconds of all sections."""
        self.switch(self.section)
        return sum(self._seconds.values())
