"""How fast a device multiplies matrices and moves memory: the two bounds of all that trains on it."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

ENOUGH_S = 0.2  # of repeats, after one that warms up
COPIED = 2**26  # numbers, 256 MiB in fp32: beyond any cache


def matmul_gflops(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int,
                  enough_s: float = ENOUGH_S) -> float:
    """Return the median speed of [rows, inner] @ [inner, columns], a product and a sum counted as two operations."""
    a, b = (torch.rand(shape, device=device).to(dtype) for shape in ((rows, inner), (inner, columns)))
    return 2e-9 * rows * inner * columns / median_s(lambda: a @ b, device, enough_s)


def copy_gb_per_s(device: torch.device) -> float:
    """Return the median speed at which memory is copied, each byte counted as read and as written."""
    source = torch.ones(COPIED, device=device)
    target = torch.empty_like(source)
    return 2e-9 * source.nbytes / median_s(lambda: target.copy_(source), device, ENOUGH_S)


def median_s(work: Callable[[], object], device: torch.device, enough_s: float) -> float:
    """Return the seconds that `work` takes, the first time left out."""
    seconds: list[float] = []
    began = perf_counter()
    while len(seconds) < 2 or perf_counter() - began < enough_s:
        start = perf_counter()
        work()
        settle(device)
        seconds.append(perf_counter() - start)
    return median(seconds[1:])


def settle(device: torch.device) -> None:
    """Wait for what the device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
