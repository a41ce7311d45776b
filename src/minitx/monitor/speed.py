"""How fast a device multiplies matrices: the bound of all that trains on it."""

from statistics import median
from time import perf_counter

import torch

ENOUGH_S = 0.2  # of repeats, after one that warms up


def matmul_gflops(device: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    """Return the median speed of [rows, inner] @ [inner, columns], a product and a sum counted as two operations."""
    a, b = torch.rand(rows, inner).to(device, dtype), torch.rand(inner, columns).to(device, dtype)
    seconds: list[float] = []
    began = perf_counter()
    while len(seconds) < 2 or perf_counter() - began < ENOUGH_S:
        start = perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - start)
    return 2e-9 * rows * inner * columns / median(seconds[1:])
