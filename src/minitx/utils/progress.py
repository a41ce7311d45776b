"""When work will be done, from how long its first part took."""

from time import monotonic

from minitx.utils.console import Console, duration


def remaining_s(elapsed_s: float, done: float, total: float = 1.0) -> float:
    """Return the seconds that are left once `done` of `total`, above 0 and in any unit, took `elapsed_s`."""
    return elapsed_s * (total - done) / done


class Eta:
    """Estimate when work of a known amount will be done, in whatever unit it is counted. The clock starts here."""

    def __init__(self, total: float) -> None:
        self.total, self.began = total, monotonic()

    def __call__(self, done: float) -> str:
        """Return `  eta 3m05s`, to be put behind a progress line; empty as long as nothing is done."""
        return f"  eta {duration(remaining_s(monotonic() - self.began, done, self.total))}" if done else ""


class Progress:
    """Count work as it gets done, and show how far it is on the console's live line."""

    def __init__(self, console: Console, total: float) -> None:
        self.console, self.total, self.eta, self.done = console, total, Eta(total), 0.0

    def __call__(self, text: str, work: float = 1.0) -> None:
        """Count `work` as done. text: what was just done, or which part of it."""
        self.done += work
        self.console.live(f"{text}{self.eta(self.done)}")
