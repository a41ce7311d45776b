"""Matrix products a second."""

from itertools import count

import pytest
import torch

from minitx.monitor import speed


def test_it_is_operations_over_the_median_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(speed, "perf_counter", lambda: float(next(ticks)))
    cpu = torch.device("cpu")
    assert speed.matmul_gflops(cpu, torch.float32, 10, 20, 30) == pytest.approx(2 * 10 * 20 * 30 * 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_measured_in_each_format(dtype: torch.dtype) -> None:
    assert speed.matmul_gflops(torch.device("cpu"), dtype, 64, 32, 128) > 0
