"""A rank does not outlive the process that started it, on any system."""

import ctypes
import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from minitx.config.compose import compose
from minitx.distributed import worker
from minitx.distributed.ranks import SINGLE, Ranks
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


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_rank_joins_with_the_device_that_it_was_given(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[bool] = []

    def join(timeout_s: float, *, on_gpu: bool) -> Ranks:
        joined.append(on_gpu)
        return SINGLE

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(worker, "join", join)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    given: list[torch.device] = []
    code = worker.run_rank(compose([]), lambda cfg, ranks, device, folder: (given.append(device), 0)[1],
                           lambda trainer, local_rank: torch.device(kind, local_rank))
    assert (code, joined, given) == (0, [kind == "cuda"], [torch.device(kind, 1)])
