"""A rank does not outlive the process that started it, on any system."""

import ctypes
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from minitx.distributed import worker
from minitx.distributed.worker import end_with_parent
from minitx.utils.errors import UserError


@pytest.fixture
def without_prctl(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    monkeypatch.setattr(worker, "PARENT_EVERY_S", 0.01)


def test_a_thread_looks_where_the_kernel_does_not_tell(without_prctl: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        end_with_parent()
        assert not ended.wait(0.1)
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert ended.wait(10)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_parent_that_is_gone_already_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([10, 1])
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with pytest.raises(UserError, match="the process that started this rank is gone"):
        end_with_parent()
