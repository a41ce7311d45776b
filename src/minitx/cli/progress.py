"""How far a long command is, on a terminal where nothing else is to be seen."""

from time import monotonic

from minitx.utils.console import Console, duration
from minitx.utils.progress import remaining_s

QUIET_S = 3.0  # shorter work needs no progress line


class Meter:
    """Count lines done, and say how many a second and when all will be."""

    def __init__(self, console: Console, n_bytes: int | None = None, quiet: bool = False) -> None:
        self.console, self.n_bytes, self.shown = console, n_bytes, console.terminal and not quiet
        self.began, self.lines_before, self.lines, self.shares = monotonic(), 0, 0, (0.0, 1.0)

    def next_block(self, lines_before: int, bytes_read: int) -> None:
        """Begin a block of lines that ends at byte `bytes_read`."""
        self.lines_before = lines_before
        self.shares = (self.shares[1] if lines_before else 0.0, bytes_read / self.n_bytes if self.n_bytes else 0.0)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of the block's `total` lines are done."""
        self.lines = self.lines_before + done
        elapsed = monotonic() - self.began
        if not self.shown or elapsed < QUIET_S:
            return
        share = self.shares[0] + (self.shares[1] - self.shares[0]) * done / total
        left = f"  {100 * share:.0f} %  eta {duration(remaining_s(elapsed, share))}" if share else ""
        self.console.live(f"{self.lines:,} lines  {self.lines / elapsed:,.1f} lines/s{left}")

    def close(self) -> None:
        """Sum up, in the live line's place."""
        if self.shown and (elapsed := monotonic() - self.began) >= QUIET_S:
            self.console.line(f"{self.lines:,} lines in {duration(elapsed)}")
