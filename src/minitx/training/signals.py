"""Signals during a run: noted at once, acted on where nothing is half done."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if "SLURM_JOB_ID" in os.environ:
    STATUS[signal.SIGUSR1] = "requeued"  # what sbatch --signal=USR1 asks for, some time before the job's end
REASONS = ("", "interrupted", "terminated", "requeued")  # of several ranks', the last counts


class Interrupted(Exception):
    """Leave work that can be done again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Signals:
    """Remember the first signal; a second one ends the process at once, unless `patient`.

    Ranks are patient: who started them passes on what a terminal or a cluster has sent to each of them already.
    """

    def __init__(self, patient: bool = False) -> None:
        self.noted: str | None = None  # the status it asks for
        self.patient = patient

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch signals during a block, then give the handlers back."""
        before = {number: signal.getsignal(number) for number in STATUS}
        for number in STATUS:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.noted is None:
            self.noted = STATUS[signal.Signals(number)]
        elif not self.patient:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
