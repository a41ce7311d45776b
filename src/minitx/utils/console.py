"""What a person sees while something runs: one live line on a terminal, plain lines now and then elsewhere.

None of it is essential: what cannot be written is lost, and the work goes on.
"""

import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from time import monotonic
from typing import Any, TextIO

DESCRIPTORS = {"stdout": 1, "stderr": 2}


class Console:
    """Write lines, and one line that keeps changing.

    On a terminal the live line is redrawn at most 5 times a second; elsewhere it becomes a plain line every so often.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 10.0, *, is_main: bool = True,
                 is_first_to_say: Callable[[str], bool] | None = None) -> None:
        """is_main: of several processes, this is the one that writes. is_first_to_say: for warnings"""
        self.stream: TextIO | None = stream or sys.stderr  # None where Python was started with it closed
        self.is_main, self.is_first_to_say = is_main, is_first_to_say
        self.terminal = (usable := self._usable()) is not None and usable.isatty()
        self.every_s = 0.2 if self.terminal else every_s
        self._drawn_at = monotonic() if not self.terminal else 0.0
        self._live = False

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        if self.is_main:
            self._line(text)

    def warn(self, text: str) -> None:
        """Write a warning; where several processes have the same one, the first writes it."""
        if self.is_first_to_say is None or self.is_first_to_say(text):
            self._line(f"minitx: warning: {text}")

    def live(self, text: str) -> None:
        """Show the newest state, if it is time to."""
        if not self.is_main or (now := monotonic()) - self._drawn_at < self.every_s:
            return
        self._drawn_at = now
        if not self.terminal:
            self._write(f"{text}\n")
            return
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[2K{text[:width]}")
        self._live = True

    def clear(self) -> None:
        """Wipe the live line, if there is one, to make room for other text."""
        if self._live:
            self._write("\r\x1b[2K")
            self._live = False

    def _line(self, text: str) -> None:
        self.clear()
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        if (usable := self._usable()) is not None:
            with suppress(OSError):  # its reader has left, the terminal is closed, the disk is full
                print(text, end="", file=usable, flush=True)

    def _usable(self) -> TextIO | None:
        return None if self.stream is None or self.stream.closed else self.stream


class _LossyFile(io.FileIO):
    """A file that never fails: what cannot be written is lost."""

    def write(self, data: Any) -> int:
        written = None
        with suppress(OSError):
            written = super().write(data)
        return memoryview(data).nbytes if written is None else written


def ignore_write_errors(*names: str) -> None:
    """Make this process's "stdout" or "stderr" lose what it cannot write, whoever writes it, Python's exit included.

    For a process whose output there is not what it was started for. A stream that was replaced stays as it is.
    Descriptors that were closed (`2>&-`) lead to /dev/null, or the next file opened would get what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
    for name in names:
        before: TextIO | None = getattr(sys, name)
        if before is not getattr(sys, f"__{name}__"):
            continue
        if before is not None:
            with suppress(OSError):
                before.flush()
        file = io.BufferedWriter(_LossyFile(DESCRIPTORS[name], "w", closefd=False))
        encoding, errors = (before.encoding, before.errors) if before else ("utf-8", "backslashreplace")
        setattr(sys, name, io.TextIOWrapper(file, encoding, errors, line_buffering=True))


def escape_unencodable() -> None:
    """Make standard output write what its encoding lacks as escapes, \\xe4 for instance, where it would fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def show_warnings(console: Console) -> Iterator[None]:
    """Write warnings as lines of the console, without the place in our code that Python adds."""
    def show(message: Warning | str, *_: Any) -> None:
        console.warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def notify(text: str, stacklevel: int = 2) -> None:
    """Give a Python warning of what does not stop us; where warnings are errors (python -W error), it is still shown.

    A training of hours does not end because its cache is not writable. stacklevel: as of `warnings.warn`
    """
    try:
        warnings.warn(text, stacklevel=stacklevel + 1)
    except UserWarning:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(text, stacklevel=stacklevel + 1)


@cache
def warn_once(text: str) -> None:
    """Warn as `notify` does, the first time that this process has to say so."""
    notify(text, stacklevel=3)


def counted(number: int, noun: str) -> str:
    """Write a number of things: "1 thread", "2 threads"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Write seconds in the usual short form: 42s, 3m05s, 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
