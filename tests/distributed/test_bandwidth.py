"""What ranks exchange is timed on the device that they train on."""

from itertools import count

import pytest
import torch
from played_cuda import CUDA, played_gpu
from torch import distributed

from minitx.config.compose import compose
from minitx.distributed import bandwidth

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_a_sum_is_over_when_the_gpu_is_through(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch takes no time here, and a wait a second; a CPU's own sum is over when the call returns."""
    now, ticks, sums = [0.0], count(), list[int]()

    def add(x: torch.Tensor, how: object = None) -> None:
        sums.append(x.numel())
        now[0] += 0.25 * (device.type == "cpu")

    monkeypatch.setattr(bandwidth, "perf_counter", lambda: now[0])
    monkeypatch.setattr(distributed, "all_reduce", add)
    with played_gpu(synchronize=lambda device: (next(ticks), now.__setitem__(0, now[0] + 1.0))):
        found = bandwidth.sum_s(16, device)
    assert found == (0.25 if device.type == "cpu" else pytest.approx(1 / 3))
    assert next(ticks) == (0 if device.type == "cpu" else 3), "it waited once for each row of sums"
    assert sums.count(16) == 2 + 3 + 3


def test_each_rank_takes_a_gpu_where_there_is_one() -> None:
    auto, cpu = (compose([f"trainer.accelerator={name}"]).trainer for name in ("auto", "cpu"))
    with played_gpu():
        assert bandwidth._choose_device(auto, 1) == torch.device("cuda", 1)
        assert bandwidth._choose_device(cpu, 1) == CPU
    with played_gpu(is_available=lambda: False):
        assert bandwidth._choose_device(auto, 1) == CPU
