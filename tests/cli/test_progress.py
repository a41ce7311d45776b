"""The progress line of long commands."""

from types import SimpleNamespace

import pytest

from minitx.cli import progress as metering
from minitx.cli.progress import Meter


def test_progress_shows_only_on_a_terminal_and_only_when_it_takes_long(capsys: pytest.CaptureFixture[str],
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(metering, "monotonic", lambda: now)
    shown: list[str] = []
    console = SimpleNamespace(terminal=True, live=shown.append, line=shown.append)
    meter = Meter(console, n_bytes=1000)  # type: ignore[arg-type]
    meter.next_block(0, 500)
    now = 1.0
    meter(10, 20)
    assert shown == []
    now = 5.0
    meter(20, 20)
    meter.next_block(20, 1000)
    now = 8.0
    meter(12, 20)
    meter.close()
    assert shown == ["20 lines  4.0 lines/s  50 %  eta 5s", "32 lines  4.0 lines/s  80 %  eta 2s", "32 lines in 8s"]
    console.terminal = False
    silent = Meter(console, quiet=True)  # type: ignore[arg-type]
    now = 20.0
    silent(1, 1)
    silent.close()
    assert len(shown) == 3
