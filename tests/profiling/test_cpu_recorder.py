"""Operators recorded on the CPU, against sums made by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minitx.profiling.cpu_recorder import RANDOM, recording_cpu
from minitx.profiling.kernels import Kernel


def record(net: nn.Module, x: Tensor) -> list[Kernel]:
    with recording_cpu() as recorder:
        y = net(x)
        recorder.phase = "backward"
        (y[0] if isinstance(y, tuple) else y).sum().backward()
    return recorder.kernels


def test_a_layers_products_are_counted_forwards_and_backwards() -> None:
    x = torch.rand(3, 5, requires_grad=True)
    kernels = record(nn.Linear(5, 7), x)
    assert [(k.name, k.phase, k.product) for k in kernels if k.product] == [
        ("aten.addmm", "forward", (1, 3, 7, 5)), ("aten.mm", "backward", (1, 3, 5, 7)),
        ("aten.mm", "backward", (1, 7, 5, 3))]
    assert {k.flop for k in kernels if k.product} == {2 * 3 * 5 * 7}
    assert x.grad is not None, "operators are run, too"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN's LSTM")
def test_an_lstm_is_one_kernel_each_way_with_its_steps() -> None:
    B, T, D, R = 3, 5, 8, 16
    kernels = record(nn.LSTM(D, R, batch_first=True), torch.rand(B, T, D, requires_grad=True))
    found = [kernel for kernel in kernels if kernel.name.startswith("onednn")]
    assert [(k.name, k.phase, k.steps, k.product) for k in found] == [
        (f"onednn.lstm.{way}", way, T, (1, B, 4 * R, D + R)) for way in ("forward", "backward")]
    assert [k.flop for k in found] == [2 * T * B * 4 * R * (D + R), 4 * T * B * 4 * R * (D + R)]


def test_random_numbers_of_numpy_are_noted_and_stay_the_same() -> None:
    plain = np.random.SFC64(7).random_raw(10)
    with recording_cpu() as recorder:
        assert (np.random.SFC64(7).random_raw(10) == plain).all()
    assert [(kernel.name, kernel.nbytes) for kernel in recorder.kernels] == [(RANDOM, 80)]


def test_lists_are_passed_over_tensor_by_tensor() -> None:
    with recording_cpu() as recorder:
        torch._foreach_mul_([torch.ones(4), torch.ones(6)], 2.0)
    kernel = recorder.kernels[-1]
    assert (kernel.name, kernel.launches, kernel.nbytes) == ("aten._foreach_mul_", 2, 2 * 4 * (4 + 6))


def test_views_take_no_launch_and_unknown_operators_are_named() -> None:
    with recording_cpu() as recorder:
        torch.ones(2, 3).t()
    assert [(kernel.kind, kernel.launches) for kernel in recorder.kernels] == [("copy", 1), ("view", 0)]
    with recording_cpu(), pytest.raises(NotImplementedError, match="aten.convolution"):
        torch.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
