"""Ctrl-C and SIGTERM, from the first line of a run to its last: noted once, acted on where nothing is half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Interrupted(Exception):
    """Leave work that can be done again."""


class Signals:
    """Remember the first signal; a second one ends the process at once."""

    def __init__(self) -> None:
        self.noted: str | None = None  # the status it asks for

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch signals during a block, then give the handlers back."""
        before = {number: signal.getsignal(number) for number in STATUS}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Set the handlers; again where a library has set its own."""
        for number in STATUS:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Errors: `Interrupted` if a signal has come."""
        if self.noted is not None:
            raise Interrupted

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.noted is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.noted = STATUS[signal.Signals(number)]
