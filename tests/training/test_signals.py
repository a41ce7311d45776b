"""Signals: the first is noted, the handlers come back, the second ends the process."""

import signal
import subprocess
import sys

import pytest

from minitx.training.signals import Signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_the_first_is_noted_and_handlers_come_back(number: int, status: str) -> None:
    before, signals = signal.getsignal(number), Signals()
    with signals.caught():
        assert signals.noted is None
        signal.raise_signal(number)
        assert signals.noted == status
    assert signal.getsignal(number) is before


def test_the_second_ends_the_process() -> None:
    code = ("import signal; from minitx.training.signals import Signals\n"
            "with Signals().caught():\n"
            "    signal.raise_signal(signal.SIGTERM); print('noted', flush=True); signal.raise_signal(signal.SIGTERM)\n"
            "    print('still here')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("noted\n", -signal.SIGTERM)
