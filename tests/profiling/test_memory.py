"""What is free is asked of the device that computes."""

import pytest
import torch
from played_cuda import CUDA, GIB, played_gpu

from minitx.profiling import memory
from minitx.profiling.memory import free_bytes


def test_what_is_free_is_the_gpus_or_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 7 * GIB)
    with played_gpu():
        assert free_bytes(CUDA) == 79 * GIB
        assert free_bytes(torch.device("cpu")) == 7 * GIB
