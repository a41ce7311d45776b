"""The progress line of commands that read many lines."""

from time import monotonic

from minitx.utils.console import Console, duration
from minitx.utils.progress import remaining_s

QUIET_S = 3.0  # shorter work has no progress line


class Meter:
    """Show on a terminal how many lines are done, how many a second, and when the rest will be."""

    def __init__(self, console: Console, n_bytes: int | None = None, quiet: bool = False) -> None:
        """n_bytes: of the whole input, if known; quiet: show nothing"""
        self.console, self.n_bytes, self.shown = console, n_bytes, console.terminal and not quiet
        self.began, self.lines_before, self.lines, self.shares = monotonic(), 0, 0, (0.0, 1.0)

    def next_block(self, lines_before: int, bytes_read: int) -> None:
        """Begin a block of lines. lines_before: done so far; bytes_read: of the input, to the end of this block"""
        self.lines_before = lines_before
        self.shares = (self.shares[1] if lines_before else 0.0, bytes_read / self.n_bytes if self.n_bytes else 0.0)

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of the block's `total` lines are done."""
        self.lines = self.lines_before + done
        elapsed = monotonic() - self.began
        if not self.shown or elapsed < QUIET_S:
            return
        share = self.shares[0] + (self.shares[1] - self.shares[0]) * done / total
        left = f"  {100 * share:.0f} %  eta {duration(remaining_s(elapsed, share))}" if share else ""
        self.console.live(f"{self.lines:,} lines  {self.lines / elapsed:,.1f} lines/s{left}")

    def close(self) -> None:
        """Replace the progress line by a total."""
        if self.shown and (elapsed := monotonic() - self.began) >= QUIET_S:
            self.console.line(f"{self.lines:,} lines in {duration(elapsed)}")
