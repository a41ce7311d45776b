"""What a person sees while something runs: one live line on a terminal, plain lines now and then elsewhere."""

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TextIO


class Console:
    """Write lines, and one line that keeps changing.

    On a terminal the live line is redrawn at most 5 times a second; elsewhere it becomes a plain line every so often.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 10.0, *, is_main: bool = True,
                 is_first_to_say: Callable[[str], bool] | None = None) -> None:
        """leads: of several processes, this is the one that writes. is_first_to_say: for warnings"""
        self.stream = stream or sys.stderr
        self.is_main, self.is_first_to_say = is_main, is_first_to_say
        self.terminal = self.stream.isatty()
        self.every_s = 0.2 if self.terminal else every_s
        self._drawn_at = monotonic() if not self.terminal else 0.0
        self._live = False

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        if not self.is_main:
            return
        self._write(text)

    def warn(self, text: str) -> None:
        """Warn; of what several processes warn of, one does."""
        if self.is_first_to_say is None or self.is_first_to_say(text):
            self._write(f"minitx: warning: {text}")

    def _write(self, text: str) -> None:
        self.clear()
        print(text, file=self.stream, flush=True)

    def live(self, text: str) -> None:
        """Show the newest state, if it is time to."""
        if not self.is_main or (now := monotonic()) - self._drawn_at < self.every_s:
            return
        self._drawn_at = now
        if not self.terminal:
            print(text, file=self.stream, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[2K{text[:width]}", end="", file=self.stream, flush=True)
        self._live = True

    def clear(self) -> None:
        """Wipe the live line, if there is one: other text is to stand there."""
        if self._live:
            print("\r\x1b[2K", end="", file=self.stream, flush=True)
            self._live = False


@contextmanager
def show_warnings(console: Console) -> Iterator[None]:
    """Say what is warned of in a line like any other, not with a place in our code."""
    def tell(message: Warning | str, *_: Any) -> None:
        console.warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = tell  # type: ignore[assignment]
        yield


def duration(seconds: float) -> str:
    """Write seconds as people say them: 42s, 3m05s, 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
